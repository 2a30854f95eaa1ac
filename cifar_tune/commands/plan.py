"""`cifar-tune run --plan`, a dry run: whether the space works on this machine, and how long its search will take.

    cifar-tune run search_spaces/resnet9.py --plan

training/probe.py tries and times recipes, search/cost.py computes hours from them. No search is started or recorded.
"""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tune.commands.display import progress_console
from cifar_tune.commands.run import RunOptions
from cifar_tune.commands.session import digest_weights, load_data
from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.text import output_console
from cifar_tune.search.cost import Costs, Kind, kind_of, wall_seconds
from cifar_tune.search.ends import ends
from cifar_tune.search.resources import Resources, plan_resources, this_machine
from cifar_tune.search.space import NUM_RANGE_DRAWS, Draw, Space
from cifar_tune.store import open_store
from cifar_tune.training.features import MAX_BYTES
from cifar_tune.training.memory import is_out_of_memory, memory_of
from cifar_tune.training.probe import NUM_IMAGES_ON_A_CPU, Price, Probe
from cifar_tune.wording import format_bytes, format_count, format_hours, format_percent, format_setting

NUM_SHOWN_DRAWS = 3
NUM_TIMED_KINDS = 40  # the most frequent; rarer kinds are assumed to cost as much as the most similar of these

ALLOWED_FLAGS = ("--num-trials", "--time-budget", "--cpus-per-trial", "--max-concurrent")

ShowProgress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A kind of trials: the price of the recipe that represents it, its batch sizes, its share of the trials."""

    kind: Kind
    price: Price
    batches: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Plan:
    """Estimates for a search of `num_trials`. Seconds are wall-clock time of the whole search, bytes are on disk."""

    draws: Sequence[Draw]
    rows: Sequence[Row]
    num_trials: int
    resources: Resources
    num_epochs: tuple[float, float]  # of an average trial: with early stopping, and without
    expected_seconds: float
    worst_seconds: float  # if no trial is stopped early
    running_bytes: int
    kept_bytes: int
    features_bytes: int
    notes: Sequence[str]


def plan_search(space: Space, options: RunOptions) -> None:
    """Check the space on this machine and print what its search will cost, on stdout."""
    options.refuse_all_but("--plan is a dry run of a whole new search on this machine", *ALLOWED_FLAGS)
    training = options.training
    store, console = open_store(training.store), progress_console()
    num_trials = options.num_trials or space.search.num_trials
    resources = plan_resources(
        [this_machine(torch.cuda.device_count())],
        num_trials,
        cpus_per_trial=training.cpus_per_trial,
        gpus_per_trial=training.gpus_per_trial,
        max_concurrent=training.max_concurrent,
    )
    digest_weights([*space.baselines, *space.draw_recipes(NUM_RANGE_DRAWS)], console)
    data = load_data(space.baselines[0], store, training)
    with _progress_line(console) as show_progress:
        plan = make_plan(space, data, num_trials, resources, show_progress)
    out = output_console(sys.stdout)
    for part in render(plan, space, data, training.time_budget):
        out.print(part, highlight=False, soft_wrap=isinstance(part, Text))


@contextmanager
def _progress_line(console: Console) -> Iterator[ShowProgress]:
    """Show the progress in one line that changes on a terminal, in a line for each step elsewhere."""
    if not console.is_interactive:
        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    with console.status("Starting ...") as status:
        yield lambda line: status.update(Text(line))


def make_plan(
    space: Space, data: TrainingData, num_trials: int, resources: Resources, show_progress: ShowProgress
) -> Plan:
    """Check the ends of all ranges and time every kind of trial; a UserError names the values that do not work."""
    device = torch.device("cuda" if resources.gpus_per_trial else "cpu")
    probe = Probe(data, device, resources.cpus_per_trial)
    notes = check_ends(space, probe, memory_of(device), show_progress)
    draws = space.draw(max(NUM_RANGE_DRAWS, num_trials))
    recipes = [*space.baselines, *(each.recipe for each in draws)]
    rows = price_kinds(recipes, probe, show_progress)
    costs = Costs(space.search.scheduler.expected_epochs)
    for row in rows:
        costs.add_epochs(row.price.recipe, [row.price.epoch_seconds])
    drawn = recipes[len(space.baselines) :]
    num_baselines = min(num_trials, len(space.baselines))
    features = _price_features(recipes[:num_trials], {row.kind: row.price for row in rows})
    fixed_seconds = [costs.seconds_to_the_end(recipe) for recipe in space.baselines[:num_baselines]]
    fixed_seconds += [price.start_seconds for price in features]

    def search_seconds(trial_seconds: Callable[[Recipe], float]) -> float:
        average = mean(map(trial_seconds, drawn))
        return wall_seconds([*fixed_seconds, *[average] * (num_trials - num_baselines)], resources.max_concurrent)

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
        features_bytes=min(MAX_BYTES, sum(price.features_bytes for price in features)),
        notes=[*notes, *_notes(rows, resources, device)],
    )


# Checking


def check_ends(space: Space, probe: Probe, memory_bytes: int, show_progress: ShowProgress) -> list[str]:
    """Try the baselines and the ends of all ranges on a device with `memory_bytes`. Returns warnings.

    Raises a UserError with every value that cannot work.
    """
    cases = [(f"baseline {number}", recipe) for number, recipe in enumerate(space.baselines)]
    cases += [(str(end), end.recipe) for end in ends(space)]
    names: dict[Recipe, str] = {}
    for name, recipe in cases:
        names.setdefault(recipe, name)
    failures, warnings = [], []
    for number, (recipe, name) in enumerate(names.items(), start=1):
        show_progress(f"Trying recipe {number} of {len(names)} at the ends of the ranges: {name}")
        failure, warning = _try(probe, recipe, memory_bytes)
        failures += [f"{name} {failure}"] if failure else []
        warnings += [f"Warning: {name} {warning}."] if warning else []
    if failures:
        raise UserError(f"{space.path}: {'; '.join(failures)}; change the range, or fix the field with --set.")
    return warnings


def _try(probe: Probe, recipe: Recipe, memory_bytes: int) -> tuple[str | None, str | None]:
    """Why the recipe cannot be trained here, and why it may not train well; None for each if nothing was noticed."""
    try:
        attempt = probe.attempt(recipe)
    except Exception as error:  # a network can fail with anything
        return _reason(error), None
    if attempt.memory_bytes > memory_bytes:
        need, available = format_bytes(attempt.memory_bytes), format_bytes(memory_bytes)
        return f"needs about {need} of memory for a step, of {available} available", None
    return None, None if attempt.is_finite else "has no finite loss after two steps"


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return "runs out of memory"
    return f"fails with {type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"


# Pricing


def price_kinds(recipes: Sequence[Recipe], probe: Probe, show_progress: ShowProgress) -> list[Row]:
    """Time the most frequent kinds of recipes, each by its recipe with the largest batch."""
    members: dict[Kind, list[Recipe]] = defaultdict(list)
    for recipe in recipes:
        members[kind_of(recipe)].append(recipe)
    rows = []
    counts = Counter({kind: len(group) for kind, group in members.items()}).most_common(NUM_TIMED_KINDS)
    for number, (kind, count) in enumerate(counts, start=1):
        progress = f"Timing kind {number} of {len(counts)}"
        show_progress(f"{progress}: {kind.network}, training {kind.trained}, batch size from {kind.batch}")
        sizes = [recipe.batch_size for recipe in members[kind]]
        price = _price(probe, max(members[kind], key=lambda recipe: recipe.batch_size))
        rows.append(Row(kind, price, (min(sizes), max(sizes)), count / len(recipes)))
    return sorted(rows, key=lambda row: (row.kind.network, row.kind.trained, row.kind.batch))


def _price(probe: Probe, recipe: Recipe) -> Price:
    """Time the recipe. The ends of the ranges work one by one, but a combination of them may fail: a UserError."""
    try:
        return probe.price(recipe)
    except Exception as error:  # as above
        combination = f"{kind_of(recipe).network} with batch_size={recipe.batch_size}"
        raise UserError(f"{combination} {_reason(error)}; change the ranges, or fix a field with --set.") from error


def _price_features(recipes: Iterable[Recipe], prices: Mapping[Kind, Price]) -> list[Price]:
    """The prices of the features that the first trial with them computes, and the others share: each once."""
    frozen = [recipe for recipe in recipes if recipe.has_fixed_features and kind_of(recipe) in prices]
    return list({_features_of(recipe): prices[kind_of(recipe)] for recipe in frozen}.values())


def _features_of(recipe: Recipe) -> tuple[object, ...]:
    """What trials have in common that share features."""
    views = (recipe.num_views, recipe.augment) if recipe.num_views else None
    return kind_of(recipe).network, recipe.model.weights, recipe.scaling, recipe.precision, views


def _notes(rows: Sequence[Row], resources: Resources, device: torch.device) -> list[str]:
    """How far to trust the estimates, and warnings about this machine."""
    notes = []
    if device.type == "cpu":
        notes.append(
            f"On this CPU a step was tried on {NUM_IMAGES_ON_A_CPU} images; memory and time are scaled to the batch."
        )
        if os.getloadavg()[0] > (os.cpu_count() or 1):
            notes.append("Warning: other programs keep the cores busy. The search is faster without them.")
    at_once = resources.max_concurrent if device.type == "cpu" else int(1 / min(1.0, resources.gpus_per_trial))
    need = at_once * max(row.price.memory_bytes for row in rows)
    if need > memory_of(device):
        notes.append(
            f"Warning: {at_once} of the largest trials at a time need {format_bytes(need)} of memory, of "
            f"{format_bytes(memory_of(device))} available; lower --max-concurrent."
        )
    return notes


# Printing


def render(plan: Plan, space: Space, data: TrainingData, time_budget: float | None) -> list[Table | Text]:
    """The plan as text and a table; `time_budget` in seconds."""
    examples = [", ".join(format_setting(*param) for param in draw.params.items()) for draw in plan.draws]
    return [
        Text(_describe_search(plan, space, data), style="bold"),
        *(Text(f"Example: {example}") for example in examples),
        _table(plan.rows),
        *(Text(line) for line in [*_describe_time(plan, time_budget), _describe_disk(plan), *plan.notes]),
    ]


def _describe_search(plan: Plan, space: Space, data: TrainingData) -> str:
    resources = plan.resources
    share = format_count(resources.cpus_per_trial, "core")
    if resources.gpus_per_trial:
        share += f" and {resources.gpus_per_trial:g} GPU"
    return (
        f"{space.path}: {plan.num_trials} trials, {resources.max_concurrent} at a time on {share} each; "
        f"{data.dataset}, {len(data.train):,} training and {len(data.val):,} validation images"
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
            format_percent(row.share, digits=0),
            f"{price.num_parameters:,}",
            f"{price.epoch_seconds:,.0f}" if price.epoch_seconds >= 10 else f"{price.epoch_seconds:.2g}",
            format_bytes(price.memory_bytes),
            f"{price.num_images} images a step",
        )
    return table


def _describe_time(plan: Plan, time_budget: float | None) -> list[str]:
    expected, planned = plan.num_epochs
    lines = [
        f"Time: about {format_hours(plan.expected_seconds)}, with {expected:.1f} of {planned:.1f} epochs per trial; "
        f"{format_hours(plan.worst_seconds)} if no trial is stopped early."
    ]
    if time_budget is not None:
        num_trials = int(min(1.0, time_budget / plan.expected_seconds) * plan.num_trials)
        lines.append(f"--time-budget {format_hours(time_budget)}: enough for about {num_trials} of the trials.")
    return lines


def _describe_disk(plan: Plan) -> str:
    features = f", {format_bytes(plan.features_bytes)} of features" if plan.features_bytes else ""
    return (
        f"Disk: at most {format_bytes(plan.running_bytes)} of checkpoints during the search{features}; "
        f"{format_bytes(plan.kept_bytes)} of weights afterwards, and a few MiB of results."
    )
