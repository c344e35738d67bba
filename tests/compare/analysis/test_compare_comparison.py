"""Whole comparisons of synthetic results: pairing, costs, seeds, many tasks, and incomparable runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ppgs.errors import BadInput
from ppgs.runs.manifest import read_manifest, write_manifest
from tests.helpers import result_folders as rf
from tests.helpers.result_folders import compared as run


def problems(error: pytest.ExceptionInfo[BadInput]) -> str:
    return "\n".join(f"{p.what} | {p.where} | {p.remedy}" for p in error.value.problems)


def test_pair_agrees_with_numpy_and_scipy(tmp_path: Path) -> None:
    a = {str(k): rf.random_cases(k) for k in range(3)}
    for k in a:
        a[k] = {f"{k}_{case}": dice for case, dice in a[k].items()}
    b = {
        k: {c: {key: min(1.0, v + 0.01 * (i % 3)) for key, v in d.items()} for i, (c, d) in enumerate(a[k].items())}
        for k in a
    }
    b["0"]["0_case_000"]["2"] = math.nan
    result = run(tmp_path, rf.write_model(tmp_path, rf.PLAIN, a), rf.write_model(tmp_path, rf.OTHER, b))
    (pair,) = result.pairs

    table_a = np.asarray([[d["1"], d["2"]] for k in a for d in a[k].values()])
    table_b = np.asarray([[d["1"], d["2"]] for k in b for d in b[k].values()])
    assert pair.baseline.mean_dice == pytest.approx(np.nanmean(np.nanmean(table_a, axis=0)))
    assert pair.run.mean_dice == pytest.approx(np.nanmean(np.nanmean(table_b, axis=0)))
    assert list(pair.run.dice_per_class.values()) == pytest.approx(list(np.nanmean(table_b, axis=0)))
    d = np.nanmean(table_b, axis=1) - np.nanmean(table_a, axis=1)
    assert pair.statistics.mean_difference == pytest.approx(d.mean())
    assert pair.statistics.wilcoxon_p == pytest.approx(stats.wilcoxon(d).pvalue)
    assert pair.per_class["2"].cases == 35
    assert pair.statistics.cases == 36
    assert any("different classes" in c for c in pair.verdict.caveats)


def test_holm_is_over_all_pairs_and_tasks(tmp_path: Path) -> None:
    tasks = (rf.TASK, "Dataset778_Second")
    for n, task in enumerate(tasks):
        for m, model in enumerate((rf.PLAIN, rf.OTHER, "nnUNetTrainerX__nnUNetPlans__3d_fullres")):
            rf.write_model(tmp_path, model, {"0": rf.random_cases(10 * n + m, shift=0.01 * m)}, task=task)
    result = run(tmp_path, tmp_path)
    raw = [p.statistics.wilcoxon_p for p in result.pairs]
    assert len(raw) == 4
    smallest = int(np.argmin(raw))
    assert result.pairs[smallest].wilcoxon_p_holm == pytest.approx(min(1, 4 * raw[smallest]))
    largest = int(np.argmax(raw))
    assert result.pairs[largest].wilcoxon_p_holm >= raw[largest]


@pytest.mark.slow
def test_many_tasks_count_wins_and_relative_gains(tmp_path: Path) -> None:
    gains = {"Dataset001_A": 0.02, "Dataset002_B": 0.03, "Dataset003_C": -0.01}
    for task, gain in gains.items():
        base = {c: {"1": 0.5, "2": 0.7} for c in rf.random_cases(0)}
        better = {c: {"1": 0.5 + gain, "2": 0.7 + gain} for c in base}
        rf.write_model(tmp_path, rf.PLAIN, {"0": base}, task=task, emissions=True)
        rf.write_model(tmp_path, rf.OTHER, {"0": better}, task=task, emissions=True)
    result = run(tmp_path, tmp_path)
    (line,) = result.across
    assert (line.tasks, line.wins, line.losses, line.ties) == (3, 2, 1, 0)
    assert line.mean_relative_gain == pytest.approx(100 * np.mean(list(gains.values())) / 0.6)
    assert (line.time_ratio, line.energy_ratio) == (1.0, 1.0)
    assert result.ranking is not None
    assert result.ranking.mean_ranks == pytest.approx({rf.PLAIN: 5 / 3, rf.OTHER: 4 / 3})


def test_tasks_are_counted_and_ranked_on_common_cases(tmp_path: Path) -> None:
    names = [c for k in range(5) for c in (f"{k}_a", f"{k}_b")]
    third = "nnUNetTrainerX__nnUNetPlans__3d_fullres"
    tasks = ("Dataset001_A", "Dataset002_B", "Dataset003_C")
    for task in tasks:
        dice = {c: {"1": 0.5 + 0.04 * i, "2": 0.4 + 0.05 * i} for i, c in enumerate(names)}
        folds = {str(k): {c: dice[c] for c in names if c[0] == str(k)} for k in range(5)}
        rf.write_model(tmp_path, rf.PLAIN, folds, task=task)
        # The same Dice, of fold 0 alone, whose cases are the hardest.
        rf.write_model(tmp_path, rf.OTHER, {"0": folds["0"]}, task=task)
        better = {k: {c: {key: v + 0.01 for key, v in d.items()} for c, d in f.items()} for k, f in folds.items()}
        rf.write_model(tmp_path, third, {k: better[k] for k in ("0", "4")}, task=task)
    result = run(tmp_path, tmp_path, baseline=rf.PLAIN)
    lines = {a.training: a for a in result.across}
    same, ahead = lines[rf.OTHER], lines[third]
    assert (same.wins, same.losses, same.ties) == (0, 0, 3)
    assert (same.mean_relative_gain, same.relative_gain_ci95, same.wilcoxon_p) == (0, (0, 0), 1)
    on_both = [v for c in ("0_a", "0_b", "4_a", "4_b") for v in dice[c].values()]
    assert (ahead.wins, ahead.losses) == (3, 0)
    assert ahead.mean_relative_gain == pytest.approx(100 * 0.01 / np.mean(on_both))
    assert result.ranking is not None
    assert result.ranking.mean_ranks == pytest.approx({rf.PLAIN: 2.5, rf.OTHER: 2.5, third: 1})
    assert result.ranking.tasks == 3
    base, part = result.tasks[0].runs[0], next(r for r in result.tasks[0].runs if r.run.training == rf.OTHER)
    assert base.mean_dice == pytest.approx(np.mean([v for d in dice.values() for v in d.values()]))
    assert part.mean_dice < base.mean_dice
    pair = next(p for p in result.pairs if p.run is part)
    assert pair.common_mean_dice == pair.common_baseline_mean_dice == part.mean_dice
    assert any("2 in common, while each one's mean Dice is over its own" in n for n in result.notes)


def test_a_task_without_cases_that_all_have_ranks_nothing(tmp_path: Path) -> None:
    third = "nnUNetTrainerX__nnUNetPlans__3d_fullres"
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(2)}
    apart = {rf.PLAIN: folds, rf.OTHER: {"0": folds["0"]}, third: {"1": folds["1"]}}
    for task in ("Dataset001_A", "Dataset002_B", "Dataset003_C"):
        for model, some in apart.items():
            rf.write_model(tmp_path, model, some if task == "Dataset003_C" else folds, task=task)
    result = run(tmp_path, tmp_path, baseline=rf.PLAIN)
    assert len(result.across) == 2
    assert result.ranking is not None
    assert result.ranking.tasks == 2


def test_only_common_cases_are_tested_and_it_is_said(tmp_path: Path) -> None:
    full, part = rf.random_cases(0), rf.random_cases(1)
    del part["case_000"]
    part["case_999"] = {"1": 0.1, "2": 0.1}
    result = run(
        tmp_path, rf.write_model(tmp_path, rf.PLAIN, {"0": full}), rf.write_model(tmp_path, rf.OTHER, {"0": part})
    )
    assert result.pairs[0].statistics.cases == 11
    assert any("11 in common" in note for note in result.notes)
    d = [np.mean(list(part[c].values())) - np.mean(list(full[c].values())) for c in part if c in full]
    assert result.pairs[0].statistics.mean_difference == pytest.approx(np.mean(d))


def test_costs_add_up_over_folds_and_ratios_use_common_folds(tmp_path: Path) -> None:
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(3)}
    a = rf.write_model(tmp_path, rf.PLAIN, folds)
    b = rf.write_model(tmp_path, rf.OTHER, {k: folds[k] for k in ("0", "1")})
    for k in range(3):
        rf.write_emissions(a / f"fold_{k}", [{"duration": 100 * (k + 1), "energy_consumed": 1 + k, "emissions": 0.5}])
    for k in range(2):
        rf.write_emissions(b / f"fold_{k}", [{"duration": 75, "energy_consumed": 0.5, "emissions": 0.1}])
    result = run(tmp_path, a, b)
    base, other = result.tasks[0].runs
    assert (base.cost.seconds, base.cost.energy_kwh, base.cost.co2_kg) == (600, 6, 1.5)
    assert base.cost.gpu_hours == pytest.approx(600 / 3600)
    assert (other.cost.seconds, other.cost.co2_basis) == (150, "DEU")
    pair = result.pairs[0]
    assert pair.time_ratio == pytest.approx(150 / 300)
    assert pair.energy_ratio == pytest.approx(1 / 3)
    assert pair.co2_ratio == pytest.approx(0.2)
    assert any("folds 2, 3, 4 are missing" in n for n in result.notes)


def test_a_fold_that_does_not_tell_its_cost_leaves_the_sum_unknown(tmp_path: Path) -> None:
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k).items()} for k in range(2)}
    a = rf.write_model(tmp_path, rf.PLAIN, folds, emissions=True)
    b = rf.write_model(tmp_path, rf.OTHER, folds, emissions=True)
    (b / "fold_1" / "emissions.csv").unlink()
    result = run(tmp_path, a, b)
    assert result.tasks[0].runs[1].cost.energy_kwh is None
    assert (result.pairs[0].time_ratio, result.pairs[0].energy_ratio) == (None, None)


def test_co2_of_a_chosen_intensity(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, emissions=True)
    b = rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(1)}, emissions=True)
    cost = run(tmp_path, a, b, grams_per_kwh=100.0).runs[0].cost
    assert (cost.co2_kg, cost.co2_basis) == (pytest.approx(0.1), "100 g/kWh")


def test_our_runs_tell_time_energy_memory_flops_and_when_they_reached_the_baseline(tmp_path: Path) -> None:
    a = rf.write_own_run(tmp_path, "constant", rf.random_cases(0), seconds=20, ema_dice=(0.1, 0.3, 0.4, 0.5))
    b = rf.write_own_run(tmp_path, "efficiency", rf.random_cases(1), seconds=10, ema_dice=(0.2, 0.4, 0.55, 0.6))
    pair = run(tmp_path, a.path, b.path).pairs[0]
    cost = pair.run.cost
    assert (cost.seconds, cost.source) == (40, "events")
    assert cost.energy_kwh == pytest.approx(0.008)
    assert (cost.flops, cost.peak_memory_bytes) == (4 * 3 * 1000, 2 * 2**30)
    assert cost.gpu_hours == pytest.approx(40 / 3600)
    assert pair.time_ratio == pytest.approx(0.5)
    reached = pair.reached_baseline
    assert reached is not None
    assert (reached.folds, reached.reached, reached.seconds) == (1, 1, 30)
    assert reached.share_of_baseline == pytest.approx(30 / 80)
    assert [s.patch_size for s in pair.run.run.provenance.stages] == [(8, 8, 8), (16, 16, 16)]


def test_seeds_are_grouped_and_compared_as_schemes(tmp_path: Path) -> None:
    paths, dice = [], {}
    for schedule, shift in (("constant", 0.0), ("efficiency", 0.04)):
        for seed in range(3):
            cases = rf.random_cases(100 * seed + len(schedule), count=30, shift=shift)
            dice[schedule, seed] = np.asarray([np.mean(list(d.values())) for d in cases.values()])
            paths.append(rf.write_own_run(tmp_path, schedule, cases, seed=seed).path)
    result = run(tmp_path, *paths)
    constant, efficiency = result.tasks[0].seed_groups
    means = [dice["efficiency", s].mean() for s in range(3)]
    assert (efficiency.name, len(efficiency.runs)) == ("efficiency", 3)
    assert efficiency.mean_dice == pytest.approx(np.mean(means), abs=1e-9)
    assert efficiency.sd == pytest.approx(np.std(means, ddof=1), abs=1e-9)
    (pair,) = result.tasks[0].seed_pairs
    d = np.mean([dice["efficiency", s] - dice["constant", s] for s in range(3)], axis=0)
    assert pair.statistics.mean_difference == pytest.approx(d.mean())
    assert pair.statistics.wilcoxon_p == pytest.approx(stats.wilcoxon(d).pvalue)
    assert pair.ci95_seeds[0] < d.mean() < pair.ci95_seeds[1]
    assert pair.verdict.outcome == "better"
    assert "3 seeds" in pair.verdict.sentence
    assert (pair.time_ratio, pair.energy_ratio) == (1.0, 1.0)
    assert constant.runs[0] is result.tasks[0].baseline


def test_seeds_of_another_trainer_are_another_scheme(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        for trainer in ("", "-DA5"):
            one = rf.write_own_run(tmp_path, f"efficiency{trainer}", rf.random_cases(seed), seed=seed)
            manifest = read_manifest(one)
            manifest.schedule, manifest.schedule_hash = "efficiency", "hash"
            write_manifest(one, manifest)
            paths.append(one.path)
    groups = run(tmp_path, *paths).tasks[0].seed_groups
    assert [len(group.runs) for group in groups] == [2, 2]


def test_holm_of_seed_pairs_is_over_all_tasks(tmp_path: Path) -> None:
    tasks = (rf.TASK, "Dataset778_Second", "Dataset779_Third")
    paths = [
        rf.write_own_run(tmp_path, schedule, rf.random_cases(10 * n + draw + seed), seed=seed, task=task).path
        for n, task in enumerate(tasks)
        for schedule, draw in (("constant", 0), ("efficiency", 5))
        for seed in (0, 1)
    ]
    seed_pairs = [p for task in run(tmp_path, *paths).tasks for p in task.seed_pairs]
    assert [p.task for p in seed_pairs] == list(tasks)
    raw = [p.statistics.wilcoxon_p for p in seed_pairs]
    assert len(set(raw)) == len(tasks)
    stepped = np.minimum(1, np.maximum.accumulate(np.sort(raw) * [3, 2, 1]))
    assert sorted(p.wilcoxon_p_holm for p in seed_pairs) == pytest.approx(list(stepped))


def test_seeds_that_disagree_are_told_where_the_test_of_their_means_does_not(tmp_path: Path) -> None:
    paths = [
        rf.write_own_run(
            tmp_path, schedule, rf.random_cases(50 * seed + len(schedule), count=30, shift=shift), seed=seed
        ).path
        for schedule, shifts in (("constant", (0.0, 0.0)), ("efficiency", (0.08, -0.02)))
        for seed, shift in enumerate(shifts)
    ]
    (pair,) = run(tmp_path, *paths).tasks[0].seed_pairs
    assert pair.wilcoxon_p_holm < 0.05
    assert pair.statistics.ci95[0] > 0
    assert pair.ci95_seeds[0] < 0 < pair.ci95_seeds[1]
    assert pair.verdict.outcome == "undecided"
    assert any("disagree" in c for c in pair.verdict.caveats)


def test_sources_of_times_are_named_only_where_they_differ(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, emissions=True)
    b = rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(1)}, emissions=True)
    silent = rf.write_model(tmp_path, "nnUNetTrainerX__nnUNetPlans__3d_fullres", {"0": rf.random_cases(2)})
    result = run(tmp_path, a, b, silent)
    assert [p.time_ratio for p in result.pairs] == [1.0, None]
    assert result.notes == ()
    own = rf.write_own_run(tmp_path, "constant", rf.random_cases(3))
    result = run(tmp_path, a, b, own.path)
    assert [p.time_ratio for p in result.pairs] == [1.0, None]
    (note,) = result.notes
    assert f"CodeCarbon (whole process) for {rf.PLAIN}, {rf.OTHER}" in note
    assert "epochs of the event log for constant-fold0" in note


def test_a_case_of_several_folds_counts_once(tmp_path: Path) -> None:
    folds = {str(k): rf.random_cases(k) for k in range(2)}
    other = {"0": rf.random_cases(9), "1": dict(list(rf.random_cases(8).items())[:6])}
    result = run(tmp_path, rf.write_model(tmp_path, rf.PLAIN, folds), rf.write_model(tmp_path, rf.OTHER, other))
    (pair,) = result.pairs
    a, b = ([np.mean([f[c]["1"] for f in m.values() if c in f]) for c in folds["0"]] for m in (folds, other))
    expected = np.mean(np.subtract(b, a))
    assert pair.per_class["1"].mean_difference == pytest.approx(expected)
    assert (pair.per_class["1"].cases, pair.statistics.cases) == (12, 12)
    assert [r.case_count for r in result.runs] == [12, 12]
    assert not any("in common" in n for n in result.notes)


def test_fold_all_is_flagged(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"all": rf.random_cases(0)})
    b = rf.write_model(tmp_path, rf.OTHER, {"all": rf.random_cases(1)})
    result = run(tmp_path, a, b)
    assert any("training cases" in c for c in result.pairs[0].verdict.caveats)


# What cannot be compared.


def test_damaged_manifest_events_and_energy_leave_the_statistics(tmp_path: Path) -> None:
    a = rf.write_own_run(tmp_path, "constant", rf.random_cases(0))
    b = rf.write_own_run(tmp_path, "efficiency", rf.random_cases(1))
    a.manifest.write_text("{")
    b.events.write_text('{"seq": 0, "type": "epoch_finished", "epoch": "x"}\n{"seq": 1, "type": "epoch_finished"}\n')
    (b.path / "emissions.csv").write_text("run_id,duration\na,b\n")
    result = run(tmp_path, a.path, b.path)
    assert result.pairs[0].statistics.cases == 12
    assert result.pairs[0].time_ratio is None
    notes = "\n".join(result.notes)
    for file in (a.manifest, b.events, b.path / "emissions.csv"):
        assert str(file) in notes


def test_missing_folds_of_many_are_one_line(tmp_path: Path) -> None:
    for task in range(1, 4):
        for model in (rf.PLAIN, rf.OTHER):
            folds = {k: {f"{k}{c}": d for c, d in rf.random_cases(int(k)).items()} for k in "01"}
            rf.write_model(tmp_path, model, folds, task=f"Dataset00{task}_A")
    (note,) = run(tmp_path, tmp_path).notes
    assert "folds 2, 3, 4 are missing" in note
    assert "4 more" in note


def test_a_single_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two runs or more, found 1"):
        run(tmp_path, rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}))


def test_different_tasks(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)})
    b = rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(0)}, task="Dataset778_Second")
    with pytest.raises(BadInput) as error:
        run(tmp_path, a, b)
    assert rf.TASK in problems(error)
    assert "Dataset778_Second" in problems(error)


def test_different_classes(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)})
    b = rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(0, classes=("1", "2", "3"))})
    with pytest.raises(BadInput) as error:
        run(tmp_path, a, b)
    assert "1 (organ), 2 (lesion), 3" in problems(error)
    assert "in common: 1, 2" in problems(error)


def test_no_common_cases(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)})
    b = rf.write_model(tmp_path, rf.OTHER, {"1": {f"x{c}": d for c, d in rf.random_cases(0).items()}})
    with pytest.raises(BadInput, match="no case in common") as error:
        run(tmp_path, a, b)
    assert "folds 1" in problems(error)


def _five(tmp_path: Path, model: str, seed: int) -> Path:
    folds = {str(k): {f"{k}{c}": d for c, d in rf.random_cases(k + seed).items()} for k in range(5)}
    return rf.write_model(tmp_path, model, folds)


def test_a_damaged_fold_stops_unless_told_to_keep_going(tmp_path: Path) -> None:
    a, b = _five(tmp_path, rf.PLAIN, 0), _five(tmp_path, rf.OTHER, 50)
    summary = b / "fold_2" / "validation" / "summary.json"
    summary.write_text(summary.read_text()[:100])
    with pytest.raises(BadInput) as error:
        run(tmp_path, a, b)
    assert str(summary) in problems(error)
    assert "folds 0 1 3 4" in problems(error)
    result = run(tmp_path, a, b, keep_going=True)
    assert result.pairs[0].statistics.cases == 4 * 12
    assert any(str(summary) in text for text in result.left_out)


def test_the_remedy_for_a_summary_is_a_command_that_there_is(tmp_path: Path) -> None:
    one = rf.write_own_run(tmp_path / "nnUNet_results", "constant", rf.random_cases(0)).path
    other = rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(1)})
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    summaries = [f / "validation" / "summary.json" for f in (one, other / "fold_0")] + [predictions / "summary.json"]
    for summary in summaries:
        summary.write_text("{")
    with pytest.raises(BadInput) as error:
        run(tmp_path, one, other, predictions)
    own, stock, folder = (p.remedy for p in error.value.problems)
    assert "(ppgs validate constant-fold0 --root" in own
    assert "(nnUNetv2_train ... --val)" in stock
    assert "--references DIR" in folder and "--val" not in folder
    summaries[0].unlink()
    with pytest.raises(BadInput) as error:
        run(tmp_path, one, other, predictions)
    assert "finish the training, validate it (ppgs validate constant-fold0" in error.value.problems[0].remedy


def test_an_unvalidated_fold_is_named(tmp_path: Path) -> None:
    a, b = _five(tmp_path, rf.PLAIN, 0), _five(tmp_path, rf.OTHER, 50)
    (a / "fold_4" / "validation" / "summary.json").unlink()
    with pytest.raises(BadInput, match="not validated"):
        run(tmp_path, a, b)


def test_one_task_that_cannot_be_compared_names_the_others(tmp_path: Path) -> None:
    for task in (rf.TASK, "Dataset778_Second"):
        rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, task=task)
    rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(1)}, task=rf.TASK)
    with pytest.raises(BadInput) as error:
        run(tmp_path, tmp_path)
    assert "Dataset778_Second has only" in problems(error)
    assert f"can still be compared, with --keep-going: {rf.TASK}" in problems(error)
    assert [t.task for t in run(tmp_path, tmp_path, keep_going=True).tasks] == [rf.TASK]


def test_other_references_are_noticed(tmp_path: Path) -> None:
    a = rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)})
    b = rf.write_model(tmp_path, rf.OTHER, {})
    rf.write_summary(b / "fold_0", rf.random_cases(1), reference_voxels=99)
    assert any("references of 12 cases differ" in n for n in run(tmp_path, a, b).notes)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("margin", -0.1), ("margin", math.nan), ("tolerance_mm", -1.0), ("grams_per_kwh", -5.0),
        ("country", "Atlantis"), ("references", Path("/no/such")), ("html", Path("/no/such/report.html")),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_before_anything_is_read(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(BadInput) as error:
        run(tmp_path, "a", "b", **{option: value})
    (problem,) = error.value.problems
    assert problem.where.startswith("--")
    assert problem.remedy


def test_costs_of_seeds_are_compared_on_the_folds_that_all_have(tmp_path: Path) -> None:
    paths = []
    for schedule in ("constant", "efficiency"):
        for seed in (0, 1):
            one = rf.write_own_run(tmp_path, schedule, rf.random_cases(seed), seed=seed)
            if schedule == "constant":
                shutil.copytree(one.path, one.path.with_name("fold_1"))
                rf.write_summary(one.path.with_name("fold_1"), {f"x{c}": d for c, d in rf.random_cases(9).items()})
            paths.append(one.model)
    (pair,) = run(tmp_path, *paths).tasks[0].seed_pairs
    assert (pair.time_ratio, pair.energy_ratio) == (1.0, 1.0)


def test_energy_of_a_part_of_a_training_is_left_out(tmp_path: Path) -> None:
    a, b = (
        rf.write_own_run(tmp_path, name, rf.random_cases(n), seconds=100, energy_wh=None)
        for n, name in enumerate(("constant", "efficiency"))
    )
    rf.write_emissions(a.path, [{"duration": 410}])
    rf.write_emissions(b.path, [{"duration": 200}])
    result = run(tmp_path, a.path, b.path)
    (pair,) = result.pairs
    assert pair.time_ratio == 1.0
    assert (pair.baseline.cost.energy_kwh, pair.run.cost.energy_kwh, pair.run.cost.co2_kg) == (1.0, None, None)
    assert any("only 3m20s of 6m40s were measured" in note for note in result.notes)


def test_a_misspelt_country_is_refused_also_with_an_intensity(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        run(tmp_path, "a", "b", country="XYZ", grams_per_kwh=380.0)
