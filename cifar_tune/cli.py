"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once.

Exit codes: 0; 2 for what the user can mend, with one sentence; 1 for what failed; 130 for Ctrl-C.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from cifar_tune import DEFAULT_STORE
from cifar_tune.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from cifar_tune.commands.run import RunOptions
    from cifar_tune.report.findings import Findings
    from cifar_tune.store import Store
    from cifar_tune.trials.trial import Trial

app = typer.Typer(
    help="Hyperparameter search for CIFAR classifiers, from published recipes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Format = Literal["table", "csv", "json", "markdown", "html"]

SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE", help="A search-space file: search_spaces/resnet9.py.")]
StoreFolder = Annotated[
    Path | None,
    typer.Option("--store", envvar="CIFAR_TUNE_STORE", help=f"The folder for all results; ./{DEFAULT_STORE} if unset."),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="CIFAR_TUNE_DATA_DIR", help="A folder with the data set; without it, it is downloaded."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Fix a field of the recipe in every trial: optimizer/lr=0.02."),
]

Cpus = Annotated[int | None, typer.Option(min=1, help="Cores of a trial; one if unset.")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of a trial; one if there are any.")]
Concurrent = Annotated[int | None, typer.Option(min=1, help="The most trials to run at a time.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster to use: HOST:PORT or auto.")]


@app.command()
def run(
    space: SpaceFile,
    name: Annotated[str | None, typer.Option(help="The search's name; the file's stem if unset.")] = None,
    num_trials: Annotated[int | None, typer.Option(min=1, help="How many trials; more continue a search.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this long: 90s, 30m, 2h.")] = None,
    settings: Settings = None,
    data_dir: DataFolder = None,
    store: StoreFolder = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler; the trials' own is a field of the recipe.")] = 0,
    address: Address = None,
    extends: Annotated[
        str | None, typer.Option("--extend", metavar="OLD", help="Learn from an older search of another space.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Check the space here and price the search; start nothing.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Train the baseline in this process, without Ray.")] = False,
) -> None:
    """Search a space; the same command again resumes, and reports when the search is complete."""
    from cifar_tune.commands.display import progress_console
    from cifar_tune.commands.run import RunOptions, debug_baseline, plan_search, run_search
    from cifar_tune.search.space import load_space
    from cifar_tune.store import check_name

    loaded = load_space(space, _settings(settings))
    console = progress_console()
    options = RunOptions(
        num_trials=num_trials,
        time_budget=None if time_budget is None else _seconds(time_budget),
        data_dir=data_dir,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        seed=seed,
        address=address,
        extends=extends,
        store=store,
    )
    if plan and debug:
        raise UserError("--plan starts nothing and --debug trains the baseline; leave one of them out.")
    if plan:
        _refuse_with_plan(options, name)
        plan_search(loaded, _store(store), options, console)
    elif debug:
        _refuse_with_debug(options, name)
        debug_baseline(loaded, _store(store), options, console)
    else:
        search = check_name(space.stem if name is None else name)
        raise typer.Exit(run_search(loaded, _store(store), search, options, console))


@app.command()
def describe(
    space: SpaceFile,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="As a document for a program.")] = False,
) -> None:
    """Show a space: its baseline and ranges, the network layer by layer, the learning rates."""
    import json

    from rich.console import Console

    from cifar_tune.commands.describe import describe, render
    from cifar_tune.search.space import load_space

    document = describe(load_space(space, _settings(settings)))
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        for part in render(document, str(space)):
            Console().print(part, highlight=False)


@app.command()
def report(
    searches: Annotated[list[str] | None, typer.Argument(metavar="[SEARCH]...", help="All if none is named.")] = None,
    store: StoreFolder = None,
    kind: Annotated[Format, typer.Option("--format", help="Of the output.")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of to stdout.")] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Show one trial of one search whole.")] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Compare groups of trials: model, schedule, model,schedule, a searched value; or document."),
    ] = None,
) -> None:
    """The leaderboard: every trial with its gain over the published recipe."""
    from cifar_tune.report.findings import read_findings
    from cifar_tune.report.text import output_console
    from cifar_tune.store import Store, absolute

    opened = Store(absolute(store or Path(DEFAULT_STORE)))  # a report makes no folder
    found = read_findings(opened, searches or [])
    if trial is not None:
        if kind != "table" or output or by:
            raise UserError("--trial prints one trial for people; leave out --format, --output and --by.")
        _report_trial(found.searches, trial, opened)
        return
    if by is not None and kind == "html":
        raise UserError("--by compares in a table; the page of --format html has its own comparisons, leave out --by.")
    if kind == "table":
        parts = _report_parts(found, by)
        with _output(output) as file:
            console = output_console(file)
            for part in parts(console.width):
                console.print(part, highlight=False)
    else:
        text = _report_text(found, by, kind)  # whole, before a file that was there is written over
        with _output(output) as file:
            file.write(text)


def _report_parts(found: "Findings", by: str | None) -> "Callable[[int], Sequence[Table | Text]]":
    """For a terminal of so many characters."""
    from functools import partial

    from cifar_tune.report.comparison import compare
    from cifar_tune.report.text import as_plain_table, render

    if by is None:
        return partial(render, found)
    groups = compare(found, by)
    return lambda width: as_plain_table(groups, f"by {by}", width)


def _report_text(found: "Findings", by: str | None, kind: Literal["csv", "json", "markdown", "html"]) -> str:
    if kind == "html":
        from cifar_tune.report.page import render_page

        return render_page(found)
    from cifar_tune.report.comparison import compare
    from cifar_tune.report.text import format_frame, format_report

    return format_report(found, kind) if by is None else format_frame(compare(found, by), kind)


def _report_trial(found: Mapping[str, "Sequence[Trial]"], number: int, store: "Store") -> None:
    from cifar_tune.report.text import describe_trial, output_console

    if len(found) != 1:
        raise UserError(f"--trial needs one search; name one of {', '.join(found)}.")
    ((name, trials),) = found.items()
    numbers = [trial.number for trial in trials]
    if number not in numbers:
        gaps = "" if len(numbers) > max(numbers) - min(numbers) else ", with gaps"
        raise UserError(f"{name} has no trial {number}; it has {min(numbers)} to {max(numbers)}{gaps}.")
    for part in describe_trial(trials, number, store.space(name)):
        output_console(sys.stdout).print(part, highlight=False, soft_wrap=True)


@app.command()
def confirm(
    search: Annotated[str, typer.Argument(help="The search's name.")],
    top: Annotated[int, typer.Option(min=1, help="How many finalists: the best trials by score.")] = 3,
    num_seeds: Annotated[int, typer.Option("--seeds", min=2, help="Runs of each, and of the baseline.")] = 5,
    again: Annotated[bool, typer.Option("--again", help="Begin anew, with seeds that were never used.")] = False,
    data_dir: DataFolder = None,
    store: StoreFolder = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    address: Address = None,
) -> None:
    """Train the best trials and the baseline again with fresh seeds: are the gains real? The same command resumes."""
    from cifar_tune.commands.confirm import ConfirmOptions, confirm_search
    from cifar_tune.commands.display import progress_console

    options = ConfirmOptions(
        data_dir=data_dir,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        address=address,
        store=store,
        top=top,
        num_seeds=num_seeds,
        again=again,
    )
    raise typer.Exit(confirm_search(_store(store), search, options, progress_console()))


@app.command()
def evaluate(
    search: Annotated[str, typer.Argument(help="The search's name.")],
    num_seeds: Annotated[int, typer.Option("--seeds", min=2, help="Runs of the winner, and of the baseline.")] = 5,
    flip_averaging: Annotated[
        bool, typer.Option("--flip-averaging", help="Tell the mean with the mirror images too, in rows of its own.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Begin anew, and open the test set once more.")] = False,
    data_dir: DataFolder = None,
    store: StoreFolder = None,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    address: Address = None,
) -> None:
    """Train the winner and the baseline on all training images, and open the test set. The same command resumes."""
    from cifar_tune.commands.display import progress_console
    from cifar_tune.commands.evaluate import EvaluateOptions, evaluate_search

    options = EvaluateOptions(
        data_dir=data_dir,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        max_concurrent=max_concurrent,
        address=address,
        store=store,
        num_seeds=num_seeds,
        flip_averaging=flip_averaging,
        again=again,
    )
    raise typer.Exit(evaluate_search(_store(store), search, options, progress_console()))


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A weights.safetensors that a search or evaluate kept.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Of any size, mode and format.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes of each to tell.")] = 3,
) -> None:
    """Tell the classes of your own images."""
    from cifar_tune.commands.predict import predict

    found = predict(model, images, top)
    for prediction in found:
        if prediction.error is None:
            told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in prediction.classes)
            print(f"{prediction.path}: {told}")
    unread = [prediction for prediction in found if prediction.error is not None]
    for prediction in unread:
        print(f"cifar-tune: {prediction.path} was skipped: {prediction.error}", file=sys.stderr)
    raise typer.Exit(2 if unread else 0)


@app.command()
def ui(
    store: StoreFolder = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow UI on the store."""
    from cifar_tune.tracking.ui import serve_ui

    serve_ui(_store(store), host, port)


@app.command()
def delete(
    search: Annotated[str, typer.Argument(help="The search's name.")],
    store: StoreFolder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a search, with its weights and its MLflow runs, and free its disk."""
    from cifar_tune.trials.reading import delete_record, derived_names, read_attributes, read_record

    opened = _store(store)
    (trials,) = read_record(opened, [search]).values()
    if not yes and not typer.confirm(f"Delete {search} with its {len(trials)} trials?", err=True):
        raise UserError(f"{search} is kept; nothing was deleted.")
    from cifar_tune.tracking.runs import delete_runs

    with opened.running(search), ExitStack() as held:
        records = [search, *derived_names(opened, search)]
        for name in records[1:]:
            held.enter_context(opened.running(name))
        ids = [read_attributes(opened, name).get("id") for name in records]  # a record that was cut off has none
        num_runs = sum(delete_runs(opened, search_id) for search_id in ids if search_id)
        freed = opened.delete_search(search)
        delete_record(opened, search)  # last, so that a deletion which is cut off can be repeated
    typer.echo(f"Deleted {search}: {len(trials)} trials, {num_runs} MLflow runs, {freed / 2**20:.1f} MiB.", err=True)


def main() -> None:
    """The entry point: what the user can mend is one sentence and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"cifar-tune: {error}", file=sys.stderr)
        sys.exit(2)


def _settings(pairs: list[str] | None) -> dict[str, str]:
    for pair in pairs or []:
        if "=" not in pair:
            raise UserError(f"--set {pair}: write FIELD=VALUE, such as --set optimizer/lr=0.02.")
    return dict(pair.split("=", 1) for pair in pairs or [])


def _refuse_with_debug(options: "RunOptions", name: str | None) -> None:
    """Say so rather than ignore what means nothing without a search."""
    given = {
        "--name": name,
        "--num-trials": options.num_trials,
        "--time-budget": options.time_budget,
        "--cpus-per-trial": options.cpus_per_trial,
        "--max-concurrent": options.max_concurrent,
        "--seed": options.seed or None,
        "--address": options.address,
        "--extend": options.extends,
    }
    _refuse("--debug trains the baseline in this process", given)


def _refuse_with_plan(options: "RunOptions", name: str | None) -> None:
    """What a search has that is only planned, and a cluster's machines, which are not this one."""
    given = {
        "--name": name,
        "--seed": options.seed or None,
        "--address": options.address,
        "--extend": options.extends,
    }
    _refuse("--plan prices a whole new search on this machine", given)


def _refuse(why: str, given: Mapping[str, object]) -> None:
    for flag, value in given.items():
        if value is not None:
            raise UserError(f"{why} and takes no {flag}; leave it out.")


def _seconds(text: str) -> float:
    """Of `90s`, `30m`, `2h`, `1h30m`."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    hours, minutes, seconds = (int(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise UserError(f"--time-budget {text}: write a time such as 90s, 30m or 1h30m.")
    return float(total)


def _store(path: Path | None) -> "Store":
    from cifar_tune.store import open_store

    return open_store(path or Path(DEFAULT_STORE))


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """The file, or stdout where none is named."""
    if path is None:
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --output.") from None
    with file:
        yield file


if __name__ == "__main__":
    main()
