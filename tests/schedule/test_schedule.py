import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppgs import shipped
from ppgs.errors import ScheduleError
from ppgs.schedule import MODES, PlanFacts, Recipe, Schedule, Stage, Validation, dump, load, parse, resolve
from ppgs.schedule.recipe import check

FACTS = PlanFacts(
    dataset="Dataset004_Hippocampus",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    patch_size=(40, 56, 40),
    batch_size=9,
    step=(8, 8, 8),
)


@st.composite
def facts(draw: st.DrawFn) -> PlanFacts:
    axes = draw(st.integers(2, 3))
    step = tuple(draw(st.sampled_from([1, 2, 3, 4, 8, 16])) for _ in range(axes))
    return PlanFacts(
        dataset="Dataset001_A",
        plans="p",
        configuration="c",
        patch_size=tuple(s * draw(st.integers(1, 6)) for s in step),
        batch_size=draw(st.integers(1, 60)),
        step=step,
    )


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    recipe = Recipe(
        mode=draw(st.sampled_from(sorted(MODES))),  # type: ignore[arg-type]
        pacing=draw(st.sampled_from(["equal", "volume"])),  # type: ignore[arg-type]
        epochs=draw(st.integers(20, 2000)),
        iterations_per_epoch=draw(st.integers(1, 500)),
        batch_size=draw(st.none() | st.integers(1, 8)),
        foreground_share=draw(st.none() | st.floats(0, 1)),
    )
    return resolve(recipe, draw(facts()))


@given(schedules())
def test_what_holds_for_every_schedule(schedule: Schedule) -> None:
    made_for = schedule.made_for
    assert made_for is not None
    assert schedule.stages[-1].patch_size == made_for.patch_size
    assert sum(s.epochs for s in schedule.stages) == schedule.epochs
    volumes = [s.voxels for s in schedule.stages]
    assert volumes == sorted(volumes)
    for stage in schedule.stages:
        assert all(size % step == 0 for size, step in zip(stage.patch_size, made_for.step, strict=True))
    check(schedule, made_for)


@given(schedules())
def test_a_schedule_survives_its_file(schedule: Schedule) -> None:
    assert parse(dump(schedule)) == schedule


@settings(max_examples=30)
@given(schedules())
def test_the_stage_is_a_total_function_of_the_epoch(schedule: Schedule) -> None:
    by_epoch = [schedule.stage_index_at(e) for e in range(schedule.epochs)]
    assert [by_epoch.count(i) for i in range(len(schedule.stages))] == [s.epochs for s in schedule.stages]
    assert by_epoch == sorted(by_epoch)
    assert schedule.stage_at(schedule.epochs + 7) == schedule.stages[-1]
    for i in range(len(schedule.stages)):
        assert schedule.stage_index_at(schedule.first_epoch(i)) == i
    with pytest.raises(ValueError, match="negative"):
        schedule.stage_at(-1)


def test_performance_fills_the_plans_voxels_from_as_many_cases_as_its_batch() -> None:
    schedule = resolve(Recipe(mode="performance"), FACTS)
    for stage in schedule.stages:
        assert stage.batch_size == 9 * math.prod((40, 56, 40)) // math.prod(stage.patch_size)
        assert stage.cases_per_batch == 9
    assert schedule.stages[0].batch_size == 1575


def test_pgps_plus_chains_batches_from_the_end() -> None:
    schedule = resolve(Recipe(mode="pgps-plus-2024"), FACTS)
    for stage, following in zip(schedule.stages, schedule.stages[1:], strict=False):
        assert stage.batch_size == max(9, following.voxels * following.batch_size // stage.voxels)
    assert schedule.stages[-1].batch_size == 9


def test_constant_is_one_stage_with_nnunets_foreground_share() -> None:
    (stage,) = resolve(Recipe(mode="constant"), FACTS).stages
    assert (stage.patch_size, stage.batch_size, stage.epochs, stage.foreground_share) == ((40, 56, 40), 9, 1000, 0.33)


def test_random_draws_every_patch_of_the_curriculum_by_the_key_alone() -> None:
    schedule = resolve(Recipe(mode="random", epochs=30), FACTS)
    drawn = [schedule.patch_at(3, e, i) for e in range(30) for i in range(50)]
    assert drawn == [schedule.patch_at(3, e, i) for e in range(30) for i in range(50)]
    assert set(drawn) == set(schedule.stages[0].patch_choices)
    assert len(set(drawn)) == 14
    assert drawn != [schedule.patch_at(4, e, i) for e in range(30) for i in range(50)]


def test_equal_pacing_leaves_the_remainder_to_the_last_stage() -> None:
    assert [s.epochs for s in resolve(Recipe(epochs=33), FACTS).stages] == [2] * 14 + [5]


def test_volume_pacing_gives_larger_patches_more_epochs() -> None:
    epochs = [s.epochs for s in resolve(Recipe(epochs=1000, pacing="volume"), FACTS).stages]
    assert epochs == sorted(epochs)
    assert sum(epochs) == 1000
    assert epochs[0] < 5 < 150 < epochs[-1]


@pytest.mark.parametrize(
    ("mode", "rule", "iterations"),
    [
        ("efficiency", "sparse", [1, 3, 11, 50]),
        ("efficiency", "proportional", [1, 10, 43, 50]),
        ("efficiency", "every-epoch", [50, 50, 50, 50]),
        ("performance", "sparse", [12, 12, 12, 50]),
        ("performance", "proportional", [50, 49, 48, 50]),
        ("constant", "sparse", [50, 50, 50, 50]),
    ],
)
def test_validation_costs_little_in_small_stages_unless_told_otherwise(
    mode: str, rule: str, iterations: list[int]
) -> None:
    schedule = resolve(Recipe(mode=mode, epochs=15, validation=Validation(iterations=50, rule=rule)), FACTS)
    assert [schedule.validation_iterations_at(e) for e in (0, 7, 13, 14)] == iterations
    assert Validation().rule == "sparse"


def test_fewer_epochs_than_stages_is_refused_with_the_number_needed() -> None:
    with pytest.raises(ScheduleError) as refused:
        resolve(Recipe(epochs=14), FACTS)
    assert refused.value.exit_code == 2
    assert "--epochs 15" in refused.value.problems[0].remedy


def test_a_schedule_for_other_plans_is_refused_by_the_first_difference() -> None:
    schedule = resolve(Recipe(), FACTS)
    with pytest.raises(ScheduleError, match="batch_size is 9 there and 2 here"):
        check(schedule, FACTS.model_copy(update={"batch_size": 2}))


def test_stages_that_the_network_cannot_process_are_all_named() -> None:
    stages = [
        Stage(patch_size=(12, 8, 8), batch_size=2, epochs=1),
        Stage(patch_size=(48, 56, 40), batch_size=2, epochs=1),
    ]
    with pytest.raises(ScheduleError) as refused:
        check(Schedule(stages=tuple(stages)), FACTS)
    told = [(p.what, p.remedy) for p in refused.value.problems]
    assert ("axis 0: 12 is no multiple of the network's step 8", "use 8 or 16") in told
    assert any("48 is larger than the plan's 40" in what for what, _ in told)
    assert any("the last stage's patch is 48 56 40" in what for what, _ in told)


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("mode: efficient", "mode", "efficiency"),
        ("epoch: 3", "epoch", "did you mean 'epochs'?"),
        ("validation: {iteration: 4}", "validation.iteration", "did you mean 'iterations'?"),
        ("stages: [{patch_size: [8, 8, 8], batch_size: 0, epochs: 1}]", "stages.0.batch_size", "greater than"),
        ("stages: []", "stages", "at least 1"),
        ("a: &x 1\nb: *x", "schedule", "aliases"),
        ("epochs: 3\nepochs: 4", "schedule", "given twice"),
        ("!!python/object/apply:os.system [true]", "schedule", "not valid YAML"),
        ("- 1", "schedule", "found list"),
        ("a: [", "schedule", "not valid YAML"),
    ],
)
def test_wrong_files_are_told_by_key(text: str, where: str, said: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse(text)
    problem = refused.value.problems[0]
    assert where in problem.where
    assert said in problem.what + problem.remedy


MODE_FILES = sorted(set(shipped.schedules()) & set(MODES))


@pytest.mark.parametrize("name", MODE_FILES)
def test_shipped_modes(name: str) -> None:
    recipe = load(shipped.schedules()[name])
    assert isinstance(recipe, Recipe)
    assert recipe.mode == name
    assert resolve(recipe, FACTS).epochs == 1000


def test_every_mode_is_shipped() -> None:
    assert set(MODE_FILES) == set(MODES)


class TestMirroring:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("on", "on"), ("true", "on"), ("off", ()), ("'off'", ()), ("[2, 0]", (0, 2)), ("'1'", (1,)), ("[]", ())],
    )
    def test_in_a_file(self, text: str, expected: object) -> None:
        recipe = parse(f"mode: efficiency\nmirroring: {text}\n")
        assert recipe.mirroring == expected
        schedule = resolve(recipe, FACTS)  # type: ignore[arg-type]
        assert schedule.mirroring == expected
        assert parse(dump(schedule)) == schedule

    @pytest.mark.parametrize("text", ["maybe", "[3]", "7", "x"])
    def test_nonsense_is_told(self, text: str) -> None:
        with pytest.raises(ScheduleError, match="mirroring"):
            try:
                parse(f"mode: efficiency\nmirroring: {text}\n")
            except ScheduleError as error:
                raise ScheduleError(" ".join(p.where for p in error.problems)) from None

    def test_an_axis_that_the_patch_does_not_have(self) -> None:
        flat = FACTS.model_copy(update={"patch_size": (40, 56), "step": (8, 8)})
        schedule = resolve(Recipe(mirroring=(0, 2)), flat)
        with pytest.raises(ScheduleError, match="axes 0 to 1, not 2"):
            check(schedule, flat)

    def test_what_is_not_said_does_not_change_the_hash(self) -> None:
        schedule = resolve(Recipe(validation=Validation(iterations=50, rule="proportional")), FACTS)
        assert schedule.mirroring is None
        # The hash of this schedule before there was the key.
        assert schedule.digest == "59a1678da67a2f89"
        assert schedule.model_copy(update={"mirroring": "on"}).digest != schedule.digest
