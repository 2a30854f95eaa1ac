"""The expected time of trials and searches, from hand-made trials."""

from collections.abc import Callable, Sequence

import pytest

from cifar_tune.recipe.recipe import Recipe, Value
from cifar_tune.search.cost import Costs, Remaining, kind_of, wall_seconds
from cifar_tune.trials.trial import State, Trial

RESNET9 = Recipe(
    dataset="shapes",
    model={"name": "resnet9"},
    optimizer={"name": "sgd", "lr": 0.1},
    schedule={"name": "constant"},
    epochs=10,
    batch_size=128,
)
MINI = RESNET9.replace({"model/name": "mini_resnet"})
RESNET50 = RESNET9.replace({"model/name": "resnet50", "model/weights": "imagenet", "finetune/name": "full"})


def half(recipe: Recipe) -> float:
    """The expected epochs of a scheduler that stops the average trial half-way."""
    return recipe.epochs / 2


def whole(recipe: Recipe) -> float:
    """The expected epochs of a scheduler that stops no trial."""
    return recipe.epochs


def trial(
    number: int, state: State = "completed", num_epochs: int = 10, seconds: float = 3.0, recipe: Recipe = MINI
) -> Trial:
    curve = [{"epoch": i, "val_accuracy": 0.5, "seconds": seconds} for i in range(1, num_epochs + 1)]
    return Trial("tiny", number, state, recipe, {}, is_baseline=number == 0, curve=curve)


def seen(*epochs: tuple[Recipe, Sequence[float]]) -> Costs:
    costs = Costs(whole)
    for recipe, seconds in epochs:
        costs.add_epochs(recipe, seconds)
    return costs


# Kinds of trials


@pytest.mark.parametrize(
    "settings",
    [
        {"model/name": "mini_resnet"},
        {"model/width": 0.5},
        {"batch_size": 256},
        {"model/name": "resnet50", "finetune/name": "frozen"},
    ],
    ids=str,
)
def test_a_recipe_whose_epochs_take_another_time_is_another_kind(settings: dict[str, Value]) -> None:
    assert kind_of(RESNET9.replace(settings)) != kind_of(RESNET9)


@pytest.mark.parametrize(
    "settings", [{"optimizer/lr": 0.01}, {"model/dropout": 0.5}, {"epochs": 3}, {"batch_size": 150}], ids=str
)
def test_a_recipe_whose_epochs_take_about_the_same_time_is_the_same_kind(settings: dict[str, Value]) -> None:
    assert kind_of(RESNET9.replace(settings)) == kind_of(RESNET9)


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"finetune/name": "full"}, "all"),
        ({"finetune/name": "frozen"}, "head"),
        ({"finetune/name": "frozen", "finetune/views": 2}, "head (on kept features)"),
        ({"finetune/name": "two-phase", "finetune/head_epochs": 2}, "head, then all"),
    ],
)
def test_a_kind_names_the_part_that_is_trained(settings: dict[str, Value], trained: str) -> None:
    kind = kind_of(RESNET50.replace(settings))
    assert (kind.network, kind.trained, kind.batch) == ("resnet50", trained, 128)


def test_a_kind_names_the_options_of_its_network_that_are_not_the_defaults() -> None:
    assert kind_of(RESNET9.replace({"model/width": 0.5, "model/dropout": 0.1})).network == "resnet9 width=0.5"
    assert kind_of(RESNET50.replace({"model/image_size": 224})).network == "resnet50 image_size=224"


# Seconds


def test_another_size_of_the_images_is_another_kind() -> None:
    assert kind_of(RESNET50.replace({"model/image_size": 224})) != kind_of(RESNET50)


def test_an_epoch_takes_the_mean_of_its_own_kind() -> None:
    costs = seen((MINI, [1.0, 3.0]), (RESNET9, [10.0]))
    assert costs.seconds_per_epoch(MINI) == 2.0
    assert costs.seconds_per_epoch(RESNET9) == 10.0


def test_an_unseen_kind_takes_as_long_as_the_nearest_ones() -> None:
    costs = seen((MINI, [1.0, 3.0]), (RESNET9, [10.0, 14.0]))
    assert costs.seconds_per_epoch(MINI.replace({"batch_size": 512})) == 2.0, "another batch of the same network"
    assert costs.seconds_per_epoch(RESNET9.replace({"model/width": 0.5})) == 12.0, "another width of it"
    assert costs.seconds_per_epoch(RESNET50) == 7.0, "the mean of all"


def test_nothing_is_known_before_an_epoch_was_seen() -> None:
    assert not seen((MINI, [])).is_known
    assert seen((MINI, [1.0])).is_known


# Epochs


def test_before_a_trial_has_ended_the_scheduler_is_believed() -> None:
    assert Costs(half).epochs(MINI) == 5.0
    assert Costs(whole).epochs(MINI) == 10.0


def test_trials_that_ended_correct_the_scheduler() -> None:
    costs = Costs(half)
    costs.add_ending(MINI, 1)
    assert costs.epochs(MINI) == pytest.approx(5 * (2 + 0.2) / 3)
    for _ in range(1000):
        costs.add_ending(MINI, 1)
    assert costs.epochs(MINI) == pytest.approx(1, abs=0.02)


def test_trials_of_all_lengths_correct_each_other() -> None:
    costs = Costs(whole)
    costs.add_ending(MINI.replace({"epochs": 40}), 20)
    assert costs.epochs(MINI) == pytest.approx(10 * 2.5 / 3)


def test_no_trial_takes_more_than_its_epochs() -> None:
    costs = Costs(half)
    for _ in range(1000):
        costs.add_ending(MINI, 10)
    assert costs.epochs(MINI) == pytest.approx(10, abs=0.05)
    assert costs.epochs(MINI) <= 10


# Hours


@pytest.mark.parametrize(
    ("trials", "num_workers", "seconds"),
    [([], 2, 0.0), ([4, 4, 4], 1, 12.0), ([4, 4, 4, 4], 2, 8.0), ([10, 1, 1], 4, 10.0)],
)
def test_workers_share_the_trials_and_none_ends_before_the_longest(
    trials: list[float], num_workers: int, seconds: float
) -> None:
    assert wall_seconds(trials, num_workers) == seconds


def seconds_remaining(
    trials: Sequence[Trial],
    num_trials: int,
    num_workers: int,
    expected_epochs: Callable[[Recipe], float],
    draws: Sequence[Recipe] = (),
) -> float | None:
    remaining = Remaining(num_trials, num_workers, expected_epochs, draws)
    for each in trials:
        remaining.note(each)
    return remaining.seconds


def test_epochs_that_are_noted_one_by_one_count_once() -> None:
    remaining = Remaining(3, 1, half)
    for num_epochs in (1, 2, 2, 5):
        remaining.note(trial(1, "running", num_epochs))
    remaining.note(trial(1))
    assert remaining.seconds == seconds_remaining([trial(1)], 3, 1, half)


def test_the_remaining_time_is_unknown_before_the_first_epoch() -> None:
    assert seconds_remaining([trial(0, "running", 0)], 4, 1, whole) is None


def test_a_search_that_is_over_has_no_time_remaining() -> None:
    assert seconds_remaining([trial(0), trial(1)], 2, 1, half) == 0.0


def test_future_trials_take_the_epochs_that_the_scheduler_expects() -> None:
    assert seconds_remaining([trial(0)], 5, 1, half) == 4 * 5 * 3.0


def test_the_baseline_does_not_count_for_the_epochs_of_other_trials() -> None:
    assert seconds_remaining([trial(0)], 2, 1, half) == 5 * 3.0
    assert seconds_remaining([trial(0), trial(1)], 3, 1, half) == pytest.approx(5 * (4 / 3) * 3.0)


def test_a_running_baseline_goes_to_its_end_and_so_does_a_trial_past_its_expected_one() -> None:
    assert seconds_remaining([trial(0, "running", 2)], 1, 1, half) == 8 * 3.0
    assert seconds_remaining([trial(1, "running", 2)], 1, 1, half) == 3 * 3.0
    assert seconds_remaining([trial(1, "running", 6)], 1, 1, half) == 4 * 3.0


def test_a_paused_trial_is_expected_to_go_on_like_others_but_not_past_its_expected_end() -> None:
    assert seconds_remaining([trial(1, "paused", 2)], 1, 1, half) == 3 * 3.0
    assert seconds_remaining([trial(1, "paused", 6)], 1, 1, half) == 0.0
    assert seconds_remaining([trial(1, "paused", 6), trial(1, "running", 6)], 1, 1, half) == 4 * 3.0


def test_future_trials_are_like_the_drawn_recipes() -> None:
    costly = trial(1, recipe=RESNET9, seconds=30.0)
    seen_so_far = [trial(0), costly]
    assert seconds_remaining(seen_so_far, 3, 1, whole, [MINI]) == 10 * 3.0
    assert seconds_remaining(seen_so_far, 3, 1, whole, [MINI, RESNET9]) == 10 * (3.0 + 30.0) / 2
