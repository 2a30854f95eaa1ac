"""Which options of a recipe help in short training: each by itself, against the plain Mini-ResNet recipe.

    uv run python analysis/options.py --data-dir cifar10 --seeds 0 1 2 3 4
    uv run python analysis/options.py                                       # the tables of the runs that are there

Every run trains 10 epochs on 9,000 images of CIFAR-10 and is scored on 5,000 others of the training files. Runs are
paired by their seeds; gains are in points, with 95 % intervals over seeds and images (cifar_tune/evaluation/
significance.py), each by itself. The runs are kept in options.parquet, so that the study goes on where it stopped.
"""

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cifar_tune import Recipe
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import TrainingData
from cifar_tune.evaluation.significance import ALPHA, paired_difference
from cifar_tune.search.space import load_space
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.memory import keep_freed_memory
from cifar_tune.training.scores import Values

RUNS = Path(__file__).with_suffix(".parquet")
NUM_WATCHED = 500  # validation images after each epoch; the last network is scored on all of them
(PLAIN,) = load_space(Path(__file__).with_name("options_space.py")).baselines


@dataclass(frozen=True)
class Option:
    """What it changes in the option that it is compared with."""

    settings: dict[str, str | float | bool] = field(default_factory=dict)
    base: str = "plain"


OPTIONS = {
    "plain": Option(),
    "cutout": Option({"augment/cutout": 16}),
    "erasing": Option({"augment/erasing": 0.25}),
    "TrivialAugment": Option({"augment/trivial_augment": True}),
    "mixup": Option({"mixing/name": "mixup"}),
    "cutmix": Option({"mixing/name": "cutmix"}),
    "label smoothing": Option({"label_smoothing": 0.1}),
    "EMA": Option({"averaging/name": "ema"}),
    "cosine": Option({"schedule/name": "cosine"}),
    "cosine, warm-up": Option({"schedule/name": "cosine", "schedule/warmup": 0.1}),
    "linear": Option({"schedule/name": "linear", "schedule/warmup": 0.1}),
    "linear to 7 %": Option({"schedule/name": "linear", "schedule/warmup": 0.1, "schedule/final": 0.07}),
    "SGD": Option({"optimizer/name": "sgd", "optimizer/lr": 0.05, "optimizer/weight_decay": 5e-4}),
    "Nesterov": Option({"optimizer/nesterov": True}, "SGD"),
    "no decay on norms": Option({"optimizer/decay_norms_and_biases": False}, "SGD"),
    "Muon": Option({"optimizer/name": "muon", "optimizer/lr": 0.02, "optimizer/adamw_lr": 0.001}),
    "patch whitening": Option({"model/whitening": True}),
}


def recipe_of(name: str, seed: int) -> Recipe:
    """The recipe of an option, with the changes of those that it is based on."""
    option = OPTIONS[name]
    base = PLAIN.replace({"seed": seed}) if name == "plain" else recipe_of(option.base, seed)
    return base.replace(option.settings)


def train(name: str, seed: int, data: DeviceData, score_on: DeviceData) -> dict[str, object]:
    """One run; which of the validation images it classifies correctly, as packed bits."""
    start = time.process_time()  # other programs may run beside it
    training = Training(recipe_of(name, seed), data)
    for _ in training.fit():
        pass
    hits = training.predict(score_on.val).argmax(dim=1) == score_on.val.labels
    return {
        "option": name,
        "seed": seed,
        "accuracy": hits.float().mean().item(),
        "cpu_seconds": time.process_time() - start,
        "hits": np.packbits(hits.cpu().numpy()).tobytes(),
    }


def load_data(data_dir: Path, store: Path) -> tuple[TrainingData, TrainingData]:
    """The data of the runs, and the same with all validation images."""
    whole = load_training_data("cifar10", train_images=None, data_dir=data_dir, store=store)
    assert PLAIN.train_images is not None
    full = replace(whole, train=whole.train.part(0, PLAIN.train_images))
    return replace(full, val=whole.val.part(0, NUM_WATCHED)), full


def load_runs(path: Path = RUNS) -> pd.DataFrame:
    """The runs that are there."""
    return pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=["option", "seed"])


def run_missing(data_dir: Path, store: Path, seeds: list[int], output: Path) -> None:
    """Train what is missing, all options of a seed before the next seed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, full = (DeviceData.place(each, device) for each in load_data(data_dir, store))
    for seed in seeds:
        for name in OPTIONS:
            runs = load_runs(output)
            if ((runs["option"] == name) & (runs["seed"] == seed)).any():
                continue
            row = train(name, seed, data, full)
            print(name, seed, f"{row['accuracy']:.4f}", f"{row['cpu_seconds']:.0f} s", flush=True)
            pd.concat([load_runs(output), pd.DataFrame([row])], ignore_index=True).to_parquet(output, index=False)


def hits_of(runs: pd.DataFrame, name: str, seeds: list[int]) -> Values:
    """A row of hits for each seed."""
    own = runs[runs["option"] == name].set_index("seed")["hits"]
    return np.array([np.unpackbits(np.frombuffer(own[seed], np.uint8)) for seed in seeds]).astype(bool)


def table(runs: pd.DataFrame) -> str:
    """A row for each option: seeds, accuracy, gain over its base with the interval, processor time as a multiple."""
    lines = ["| option | against | seeds | accuracy | gain in points (95 %) | time |", "|---|---|---|---|---|---|"]
    by_option = dict(iter(runs.groupby("option")))
    for name, option in OPTIONS.items():
        if name not in by_option:
            continue
        accuracy = f"{100 * by_option[name]['accuracy'].mean():.1f} %"
        if name == "plain":
            lines.append(f"| plain | | {len(by_option[name])} | {accuracy} | | 1 |")
            continue
        both = by_option[name].merge(by_option.get(option.base, runs[:0]), on="seed")
        seeds = sorted(both["seed"])
        if len(seeds) < 2:
            continue
        gain = paired_difference(*(hits_of(runs, each, seeds) for each in (name, option.base)))
        low, high = (100 * bound for bound in gain.interval(ALPHA))
        factor = (both["cpu_seconds_x"] / both["cpu_seconds_y"]).median()
        gained = f"{100 * gain.mean:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(f"| {name} | {option.base} | {len(seeds)} | {accuracy} | {gained} | {factor:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing where there is data, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="a folder with CIFAR-10; without one nothing is trained")
    parser.add_argument("--store", type=Path, default=Path("cifar_tune_store"), help="where decoded images are kept")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RUNS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.data_dir is not None:
        run_missing(arguments.data_dir, arguments.store, arguments.seeds, arguments.output)
    print(table(load_runs(arguments.output)))


if __name__ == "__main__":
    main()
