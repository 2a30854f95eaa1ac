"""Whether two versions of the package give the same metrics, bit for bit: what a refactoring has to show.

    git worktree add --detach /tmp/old COMMIT
    uv run python analysis/same_metrics.py /tmp/old

Runs the same small searches of the built-in data set with this checkout's package and with the other's, side by side on
one core each, and compares every metric of every epoch and every value of every trial but the times. One search trains
a recipe for each option that a CPU can try quickly; the others are a trial of each sampler and scheduler, whose
decisions follow from the metrics. Not tried: networks on images of 224 pixels, and ImageNet's weights. Takes six
minutes of processor time, shared by two cores; exits with 1 where anything differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
NOT_COMPARED = {"search", "trial", "rank", "seconds", "images_per_second"}  # a rank is among all searches
CHECKPOINT = "CHECKPOINT"  # in a recipe: the best weights of the search FIRST
FIRST = "forecast"
Key = tuple[str, int]  # a search and a trial
Row = Mapping[str, Any]

NO_AUGMENT = {"augment/flip": False, "augment/crop_padding": 0}
RESNET9 = {"model/name": "resnet9", "model/width": 0.25}
RESNET50 = {"model/name": "resnet50", "model/weights": "none", "batch_size": 32}
SGD = {"optimizer/name": "sgd", "optimizer/lr": 0.05}
ADAMW = {"optimizer/name": "adamw", "optimizer/lr": 0.002}
PLATEAU = {**SGD, "optimizer/lr": 3.0, "schedule/name": "plateau", "schedule/patience": 1}
PATIENT = {"early_stopping/name": "patience", "early_stopping/patience": 1}
TWO_PHASE = {"epochs": 3, "finetune/name": "two-phase", "finetune/head_epochs": 1, "finetune/lr": 0.001}

# What each recipe has that the good one below has not.
RECIPES: list[dict[str, Any]] = [
    {},
    {"precision": "float32"},
    {"model/width": 1.0},
    {"model/weights": CHECKPOINT, "finetune/name": "full"},
    {"model/weights": CHECKPOINT, "finetune/name": "frozen"},
    {**RESNET9, "model/dropout": 0.2},
    {**RESNET9, "model/width": 1.0, "model/dropout": 0.0, "epochs": 1},
    {**RESNET50, "model/head": "linear", "epochs": 1},
    {**RESNET50, "model/head": "64-32", "model/dropout": 0.3, "finetune/name": "frozen", "finetune/views": 2},
    {"optimizer/weight_decay": 0.01, "optimizer/beta1": 0.8, "optimizer/beta2": 0.99},
    ADAMW,
    {**ADAMW, "optimizer/weight_decay": 0.2},
    SGD,
    {**SGD, "optimizer/momentum": 0.8, "optimizer/nesterov": True, "optimizer/weight_decay": 5e-4},
    {**SGD, "optimizer/lr": 1e38},
    {"schedule/name": "step", "schedule/every": 1, "schedule/gamma": 0.3, "epochs": 3},
    {"schedule/name": "cosine"},
    {"schedule/name": "cosine", "schedule/warmup": 0.3},
    {"schedule/name": "one-cycle", "schedule/shape": "linear-exponential"},
    {"schedule/name": "one-cycle", "schedule/shape": "torch"},
    {**SGD, "schedule/name": "one-cycle", "schedule/shape": "torch"},
    {**NO_AUGMENT, **PLATEAU, "finetune/name": "frozen", "epochs": 8},  # whose loss rises and falls
    {"finetune/name": "full"},
    {"finetune/name": "frozen"},
    {"finetune/name": "frozen", **NO_AUGMENT},
    {"finetune/name": "frozen", "finetune/views": 2, "epochs": 3},
    TWO_PHASE,
    {**TWO_PHASE, "finetune/batch_norm": "train", "schedule/name": "cosine"},
    {**TWO_PHASE, "finetune/head_epochs": 2, "finetune/views": 2, **RESNET9},
    NO_AUGMENT,
    {"augment/crop_padding": 2, "augment/padding_mode": "zero"},
    {"augment/brightness": 0.2, "augment/contrast": 0.2, "augment/saturation": 0.2},
    {"augment/hue": 0.1, "augment/rotation": 15.0, "augment/grayscale": 0.1},
    {"scaling": "imagenet"},
    {"scaling": "symmetric"},
    {"scaling": "unit"},
    {"grad_clip/name": "value", "grad_clip/limit": 0.01},
    {"grad_clip/name": "norm", "grad_clip/limit": 0.1},
    {**PATIENT, "optimizer/lr": 1e-9, "epochs": 3},
    {**PATIENT, "epochs": 3},
    {"batch_size": 21},  # and one image is left
]

GOOD = """from cifar_tune import Recipe, Search, Trial

GOOD = Recipe(
    dataset="shapes",
    model={"name": "mini_resnet", "width": 0.25},
    optimizer={"name": "adam", "lr": 0.003},
    schedule={"name": "constant"},
    epochs=2,
    batch_size=16,
    train_images=64,
)
"""

# A recipe is known by its label smoothing, because a space has to sample what tells its trials apart.
ALL_RECIPES = f"""{GOOD}
NUM_SAMPLED = 3
SETTINGS_OF = {{i / 1000: settings for i, settings in enumerate(RECIPES)}}
BASELINES = [GOOD.replace({{**settings, "label_smoothing": known_by}}) for known_by, settings in SETTINGS_OF.items()]


def space(trial: Trial) -> Recipe:
    known_by = trial.suggest_categorical("label_smoothing", list(SETTINGS_OF))
    return GOOD.replace({{**SETTINGS_OF[known_by], "label_smoothing": known_by}})


SEARCH = Search(num_trials=len(BASELINES) + NUM_SAMPLED, sampler="random", scheduler={{"name": "none"}})
"""

CONDITIONAL = f"""{GOOD}
BASELINE = GOOD.replace({{"epochs": 4}})


def space(trial: Trial) -> Recipe:
    name = trial.suggest_categorical("optimizer/name", ["adam", "adamw", "sgd"])
    lr = trial.suggest_float(f"optimizer/{{name}}/lr", 1e-4, 0.3 if name == "sgd" else 0.03, log=True)
    return BASELINE.replace({{
        "optimizer/name": name,
        "optimizer/lr": lr,
        "schedule/name": trial.suggest_categorical("schedule/name", ["constant", "cosine", "one-cycle"]),
        "model/width": trial.suggest_categorical("model/width", [0.125, 0.25]),
        "batch_size": trial.suggest_int("batch_size", 16, 32, step=8),
    }})


SEARCH = Search(SEARCH_OPTIONS)
"""

NUMBERS = f"""{GOOD}
BASELINE = GOOD.replace({{"epochs": 4}})


def space(trial: Trial) -> Recipe:
    return BASELINE.replace({{
        "optimizer/lr": trial.suggest_float("optimizer/lr", 1e-4, 0.03, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
    }})


SEARCH = Search(SEARCH_OPTIONS)
"""


@dataclass(frozen=True)
class SearchToRun:
    """A space file, what SEARCH has in it, and flags of the command line."""

    space: str
    options: str = ""
    flags: tuple[str, ...] = ()

    def source(self, checkpoint: Path | None) -> str:
        """The space file's text; a recipe's weights are the checkpoint's."""
        text = self.space.replace("SEARCH_OPTIONS", self.options).replace("RECIPES", repr(RECIPES))
        return text.replace(CHECKPOINT, str(checkpoint))


# Optuna's samplers draw their first ten trials at random.
SEARCHES = {
    FIRST: SearchToRun(CONDITIONAL, "num_trials=16"),
    "tpe": SearchToRun(
        CONDITIONAL, 'num_trials=14, minimize="num_parameters", limits={"num_parameters": 10_000}', ("--seed", "1")
    ),
    "gp": SearchToRun(NUMBERS, 'num_trials=13, sampler="gp", scheduler={"name": "median"}'),
    "cmaes": SearchToRun(
        NUMBERS,
        'num_trials=10, sampler="cmaes", scheduler={"name": "hyperband"}',
        ("--set", "grad_clip/name=norm"),
    ),
    "recipes": SearchToRun(ALL_RECIPES),
}

DUMP = """
import json, sys
from cifar_tune import load_trials

def exact(value):
    missing = value != value
    return None if missing else value.hex() if isinstance(value, float) else value

trials, epochs = load_trials(store=sys.argv[1])
frames = [[{n: exact(v) for n, v in row.items()} for row in f.to_dict("records")] for f in (trials, epochs)]
print(json.dumps(frames))
"""


@dataclass(frozen=True)
class Results:
    """What a version's searches gave, floats as hexadecimal texts: a row for each trial, and one for each epoch."""

    trials: Mapping[Key, Row]
    epochs: Mapping[Key, Sequence[Row]]


@dataclass(frozen=True)
class Comparison:
    """How many values of a trial or of its epochs are the same in both, and those that are not, in words."""

    num_same: int
    different: Sequence[str]


def main() -> None:
    """Run both, print a line for each trial and the count, and exit with 1 on a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a work tree of the version to compare with")
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(run_searches, (HERE, parser.parse_args().other.absolute()))
    same = tell(ours, theirs)
    print(f"{time.monotonic() - start:.0f} s")
    sys.exit(0 if same else 1)


def run_searches(checkout: Path) -> Results:
    """All of them with one checkout's package, in a store that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        for name, search in SEARCHES.items():
            space = Path(folder) / f"{name}.py"
            checkpoint = next(store.glob(f"searches/{FIRST}/trials/*/weights.safetensors"), None)
            space.write_text(search.source(checkpoint), encoding="utf-8")
            where = ("--store", str(store), "--cpus-per-trial", "1", "--max-concurrent", "1")
            run_python(checkout, "-m", "cifar_tune.cli", "run", str(space), *where, *search.flags)
        trials, epochs = json.loads(run_python(checkout, "-c", DUMP, str(store)))
    broken = [f"{row['search']} {row['trial']}" for row in trials if row["state"] in ("failed", "interrupted")]
    if broken:
        sys.exit(f"{checkout}: the trials {', '.join(broken)} failed, which compares nothing")
    by_trial: dict[Key, list[Row]] = {(row["search"], row["trial"]): [] for row in trials}
    for row in epochs:
        by_trial[row["search"], row["trial"]].append(row)
    return Results({(row["search"], row["trial"]): row for row in trials}, by_trial)


def run_python(checkout: Path, *arguments: str) -> str:
    """What this interpreter prints when it has the checkout's package, one thread, and no settings of the user's."""
    changing = ("PYTHON", "CIFAR_TUNE", "MLFLOW")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(changing)}
    environment = {**kept, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def tell(ours: Results, theirs: Results) -> bool:
    """A line for each trial and one for all; whether everything is the same."""
    num_same = num_different = num_epochs = num_values = num_changed = 0
    for key in sorted(ours.trials.keys() | theirs.trials.keys(), key=place):
        epochs = compare_epochs(ours.epochs.get(key, ()), theirs.epochs.get(key, ()))
        values = compare_rows(ours.trials.get(key, {}), theirs.trials.get(key, {}))
        num_epochs += len(ours.epochs.get(key, ()))
        num_same, num_different = num_same + epochs.num_same, num_different + len(epochs.different)
        num_values, num_changed = num_values + values.num_same, num_changed + len(values.different)
        print_trial(key, ours.trials.get(key) or theirs.trials[key], [*values.different, *epochs.different])
    print(f"{num_same} metrics of {num_epochs} epochs are the same, {num_different} differ")
    print(f"{num_values} values of {len(ours.trials)} trials are the same, {num_changed} differ")
    return num_different == num_changed == 0 < num_same


def place(key: Key) -> tuple[int, int]:
    """In the order in which they were trained."""
    search, trial = key
    return list(SEARCHES).index(search), trial


def compare_epochs(ours: Sequence[Row], theirs: Sequence[Row]) -> Comparison:
    """Compare the epochs of one trial; an epoch that only one side has differs in all its metrics."""
    num_epochs = max(len(ours), len(theirs))
    pairs = [(rows_of(ours, i), rows_of(theirs, i)) for i in range(num_epochs)]
    comparisons = [compare_rows(our, their, f"epoch {i} ") for i, (our, their) in enumerate(pairs, start=1)]
    return Comparison(
        sum(each.num_same for each in comparisons), [line for each in comparisons for line in each.different]
    )


def rows_of(rows: Sequence[Row], i: int) -> Row:
    """The row at a place, empty where there is none."""
    return rows[i] if i < len(rows) else {}


def compare_rows(ours: Row, theirs: Row, where: str = "") -> Comparison:
    """Compare two rows value by value, bit for bit, without the times, which are the machine's."""
    names = [name for name in {**ours, **theirs} if name not in NOT_COMPARED]
    different = [name for name in names if name not in ours or name not in theirs or ours[name] != theirs[name]]
    differences = [
        f"{where}{name}: {readable(ours.get(name))}, other {readable(theirs.get(name))}" for name in different
    ]
    return Comparison(len(names) - len(different), differences)


def readable(value: object) -> str:
    """A float by its decimal digits, all of them."""
    if isinstance(value, str) and value.startswith(("0x", "-0x")):
        return repr(float.fromhex(value))
    return str(value)


def print_trial(key: Key, row: Row, different: Sequence[str]) -> None:
    """What it was, how it ended, and what differs."""
    search, trial = key
    score = readable(row["val_accuracy"])
    verdict = "DIFFERS" if different else "same"
    print(
        f"{search:<9} {trial:>3}  {row['state']:<13} {score:<6} {verdict:<8} {', '.join(describe_settings(key, row))}"
    )
    for line in different[:5]:
        print(f"{'':<14} {line}")


def describe_settings(key: Key, row: Row) -> Iterator[str]:
    """The options by which a recipe differs from the good one, or what a trial sampled."""
    search, trial = key
    if search == "recipes" and trial < len(RECIPES):
        settings = {name: str(value) for name, value in RECIPES[trial].items()}
    else:
        names = [name for name in row if "/" in name or name in ("label_smoothing", "batch_size")]
        settings = {name: readable(row[name]) for name in names if row[name] is not None}
    return (f"{name}={value}" for name, value in settings.items())


if __name__ == "__main__":
    main()
