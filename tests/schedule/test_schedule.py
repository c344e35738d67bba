import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppgs import shipped
from ppgs.errors import ScheduleError
from ppgs.schedule import MODES, PlanFacts, Recipe, Schedule, Stage, Validation, dump, load, parse, resolve
from ppgs.schedule.model import LearningRate
from ppgs.schedule.pacing import Power, pace
from ppgs.schedule.recipe import check
from ppgs.schedule.rescale import rescaled
from tests.helpers.facts import HIPPOCAMPUS as FACTS


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
def rates(draw: st.DrawFn) -> LearningRate:
    return LearningRate(
        decay=draw(st.sampled_from(["epoch", "work"])),
        warmup=draw(st.integers(0, 10)),
        restart_at_stage=draw(st.booleans()),
    )


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    mode = draw(st.sampled_from(sorted(MODES)))
    one_stage = mode in ("constant", "random")
    recipe = Recipe(
        mode=mode,
        pacing="equal" if one_stage else draw(st.sampled_from(["equal", "volume", Power(power=0.5)])),
        epochs=draw(st.integers(20, 2000)),
        iterations_per_epoch=draw(st.integers(1, 500)),
        batch_size=draw(st.none() | st.integers(1, 8)),
        foreground_share=draw(st.none() | st.floats(0, 1)),
        learning_rate=draw(rates()),
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
    schedule = resolve(Recipe(mode=mode, epochs=15, validation=Validation(iterations=50, rule=rule)), FACTS)  # type: ignore[arg-type]
    assert [schedule.validation_iterations_at(e) for e in (0, 7, 13, 14)] == iterations
    assert Validation().rule == "sparse"


def test_where_less_than_one_iteration_is_due_some_epochs_are_validated_with_one() -> None:
    schedule = resolve(Recipe(epochs=150, validation=Validation(iterations=50)), FACTS)
    assert [s.epochs for s in schedule.stages] == [10] * 15
    assert [schedule.validation_iterations_at(e) for e in range(10)] == [1, 0, 0, 0, 0] * 2
    assert schedule.validation_interval(0) == 5 and schedule.mean_validation_iterations(0) == 0.2
    # As much as the rule gives, up to rounding; from an iteration an epoch on, every epoch.
    intervals = [schedule.validation_interval(i) for i in range(15)]
    assert intervals == sorted(intervals, reverse=True) and {1, 5} < set(intervals)
    assert [schedule.validation_iterations_at(e) for e in range(140, 150)] == [50] * 10
    short = resolve(Recipe(epochs=150, validation=Validation(iterations=1)), FACTS)
    assert all(short.validation_interval(i) > 1 for i in range(14)) and short.validation_interval(14) == 1


@pytest.mark.parametrize("rule", ["sparse", "proportional", "every-epoch"])
@pytest.mark.parametrize(("epochs", "iterations"), [(15, 50), (100, 50), (151, 2)])
def test_validation_iterations_of_a_stage_add_up(rule: Any, epochs: int, iterations: int) -> None:
    schedule = resolve(Recipe(epochs=epochs, validation=Validation(iterations=iterations, rule=rule)), FACTS)
    for i, stage in enumerate(schedule.stages):
        first = schedule.first_epoch(i)
        counts = [schedule.validation_iterations_at(first + e) for e in range(stage.epochs)]
        assert counts[0] > 0 and (rule == "sparse" or min(counts) > 0)
        assert sum(counts) == pytest.approx(stage.epochs * schedule.mean_validation_iterations(i))


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


def test_growth_of_2024_needs_no_quotes() -> None:
    assert parse("mode: efficiency\ngrowth: 2024\n") == parse("mode: efficiency\ngrowth: '2024'\n")


def test_every_mode_is_shipped() -> None:
    assert set(MODE_FILES) == set(MODES)


class TestMirroring:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("on", "on"),
            ("true", "on"),
            ("off", ()),
            ("'off'", ()),
            ("[2, 0]", (0, 2)),
            ("'1'", (1,)),
            ("0", (0,)),
            ("[]", ()),
        ],
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


@given(schedules())
def test_the_learning_rate_decays_from_one_towards_zero(schedule: Schedule) -> None:
    restarts = schedule.learning_rate.restart_at_stage
    for index, stage in enumerate(schedule.stages):
        first = schedule.first_epoch(index)
        decayed = [schedule.decay_epoch_at(epoch) for epoch in range(first, first + stage.epochs)]
        assert decayed == sorted(decayed)
        assert all(0 <= value < schedule.epochs for value in decayed)
        if restarts:
            assert decayed[0] == 0
    assert 0 < schedule.learning_rate_at(0) <= 1
    if not restarts:
        assert schedule.learning_rate_at(schedule.epochs) == 0


def test_the_default_decay_is_nnunets_to_the_bit() -> None:
    schedule = resolve(Recipe(epochs=300), FACTS)
    assert [schedule.decay_epoch_at(epoch) for epoch in range(300)] == list(range(300))
    assert schedule.learning_rate_at(150) == (1 - 150 / 300) ** 0.9


def test_decay_over_work_leaves_most_of_the_rate_to_large_patches() -> None:
    by_epoch = resolve(Recipe(epochs=300), FACTS)
    by_work = resolve(Recipe(epochs=300, learning_rate=LearningRate(decay="work")), FACTS)
    last = by_epoch.first_epoch(len(by_epoch.stages) - 1)
    stage = by_work.stages[-1]
    share = stage.epochs * stage.voxels * stage.batch_size / by_work.trained_voxels
    assert by_work.decay_epoch_at(last) == pytest.approx(300 * (1 - share))
    assert by_work.learning_rate_at(last) > 2 * by_epoch.learning_rate_at(last)


def test_a_warm_up_rises_in_equal_steps_and_then_leaves_the_decay_alone() -> None:
    rate = LearningRate(warmup=3)
    warm, plain = (resolve(Recipe(epochs=300, learning_rate=r), FACTS) for r in (rate, LearningRate()))
    assert [warm.warmup_at(epoch) for epoch in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert warm.learning_rate_at(3) == plain.learning_rate_at(3)
    with pytest.raises(ScheduleError, match="warm-up of 15"):
        resolve(Recipe(epochs=15, learning_rate=LearningRate(warmup=15)), FACTS)
    constant = resolve(Recipe(mode="constant", epochs=300, learning_rate=rate), FACTS)
    with pytest.raises(ScheduleError, match="warm-up of 3"):
        rescaled(constant, 0, 3)


def test_what_is_not_said_leaves_the_hash_of_a_schedule_as_it_was() -> None:
    schedule = resolve(Recipe(epochs=300), FACTS)
    # As computed before there was a learning rate in schedules.
    assert schedule.digest == "28a8db46c817e11b"
    assert "learning_rate" not in dump(schedule)
    changed = resolve(Recipe(epochs=300, learning_rate=LearningRate(decay="work")), FACTS)
    assert changed.digest != schedule.digest
    assert parse(dump(changed)) == changed


@given(st.floats(0, 4), st.integers(1, 500), st.lists(st.integers(1, 10**7), min_size=1, max_size=20))
def test_pacing_by_a_power_lies_between_equal_and_volume(power: float, extra: int, volumes: list[int]) -> None:
    epochs = len(volumes) + extra
    shares = pace(Power(power=power), epochs, sorted(volumes))
    assert sum(shares) == epochs
    assert min(shares) >= 1
    assert all(a <= b + 1 for a, b in itertools.pairwise(shares))


@given(st.floats(0.05, 0.9), st.integers(60, 2000), st.sampled_from(["equal", "volume"]))
def test_the_last_stage_gets_its_share_of_the_work(share: float, epochs: int, pacing: str) -> None:
    schedule = resolve(Recipe(epochs=epochs, last_stage=share, pacing=pacing), FACTS)  # type: ignore[arg-type]
    assert schedule.epochs == epochs
    stage = schedule.stages[-1]
    work = stage.epochs * stage.voxels * stage.batch_size
    one_epoch = 2 * stage.voxels * stage.batch_size / schedule.trained_voxels
    # As close as whole epochs allow, unless even one epoch (or one for each other stage) is beyond it.
    least_others = stage.epochs == epochs - len(schedule.stages) + 1
    assert abs(work / schedule.trained_voxels - share) <= one_epoch or stage.epochs == 1 or least_others


def test_a_start_skips_the_stages_below_it() -> None:
    whole = resolve(Recipe(epochs=300), FACTS)
    by_share = resolve(Recipe(epochs=300, start=0.1), FACTS)
    volumes = [s.voxels for s in whole.stages]
    assert [s.patch_size for s in by_share.stages] == [
        s.patch_size for s in whole.stages if s.voxels >= 0.1 * volumes[-1]
    ]
    given = resolve(Recipe(epochs=300, start=(24, 24, 16)), FACTS)
    assert given.stages[0].patch_size == (24, 24, 16)
    octave = resolve(Recipe(epochs=300, growth="octave"), FACTS)
    assert [s.patch_size for s in octave.stages] == [(8, 8, 8), (16, 16, 16), (32, 32, 32), (40, 56, 40)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start: [24, 20, 16]", "cannot be 20"),
        ("start: [24, 24]", "has 2 axes"),
        ("start: [24, 24, 48]", "cannot be 48"),
        ("start: 0.1\nmode: constant", "no effect"),
        ("last_stage: 0.3\nmode: random", "no effect"),
        ("growth: octave\nmode: constant", "no effect"),
        ("pacing: volume\nmode: constant", "no effect"),
        ("pacing: {power: 2}\nmode: random", "no effect"),
    ],
)
def test_keys_that_cannot_be_met_are_refused(text: str, said: str) -> None:
    recipe = parse(text)
    assert isinstance(recipe, Recipe)
    with pytest.raises(ScheduleError, match=said):
        resolve(recipe, FACTS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("start: 1.5", "expected smallest, a share"),
        ("start: [0, 8, 8]", "expected smallest, a share"),
        ("pacing: {power: x}", "expected equal, volume"),
        ("pacing: cubic", "expected equal, volume"),
        ("last_stage: 1.0", "less than 1"),
        ("learning_rate: {decay: volume}", "'epoch' or 'work'"),
        ("learning_rate: {warm: 3}", "unknown key 'warm'"),
    ],
)
def test_wrong_values_of_the_newer_keys_are_explained(text: str, said: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert said in caught.value.problems[0].what
