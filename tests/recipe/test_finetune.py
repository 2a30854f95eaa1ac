"""What is trained when: the phases of each policy, what moves in them, and runs that are resumed between them."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import (
    BASE,
    NO_AUGMENT,
    changed,
    first_epochs,
    repeatable,
    resumed,
    same_tensors,
    snapshot,
    train,
    variants,
    with_settings,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cifar_tune import Recipe
from cifar_tune.recipe.finetune import Phase
from cifar_tune.recipe.recipe import Value
from cifar_tune.recipe.schedules import learning_rates
from cifar_tune.training.checkpoint import save_state, save_weights
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.weights import Weights, fitting, read_weights

FROZEN = with_settings({"finetune/name": "frozen", "batch_size": 3})
TWO_PHASE = with_settings(
    {"finetune/name": "two-phase", "finetune/lr": 1e-3, "epochs": 4, "finetune/head_epochs": 2, "batch_size": 3}
)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def planned(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    rates: list[float] = []
    for phase in recipe.phases():
        rates += learning_rates(
            recipe.schedule,
            phase.lr,
            epochs=phase.epochs,
            steps_per_epoch=steps_per_epoch,
            first_epoch=phase.first_epoch,
        )
    return rates


def steps_taken(training: Training) -> set[int]:
    return {int(state["step"]) for state in training.optimizer.state.values()}


# Phases


@pytest.mark.parametrize(
    ("settings", "phases"),
    [
        ({"finetune/name": "scratch"}, (Phase(0, 10, 0.003),)),
        ({"finetune/name": "full"}, (Phase(0, 10, 0.003),)),
        ({"finetune/name": "frozen"}, (Phase(0, 10, 0.003, frozen=True),)),
        (
            {"finetune/name": "two-phase", "finetune/head_epochs": 4, "finetune/lr": 0.5},
            (Phase(0, 4, 0.003, frozen=True), Phase(4, 6, 0.5, frozen_norms=True)),
        ),
        (
            {"finetune/name": "two-phase", "finetune/head_epochs": 9, "finetune/batch_norm": "train"},
            (Phase(0, 9, 0.003, frozen=True), Phase(9, 1, 1e-5)),
        ),
    ],
    ids=str,
)
def test_a_policy_divides_the_run_into_phases(settings: dict[str, Value], phases: tuple[Phase, ...]) -> None:
    assert with_settings({"epochs": 10, **settings}).phases() == phases


@pytest.mark.parametrize("finetune", variants("finetune"))
def test_the_phases_are_the_run(finetune: str) -> None:
    phases = with_settings({"finetune/name": finetune, "epochs": 7}).phases()
    assert phases[0].first_epoch == 0
    assert all(first.first_epoch + first.epochs == second.first_epoch for first, second in pairwise(phases))
    assert sum(phase.epochs for phase in phases) == 7


@pytest.mark.parametrize(
    ("settings", "first_rung"),
    [
        ({"finetune/name": "scratch"}, 1),
        ({"finetune/name": "frozen"}, 1),
        ({"finetune/name": "full"}, 1),
        ({"finetune/name": "two-phase", "finetune/head_epochs": 1}, 3),
        ({"finetune/name": "two-phase", "finetune/head_epochs": 5}, 7),
    ],
    ids=str,
)
def test_a_trial_is_judged_from_two_epochs_into_its_second_phase_on(
    settings: dict[str, Value], first_rung: int
) -> None:
    assert with_settings({"epochs": 10, **settings}).first_rung == first_rung


@pytest.mark.parametrize(
    ("settings", "num_views", "has_fixed_features"),
    [
        ({"finetune/name": "scratch", **NO_AUGMENT}, None, False),
        ({"finetune/name": "full", **NO_AUGMENT}, None, False),
        ({"finetune/name": "frozen", **NO_AUGMENT}, None, True),
        ({"finetune/name": "two-phase", **NO_AUGMENT}, None, True),
        ({"finetune/name": "frozen"}, None, False),
        ({"finetune/name": "two-phase"}, None, False),
        ({"finetune/name": "frozen", "finetune/views": 3}, 3, True),
        ({"finetune/name": "two-phase", "finetune/views": 3}, 1, True),  # there is one frozen epoch to see them
        (
            {"finetune/name": "frozen", "augment/flip": False, "augment/crop_padding": 0, "augment/hue": 0.1},
            None,
            False,
        ),
    ],
    ids=str,
)
def test_features_are_fixed_where_a_frozen_backbone_sees_the_same_images_again(
    settings: dict[str, Value], num_views: int | None, has_fixed_features: bool
) -> None:
    recipe = with_settings(settings)
    assert (recipe.num_views, recipe.has_fixed_features) == (num_views, has_fixed_features)


# What moves


@pytest.mark.parametrize("settings", [NO_AUGMENT, {}, {"finetune/views": 2}], ids=["plain", "augmented", "views"])
@pytest.mark.parametrize("optimizer", variants("optimizer"))
def test_a_frozen_backbone_stays_to_the_bit_and_has_no_gradients(
    optimizer: str, settings: dict[str, Value], handful: DeviceData
) -> None:
    """Weight decay would move it without any gradient; its batch norms would without any optimizer."""
    decay: dict[str, Value] = {"optimizer/name": optimizer, "optimizer/weight_decay": 0.1}
    training = Training(FROZEN.replace({**decay, **settings, "epochs": 2}), handful)
    before = snapshot(training.model)
    gradients: list[bool] = []

    def note(*_: Any) -> None:  # noqa: ANN401 - whatever a hook is given
        gradients.append(any(p.grad is not None for p in training.backbone.parameters()))
        assert all(p.grad is not None for p in training.head.parameters())

    training.optimizer.register_step_pre_hook(note)
    list(training.fit())
    assert gradients == [False] * 4
    assert changed(before, training.model) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_the_second_phase_moves_everything_but_the_statistics_unless_asked(
    batch_norm: str, handful: DeviceData
) -> None:
    training = Training(TWO_PHASE.replace({"finetune/batch_norm": batch_norm}), handful)
    start = snapshot(training.model)
    assert [metrics.epoch for metrics in first_epochs(training, 2)] == [1, 2]
    assert changed(start, training.model) == {"classifier.weight", "classifier.bias"}

    middle = snapshot(training.model)
    assert [metrics.epoch for metrics in training.fit()] == [3, 4]
    statistics = {name for name in middle if name.endswith(STATISTICS)}
    assert changed(middle, training.model) == middle.keys() - (statistics if batch_norm == "eval" else set())
    assert all(p.requires_grad for p in training.model.parameters())


@pytest.mark.parametrize("finetune", ["scratch", "full"])
def test_one_phase_of_everything_moves_everything(finetune: str, handful: DeviceData) -> None:
    training = Training(with_settings({"finetune/name": finetune, "batch_size": 3, "epochs": 1}), handful)
    before = snapshot(training.model)
    list(training.fit())
    assert changed(before, training.model) == before.keys()


def test_the_head_alone_is_clipped_where_it_alone_is_trained(handful: DeviceData) -> None:
    """The norm that is clipped is that of the head's gradients."""
    recipe = FROZEN.replace({"grad_clip/name": "norm", "grad_clip/limit": 1e-3, "batch_size": 6, "epochs": 1})
    training = Training(recipe, handful)
    norms: list[float] = []

    def note(*_: Any) -> None:  # noqa: ANN401 - whatever a hook is given
        norms.append(
            float(torch.cat([p.grad.flatten() for p in training.head.parameters() if p.grad is not None]).norm())
        )

    training.optimizer.register_step_pre_hook(note)
    list(training.fit())
    assert norms == pytest.approx([1e-3], rel=1e-3)


# Rates and steps


def test_each_phase_has_an_optimizer_of_its_own(handful: DeviceData) -> None:
    training = Training(TWO_PHASE, handful)
    steps = [steps_taken(training) for _ in training.fit()]
    assert steps == [{2}, {4}, {2}, {4}]
    assert len(training.optimizer.state) == len(list(training.model.parameters()))


@pytest.mark.parametrize("schedule", variants("schedule"))
def test_the_second_phase_follows_the_schedule_at_its_own_rate(schedule: str, handful: DeviceData) -> None:
    recipe = TWO_PHASE.replace({"schedule/name": schedule})
    used: list[float] = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    with hook:
        epochs = train(recipe, handful)
    assert used == planned(recipe, steps_per_epoch=2)
    assert [metrics["lr"] for metrics in epochs] == used[1::2]
    assert max(used[:4]) <= 0.003
    assert max(used[4:]) <= 1e-3


def test_the_heads_rate_has_its_scale_in_every_phase_and_the_metrics_have_the_schedules(handful: DeviceData) -> None:
    recipe = TWO_PHASE.replace({"schedule/name": "cosine", "optimizer/head_lr_scale": 4.0})
    used: list[list[float]] = []
    with register_optimizer_step_pre_hook(
        lambda optimizer, *_: used.append([group["lr"] for group in optimizer.param_groups])
    ):
        epochs = train(recipe, handful)
    rates = planned(recipe, steps_per_epoch=2)
    assert used == [[4 * rate] for rate in rates[:4]] + [[rate, 4 * rate] for rate in rates[4:]]
    assert [metrics["lr"] for metrics in epochs] == rates[1::2]


def test_step_counts_the_epochs_of_the_whole_run(handful: DeviceData) -> None:
    settings: dict[str, Value] = {"schedule/name": "step", "schedule/every": 3, "schedule/gamma": 0.5}
    epochs = train(TWO_PHASE.replace(settings), handful)
    assert [metrics["lr"] for metrics in epochs] == [0.003, 0.003, 1e-3, 0.5e-3]


def test_plateau_starts_over_in_the_second_phase(handful: DeviceData) -> None:
    """At a rate of almost nothing the loss is flat."""
    settings: dict[str, Value] = {"schedule/name": "plateau", "schedule/patience": 0, "schedule/reduction": 0.5}
    rates: dict[str, Value] = {"optimizer/lr": 1e-12, "finetune/lr": 1e-13, "epochs": 6, **NO_AUGMENT}
    epochs = train(TWO_PHASE.replace({**settings, **rates}), handful)
    shares = [metrics["lr"] / rate for metrics, rate in zip(epochs, [1e-12] * 3 + [1e-13] * 3, strict=True)]
    assert shares == pytest.approx([1, 1, 0.5, 1, 1, 0.5])


# Resuming


@pytest.mark.parametrize(
    "recipe",
    [
        FROZEN,
        FROZEN.replace({"finetune/views": 2}),
        TWO_PHASE,
        TWO_PHASE.replace({"finetune/batch_norm": "train", "optimizer/name": "sgd", "schedule/name": "plateau"}),
        TWO_PHASE.replace({"early_stopping/name": "patience", "early_stopping/patience": 1}),
        TWO_PHASE.replace({"optimizer/name": "muon", "schedule/name": "cosine"}),
        with_settings({"early_stopping/name": "patience", "early_stopping/patience": 2, "epochs": 5, "batch_size": 3}),
    ],
    ids=["frozen", "views", "two-phase", "two-phase-sgd-plateau", "two-phase-patience", "two-phase-muon", "patience"],
)
def test_a_run_resumed_after_any_epoch_is_the_uninterrupted_one(
    recipe: Recipe, handful: DeviceData, tmp_path: Path
) -> None:
    whole = Training(recipe, handful)
    expected = [repeatable(metrics) for metrics in whole.fit()]
    stopped = Training(recipe, handful)
    for epoch, _ in enumerate(stopped.fit(), start=1):
        save_state(tmp_path / str(epoch), stopped.state_dict())
    for epoch in range(1, len(expected)):
        again = resumed(recipe, handful, tmp_path / str(epoch))
        assert [repeatable(metrics) for metrics in again.fit()] == expected[epoch:]
        assert same_tensors(again.model, whole.model)
        assert again.counted.epoch == whole.counted.epoch


# Starting weights


@pytest.fixture(scope="module")
def trained(handful: DeviceData, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A network in which every tensor differs from a new one's."""
    training = Training(with_settings({"seed": 5, "epochs": 2, "batch_size": 3}), handful)
    list(training.fit())
    return training


@pytest.fixture(scope="module")
def weights_path(trained: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder, trained.model, {"recipe": trained.recipe.model_dump(mode="json")})
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def weights(weights_path: Path) -> Weights:
    return read_weights(weights_path)


@pytest.mark.parametrize("finetune", ["frozen", "two-phase", "full"])
def test_a_run_starts_from_its_weights(
    finetune: str, weights_path: Path, weights: Weights, trained: Training, handful: DeviceData
) -> None:
    recipe = with_settings({"model/weights": str(weights_path), "finetune/name": finetune, "seed": 1})
    training = Training(recipe, handful, weights)
    assert same_tensors(training.model, trained.model)
    assert training.evaluate(handful.val) == pytest.approx(trained.evaluate(handful.val))
    assert training.facts == {"weights": f"weights.safetensors, sha256 {weights.file_digest[:16]}"}


def test_a_head_of_ones_own_images_is_replaced_because_its_classes_are_not_known(weights: Weights) -> None:
    assert weights.recipe is not None
    own = replace(weights, recipe={**weights.recipe, "dataset": "folder"})
    tensors, note = fitting(BASE.model.build(10), own, "folder")
    assert note == "The head of weights.safetensors is for 10 classes of folder and is replaced by a new one."
    assert set(tensors) < set(weights.tensors)
    assert fitting(BASE.model.build(10), weights, "shapes") == (weights.tensors, None)


def test_another_data_sets_head_is_replaced_and_that_is_a_fact(
    weights_path: Path, weights: Weights, trained: Training, handful: DeviceData
) -> None:
    recipe = with_settings({"model/weights": str(weights_path), "finetune/name": "full", "dataset": "cifar10"})
    data = replace(handful, dataset="cifar10")
    training = Training(recipe, data, weights)
    assert same_tensors(training.backbone, trained.backbone)
    assert not same_tensors(training.head, trained.head)
    assert "for 10 classes of shapes and is replaced" in training.facts["head"]


def test_weights_that_the_recipe_does_not_ask_for_are_refused(weights: Weights, handful: DeviceData) -> None:
    with pytest.raises(ValueError, match="The recipe asks for the weights 'none'"):
        Training(BASE, handful, weights)


def test_weights_that_the_recipe_asks_for_must_be_given(handful: DeviceData) -> None:
    recipe = with_settings({"model/weights": "some.pth", "finetune/name": "full"})
    with pytest.raises(ValueError, match=r"The recipe asks for the weights 'some\.pth'; give those"):
        Training(recipe, handful)
