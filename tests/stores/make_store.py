"""Makes a small store with the command line of one version, so that later versions can show that they still read it.

    git worktree add --detach /tmp/old COMMIT
    uv run python tests/stores/make_store.py /tmp/old

Writes version-VERSION.tar.xz and version-VERSION.json, what that version's own report says, beside this file;
tests/test_old_store.py reads them. Takes two minutes. The store holds `finished`, a complete and confirmed search with
trials that ended in every way that is quick to come by, and `interrupted`, whose last trial has a saved state to go on
from. Nothing in it tells of the machine that it was made on.
"""

import argparse
import getpass
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

PLACE = Path("/tmp/cifar-tune-store")  # MLflow keeps absolute paths, so the store is made where one tells nothing
LEFT_OUT = {"artifacts", "cache", "downloads", "features", "locks", "mlruns"}  # found anew, or several MB
USER, HOST = "somebody", "machine"
MACHINE_TAGS = ("platform", "processor", "cores", "memory")  # of MLflow's runs
STATES = {"completed", "stopped early", "pruned", "diverged", "interrupted"}  # that the store has to have
EXPECTED = ("search", "trial", "state", "epochs", "val_accuracy", "gain", "verdict", "confirmed_gain")
ONE_AT_A_TIME = ("--cpus-per-trial", "1", "--max-concurrent", "1")

FINISHED = '''"""A small network on small data, searched in seconds."""

from cifar_tune import Recipe, Search, Trial
from cifar_tune.augment import Augment

GOOD = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet", "width": 0.125},
    optimizer={"name": "adam", "lr": 0.02},
    schedule={"name": "constant"},
    augment=Augment(flip=True, crop_padding=2),
    epochs=4,
    batch_size=16,
    train_images=1000,
)
BREAKS_DOWN = GOOD.replace({"optimizer/name": "sgd", "optimizer/lr": 1e38})
LEARNS_NOTHING = GOOD.replace({"optimizer/lr": 1e-9, "early_stopping/name": "patience", "early_stopping/patience": 1})
BASELINES = [GOOD, BREAKS_DOWN, LEARNS_NOTHING]


def space(trial: Trial) -> Recipe:
    name = trial.suggest_categorical("optimizer/name", ["adam", "sgd"])
    low, high = (1e-9, 0.1) if name == "adam" else (1e-3, 1e38)
    stopping = trial.suggest_categorical("early_stopping/name", ["none", "patience"])
    return Recipe(
        dataset="shapes",
        model={"name": "mini_resnet", "width": 0.125},
        optimizer={"name": name, "lr": trial.suggest_float(f"optimizer/{name}/lr", low, high, log=True)},
        schedule={"name": "constant"},
        augment=Augment(flip=trial.suggest_categorical("augment/flip", [False, True]), crop_padding=2),
        early_stopping={"name": stopping, **({"patience": 1} if stopping == "patience" else {})},
        epochs=4,
        batch_size=16,
        train_images=1000,
    )


SEARCH = Search(num_trials=8, scheduler={"name": "asha", "rungs": (0.25,), "keep": 0.3, "let_through": 0})
'''

# A state is saved every ten seconds, so that epochs of the second baseline have to take some.
INTERRUPTED = """from cifar_tune import Recipe, Search, Trial
from cifar_tune.augment import Augment

GOOD = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet", "width": 0.125},
    optimizer={"name": "adam", "lr": 0.001},
    schedule={"name": "cosine"},
    augment=Augment(brightness=0.2),
    epochs=6,
    batch_size=64,
    train_images=1000,
)
BASELINES = [GOOD, GOOD.replace({"batch_size": 2})]


def space(trial: Trial) -> Recipe:
    return GOOD.replace({"batch_size": trial.suggest_categorical("batch_size", [2, 64])})


SEARCH = Search(num_trials=2)
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a work tree of the version that makes the store")
    checkout = parser.parse_args().checkout.absolute()
    version = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    archive = Path(__file__).with_name(f"version-{version}.tar.xz")
    if PLACE.exists():
        sys.exit(f"{PLACE} is there already; move it away.")
    PLACE.mkdir()
    try:
        report = make_store(checkout)
        missing = STATES - {row["state"] for row in report}
        assert not missing, f"no trial was {' or '.join(missing)}; change FINISHED"
        for database in PLACE.glob("*.db"):
            scrub(database)
        check_tells_nothing(checkout)
        pack(archive)
    finally:
        shutil.rmtree(PLACE)
    archive.with_name(f"version-{version}.json").write_text(expectation(report), encoding="utf-8")
    print(f"{archive}: {archive.stat().st_size:,} bytes")


def make_store(checkout: Path) -> list[dict[str, Any]]:
    """Run the searches and the confirmation; the rows of the report."""
    package = Path(finish(start(checkout, "-c", "import cifar_tune; print(cifar_tune.__file__)"), 0).strip())
    assert package.is_relative_to(checkout), f"{package} is not {checkout}'s"
    with tempfile.TemporaryDirectory() as folder:
        finished, interrupted = Path(folder) / "finished.py", Path(folder) / "interrupted.py"
        finished.write_text(FINISHED, encoding="utf-8")
        interrupted.write_text(INTERRUPTED, encoding="utf-8")
        finish(command(checkout, "run", str(finished), *ONE_AT_A_TIME), 0)
        finish(command(checkout, "confirm", "finished", "--top", "1", "--seeds", "2", *ONE_AT_A_TIME), 0)
        interrupt(command(checkout, "run", str(interrupted), *ONE_AT_A_TIME))
    rows: list[dict[str, Any]] = json.loads(finish(command(checkout, "report", "--format", "json"), 0))
    return rows


def command(checkout: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command of the checkout's command line on the store."""
    return start(checkout, "-m", "cifar_tune.cli", *arguments, "--store", str(PLACE))


def start(checkout: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start Python with the checkout's package; MLflow keeps the user's name and the working folder."""
    changing = ("PYTHON", "CIFAR_TUNE", "MLFLOW", "RAY", "UV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(changing)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PLACE,
        env={**kept, "PYTHONPATH": str(checkout), "LOGNAME": USER, "USER": USER},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int) -> str:
    """What it printed, once it has ended with that exit code."""
    stdout, stderr = process.communicate()
    assert process.returncode == code, stderr
    return stdout


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C in the epoch after the first saved state."""
    while not list(PLACE.glob("searches/interrupted/trials/*/state.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    time.sleep(1)  # until the epoch is in the record
    os.killpg(process.pid, signal.SIGINT)
    finish(process, 130)


def scrub(database: Path) -> None:
    """Take the machine out of a database, and what its pages held before."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "trial_user_attributes" in tables:  # Optuna's; values are JSON
            old, new = f'"{socket.gethostname()}:', f'"{HOST}:'
            connection.execute("UPDATE trial_user_attributes SET value_json = replace(value_json, ?, ?)", (old, new))
        if "tags" in tables:  # MLflow's
            old, new = f"{socket.gethostname()}:", f"{HOST}:"
            connection.execute("UPDATE tags SET value = replace(value, ?, ?) WHERE key = 'worker'", (old, new))
            marks = ", ".join("?" * len(MACHINE_TAGS))
            connection.execute(f"UPDATE tags SET value = 'not told' WHERE key IN ({marks})", MACHINE_TAGS)
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def check_tells_nothing(checkout: Path) -> None:
    """No file of the store names this machine, its user's home or the checkout."""
    user = getpass.getuser()
    telling = [f"{socket.gethostname()}:", f"{Path.home()}/", f"{checkout}", f'"{user}"', f"/{user}/", sys.prefix]
    for path in kept_files():
        found = [text for text in telling if text.encode() in path.read_bytes()]
        assert not found, f"{path} has {found}"


def kept_files() -> list[Path]:
    """The files of the store that are packed."""
    files = [path for path in sorted(PLACE.rglob("*")) if path.is_file()]
    return [path for path in files if path.relative_to(PLACE).parts[0] not in LEFT_OUT]


def pack(archive: Path) -> None:
    """The same files give the same bytes."""
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for path in kept_files():
            info = tarfile.TarInfo(path.relative_to(PLACE).as_posix())
            info.size = path.stat().st_size
            with path.open("rb") as file:
                packed.addfile(info, file)


def expectation(report: Sequence[Mapping[str, Any]]) -> str:
    """A line for each trial, in the report's order."""
    rows = [json.dumps({name: row[name] for name in EXPECTED}) for row in report]
    return "[\n" + ",\n".join(rows) + "\n]\n"


if __name__ == "__main__":
    main()
