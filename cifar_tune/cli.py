"""The command line: flags and their help. What a command does is in commands/, imported when the command runs.

Exit codes: 0; 2 for what the user can correct, with one sentence; 1 for what failed; 130 for Ctrl-C.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from cifar_tune import DEFAULT_STORE, STORE_VARIABLE
from cifar_tune.errors import UserError
from cifar_tune.guard import guarded
from cifar_tune.search.ray_settings import configure_ray

app = typer.Typer(
    help="Hyperparameter search for CIFAR image classifiers that starts from published recipes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE", help="Search-space file, e.g. search_spaces/resnet9.py.")]
SearchName = Annotated[str, typer.Argument(metavar="SEARCH", help="Name of the search.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Fix a field of the recipe in every trial: optimizer/lr=0.02."),
]
StoreFolder = Annotated[
    Path, typer.Option("--store", metavar="FOLDER", envvar=STORE_VARIABLE, help="Folder for all results.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        envvar="CIFAR_TUNE_DATA_DIR",
        help="Folder with the data set. Without it, the data set is downloaded.",
    ),
]
NumTrials = Annotated[
    int | None, typer.Option(min=1, help="Number of trials. A larger number continues a complete search.")
]
Cpus = Annotated[
    int | None, typer.Option(min=1, help="CPU cores per trial. Default: 1, or all when a single trial is left.")
]
Gpus = Annotated[
    float | None, typer.Option(min=0, help="GPUs per trial; 0.5 puts two trials on one. Default: 1 if there is a GPU.")
]
Concurrent = Annotated[int | None, typer.Option(min=1, help="Maximum number of trials at a time.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to train on: HOST:PORT or auto.")]
Seeds = Annotated[int, typer.Option("--seeds", min=2, help="Number of fresh seeds to train each recipe with.")]

STORE = Path(DEFAULT_STORE)


@app.command()
@guarded
def run(
    space: SpaceFile,
    name: Annotated[str | None, typer.Option(help="Name of the search. Default: the space file's stem.")] = None,
    num_trials: NumTrials = None,
    time_budget: Annotated[str | None, typer.Option(help="Stop after this wall-clock time: 90s, 30m, 1h30m.")] = None,
    settings: Settings = None,
    data_dir: DataFolder = None,
    store: StoreFolder = STORE,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the sampler. The trials' own seed is a field of the recipe.")
    ] = 0,
    address: Address = None,
    extends: Annotated[
        str | None,
        typer.Option("--extend", metavar="OLD", help="Learn from the results of an older search with another space."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the recipes of failed trials again, besides the other trials.")
    ] = False,
    until_converged: Annotated[
        bool,
        typer.Option("--until-converged", help="End early, once no recipe is expected to gain 0.1 points more."),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Dry run: try the ends of every range here, estimate the time, search nothing."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Train the baseline in this process, without Ray.")] = False,
) -> None:
    """Search a space.

    The same command again resumes the search, or shows its result once it is complete.
    """
    from cifar_tune.commands.flags import parse_settings, parse_time_budget
    from cifar_tune.commands.run import RunOptions, run_search
    from cifar_tune.commands.session import TrainingOptions
    from cifar_tune.search.space import load_space

    loaded = load_space(space, parse_settings(settings or []))
    budget = parse_time_budget(time_budget)
    training = TrainingOptions(data_dir, store, cpus_per_trial, gpus_per_trial, max_concurrent, address, budget)
    options = RunOptions(training, name, num_trials, seed, extends, retry_failed, until_converged)
    if plan and debug:
        raise UserError("--plan is a dry run and --debug trains the baseline; leave one of them out.")
    if plan:
        from cifar_tune.commands.plan import plan_search

        plan_search(loaded, options)
    elif debug:
        from cifar_tune.commands.debug import debug_baseline

        debug_baseline(loaded, options)
    else:
        raise typer.Exit(run_search(loaded, options))


@app.command()
@guarded
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with your own images.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("my_images.py"),
) -> None:
    """Look at a folder of your own images, and write a search space for them."""
    from cifar_tune.commands.init import write_space

    write_space(folder, output)


@app.command()
@guarded
def describe(
    space: SpaceFile,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a space: its baseline, its ranges, the network layer by layer, the learning rates."""
    from cifar_tune.commands.describe import print_description
    from cifar_tune.commands.flags import parse_settings
    from cifar_tune.search.space import load_space

    print_description(load_space(space, parse_settings(settings or [])), as_json=as_json)


@app.command()
@guarded
def report(
    searches: Annotated[
        list[str] | None, typer.Argument(metavar="SEARCH", help="Searches to report. Default: all in the store.")
    ] = None,
    store: StoreFolder = STORE,
    kind: Annotated[
        Literal["table", "csv", "json", "markdown", "html"], typer.Option("--format", help="Format of the report.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write. Default: stdout.")] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Show this trial of one search in full.")] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Compare groups of trials: model, schedule, model,schedule, a sampled value; "
            "or `project`, against what the published projects reached."
        ),
    ] = None,
) -> None:
    """Show the leaderboard: every trial with its gain over the published recipe."""
    from cifar_tune.commands.report import ReportOptions, write_report

    write_report(store, searches or [], ReportOptions(kind, output, trial, by))


@app.command()
@guarded
def confirm(
    search: SearchName,
    top: Annotated[int, typer.Option(min=1, help="Number of finalists: the best trials by score.")] = 3,
    num_seeds: Seeds = 5,
    again: Annotated[bool, typer.Option("--again", help="Start a new confirmation, with other seeds.")] = False,
    data_dir: DataFolder = None,
    store: StoreFolder = STORE,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    address: Address = None,
) -> None:
    """Train the finalists and the baseline again with fresh seeds, to test whether the gains are real.

    The same command again resumes the confirmation, or shows its result once it is complete.
    """
    from cifar_tune.commands.confirm import confirm_search
    from cifar_tune.commands.reruns import RerunOptions
    from cifar_tune.commands.session import TrainingOptions

    training = TrainingOptions(data_dir, store, cpus_per_trial, gpus_per_trial, max_concurrent, address)
    raise typer.Exit(confirm_search(search, RerunOptions(training, top, num_seeds, again)))


@app.command()
@guarded
def evaluate(
    search: SearchName,
    num_seeds: Seeds = 5,
    flip_averaging: Annotated[
        bool, typer.Option("--flip-averaging", help="Also show the result of averaging over mirror images.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Start a new evaluation, which opens the test set again.")
    ] = False,
    data_dir: DataFolder = None,
    store: StoreFolder = STORE,
    cpus_per_trial: Cpus = None,
    gpus_per_trial: Gpus = None,
    max_concurrent: Concurrent = None,
    address: Address = None,
) -> None:
    """Train the winner and the baseline on all training images, then open the held-out test set.

    The same command again resumes the evaluation, or shows its result once it is complete.
    """
    from cifar_tune.commands.evaluate import evaluate_search
    from cifar_tune.commands.reruns import RerunOptions
    from cifar_tune.commands.session import TrainingOptions

    training = TrainingOptions(data_dir, store, cpus_per_trial, gpus_per_trial, max_concurrent, address)
    options = RerunOptions(training, top=1, num_seeds=num_seeds, again=again)
    raise typer.Exit(evaluate_search(search, options, flip_averaging=flip_averaging))


@app.command()
@guarded
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A weights.safetensors from `run` or `evaluate`.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images of any size, mode and format.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show for each image.")] = 3,
) -> None:
    """Classify your own images."""
    from cifar_tune.commands.predict import print_predictions

    raise typer.Exit(print_predictions(model, images, top))


@app.command()
@guarded
def ui(
    store: StoreFolder = STORE,
    host: Annotated[str, typer.Option(help="Address to listen on. By default only this machine can connect.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the MLflow UI for the store."""
    from cifar_tune.store import open_store
    from cifar_tune.tracking.ui import serve_ui

    serve_ui(open_store(store), host, port)


@app.command()
@guarded
def delete(
    search: SearchName,
    store: StoreFolder = STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete a search with its weights and its MLflow runs."""
    from cifar_tune.commands.delete import delete_search

    delete_search(store, search, (lambda question: True) if yes else partial(typer.confirm, err=True))


def main() -> None:
    """Run the command line. What the user can correct is one sentence and exit code 2; guard.py has other faults."""
    configure_ray(local=True)  # here, because a space file may import Ray
    try:
        app()
    except UserError as error:
        print(f"cifar-tune: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
