"""What `describe` says of every shipped space is what a run of it would do."""

import io
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from cifar_tune import Recipe
from cifar_tune.describe import describe, planned_rates, render
from cifar_tune.images import NUM_CLASSES, NUM_TRAINING_IMAGES, TrainingData
from cifar_tune.search.space import load_space

SHIPPED = sorted((Path(__file__).parent.parent / "search_spaces").glob("*.py"))
every_shipped_space = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)

SHORT = Recipe(
    dataset="shapes",
    model={"name": "resnet9"},
    optimizer={"name": "adam", "lr": 0.5},
    schedule={"name": "constant"},
    epochs=2,
    batch_size=400,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def described(path: Path) -> tuple[dict[str, Any], Recipe, nn.Module]:
    """The document, the baseline that it is about, and its network for real."""
    space = load_space(path)
    recipe = space.baselines[0]
    return describe(space), recipe, recipe.model.build(NUM_CLASSES[recipe.dataset]).eval()


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Of all convolutions and linear layers, counted by hand for one image."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            counts.append(output.numel() * math.prod(module.kernel_size) * module.in_channels // module.groups)
        elif isinstance(module, nn.Linear):
            counts.append(output.numel() * module.in_features)

    handles = [module.register_forward_hook(count) for module in network.modules()]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return sum(counts)


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
    } <= document.keys()
    assert Recipe.model_validate(document["baseline"]) == recipe


@every_shipped_space
def test_the_document_is_json(path: Path) -> None:
    document, _, _ = described(path)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@every_shipped_space
def test_there_is_one_rate_per_optimizer_step(path: Path) -> None:
    document, recipe, _ = described(path)
    num_images = recipe.train_images or NUM_TRAINING_IMAGES[recipe.dataset]
    assert len(document["learning_rates"]) == recipe.epochs * math.ceil(num_images / recipe.batch_size)
    assert max(document["learning_rates"]) <= recipe.optimizer.lr


@every_shipped_space
def test_parameters_are_those_of_the_network(path: Path) -> None:
    document, _, network = described(path)
    assert document["num_parameters"] == sum(p.numel() for p in network.parameters())
    assert document["num_trainable_parameters"] == sum(p.numel() for p in network.parameters() if p.requires_grad)
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
def test_multiply_adds_are_those_of_the_convolutions_and_the_linear_layers(path: Path) -> None:
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


@pytest.mark.parametrize(("train_images", "num_steps"), [(None, 2 * 23), (400, 2), (401, 4), (100, 2)])
def test_planned_rates_count_the_images_that_are_taken(train_images: int | None, num_steps: int) -> None:
    assert planned_rates(SHORT.replace({"train_images": train_images})) == [0.5] * num_steps


def test_planned_rates_count_what_the_built_in_data_set_gives(shapes: TrainingData) -> None:
    assert len(shapes.train) == NUM_TRAINING_IMAGES["shapes"]


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_a_run_of_any_length_has_a_curve(epochs: int) -> None:
    rates = planned_rates(SHORT.replace({"train_images": 100, "epochs": epochs}))
    document = {**described(SHIPPED[0])[0], "learning_rates": rates}
    *_, curve = render(document, "the title")
    assert str(curve).splitlines()[-1] == "█" * 64
