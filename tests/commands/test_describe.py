"""`describe` shows of every shipped space what a run of it would do."""

import io
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_tune import Recipe
from cifar_tune.commands.describe import NUM_ASSUMED, describe, planned_rates, render
from cifar_tune.data.images import NUM_CLASSES, TrainingData
from cifar_tune.data.split import num_training_images
from cifar_tune.recipe.recipe import Value
from cifar_tune.search.space import Space, load_space

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
every_shipped_space = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)

SHORT = Recipe(
    dataset="shapes",
    model={"name": "resnet9"},
    optimizer={"name": "adam", "lr": 0.5},
    schedule={"name": "constant"},
    epochs=2,
    batch_size=400,
)


@cache
def described(path: Path) -> tuple[dict[str, Any], Recipe, nn.Module]:
    """The document, the baseline that it describes, and the baseline's network with real tensors."""
    space = load_space(path)
    recipe = space.baselines[0]
    return describe(space), recipe, recipe.model.build(NUM_CLASSES[recipe.dataset]).eval()


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """The multiply-adds of all that the network computes for one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return int(counter.get_total_flops()) // 2


def printed(document: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    for part in render(document, "the title"):
        console.print(part, highlight=False)
    return console.export_text()


@every_shipped_space
def test_the_document_has_its_parts(path: Path) -> None:
    document, recipe, _ = described(path)
    assert {
        "baseline",
        "ranges",
        "layers",
        "num_parameters",
        "num_trainable_parameters",
        "num_macs",
        "learning_rates",
        "notes",
    } <= document.keys()
    assert Recipe.model_validate(document["baseline"]) == recipe


@every_shipped_space
def test_the_document_is_json(path: Path) -> None:
    document, _, _ = described(path)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@every_shipped_space
def test_there_is_one_rate_per_optimizer_step(path: Path) -> None:
    document, recipe, _ = described(path)
    num_images = recipe.num_train_images or NUM_ASSUMED
    assert len(document["learning_rates"]) == recipe.epochs * math.ceil(num_images / recipe.batch_size)
    assert max(document["learning_rates"]) <= recipe.optimizer.lr


@every_shipped_space
def test_parameters_are_those_of_the_network(path: Path) -> None:
    document, recipe, network = described(path)
    assert document["num_parameters"] == sum(p.numel() for p in network.parameters())
    trained = list(network.children())[-1] if recipe.finetune.name == "frozen" else network
    assert document["num_trainable_parameters"] == sum(p.numel() for p in trained.parameters())
    assert document["num_parameters"] == sum(layer["num_parameters"] for layer in document["layers"])


@every_shipped_space
def test_layers_are_the_networks_children_with_what_they_give(path: Path) -> None:
    document, recipe, network = described(path)
    shapes: dict[str, list[int]] = {}
    for name, child in network.named_children():
        child.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: list(output.shape[1:])}))
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert {layer["name"]: layer["output_shape"] for layer in document["layers"]} == shapes
    assert document["layers"][-1]["output_shape"] == [NUM_CLASSES[recipe.dataset]]


@every_shipped_space
def test_multiply_adds_are_those_that_torch_counts(path: Path) -> None:
    document, _, network = described(path)
    assert document["num_macs"] == multiply_adds(network, torch.zeros(1, 3, 32, 32))


@every_shipped_space
def test_ranges_are_the_spaces_with_the_baselines_values(path: Path) -> None:
    document, recipe, _ = described(path)
    assert list(document["ranges"]) == list(load_space(path).ranges())
    names = recipe.sampled_names()
    for name, spec in document["ranges"].items():
        assert {"range", "baseline"} <= spec.keys()
        assert ("choices" in spec) != ({"low", "high", "log", "step"} <= spec.keys())
        if name in names:
            assert spec["baseline"] == names[name]
            inside = spec["choices"] if "choices" in spec else [spec["baseline"]]
            assert spec["baseline"] in inside
            assert "choices" in spec or spec["low"] <= spec["baseline"] <= spec["high"]


@every_shipped_space
@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_of_any_width_shows_it(path: Path, width: int) -> None:
    document, recipe, _ = described(path)
    text = printed(document, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "the title" in text
    assert recipe.model.name in text
    assert f"{document['num_parameters']:,}" in text
    for layer in document["layers"]:
        assert layer["name"] in text


@every_shipped_space
def test_a_wide_terminal_shows_every_field_with_its_range(path: Path) -> None:
    document, recipe, _ = described(path)
    lines = [" ".join(line.split()) for line in printed(document, 300).splitlines()]
    for name, spec in document["ranges"].items():
        assert any(line.startswith(f"{name} ") and line.endswith(spec["range"]) for line in lines)
    for name in recipe.flatten():
        carried = name.replace("/", f"/{recipe.flatten().get(name.split('/')[0] + '/name')}/", 1)
        assert any(line.startswith((f"{name} ", f"{carried} ")) for line in lines)


@pytest.mark.parametrize(("train_images", "num_steps"), [(None, 2 * 23), (400, 2), (402, 4), (401, 2), (100, 2)])
def test_planned_rates_count_the_images_that_are_taken(train_images: int | None, num_steps: int) -> None:
    assert planned_rates(SHORT.replace({"train_images": train_images})) == [0.5] * num_steps


def test_planned_rates_count_what_the_built_in_data_set_gives(shapes: TrainingData) -> None:
    assert len(shapes.train) == num_training_images("shapes")


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_a_run_of_any_length_has_a_curve(epochs: int) -> None:
    rates = planned_rates(SHORT.replace({"train_images": 100, "epochs": epochs}))
    document = {**described(SHIPPED[0])[0], "learning_rates": rates, "notes": []}
    *_, curve = render(document, "the title")
    assert str(curve).splitlines()[-1] == "█" * 64


PLAIN: dict[str, Value] = {"augment/flip": False, "augment/crop_padding": 0}
PLATEAU = "these are plateau's initial rates"
TWO_PHASE = "only the head is trained for the first 3 epochs, then the whole network"
FEATURES = "the frozen backbone's features are computed once"


@pytest.mark.parametrize(
    ("settings", "notes"),
    [
        ({}, []),
        ({"finetune/name": "full", **PLAIN}, []),
        ({"schedule/name": "plateau"}, [PLATEAU]),
        ({"optimizer/head_lr_scale": 3.0}, ["the head's learning rate is 3 times these"]),
        (
            {"optimizer/name": "muon", "optimizer/lr": 0.02},
            ["these are Muon's learning rates; those of AdamW"],
        ),
        ({"finetune/name": "frozen"}, []),
        ({"finetune/name": "frozen", **PLAIN}, [FEATURES]),
        ({"finetune/name": "frozen", "finetune/views": 2}, [FEATURES]),
        ({"finetune/name": "two-phase", "finetune/head_epochs": 3}, [TWO_PHASE]),
        (
            {"finetune/name": "two-phase", "finetune/head_epochs": 3, "schedule/name": "plateau", **PLAIN},
            [PLATEAU, TWO_PHASE, FEATURES],
        ),
    ],
    ids=str,
)
def test_what_the_numbers_leave_out_is_noted(tmp_path: Path, settings: dict[str, Value], notes: list[str]) -> None:
    document = describe(space_of(tmp_path, SHORT.replace({"epochs": 8, **settings})))
    assert len(document["notes"]) == len(notes)
    assert all(text.startswith(note) for text, note in zip(document["notes"], notes, strict=True))
    text = printed(document, 200)
    assert [line for line in text.splitlines() if line.startswith("Note: ")] == [
        f"Note: {note}." for note in document["notes"]
    ]


@pytest.mark.parametrize(
    ("finetune", "num_trained"),
    [("scratch", 6_573_130), ("full", 6_573_130), ("two-phase", 6_573_130), ("frozen", 5130)],
)
def test_trained_parameters_are_those_of_the_last_phase(tmp_path: Path, finetune: str, num_trained: int) -> None:
    document = describe(space_of(tmp_path, SHORT.replace({"finetune/name": finetune})))
    assert (document["num_parameters"], document["num_trainable_parameters"]) == (6_573_130, num_trained)


def test_planned_rates_are_those_of_every_phase() -> None:
    settings: dict[str, Value] = {"finetune/name": "two-phase", "finetune/head_epochs": 2, "finetune/lr": 0.01}
    recipe = SHORT.replace({**settings, "epochs": 5, "train_images": 400, "schedule/name": "step"})
    assert planned_rates(recipe.replace({"schedule/every": 3})) == [0.5, 0.5, 0.01, 0.005, 0.005]


def space_of(folder: Path, baseline: Recipe) -> Space:
    """A space around one recipe."""
    path = folder / "a_space.py"
    path.write_text(
        f"from cifar_tune import Recipe\n\nBASELINE = Recipe.model_validate({baseline.model_dump()!r})\n\n"
        "def space(trial):\n"
        "    return BASELINE.replace({'batch_size': trial.suggest_categorical('batch_size', [200, 400])})\n",
        encoding="utf-8",
    )
    return load_space(path)
