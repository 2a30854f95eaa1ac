"""The training loop: reproducible bit for bit, resumable, and equal to a loop of plain torch."""

import json
import math
from copy import deepcopy
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.cuts import cut, placed
from helpers.runs import BASE, CPU, NO_AUGMENT, repeatable, resumed, same_tensors, train, variants, with_settings
from safetensors import safe_open
from safetensors.torch import load_file

from cifar_tune import Recipe
from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.augment import Scaling, sample
from cifar_tune.recipe.layers import PatchWhitening
from cifar_tune.recipe.recipe import Value
from cifar_tune.recipe.schedules import learning_rates
from cifar_tune.training.checkpoint import load_state, save_state, save_weights
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import DivergenceError, Training

RESNET9 = BASE.replace({"model/name": "resnet9", "epochs": 2, "batch_size": 4, "schedule/name": "one-cycle"})

# The schedules that have no shapes.
ONE_SHAPE: list[dict[str, Value]] = [{"schedule/name": name} for name in variants("schedule") if name != "one-cycle"]
# What a recipe is put together of; each choice is what it sets.
CHOICES: dict[str, list[dict[str, Value]]] = {
    "model": [{"model/name": name} for name in variants("model")],
    "schedule": [
        *ONE_SHAPE,
        {"schedule/name": "one-cycle", "schedule/shape": "linear-exponential"},
        {"schedule/name": "one-cycle", "schedule/shape": "torch"},
    ],
    "optimizer": [{"optimizer/name": name} for name in variants("optimizer")],
    "finetune": [{"finetune/name": name} for name in variants("finetune")],
    "augment": [
        NO_AUGMENT,
        {"augment/flip": True, "augment/crop_padding": 4},
        {
            "augment/padding_mode": "zero",
            "augment/trivial_augment": True,
            "augment/brightness": 0.2,
            "augment/contrast": 0.2,
            "augment/saturation": 0.2,
            "augment/hue": 0.1,
            "augment/rotation": 15.0,
            "augment/grayscale": 0.1,
            "augment/cutout": 8,
            "augment/erasing": 0.5,
        },
    ],
    "scaling": [{"scaling": name} for name in get_args(Scaling)],
    "grad_clip": [{"grad_clip/name": name} for name in variants("grad_clip")],
    "averaging": [{"averaging/name": name} for name in variants("averaging")],
}
Pair = frozenset[tuple[str, int]]  # two groups, each with the number of one of its choices


def pairs(chosen: dict[str, int]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(chosen.items(), 2)}


def all_pairs() -> set[Pair]:
    return {
        frozenset([(first, i), (second, j)])
        for first, second in combinations(CHOICES, 2)
        for i, j in product(range(len(CHOICES[first])), range(len(CHOICES[second])))
    }


def covering() -> list[dict[str, int]]:
    """Combinations in which every pair of choices occurs: from the first pair that is missing, greedily on."""
    missing, combinations = all_pairs(), []
    while missing:
        chosen = dict(min(missing, key=sorted))
        for group in sorted(CHOICES.keys() - chosen.keys()):
            gains = [len(missing & pairs({**chosen, group: i})) for i in range(len(CHOICES[group]))]
            chosen[group] = gains.index(max(gains))
        missing -= pairs(chosen)
        combinations.append(chosen)
    return combinations


COMBINATIONS = covering()


def combined(chosen: dict[str, int]) -> Recipe:
    settings: dict[str, Value] = {"model/weights": "none", "batch_size": 4}
    for group, i in chosen.items():
        settings |= CHOICES[group][i]
    # The second phase needs an epoch of its own.
    return BASE.replace({**settings, "epochs": 2 if settings["finetune/name"] == "two-phase" else 1})


@pytest.fixture(scope="module")
def data(tiny: TrainingData) -> DeviceData:
    return DeviceData.place(tiny, CPU)


@pytest.fixture(scope="module")
def four(tiny: TrainingData) -> DeviceData:
    """4 training and 4 validation images: an epoch is a step."""
    return DeviceData.place(cut(tiny, 4, 4), CPU)


def scaled(training: Training, pixels: torch.Tensor) -> torch.Tensor:
    """The network's input by definition: pixels in [0, 1], minus the mean, over the deviation."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (training.pixels.mean, training.pixels.std))
    return (pixels.float() / 255 - mean) / std


@pytest.mark.slow
@pytest.mark.parametrize("model", variants("model"))
def test_the_same_seed_gives_the_same_metrics_bit_for_bit(model: str, handful: DeviceData) -> None:
    recipe = with_settings({"model/name": model, "epochs": 2, "batch_size": 4})
    first = train(recipe, handful)
    torch.manual_seed(123)  # what ran before does not matter
    assert train(recipe, handful) == first


def test_another_seed_gives_other_metrics(smallest: DeviceData) -> None:
    first, second = (train(with_settings({"seed": seed}), smallest) for seed in (0, 1))
    assert [m["train_loss"] for m in first] != [m["train_loss"] for m in second]


@pytest.mark.parametrize(
    "recipe",
    [
        BASE,
        RESNET9,
        with_settings({"optimizer/name": "sgd", "schedule/name": "one-cycle", "schedule/shape": "torch"}),
        with_settings({"optimizer/name": "adamw", "schedule/name": "step", "schedule/every": 1}),
        with_settings(
            {"optimizer/name": "adamw", "optimizer/decay_norms_and_biases": False, "optimizer/head_lr_scale": 0.5}
        ),
        with_settings({"optimizer/name": "muon", "schedule/name": "one-cycle", "schedule/shape": "torch"}),
    ],
    ids=lambda recipe: f"{recipe.model.name}-{recipe.optimizer.name}-{recipe.schedule.name}",
)
def test_a_resumed_run_gives_the_epochs_that_an_uninterrupted_one_gives(
    recipe: Recipe, handful: DeviceData, tmp_path: Path
) -> None:
    whole = Training(recipe, handful)
    expected = [repeatable(metrics) for metrics in whole.fit()]
    stopped = Training(recipe, handful)
    next(stopped.fit())
    save_state(tmp_path, stopped.state_dict())
    again = resumed(recipe, handful, tmp_path)
    assert again.epoch == 1
    rest = [repeatable(metrics) for metrics in again.fit()]
    assert rest == expected[1:]
    assert [repeatable(metrics) for metrics in again.history] == expected
    assert same_tensors(again.model, whole.model)


def test_a_state_of_another_kind_of_device_goes_on_with_new_random_numbers(smallest: DeviceData) -> None:
    """A GPU's random state is a seed and an offset. Two runs go on alike, and not as the first epoch began."""
    training = Training(BASE, smallest)
    next(training.fit())
    state = training.state_dict()
    state["generator"] = state["cuda_rng"] = torch.zeros(16, dtype=torch.uint8)
    runs = [Training(BASE, smallest) for _ in range(2)]
    beginning = runs[0].generator.get_state()
    for run in runs:
        run.load_state_dict(deepcopy(state))  # an optimizer goes on in the tensors that it is given
        assert not torch.equal(run.generator.get_state(), beginning)
        assert run.facts["random_numbers"].startswith("differ from epoch 2 on: its checkpoint is of a GPU")
    first, second = ([repeatable(metrics) for metrics in run.fit()] for run in runs)
    assert first == second
    assert len(first) == BASE.epochs - 1
    training.load_state_dict(training.state_dict())
    assert "random_numbers" not in training.facts


def test_a_state_is_resumed_by_its_own_recipe_alone(smallest: DeviceData) -> None:
    training = Training(BASE, smallest)
    state = training.state_dict()
    assert training.can_resume(state)
    assert not Training(with_settings({"optimizer/lr": 0.1}), smallest).can_resume(state)


def test_a_state_of_version_0_1_is_resumed(smallest: DeviceData) -> None:
    """Its recipe lacks newer fields, whose defaults are what version 0.1 did."""
    training = Training(BASE, smallest)
    expected = [repeatable(metrics) for metrics in Training(BASE, smallest).fit()]
    next(training.fit())
    state = training.state_dict()
    for name in ("decay_norms_and_biases", "head_lr_scale"):
        del state["recipe"]["optimizer"][name]
    for group in state["optimizer"]["param_groups"]:
        del group["lr_scale"]
    again = Training(BASE, smallest)
    assert again.can_resume(state)
    again.load_state_dict(state)
    assert [repeatable(metrics) for metrics in again.fit()] == expected[1:]


def test_a_folder_without_a_state_has_none(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    assert load_state(tmp_path / "missing") is None


def test_a_saved_state_replaces_the_last_and_leaves_nothing_beside_it(smallest: DeviceData, tmp_path: Path) -> None:
    training = Training(BASE, smallest)
    for _ in training.fit():
        save_state(tmp_path / "trial", training.state_dict())
    state = load_state(tmp_path / "trial")
    assert state is not None
    assert len(state["history"]) == BASE.epochs
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["state.pt"]


def test_a_finished_run_has_no_epochs_left(smallest: DeviceData) -> None:
    training = Training(BASE, smallest)
    assert len(list(training.fit())) == BASE.epochs
    assert list(training.fit()) == []


def test_epochs_and_progress_count_up_to_the_end(smallest: DeviceData) -> None:
    epochs = train(BASE, smallest)
    assert [m["epoch"] for m in epochs] == [1, 2, 3]
    assert [m["progress"] for m in epochs] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_times_are_measured(smallest: DeviceData) -> None:
    for metrics in Training(BASE, smallest).fit():
        assert metrics.seconds > 0
        assert metrics.images_per_second * metrics.seconds >= len(smallest.train)


def test_a_loss_that_is_no_number_ends_the_run_at_its_step(data: DeviceData) -> None:
    recipe = with_settings({"optimizer/name": "sgd", "optimizer/lr": 1e30, "schedule/name": "constant"})
    with pytest.raises(DivergenceError, match="not finite at step") as error:
        list(Training(recipe, data).fit())
    assert 1 <= error.value.step < 3 * 3


def test_a_run_that_diverges_later_names_the_step_of_the_whole_run(data: DeviceData) -> None:
    """The third epoch of three steps starts at step 6; its weights are spoilt before it."""
    training = Training(with_settings(NO_AUGMENT), data)
    epochs = training.fit()
    next(epochs)
    next(epochs)
    with torch.no_grad():
        next(training.model.parameters()).fill_(math.nan)
    with pytest.raises(DivergenceError) as error:
        next(epochs)
    assert error.value.step == 6
    assert training.epoch == 2


@pytest.mark.slow
def test_whitening_is_fitted_on_the_training_images_and_stays(smallest: DeviceData, tmp_path: Path) -> None:
    recipe = with_settings({"model/whitening": True, "optimizer/name": "muon", "optimizer/lr": 0.01})
    whole, stopped = Training(recipe, smallest), Training(recipe, smallest)
    expected = PatchWhitening()
    expected.fit([whole.pixels.plain(smallest.train, torch.arange(len(smallest.train)))])
    first = whole.model.get_submodule("whiten.0").weight.clone()
    torch.testing.assert_close(first, expected.weight)
    losses = [metrics.val_loss for metrics in whole.fit()]
    assert torch.equal(whole.model.get_submodule("whiten.0").weight, first)
    next(stopped.fit())
    save_state(tmp_path, stopped.state_dict())
    again = resumed(recipe, smallest, tmp_path)
    assert [metrics.val_loss for metrics in again.fit()] == losses[1:]


def test_a_few_images_are_learnt_by_heart(smallest: DeviceData) -> None:
    recipe = with_settings({"epochs": 15, "batch_size": 16, **NO_AUGMENT})
    epochs = train(recipe, smallest)
    assert epochs[0]["train_loss"] > 1.8
    assert epochs[-1]["train_loss"] < 0.8
    assert epochs[-1]["train_accuracy"] > 0.8


@pytest.mark.parametrize(("batch_size", "num_steps"), [(16, 2), (31, 1), (32, 1), (100, 1), (20, 2)])
def test_the_last_batch_may_be_smaller(batch_size: int, num_steps: int, smallest: DeviceData) -> None:
    training = Training(with_settings({"batch_size": batch_size, "epochs": 1}), smallest)
    assert training.steps_per_epoch == num_steps
    (metrics,) = training.fit()
    assert math.isfinite(metrics.train_loss)
    assert (metrics.train_accuracy * 32) == pytest.approx(round(metrics.train_accuracy * 32))
    steps = {int(state["step"]) for state in training.optimizer.state.values()}
    assert steps == {num_steps}


def test_evaluation_is_the_mean_cross_entropy_and_accuracy(data: DeviceData) -> None:
    training = Training(with_settings({"epochs": 1, "label_smoothing": 0.2}), data)
    (metrics,) = training.fit()
    assert training.evaluate(data.val) == (metrics.val_loss, metrics.val_accuracy)
    with torch.no_grad():
        logits = training.model.eval()(scaled(training, data.val.images.permute(0, 3, 1, 2))).double().numpy()
    labels = data.val.labels.numpy()
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    chosen = (odds / odds.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
    assert metrics.val_loss == pytest.approx(float(-np.log(chosen).mean()), rel=1e-4)
    assert metrics.val_accuracy == pytest.approx(float((logits.argmax(axis=1) == labels).mean()))


@pytest.mark.slow
def test_evaluation_of_more_than_one_batch_counts_every_image_once(shapes: TrainingData) -> None:
    data = DeviceData.place(cut(shapes, 32, 620), CPU)
    training = Training(with_settings({"epochs": 1, "batch_size": 16}), data)
    training.model.eval()
    with torch.no_grad():
        logits = training.model(scaled(training, data.val.images.permute(0, 3, 1, 2)))
    loss, accuracy = training.evaluate(data.val)
    assert loss == pytest.approx(float(F.cross_entropy(logits, data.val.labels)), rel=1e-4)
    assert accuracy == pytest.approx(float((logits.argmax(1) == data.val.labels).float().mean()), abs=1.5 / 620)


def test_evaluation_changes_nothing(smallest: DeviceData) -> None:
    training = Training(BASE, smallest)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    rng, generator = torch.get_rng_state(), training.generator.get_state()
    assert training.evaluate(smallest.val) == training.evaluate(smallest.val)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(training.generator.get_state(), generator)


@pytest.mark.parametrize("schedule", variants("schedule"))
def test_the_rate_of_an_epochs_last_step_is_the_schedules(schedule: str, smallest: DeviceData) -> None:
    recipe = with_settings({"schedule/name": schedule, "batch_size": 10, "epochs": 2})
    used = [m["lr"] for m in train(recipe, smallest)]
    planned = learning_rates(recipe.schedule, recipe.optimizer.lr, epochs=2, steps_per_epoch=4)
    assert used == [planned[3], planned[7]]


@pytest.mark.parametrize("schedule", variants("schedule"))
def test_every_step_uses_the_schedules_rate(schedule: str, smallest: DeviceData) -> None:
    """What an optimizer hook sees is what `describe` plots."""
    recipe = with_settings({"schedule/name": schedule, "batch_size": 16, "epochs": 2})
    training = Training(recipe, smallest)
    used: list[float] = []
    training.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    list(training.fit())
    assert used == learning_rates(recipe.schedule, recipe.optimizer.lr, epochs=2, steps_per_epoch=2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("clip", variants("grad_clip"))
def test_an_epoch_is_the_loop_that_one_writes_by_hand(smoothing: float, clip: str, smallest: DeviceData) -> None:
    """Order, augmentation, scaling, loss, clipping and step against plain torch, with the same random draws."""
    recipe = with_settings(
        {"label_smoothing": smoothing, "grad_clip/name": clip, "batch_size": 20, "epochs": 1, "optimizer/name": "sgd"}
    )
    training = Training(recipe, smallest)
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model = recipe.model.build(10)
    assert same_tensors(model, training.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9)
    total, hits = 0.0, 0
    for step, indices in enumerate(torch.split(torch.randperm(32, generator=generator), 20)):
        images = scaled(training, sample(smallest.train.images, indices, recipe.augment, generator))
        labels = smallest.train.labels[indices]
        logits = model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        recipe.grad_clip.clip(model.parameters())
        optimizer.param_groups[0]["lr"] = learning_rates(recipe.schedule, 0.003, epochs=1, steps_per_epoch=2)[step]
        optimizer.step()
        total += loss.item() * len(indices)
        hits += int((logits.argmax(1) == labels).sum())
    (metrics,) = training.fit()
    assert metrics.train_loss == pytest.approx(total / 32, rel=1e-4)
    assert metrics.train_accuracy == pytest.approx(hits / 32)
    for mine, other in zip(training.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scaling", ["dataset", "imagenet", "symmetric", "unit"])
def test_the_network_sees_scaled_pixels(scaling: str, smallest: DeviceData) -> None:
    training = Training(with_settings({"scaling": scaling}), smallest)
    seen: list[torch.Tensor] = []
    training.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    training.evaluate(smallest.val)
    (images,) = seen
    assert images.dtype == torch.float32
    torch.testing.assert_close(
        images, scaled(training, smallest.val.images.permute(0, 3, 1, 2)), rtol=1e-4, atol=1e-5, check_stride=False
    )


def test_the_data_sets_scaling_is_the_training_images_own(smallest: DeviceData) -> None:
    training = Training(BASE, smallest)
    images = scaled(training, smallest.train.images.permute(0, 3, 1, 2)).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", COMBINATIONS, ids=lambda chosen: "-".join(str(chosen[group]) for group in CHOICES))
def test_every_two_choices_train_together(chosen: dict[str, int], four: DeviceData) -> None:
    recipe = combined(chosen)
    epochs = train(recipe, four)
    assert len(epochs) == recipe.epochs
    for metrics in epochs:
        assert math.isfinite(metrics["train_loss"])
        assert math.isfinite(metrics["val_loss"])
        assert 0 <= metrics["val_accuracy"] <= 1


def test_every_two_choices_are_tried_in_a_few_dozen_runs() -> None:
    flat = [combined(chosen).flatten() for chosen in COMBINATIONS]
    for first, second in combinations(CHOICES.values(), 2):
        for one, other in product(first, second):
            assert any((one | other).items() <= recipe.items() for recipe in flat)
    assert len(COMBINATIONS) <= 40


def test_saved_weights_give_the_same_logits_and_say_what_they_are(smallest: DeviceData, tmp_path: Path) -> None:
    training = Training(with_settings({"epochs": 1}), smallest)
    next(training.fit())
    save_weights(tmp_path / "trial", training.model, {"recipe": training.recipe.model_dump(mode="json")})
    (path,) = (tmp_path / "trial").iterdir()
    assert path.name == "weights.safetensors"
    with safe_open(path, framework="pt") as file:
        recipe = Recipe.model_validate(json.loads(file.metadata()["recipe"]))
    assert recipe == training.recipe
    model = recipe.model.build(10)
    model.load_state_dict(load_file(path))
    images = scaled(training, smallest.val.images.permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), training.model.eval()(images), rtol=1e-5, atol=1e-6)


def test_the_number_of_parameters_is_the_networks(smallest: DeviceData) -> None:
    assert Training(RESNET9, smallest).num_parameters == 6_573_130


def test_placed_data_is_the_data(tiny: TrainingData, data: DeviceData) -> None:
    assert data.num_classes == 10
    assert (len(data.train), len(data.val)) == (96, 48)
    np.testing.assert_array_equal(data.train.images.permute(0, 3, 1, 2).numpy(), tiny.train.images)
    np.testing.assert_array_equal(data.val.labels.numpy(), tiny.val.labels)


@pytest.mark.slow
def test_a_run_that_trains_on_its_validation_images_too_decides_as_another_that_watched_them(
    tiny: TrainingData,
) -> None:
    recipe = BASE.replace(
        {
            "epochs": 8,
            "seed": 1,
            "schedule/name": "plateau",
            "schedule/patience": 0,
            "early_stopping/name": "patience",
            "early_stopping/patience": 2,
        }
    )
    watching = Training(recipe, placed(tiny))
    seen = list(watching.fit())
    assert len({epoch.lr for epoch in seen}) > 1
    assert len(seen) < 8
    everything = placed(tiny.all_for_training())
    assert len(everything.train) == len(tiny.train) + len(tiny.val)
    replaying = Training(recipe, everything, watched=[(epoch.val_loss, epoch.val_accuracy) for epoch in seen])
    assert [epoch.lr for epoch in replaying.fit()] == [epoch.lr for epoch in seen]
    assert replaying.counted.epoch == watching.counted.epoch
