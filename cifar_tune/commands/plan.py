"""`run --plan`: whether a space works here, and what its search will cost; nothing is started and nothing recorded.

    cifar-tune run search_spaces/resnet9.py --plan

probe.py tries and times, cost.py knows how trials become hours.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from rich.table import Table
from rich.text import Text

from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.search.cost import Costs, Kind, kind_of, wall_seconds
from cifar_tune.search.ends import ends
from cifar_tune.search.resources import Resources
from cifar_tune.search.space import NUM_RANGE_DRAWS, Draw, Space
from cifar_tune.training.features import MAX_BYTES
from cifar_tune.training.loop import is_out_of_memory
from cifar_tune.training.probe import NUM_IMAGES_ON_A_CPU, Price, Probe, memory_of
from cifar_tune.wording import format_bytes, format_hours, format_setting

NUM_SHOWN_DRAWS = 3
NUM_TIMED_KINDS = 40  # the commonest; of a space with more, the others are taken to cost what their likes do

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A kind of trials: the recipe's price that stands for it, its batch sizes, its share of the trials."""

    kind: Kind
    price: Price
    batches: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Plan:
    """What a search of `num_trials` will be like. Seconds are of the whole search, bytes of the store."""

    draws: Sequence[Draw]
    rows: Sequence[Row]
    num_trials: int
    resources: Resources
    num_epochs: tuple[float, float]  # of an average trial: expected, planned
    expected_seconds: float
    worst_seconds: float
    running_bytes: int
    kept_bytes: int
    features_bytes: int
    notes: Sequence[str]


def make_plan(space: Space, data: TrainingData, num_trials: int, resources: Resources, say: Say) -> Plan:
    """Check the ends of all ranges, time every kind of trial; a UserError names the values that do not work."""
    device = torch.device("cuda" if resources.gpus_per_trial else "cpu")
    probe = Probe(data, device, resources.cpus_per_trial)
    notes = check_ends(space, probe, memory_of(device), say)
    draws = space.draw(max(NUM_RANGE_DRAWS, num_trials))
    recipes = [*space.baselines, *(each.recipe for each in draws)]
    rows = price_kinds(recipes, probe, say)
    costs = Costs(space.search.scheduler.expected_epochs)
    for row in rows:
        costs.add_epochs(row.price.recipe, [row.price.epoch_seconds])
    drawn = recipes[len(space.baselines) :]
    num_baselines = min(num_trials, len(space.baselines))
    starts = _starts(recipes[:num_trials], {row.kind: row.price for row in rows})
    whole = [costs.seconds_to_the_end(recipe) for recipe in space.baselines[:num_baselines]]
    whole += [price.start_seconds for price in starts]

    def search_seconds(trial_seconds: Callable[[Recipe], float]) -> float:
        each = mean(map(trial_seconds, drawn))
        return wall_seconds([*whole, *[each] * (num_trials - num_baselines)], resources.max_concurrent)

    prices = [row.price for row in rows]
    return Plan(
        draws=draws[:NUM_SHOWN_DRAWS],
        rows=rows,
        num_trials=num_trials,
        resources=resources,
        num_epochs=(mean(map(costs.epochs, drawn)), mean(recipe.epochs for recipe in drawn)),
        expected_seconds=search_seconds(costs.seconds),
        worst_seconds=search_seconds(costs.seconds_to_the_end),
        running_bytes=resources.max_concurrent * max(price.state_bytes + price.weights_bytes for price in prices),
        kept_bytes=max(price.weights_bytes for price in prices),
        features_bytes=min(MAX_BYTES, sum(price.features_bytes for price in starts)),
        notes=[*notes, *_notes(rows, resources, device)],
    )


# Checking


def check_ends(space: Space, probe: Probe, memory_bytes: int, say: Say) -> list[str]:
    """Try the baselines and the ends of all ranges on a device with so much memory; what to be warned of."""
    cases = [(f"baseline {number}", recipe) for number, recipe in enumerate(space.baselines)]
    cases += [(str(end), end.recipe) for end in ends(space)]
    tried: dict[Recipe, str] = {}
    for name, recipe in cases:
        tried.setdefault(recipe, name)
    failures, warnings = [], []
    for number, (recipe, name) in enumerate(tried.items(), start=1):
        say(f"Trying recipe {number} of {len(tried)} at the ends of the ranges: {name}")
        failure, warning = _try(probe, recipe, memory_bytes)
        failures += [f"{name} {failure}"] if failure else []
        warnings += [f"Warning: {name} {warning}."] if warning else []
    if failures:
        raise UserError(f"{space.path}: {'; '.join(failures)}; change the range, or fix the field with --set.")
    return warnings


def _try(probe: Probe, recipe: Recipe, memory_bytes: int) -> tuple[str | None, str | None]:
    """What makes the recipe impossible here, and what makes it doubtful."""
    try:
        attempt = probe.attempt(recipe)
    except Exception as error:  # whatever a network can fail with
        return _reason(error), None
    if attempt.memory_bytes > memory_bytes:
        need, there = format_bytes(attempt.memory_bytes), format_bytes(memory_bytes)
        return f"needs about {need} of memory in a step, where there are {there}", None
    return None, None if attempt.is_finite else "has no finite loss after two steps"


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "runs out of memory"
    return f"fails with {type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"


# Pricing


def price_kinds(recipes: Sequence[Recipe], probe: Probe, say: Say) -> list[Row]:
    """Time the commonest kinds, each by its recipe with the largest batch."""
    members: dict[Kind, list[Recipe]] = defaultdict(list)
    for recipe in recipes:
        members[kind_of(recipe)].append(recipe)
    rows = []
    counts = Counter({kind: len(alike) for kind, alike in members.items()}).most_common(NUM_TIMED_KINDS)
    for number, (kind, count) in enumerate(counts, start=1):
        say(f"Timing kind {number} of {len(counts)}: {kind.network}, {kind.trained}, batches from {kind.batch}")
        sizes = [recipe.batch_size for recipe in members[kind]]
        price = _price(probe, max(members[kind], key=lambda recipe: recipe.batch_size))
        rows.append(Row(kind, price, (min(sizes), max(sizes)), count / len(recipes)))
    return sorted(rows, key=lambda row: (row.kind.network, row.kind.trained, row.kind.batch))


def _price(probe: Probe, recipe: Recipe) -> Price:
    """The ends of the ranges work one by one; together they may be too much."""
    try:
        return probe.price(recipe)
    except Exception as error:  # as above
        what = f"{kind_of(recipe).network} with batch_size={recipe.batch_size}"
        raise UserError(f"{what} {_reason(error)}; change the ranges, or fix a field with --set.") from error


def _starts(recipes: Iterable[Recipe], prices: Mapping[Kind, Price]) -> list[Price]:
    """The prices of the kept features that these trials compute between them, each once."""
    fixed = [recipe for recipe in recipes if recipe.has_fixed_features and kind_of(recipe) in prices]
    return list({_features_of(recipe): prices[kind_of(recipe)] for recipe in fixed}.values())


def _features_of(recipe: Recipe) -> tuple[object, ...]:
    """What trials that share kept features have in common."""
    views = (recipe.num_views, recipe.augment) if recipe.num_views else None
    return kind_of(recipe).network, recipe.model.weights, recipe.scaling, recipe.precision, views


def _notes(rows: Sequence[Row], resources: Resources, device: torch.device) -> list[str]:
    """What the numbers do not say."""
    notes = []
    if device.type == "cpu":
        notes.append(
            f"On this CPU ranges were tried on {NUM_IMAGES_ON_A_CPU} images a step, seconds and memory scaled."
        )
        if os.getloadavg()[0] > (os.cpu_count() or 1):
            notes.append("Warning: other programs keep the cores busy; with the machine to itself a search is faster.")
    at_once = resources.max_concurrent if device.type == "cpu" else int(1 / min(1.0, resources.gpus_per_trial))
    need = at_once * max(row.price.memory_bytes for row in rows)
    if need > memory_of(device):
        notes.append(
            f"Warning: {at_once} of the largest trials at a time need {format_bytes(need)} of memory, where there are "
            f"{format_bytes(memory_of(device))}; lower --max-concurrent."
        )
    return notes


# Telling


def render(plan: Plan, space: Space, data: TrainingData, time_budget: float | None) -> list[Table | Text]:
    """The plan for people; `time_budget` in seconds."""
    return [
        Text(_headline(plan, space, data), style="bold"),
        *(Text(f"Such as {', '.join(format_setting(*pair) for pair in each.params.items())}") for each in plan.draws),
        _table(plan.rows),
        *(Text(line) for line in [*_told_times(plan, time_budget), _told_disk(plan), *plan.notes]),
    ]


def _headline(plan: Plan, space: Space, data: TrainingData) -> str:
    given = plan.resources
    each = f"{given.cpus_per_trial} {'core' if given.cpus_per_trial == 1 else 'cores'}"
    if given.gpus_per_trial:
        each += f" and {given.gpus_per_trial:g} GPU"
    return (
        f"{space.path}: {plan.num_trials} trials, {given.max_concurrent} at a time on {each} each; {data.dataset}, "
        f"{len(data.train):,} training and {len(data.val):,} validation images"
    )


def _table(rows: Sequence[Row]) -> Table:
    columns = ("network", "trained", "batch", "trials", "parameters", "seconds per epoch", "memory", "timed on")
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        price, (low, high) = row.price, row.batches
        table.add_row(
            row.kind.network,
            row.kind.trained,
            str(low) if low == high else f"{low} to {high}",
            f"{100 * row.share:.0f} %",
            f"{price.num_parameters:,}",
            f"{price.epoch_seconds:,.0f}" if price.epoch_seconds >= 10 else f"{price.epoch_seconds:.2g}",
            format_bytes(price.memory_bytes),
            f"{price.num_images} images a step",
        )
    return table


def _told_times(plan: Plan, time_budget: float | None) -> list[str]:
    expected, planned = plan.num_epochs
    lines = [
        f"Time: about {format_hours(plan.expected_seconds)} expected, with {expected:.1f} of {planned:.1f} epochs a "
        f"trial; {format_hours(plan.worst_seconds)} if every trial runs to its end."
    ]
    if time_budget is not None:
        share = min(1.0, time_budget / plan.expected_seconds)
        lines.append(f"--time-budget {format_hours(time_budget)}: about {int(share * plan.num_trials)} of the trials.")
    return lines


def _told_disk(plan: Plan) -> str:
    features = f", {format_bytes(plan.features_bytes)} of kept features" if plan.features_bytes else ""
    return (
        f"Disk: at most {format_bytes(plan.running_bytes)} of checkpoints while it runs{features}; "
        f"{format_bytes(plan.kept_bytes)} of weights afterwards, and a few MiB of results."
    )
