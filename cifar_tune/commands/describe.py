"""What a search space is, before anything runs: its baseline, its ranges, its network and its learning rates."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution
from rich.table import Table
from rich.text import Text
from torch import nn

from cifar_tune.data.images import NUM_CLASSES
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.recipe.schedules import learning_rates
from cifar_tune.search.ranges import format_range
from cifar_tune.search.space import Space
from cifar_tune.training.network_size import count_layers, count_parameters

BLOCKS = " ▁▂▃▄▅▆▇█"


def describe(space: Space) -> dict[str, Any]:
    """The document that `describe --json` prints; of several baselines the first one's network and rates."""
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
    """Every searched name: its choices, or its bounds, scale and step; and what the baseline has there."""
    known = {name: value for baseline in reversed(space.baselines) for name, value in baseline.sampled_names().items()}
    found: dict[str, dict[str, Any]] = {}
    for name, distribution in space.ranges().items():
        if isinstance(distribution, CategoricalDistribution):
            found[name] = {"choices": list(distribution.choices)}
        else:
            found[name] = {key: getattr(distribution, key) for key in ("low", "high", "log", "step")}
        found[name] |= {"range": format_range(distribution), "baseline": known.get(name)}
    return found


def describe_layers(recipe: Recipe) -> tuple[list[dict[str, Any]], int]:
    """The network's children with the shape (channels, height, width) that each gives and its cost for one image.

    Also the number of parameters that are trained. Nothing is computed: the tensors are of the `meta` device.
    """
    with torch.device("meta"):
        network = recipe.model.build(NUM_CLASSES[recipe.dataset])
    layers = [
        {
            "name": layer.name,
            "type": _summary(layer.module),
            "output_shape": list(layer.output_shape),
            "num_parameters": layer.num_parameters,
            "num_macs": layer.num_macs,
        }
        for layer in count_layers(network)
    ]
    return layers, count_parameters(network[-1] if recipe.phases()[-1].frozen else network)


def _summary(module: nn.Module) -> str:
    """The kinds of the module's leaves, counted, in the order in which they first come: `2 Conv2d, BatchNorm2d`."""
    leaves = Counter(type(leaf).__name__ for leaf in module.modules() if not list(leaf.children()))
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in leaves.items() if kind != "Identity")


def planned_rates(recipe: Recipe) -> list[float]:
    """The rate of every optimizer step on the published number of training images."""
    steps = recipe.steps_per_epoch(recipe.num_train_images)
    rates: list[float] = []
    for phase in recipe.phases():
        rates += learning_rates(
            recipe.schedule, phase.lr, epochs=phase.epochs, steps_per_epoch=steps, first_epoch=phase.first_epoch
        )
    return rates


def _notes(recipe: Recipe) -> Iterator[str]:
    """What the numbers do not say."""
    if recipe.schedule.name == "plateau":
        yield "the rates are plateau's first ones: it lowers them when the validation loss no longer falls"
    if len(recipe.phases()) > 1:
        yield f"the head alone is trained for {recipe.phases()[1].first_epoch} epochs, then everything"
    if recipe.has_fixed_features:
        yield "the frozen backbone's features are computed once, and kept in the store for all trials"


def render(document: Mapping[str, Any], title: str) -> list[Table | Text]:
    """The same for a terminal."""
    recipe = Recipe.model_validate(document["baseline"])
    rates = document["learning_rates"]
    total = f"{document['num_parameters']:,} parameters, {document['num_trainable_parameters']:,} of them trained, "
    return [
        Text(title, style="bold"),
        _table(
            "search space",
            ("field", "baseline", "range"),
            [
                (name, value, document["ranges"].get(name, {}).get("range", ""))
                for name, value in _with_searched(recipe, document["ranges"]).items()
            ],
        ),
        _table(
            f"{recipe.model.name}: {total}{document['num_macs'] / 1e6:,.1f} M multiply-adds per image",
            ("layer", "output", "parameters", "made of"),
            [
                (row["name"], "x".join(map(str, row["output_shape"])), f"{row['num_parameters']:,}", row["type"])
                for row in document["layers"]
            ],
        ),
        Text(
            f"learning rate over {len(rates):,} steps: first {rates[0]:.3g}, highest {max(rates):.3g}, "
            f"last {rates[-1]:.3g}\n{_sparkline(rates)}"
        ),
        *(Text(f"Note: {note}.") for note in document["notes"]),
    ]


def _with_searched(recipe: Recipe, ranges: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's fields; a searched name that carries its variant stands in for the field, or comes last."""
    carried = {f"{n.split('/')[0]}/{n.split('/')[2]}" for n in ranges if n.count("/") == 2}
    plain = {name: value for name, value in recipe.flatten().items() if name not in carried}
    return plain | {name: spec["baseline"] for name, spec in ranges.items()}


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) if cell is not None else "-" for cell in row))
    return table


def _sparkline(values: list[float], width: int = 64) -> str:
    """The curve in one line of blocks."""
    picked = [values[i * (len(values) - 1) // (width - 1)] for i in range(width)]
    highest = max(picked) or 1.0
    return "".join(BLOCKS[round(value / highest * (len(BLOCKS) - 1))] for value in picked)
