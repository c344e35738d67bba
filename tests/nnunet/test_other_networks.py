"""Networks that are not nnU-Net's: they name their step, and MONAI's train the demo under the curriculum."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.errors import PlansError, ScheduleError
from ppgs.nnunet.other_networks import SwinUnetr, Unetr
from ppgs.plans import TRUST_VARIABLE, load_plans, parse_plans
from ppgs.schedule import PlanFacts, Recipe, resolve
from ppgs.schedule.recipe import check
from tests.conftest import Ppgs

DEMO = "Dataset999_Demo"
SMALL_UNETR = {"img_size": [32, 32, 32], "feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 3}


class TestNetworks:
    @pytest.mark.parametrize("size", [(16, 16, 16), (32, 16, 48), (32, 32, 32)])
    def test_unetr_takes_every_multiple_of_its_step(self, size: tuple[int, ...]) -> None:
        pytest.importorskip("monai")
        torch.manual_seed(0)
        network = Unetr(2, 3, **SMALL_UNETR).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            assert network(torch.rand(1, 2, *size)).shape == (1, 3, *size)

    def test_unetr_at_its_final_patch_is_monais(self) -> None:
        monai = pytest.importorskip("monai.networks.nets")
        torch.manual_seed(0)
        ours = Unetr(1, 2, **SMALL_UNETR).eval()  # type: ignore[arg-type]
        theirs = monai.UNETR(in_channels=1, out_channels=2, **SMALL_UNETR).eval()
        theirs.load_state_dict(ours.state_dict())
        image = torch.rand(1, 1, 32, 32, 32)
        with torch.no_grad():
            assert torch.equal(ours(image), theirs(image))

    def test_positions_are_interpolated_not_cut(self) -> None:
        pytest.importorskip("monai")
        network = Unetr(1, 2, **SMALL_UNETR).eval()  # type: ignore[arg-type]
        embedding = network.vit.patch_embedding  # type: ignore[union-attr]
        with torch.no_grad():
            embedding.position_embeddings.fill_(0.25)  # type: ignore[operator, union-attr]
            tokens = embedding.patch_embeddings(torch.zeros(1, 1, 16, 48, 16)).flatten(2).transpose(1, 2)  # type: ignore[operator, union-attr]
            assert torch.allclose(embedding(torch.zeros(1, 1, 16, 48, 16)), tokens + 0.25)  # type: ignore[operator]

    def test_deep_supervision_is_refused(self) -> None:
        pytest.importorskip("monai")
        with pytest.raises(PlansError, match="no deep supervision"):
            SwinUnetr(1, 2, deep_supervision=True, feature_size=12)


class TestPlans:
    @pytest.fixture(autouse=True)
    def trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TRUST_VARIABLE, "x.y,a")

    def test_a_module_of_ones_own_must_be_trusted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(TRUST_VARIABLE)
        with pytest.raises(PlansError, match=r"a\.B"):
            parse_plans(self.section(step=[16, 16, 16]))

    def section(self, **named: Any) -> dict[str, Any]:
        return {
            "plans_name": "p",
            "dataset_name": "d",
            "configurations": {
                "3d_fullres": {
                    "patch_size": [48, 64, 64],
                    "batch_size": 2,
                    "spacing": [1, 1, 1],
                    "data_identifier": "x",
                    "architecture": {"network_class_name": "a.B", "arch_kwargs": {"width": 3}, "ppgs": named},
                }
            },
        }

    def test_a_network_names_its_step_and_its_smallest_patch(self) -> None:
        plans = parse_plans(self.section(step=[16, 16, 16], smallest_patch=[16, 32, 32]))
        facts = PlanFacts.of(plans, plans.configuration("3d_fullres"))
        schedule = resolve(Recipe(epochs=100), facts)
        patches = [s.patch_size for s in schedule.stages]
        assert patches[0] == (16, 32, 32) and patches[-1] == (48, 64, 64)
        assert patches[1] == (32, 32, 32)
        small = schedule.stages[0].model_copy(update={"patch_size": (16, 16, 32)})
        with pytest.raises(ScheduleError, match="smaller than the network's smallest patch"):
            check(schedule.model_copy(update={"stages": (small, *schedule.stages[1:])}), facts)

    @pytest.mark.parametrize("named", [{}, {"step": [16, 16]}, {"step": [16] * 3, "smallest_patch": [16]}])
    def test_what_it_does_not_name_is_told(self, named: dict[str, Any]) -> None:
        with pytest.raises(PlansError):
            parse_plans(self.section(**named))


@pytest.mark.parametrize(
    ("plans", "stages", "arguments"),
    [
        ("nnUNetUNETRPlans", 4, {k: v for k, v in SMALL_UNETR.items() if k != "img_size"}),
        ("nnUNetSwinUNETRPlans", 1, {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}),
    ],
)
def test_it_trains_and_segments_the_demo(
    plans: str, stages: int, arguments: dict[str, Any], demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    pytest.importorskip("monai")
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(demo_root / name, tmp_path / name)
    done = ppgs("prepare", "demo", "--plans", plans, "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "nnUNet_preprocessed" / DEMO / f"{plans}.json"
    content = json.loads(path.read_text())
    section = content["configurations"]["3d_fullres"]
    section["architecture"]["arch_kwargs"] |= arguments
    # One stage less of the larger network: the demo's images have 32 voxels a side.
    section["patch_size"] = [32, 32, 32]
    path.write_text(json.dumps(content))
    assert load_plans(path).configuration("3d_fullres").data_identifier == "nnUNetPlans_3d_fullres"
    done = ppgs(
        *("train", "demo", "--plans", plans, "--epochs", "4", "--iterations", "2", "--device", "cpu", "--json"),
        *("--workers", "0", "--mirroring", "off", "--no-energy", "--root", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == "finished" and told["stages"] == stages
    images = next((tmp_path / "nnUNet_raw" / DEMO / "imagesTs").iterdir())
    done = ppgs("predict", told["name"], "-i", images, "-o", tmp_path / "out", "--device", "cpu", "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 1
