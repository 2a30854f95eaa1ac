"""`cifar-tune describe`: a space's baseline, ranges, network layer by layer, and learning rates. Nothing is trained."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.recipe.schedules import learning_rates
from cifar_tune.search.ranges import format_range
from cifar_tune.search.space import Space
from cifar_tune.training.network_size import count_layers, count_parameters, outline
from cifar_tune.wording import format_millions, format_number

NUM_ASSUMED = 10_000  # training images, where only the files know
MAX_STEPS = 10_000_000  # whose learning rates take seconds
BLOCKS = " ▁▂▃▄▅▆▇█"


def print_description(space: Space, *, as_json: bool) -> None:
    """Print the description on stdout, as JSON or as tables."""
    document = describe(space)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        for part in render(document, str(space.path)):
            Console().print(part, highlight=False)


def describe(space: Space) -> dict[str, Any]:
    """The document that `describe --json` prints. Network and learning rates are those of the first baseline."""
    recipe = space.baselines[0]
    layers, trainable = describe_layers(recipe)
    return {
        "baseline": recipe.model_dump(mode="json"),
        "ranges": describe_ranges(space),
        "layers": layers,
        "num_parameters": sum(layer["num_parameters"] for layer in layers),
        "num_trainable_parameters": trainable,
        "num_macs": sum(layer["num_macs"] for layer in layers),
        "learning_rates": planned_rates(recipe),
        "notes": list(_notes(recipe)),
    }


def describe_ranges(space: Space) -> dict[str, dict[str, Any]]:
    """By sampled name: its choices, or its bounds, scale and step; and its value in the first baseline that has it."""
    values = {name: value for baseline in reversed(space.baselines) for name, value in baseline.sampled_names().items()}
    ranges: dict[str, dict[str, Any]] = {}
    for name, distribution in space.ranges().items():
        if isinstance(distribution, CategoricalDistribution):
            ranges[name] = {"choices": list(distribution.choices)}
        else:
            ranges[name] = {key: getattr(distribution, key) for key in ("low", "high", "log", "step")}
        ranges[name] |= {"range": format_range(distribution), "baseline": values.get(name)}
    return ranges


def describe_layers(recipe: Recipe) -> tuple[list[dict[str, Any]], int]:
    """The network's children, each with its output shape and its cost for one image; and how many parameters train.

    A shape is (channels, height, width), or (features,). Nothing is computed: the tensors are on the `meta` device.
    """
    network = outline(recipe)
    layers = [
        {
            "name": layer.name,
            "type": _summary(layer.module),
            "output_shape": list(layer.output_shape),
            "num_parameters": layer.num_parameters,
            "num_macs": layer.num_macs,
        }
        for layer in count_layers(network, recipe.image_size)
    ]
    return layers, count_parameters(network[-1] if recipe.phases()[-1].frozen else network)


def _summary(module: nn.Module) -> str:
    """The types of the module's leaves with their counts, by first occurrence: `2 Conv2d, BatchNorm2d`."""
    leaves = Counter(type(leaf).__name__ for leaf in module.modules() if not list(leaf.children()))
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in leaves.items() if kind != "Identity")


def planned_rates(recipe: Recipe) -> list[float]:
    """The learning rate of every optimizer step, for the recipe's number of training images.

    Of a user's own images it is not known here, and NUM_ASSUMED are assumed.
    """
    steps = recipe.steps_per_epoch(recipe.num_train_images or NUM_ASSUMED)
    if steps * recipe.epochs > MAX_STEPS:
        raise UserError(f"{steps * recipe.epochs:,} steps are too many to describe; lower the baseline's epochs.")
    rates: list[float] = []
    for phase in recipe.phases():
        rates += learning_rates(
            recipe.schedule, phase.lr, epochs=phase.epochs, steps_per_epoch=steps, first_epoch=phase.first_epoch
        )
    return rates


def _notes(recipe: Recipe) -> Iterator[str]:
    """What the numbers leave out."""
    if recipe.num_train_images is None:
        yield f"only your files know how many images there are; the learning rates are those for {NUM_ASSUMED:,}"
    if recipe.schedule.name == "plateau":
        yield "these are plateau's initial rates, which it lowers when the validation loss stops falling"
    if len(recipe.phases()) > 1:
        yield f"only the head is trained for the first {recipe.phases()[1].first_epoch} epochs, then the whole network"
    if recipe.optimizer.head_lr_scale != 1:
        yield f"the head's learning rate is {format_number(recipe.optimizer.head_lr_scale)} times these"
    if recipe.optimizer.name == "muon":
        scale = recipe.optimizer.adamw_lr / recipe.optimizer.lr
        yield f"these are Muon's learning rates; those of AdamW are {format_number(scale)} times as high"
    if recipe.has_fixed_features:
        yield "the frozen backbone's features are computed once, and kept in the store for all trials"


def render(document: Mapping[str, Any], title: str) -> list[Table | Text]:
    """The document as tables for a terminal."""
    recipe = Recipe.model_validate(document["baseline"])
    rates = document["learning_rates"]
    first, highest, last = (format_number(rate) for rate in (rates[0], max(rates), rates[-1]))
    sizes = (
        f"{document['num_parameters']:,} parameters, {document['num_trainable_parameters']:,} of them trained, "
        f"{format_millions(document['num_macs'])} multiply-adds per image"
    )
    return [
        Text(title, style="bold"),
        _table(
            "search space",
            ("field", "baseline", "range"),
            [
                (name, value, document["ranges"].get(name, {}).get("range", ""))
                for name, value in _with_sampled(recipe, document["ranges"]).items()
            ],
        ),
        _table(
            f"{recipe.model.name}: {sizes}",
            ("layer", "output", "parameters", "made of"),
            [
                (row["name"], "x".join(map(str, row["output_shape"])), f"{row['num_parameters']:,}", row["type"])
                for row in document["layers"]
            ],
        ),
        Text(
            f"learning rate over {len(rates):,} steps: first {first}, highest {highest}, last {last}\n"
            f"{_sparkline(rates)}"
        ),
        *(Text(f"Note: {note}.") for note in document["notes"]),
    ]


def _with_sampled(recipe: Recipe, ranges: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields and the sampled names. `optimizer/sgd/lr` replaces the field `optimizer/lr`."""
    replaced = {f"{group}/{field}" for group, *_, field in (name.split("/") for name in ranges if name.count("/") == 2)}
    fields = {name: value for name, value in recipe.flatten().items() if name not in replaced}
    return fields | {name: spec["baseline"] for name, spec in ranges.items()}


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) if cell is not None else "-" for cell in row))
    return table


def _sparkline(values: list[float], width: int = 64) -> str:
    """A curve as one line of blocks."""
    samples = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    highest = max(samples) or 1.0
    return "".join(BLOCKS[round(value / highest * (len(BLOCKS) - 1))] for value in samples)
