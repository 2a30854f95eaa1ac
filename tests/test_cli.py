"""The command line: what it refuses and how, what goes to stdout, and what its help names.

Most commands run in this process through `main`, which is what a terminal runs; some as a process of their own.
"""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import typer
from helpers.command_line import GOOD, PATIENCE, Answer, Call
from optuna import get_all_study_names

from cifar_tune.cli import app
from cifar_tune.data.images import TrainingData
from cifar_tune.provenance import as_typed
from cifar_tune.search.driver import Driver
from cifar_tune.search.identity import open_record
from cifar_tune.search.space import load_space
from cifar_tune.store import Store, open_store

FILES = {
    "good.py": GOOD,
    "broken.py": GOOD + "\n\ndef half(:\n",
    "raises.py": GOOD.replace("epochs=1", "epochs=1 / 0"),
    "misspelt.py": GOOD.replace("epochs=1", "epochs=1, label_smothing=0.1"),
    "no_baseline.py": GOOD.replace("BASELINE", "RECIPE"),
    "outside.py": GOOD.replace("1e-2", "1e-3").replace('"lr": 0.001', '"lr": 0.5'),
    "cifar.py": GOOD.replace("shapes", "cifar10"),
    "by_chance.py": GOOD.replace("num_trials=2", 'num_trials=2, sampler="random"'),
    "a space.py": GOOD,
    "known.py": GOOD,
    "file": "mine",
}


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user is: space files, an empty folder, and no network beyond this machine."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    urllib.request.install_opener(None)  # or urllib keeps the proxies that it first saw
    yield tmp_path
    urllib.request.install_opener(None)


@pytest.fixture(scope="module")
def finished_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished search of two trials: `known`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "known.py").write_text(GOOD, encoding="utf-8")
    store = open_store(folder / "store")
    driver = Driver(open_record(store, "known", load_space(folder / "known.py"), 0), 2, [])
    for accuracy in (0.5, 0.625):
        metrics = {"epoch": 1, "progress": 1.0, "val_accuracy": accuracy, "seconds": 0.5}
        driver.add_epoch(driver.next_trial().number, metrics, {"num_parameters": 77_850})
    driver.record.set_shown()
    store.search("known").mkdir(parents=True)
    (store.search("known") / "space.py").write_text(GOOD, encoding="utf-8")
    return store.root


@pytest.fixture
def store(folder: Path, finished_store: Path) -> Store:
    """The default store, with the finished search in it."""
    shutil.copytree(finished_store, folder / "cifar_tune_store")
    return open_store(folder / "cifar_tune_store")


@pytest.fixture
def data_in(cached_store: Path, shapes: TrainingData) -> Callable[[Path], None]:
    """Give a store the built-in data set, which takes seconds to draw."""

    def copy(store: Path) -> None:
        shutil.copytree(cached_store / "cache", store / "cache")

    return copy


def process(folder: Path, *arguments: str) -> Answer:
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "cifar_tune", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=folder, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def assert_is_one_sentence(answer: Answer, *words: str) -> None:
    """An error that the user can correct: exit code 2, and nothing but one line on stderr that says what to do."""
    assert answer.code == 2, answer
    assert answer.stdout == ""
    (line,) = [line for line in answer.stderr.splitlines() if line.strip()]
    assert line.startswith("cifar-tune: ")
    assert line.endswith(".")
    for part in words:
        assert part in line
    assert "Traceback" not in line


def searches(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "searches").glob("*"))


def studies(store: Path) -> list[str]:
    database = store / "optuna.db"
    return get_all_study_names(f"sqlite:///{database}") if database.exists() else []


def num_mlflow_runs(store: Path) -> int:
    if not (store / "mlflow.db").exists():
        return 0
    with closing(sqlite3.connect(store / "mlflow.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])


# What is refused before anything is launched

BAD_RUNS = {
    "missing space file": ("missing.py", "There is no search-space file missing.py; give the path of one"),
    "space file is a folder": ("empty", "There is no search-space file empty"),
    "space file with a syntax error": ("broken.py", "broken.py, line 14: SyntaxError"),
    "space file that raises": ("raises.py", "raises.py, line 5: ZeroDivisionError"),
    "space file with a misspelt field": (
        "misspelt.py",
        "misspelt.py, line 3: label_smothing is no field; the nearest is label_smoothing",
    ),
    "space file that is no Python": ("file", "file is not a Python file"),
    "no BASELINE": ("no_baseline.py", "no_baseline.py defines no BASELINE; add"),
    "baseline outside its range": ("outside.py", "optimizer/lr=0.5 lies outside its range [0.0001, 0.001] log"),
    "unknown field": ("good.py --set optimizer/rl=1", "--set optimizer/rl", "the nearest is optimizer/lr"),
    "misspelt variant": ("good.py --set optimizer/name=adm", "optimizer/name=adm", "the nearest is adam or adamw"),
    "misspelt choice": ("good.py --set scaling=datset", "scaling=datset", "'dataset'"),
    "value of another type": ("good.py --set epochs=many", "epochs=many is not valid", "valid integer"),
    "value out of range": ("good.py --set epochs=0", "epochs=0 is not valid", "greater than or equal to 1"),
    "more images than there are": ("good.py --set train_images=9001", "train_images=9001", "1 to 9000"),
    "--set without =": ("good.py --set epochs", "--set epochs: write FIELD=VALUE"),
    "--set without a field": ("good.py --set =3", "the recipe has no such field"),
    "data folder is missing": ("cifar.py --data-dir nowhere", "data folder nowhere does not exist", "--data-dir"),
    "data folder is a file": ("cifar.py --data-dir file", "data folder file", "--data-dir"),
    "data folder is empty": ("cifar.py --data-dir empty", "empty", "cifar-10-batches-py"),
    "no network": ("cifar.py", "cifar10 could not be downloaded", "--data-dir"),
    "store under a file": ("good.py --store file/store", "file/store cannot be written", "--store"),
    "store is a file": ("good.py --store file", "The store file cannot be written", "--store"),
    "nonsense as a time": ("good.py --time-budget soon", "--time-budget soon: write a time such as 90s, 30m"),
    "no time": ("good.py --time-budget 0s", "--time-budget 0s: write a time"),
    "a plan to be debugged": ("good.py --plan --debug", "--plan is a dry run and --debug trains the baseline"),
    "a plan with a name": (
        "good.py --plan --name other",
        "--plan is a dry run of a whole new search",
        "takes no --name",
    ),
    "a plan with a seed": ("good.py --plan --seed 3", "takes no --seed"),
    "a plan on a cluster": ("good.py --plan --address auto", "on this machine and takes no --address"),
    "a plan with more cores than there are": (
        "good.py --plan --cpus-per-trial 9999",
        "--cpus-per-trial 9999: there are",
    ),
    "a plan without its data": ("cifar.py --plan --data-dir nowhere", "data folder nowhere does not exist"),
    "a plan that extends": ("good.py --plan --extend known", "takes no --extend"),
    "a plan until it has converged": ("good.py --plan --until-converged", "takes no --until-converged"),
    "no forecast": ("by_chance.py --until-converged", "which the sampler random does not make; leave one of them out."),
    "a name that is a path": ("good.py --name a/b", "'a/b' cannot name a search", "--name"),
    "a file whose stem is no name": ("'a space.py'", "'a space' cannot name a search", "--name"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "words"), [(line, words) for line, *words in BAD_RUNS.values()], ids=BAD_RUNS)
def test_a_bad_run_is_refused_in_a_sentence_and_leaves_no_trace(
    folder: Path, call: Call, line: str, words: list[str]
) -> None:
    assert_is_one_sentence(call("run", *shlex.split(line)), *words)
    assert searches(folder / "cifar_tune_store") == []
    assert studies(folder / "cifar_tune_store") == []
    assert (folder / "file").read_text() == "mine"


@pytest.mark.parametrize(("option", "words"), [("--name", "cannot name a search"), ("--time-budget", "write a time")])
def test_an_empty_option_is_refused_and_not_ignored(store: Store, call: Call, option: str, words: str) -> None:
    assert_is_one_sentence(call("run", "known.py", option, ""), words, option)


@pytest.mark.parametrize("line", ["missing.py", "broken.py", "outside.py", "good.py --set optimizer/rl=1"])
def test_a_bad_space_is_not_described(call: Call, line: str) -> None:
    assert_is_one_sentence(call("describe", *shlex.split(line)))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("knwon", "the nearest is known"),
        ("known --trial 2", "known has no trial 2; it has 0 to 1"),
        ("known --format csv --output nowhere/report.csv", "nowhere/report.csv cannot be written"),
        ("known --output empty", "empty cannot be written"),
        ("known --store empty", "There is no search in"),
    ],
)
def test_a_bad_report_is_refused_in_a_sentence(store: Store, call: Call, line: str, words: str) -> None:
    assert_is_one_sentence(call("report", *shlex.split(line)), words)
    assert studies(store.root) == ["known"]


@pytest.mark.parametrize("arguments", [(), ("known",), ("--trial", "0"), ("--format", "json")])
def test_a_report_of_an_empty_store_is_refused_in_a_sentence(call: Call, arguments: tuple[str, ...]) -> None:
    assert_is_one_sentence(call("report", *arguments), "There is no search in", "cifar-tune run")


def test_a_report_after_a_search_that_could_not_start_says_that_there_is_none(call: Call) -> None:
    assert call("run", "cifar.py", "--data-dir", "nowhere").code == 2
    assert_is_one_sentence(call("report"), "There is no search in")


def test_deleting_an_unknown_search_is_refused(store: Store, call: Call) -> None:
    assert_is_one_sentence(call("delete", "knwon", "--yes"), "the nearest is known")


def test_running_a_search_that_is_running_is_refused(store: Store, call: Call) -> None:
    with store.running("known"):
        assert_is_one_sentence(call("run", "good.py", "--name", "known"), "known is running in another process")


def test_another_space_under_a_known_name_is_refused_and_nothing_is_lost(store: Store, call: Call) -> None:
    before = call("report", "--format", "json").stdout
    answer = call("run", "good.py", "--name", "known", "--set", "optimizer/beta1=0.8")
    assert_is_one_sentence(answer, "known was started with no --set", "--name")
    assert call("report", "--format", "json").stdout == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["run", "run good.py --num-trials 0", "run good.py --frobnicate", "report --format pdf", "nonsense"]
)
def test_what_the_commands_do_not_know_exits_with_2(call: Call, line: str) -> None:
    """Typer's own message names what there is."""
    answer = call(*shlex.split(line))
    assert answer.code == 2
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr


# As processes of their own


@pytest.mark.slow
def test_a_process_says_its_sentence_and_nothing_else(folder: Path) -> None:
    assert_is_one_sentence(process(folder, "run", "broken.py"), "broken.py, line 14")


RAY_IN_A_SPACE_FILE = """from ray._private import ray_constants

assert not ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV, "each worker would build its own environment"
assert not ray_constants.ENABLE_RAY_CLUSTER, "its servers would listen to the network"
"""


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_is_no_obstacle(folder: Path, redirection: str) -> None:
    command = f"{sys.executable} -m cifar_tune describe good.py {redirection}"
    done = subprocess.run(command, cwd=folder, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("epochs" in done.stdout) == (redirection != ">&-")


def test_a_character_that_the_output_cannot_show_ends_nothing(store: Store) -> None:
    command = [sys.executable, "-m", "cifar_tune", "report", "--store", str(store.root)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "known" in done.stdout


def test_a_full_disk_of_the_output_is_not_taken_for_the_stores(store: Store) -> None:
    command = f"{sys.executable} -m cifar_tune report --store {store.root} > /dev/full"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("cifar-tune: The disk of the output is full; make room, then run the same command")


@pytest.mark.slow
def test_a_space_file_that_imports_ray_changes_nothing_about_it(folder: Path) -> None:
    (folder / "good.py").write_text(RAY_IN_A_SPACE_FILE + GOOD)
    answer = process(folder, "describe", "good.py")
    assert answer.code == 0, answer.stderr


@pytest.mark.slow
def test_a_search_that_was_killed_before_its_first_trial_binds_nobody(
    folder: Path, call: Call, data_in: Callable[[Path], None]
) -> None:
    store = open_store(folder / "cifar_tune_store")
    open_record(store, "good", load_space(folder / "good.py"), 5)
    data_in(store.root)
    answer = call("run", "good.py", "--gpus-per-trial", "64", "--seed", "6")
    assert "--seed 5" not in answer.stderr
    assert "--gpus-per-trial 64" in answer.stderr


@pytest.mark.slow
def test_more_gpus_than_there_are_is_refused_in_a_sentence(
    folder: Path, call: Call, data_in: Callable[[Path], None]
) -> None:
    """Only Ray knows how many there are, so this one starts it, and MLflow beside it."""
    data_in(folder / "cifar_tune_store")
    answer = call("run", "good.py", "--gpus-per-trial", "64")
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    assert lines.pop(0) == "Starting the workers of good ..."
    assert_is_one_sentence(Answer(answer.code, answer.stdout, "\n".join(lines)), "--gpus-per-trial 64", "there are")
    assert studies(folder / "cifar_tune_store") == []
    assert searches(folder / "cifar_tune_store") == []
    assert num_mlflow_runs(folder / "cifar_tune_store") == 0


# What is printed where


def test_describe_json_writes_json_alone_to_stdout(call: Call) -> None:
    answer = call("describe", "good.py", "--json", "--set", "epochs=2")
    assert (answer.code, answer.stderr) == (0, "")
    document = json.loads(answer.stdout)
    assert {"baseline", "ranges", "layers", "num_parameters", "num_trainable_parameters", "learning_rates"} <= set(
        document
    )
    assert document["learning_rates"] == [0.001] * 2 * 2, "64 images in batches of 32, for two epochs"


def test_describe_shows_a_space(call: Call) -> None:
    answer = call("describe", "good.py")
    assert (answer.code, answer.stderr) == (0, "")
    for words in ("optimizer/lr", "[0.0001, 0.01] log", "mini_resnet"):
        assert words in answer.stdout


def test_a_debug_run_prints_its_epochs_on_stderr_and_leaves_no_study(
    folder: Path, call: Call, data_in: Callable[[Path], None]
) -> None:
    data_in(folder / "cifar_tune_store")
    answer = call("run", "good.py", "--debug", "--gpus-per-trial", "0")
    assert (answer.code, answer.stdout) == (0, "")
    assert re.search(
        r"^epoch 1/1  train \d\.\d+ \d+\.\d+ %  validation \d\.\d+ \d+\.\d+ %", answer.stderr, re.MULTILINE
    )
    assert studies(folder / "cifar_tune_store") == []
    assert searches(folder / "cifar_tune_store") == []


@pytest.mark.slow
def test_a_plan_is_printed_on_stdout_and_leaves_no_study(
    folder: Path, call: Call, data_in: Callable[[Path], None]
) -> None:
    data_in(folder / "cifar_tune_store")
    answer = call("run", "good.py", "--plan", "--gpus-per-trial", "0")
    assert answer.code == 0
    assert answer.stdout.startswith("good.py: 2 trials, ")
    assert "if no trial is stopped early" in answer.stdout
    assert "Trying recipe 1 of 3" in answer.stderr
    assert studies(folder / "cifar_tune_store") == []
    assert searches(folder / "cifar_tune_store") == []


def test_a_complete_search_is_reported_and_not_run_again(store: Store, call: Call) -> None:
    answer = call("run", "good.py", "--name", "known")
    assert answer.code == 0
    assert "known is complete; continue it with --num-trials above 2" in " ".join(answer.stderr.split())
    assert "+12.50 points over the baseline's 50.00 %" in " ".join(answer.stdout.split())
    assert "cifar-tune report known" in answer.stdout
    assert "cifar-tune ui" in answer.stdout


def test_a_search_whose_baseline_failed_exits_with_1_and_says_so(folder: Path, call: Call) -> None:
    store = open_store(folder / "cifar_tune_store")
    record = open_record(store, "good", load_space(folder / "good.py"), 0)
    for _ in range(2):
        record.finish_trial(record.start_trial().number, "failed", error="It broke.")
    record.set_shown()
    answer = call("run", "good.py")
    assert answer.code == 1
    assert "The baseline did not complete" in " ".join(answer.stderr.split())
    assert "cifar-tune report good --trial 0" in " ".join(answer.stderr.split())
    assert "It broke." in call("report", "good", "--trial", "0").stdout
    for command in ("confirm", "evaluate"):
        assert_is_one_sentence(call(command, "good"), "No baseline of good has completed")


@pytest.mark.parametrize("kind", ["table", "csv", "json", "markdown"])
def test_a_report_goes_to_stdout_or_into_a_file(folder: Path, store: Store, call: Call, kind: str) -> None:
    shown = call("report", "--format", kind)
    assert (shown.code, shown.stderr) == (0, "")
    assert "known" in shown.stdout
    into = call("report", "--format", kind, "--output", "report.txt")
    assert (into.code, into.stdout, into.stderr) == (0, "", "")
    assert (folder / "report.txt").read_text(encoding="utf-8") == shown.stdout


def test_a_json_report_is_json_alone(store: Store, call: Call) -> None:
    rows = json.loads(call("report", "known", "--format", "json").stdout)
    assert [(row["rank"], row["trial"], row["val_accuracy"], row["gain"]) for row in rows] == [
        (1, 1, 0.625, 12.5),
        (2, 0, 0.5, 0.0),
    ]


def test_one_trial_is_shown_with_the_command_that_runs_it_alone(store: Store, call: Call) -> None:
    answer = call("report", "known", "--trial", "1")
    assert answer.code == 0
    assert "known trial 1: completed, 62.50 %, +12.50 points over the baseline" in answer.stdout
    command = shlex.split(answer.stdout.strip().splitlines()[-1])
    assert command[:4] == ["cifar-tune", "run", str(store.search("known") / "space.py"), "--debug"]
    assert [option.split("=")[1] for option in command[4:]] == ["optimizer/lr"]


def test_the_store_is_named_by_the_environment_too(
    folder: Path, store: Store, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.root.rename(folder / "elsewhere")
    assert call("report").code == 2
    monkeypatch.setenv("CIFAR_TUNE_STORE", "elsewhere")
    assert call("report").code == 0
    assert "cifar-tune ui --store elsewhere" in call("run", "good.py", "--name", "known").stdout


def test_a_command_is_written_as_the_user_types_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_typed("report", "a b") == "cifar-tune report 'a b'"
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert as_typed("ui") == "uv run cifar-tune ui"


@pytest.mark.slow
def test_a_search_is_deleted_after_asking(store: Store, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as no_input:
        monkeypatch.setattr(sys, "stdin", no_input)
        assert call("delete", "known").code != 0
    assert studies(store.root) == ["known"]
    answer = call("delete", "known", "--yes")
    assert (answer.code, answer.stdout) == (0, "")
    assert "Deleted known: 2 trials, 0 MLflow runs" in answer.stderr
    assert studies(store.root) == []
    assert searches(store.root) == []


# Help

OPTIONS = {
    "run": "--name --num-trials --time-budget --set --data-dir --store --cpus-per-trial --gpus-per-trial "
    "--max-concurrent --seed --address --plan --debug",
    "init": "--output",
    "describe": "--json --set",
    "report": "--format --output --trial --store",
    "confirm": "--top --seeds --again --data-dir --store --cpus-per-trial --gpus-per-trial --max-concurrent --address",
    "evaluate": "--seeds --flip-averaging --again --data-dir --store --cpus-per-trial --gpus-per-trial "
    "--max-concurrent --address",
    "predict": "--top",
    "ui": "--store --host --port",
    "delete": "--yes --store",
}


def test_the_help_names_every_command(call: Call) -> None:
    answer = call("--help")
    assert answer.code == 0
    for command in OPTIONS:
        assert re.search(rf"\b{command}\b", answer.stdout)


@pytest.mark.parametrize("command", typer.main.get_command(app).commands)  # type: ignore[attr-defined]
def test_the_help_of_every_command_names_its_options(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    answer = call(command, "--help")
    assert answer.code == 0
    for option in OPTIONS[command].split():
        assert re.search(rf"{option}\b", answer.stdout)
