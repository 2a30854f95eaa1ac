"""Checks this product on a GPU in nine minutes: speed, CUDA graphs, trials that share it, published recipes, a search.

    uv run python analysis/gpu.py --data-dir DIR

1. `speed`: images per second of `Training.fit()` beside the bare network (analysis/speed/loop.py), and the seconds of a
   ResNet9 epoch of 45,000 images.
2. `graph`: whether a whole step as a CUDA graph gives the losses of an eager step, and how much faster it is.
3. `sharing`: images per second of 1, 2, 4 and 8 trainings of ResNet9 at a time on the one GPU.
4. `search`: a search of `search_spaces/resnet9.py`, its seconds and its best beside the baseline.
5. `recipes`: the validation accuracies of the published recipes with three seeds, beside what is published.

What no time is left for is said. A part that fails is named at the end, and the exit code is 1. Without a GPU all but
`graph` runs on the CPU, where the flags make it small.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from speed import loop
from torch import Tensor

from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import TrainingData
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.report.projects import PROJECTS
from cifar_tune.search.space import load_space
from cifar_tune.store import open_store
from cifar_tune.training.features import FeatureCache
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.weights import open_weights

ROOT = Path(__file__).parents[1]
SPACES = ROOT / "search_spaces"
PUBLISHED = ("resnet9", "mini_resnet", "resnet50_linear", "resnet50_two_phase", "resnet50_cifar100")  # cheap ones first
EPOCH = 45_000  # images
NUM_SEEDS = 3
AT_A_TIME = (1, 2, 4, 8)
NUM_GRAPH_STEPS = 50
NUM_WARM_UP = 3  # steps before a capture, in which torch chooses its kernels


@dataclass(frozen=True)
class Bench:
    """What is measured, and until when: `ends_at` is a time.monotonic()."""

    device: torch.device
    ends_at: float
    options: argparse.Namespace

    @property
    def seconds_left(self) -> float:
        """Seconds until all has to be done."""
        return self.ends_at - time.monotonic()

    def resized(self, recipe: Recipe) -> Recipe:
        """The recipe, with the batch size that was asked for."""
        return recipe.replace({"batch_size": self.options.batch_size or recipe.batch_size})

    def data(self, dataset: str) -> TrainingData:
        """The data set's training part, or as much of it as was asked for."""
        options = self.options
        return load_training_data(
            dataset,  # type: ignore[arg-type]
            train_images=options.images,
            data_dir=options.data_dir,
            store=open_store(options.store).root,
        )


def speed(bench: Bench) -> Iterator[str]:
    """Images per second, and their share of the bare network's."""
    data = bench.data(bench.options.dataset)
    yield "| model | bare | fit | fit/bare |\n|---|---|---|---|"
    for name in bench.options.models:
        measured = loop.Bench(bench.resized(loop.RECIPES[name]), data, bench.options.steps, bench.device)
        rates = loop.summarize(
            loop.compare(bench.options.rounds, [("", measured.bare), ("", measured.fit)])  # the first is a warm-up
        )
        yield f"| {name} | {rates['bare']:,.0f} | {rates['fit']:,.0f} | {rates['fit/bare']:.3f} |"
        if name == "resnet9":
            bare, fit = EPOCH / rates["bare"], EPOCH / rates["fit"]
            yield f"| an epoch of {EPOCH:,} images in seconds | {bare:.2f} | {fit:.2f} | |"


def graph(bench: Bench) -> Iterator[str]:
    """The losses and the speed of a ResNet9 step as a CUDA graph and without."""
    if bench.device.type != "cuda":
        yield "Not measured: CUDA graphs need a GPU."
        return
    eager, replay = _warm_step(bench), _captured(_warm_step(bench))
    rates, losses = {}, {}
    for name, step in {"eager": eager, "graph": replay}.items():
        torch.cuda.synchronize()
        start = time.perf_counter()
        losses[name] = torch.stack([step().clone() for _ in range(NUM_GRAPH_STEPS)]).tolist()
        rates[name] = NUM_GRAPH_STEPS / (time.perf_counter() - start)
    difference = max(abs(a - b) for a, b in zip(losses["eager"], losses["graph"], strict=True))
    yield (
        f"Steps per second: {rates['eager']:.0f} eager, {rates['graph']:.0f} as a graph "
        f"({rates['graph'] / rates['eager']:.2f}). Largest difference of a loss: {difference:.2g}."
    )


def _warm_step(bench: Bench) -> Callable[[], Tensor]:
    """A step of ResNet9 on one batch that stays, after the warm-up that a capture needs.

    Without dropout, whose random numbers would differ between two loops.
    """
    recipe = loop.RECIPES["resnet9"].replace({"model/dropout": 0.0})
    torch.manual_seed(0)
    measured = loop.Bench(recipe, bench.data(bench.options.dataset), 1, bench.device)
    step, _ = measured.network(torch.channels_last, capturable=True)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(NUM_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    return step


def _captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        loss = step()

    def replay() -> Tensor:
        recorded.replay()
        return loss

    return replay


def sharing(bench: Bench) -> Iterator[str]:
    """Images per second of several trainings of one recipe at a time, each in a process of its own."""
    arguments = argparse.Namespace(
        threads=None, steps=bench.options.steps, device=bench.device.type, processor_time=False
    )
    yield "| trainings at a time | images per second, all together | of one alone |\n|---|---|---|"
    alone = 0.0
    with ExitStack() as stack, ThreadPoolExecutor(max(bench.options.at_a_time)) as pool:
        asks: list[Callable[[str], loop.Rates]] = []
        for number in bench.options.at_a_time:
            while len(asks) < number:
                process = loop.process_of(ROOT, bench.options.sharing_model, arguments, bench.options.store)
                asks.append(stack.enter_context(process))
                asks[-1]("fit")  # a warm-up
            totals = [
                sum(rates["fit"] for rates in pool.map(lambda ask: ask("fit"), asks))
                for _ in range(bench.options.rounds)
            ]
            total = statistics.median(totals)
            alone = alone or total
            yield f"| {number} | {total:,.0f} | {total / alone:.2f} |"


def recipes(bench: Bench) -> Iterator[str]:
    """The best validation accuracies of each published recipe."""
    for name in bench.options.recipes:
        recipe = load_space(SPACES / f"{name}.py", bench.options.settings).baselines[0]
        published = next((project.published for project in PROJECTS if project.is_of(recipe)), "nothing")
        try:
            scores = list(_train(bench, recipe))
        except UserError as error:
            yield f"{name}: not trained. {error}"
            continue
        listed = ", ".join(f"{100 * score:.2f} %" for score, _ in scores)
        seconds = f"; {statistics.mean(seconds for _, seconds in scores):.1f} s each" if scores else ""
        unfinished = f" ({len(scores)} of {NUM_SEEDS} seeds: no time was left)" if len(scores) < NUM_SEEDS else ""
        yield f"{name}: {listed or 'none'}{seconds}{unfinished}. Published: {published}."


def _train(bench: Bench, recipe: Recipe) -> Iterator[tuple[float, float]]:
    """The accuracy that counts and the seconds of each seed for which there is time."""
    data = DeviceData.place(bench.data(recipe.dataset), bench.device)
    weights = open_weights(recipe.model.weights)
    cache = FeatureCache(open_store(bench.options.store).features)
    for seed in range(NUM_SEEDS):
        start = time.monotonic()
        training = Training(recipe.model_copy(update={"seed": seed}), data, weights, cache)
        for _ in training.fit():
            if bench.seconds_left < 0:
                return
        yield training.counted.val_accuracy, time.monotonic() - start


def search(bench: Bench) -> Iterator[str]:
    """The seconds of a search, and its best trial beside the baseline."""
    options = bench.options
    settings = [part for name, value in options.settings.items() for part in ("--set", f"{name}={value}")]
    if options.images:
        settings += ["--set", f"train_images={options.images}"]
    data = ["--data-dir", str(options.data_dir)] if options.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cifar_tune"]
        environment = {**os.environ, "CIFAR_TUNE_STORE": folder}
        run = ["run", str(SPACES / "resnet9.py"), "--num-trials", str(options.trials), *settings, *data]
        start = time.monotonic()
        subprocess.run(
            [*command, *run],
            env=environment,
            stdout=subprocess.DEVNULL,
            timeout=max(1.0, bench.seconds_left),
            check=True,
        )
        seconds = time.monotonic() - start
        report = [*command, "report", "resnet9", "--format", "json"]
        done = subprocess.run(report, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout)
    yield f"{len(rows)} trials in {seconds:.0f} s. {_best(rows)}"


def _best(rows: list[dict[str, Any]]) -> str:
    complete = {row["trial"]: row["val_accuracy"] for row in rows if row["state"] == "completed"}
    best = max(complete, key=lambda number: complete[number])
    return f"Best: trial {best} with {100 * complete[best]:.2f} %; the baseline: {100 * complete[0]:.2f} %."


PARTS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "speed": speed,
    "graph": graph,
    "sharing": sharing,
    "search": search,
    "recipes": recipes,
}


def parse_options() -> argparse.Namespace:
    """The command line: what to measure, and how much of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--store", type=Path, default=Path("cifar_tune_store"), help="store with cached images")
    parser.add_argument("--trials", type=int, default=100, help="of the search")
    parser.add_argument("--dataset", default="cifar10", help="of the part `speed`")
    parser.add_argument("--images", type=int, help="training images; all where left out")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of one measurement")
    parser.add_argument("--models", nargs="+", choices=loop.RECIPES, default=list(loop.RECIPES), help="of `speed`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="of the part `speed`; the recipes' own where left out")
    parser.add_argument("--sharing-model", choices=loop.RECIPES, default="resnet9")
    parser.add_argument("--at-a-time", type=int, nargs="+", default=AT_A_TIME, help="trainings that share the GPU")
    parser.add_argument("--recipes", nargs="+", choices=PUBLISHED, default=PUBLISHED)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for all recipes")
    options = parser.parse_args()
    options.settings = dict(setting.split("=", 1) for setting in options.set)
    return options


def main() -> None:
    """Measure, and print each figure at once."""
    options = parse_options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'the CPU'}")
    bench, failed = Bench(device, time.monotonic() + 60 * options.minutes, options), []
    for name in options.parts:
        print(f"\n{name}", flush=True)
        if bench.seconds_left < 0:
            print("Not measured: no time was left.")
            continue
        start = time.monotonic()
        try:
            for line in PARTS[name](bench):
                print(line, flush=True)
        except Exception:  # the other parts are measured all the same
            traceback.print_exc()
            failed.append(name)
        print(f"({time.monotonic() - start:.0f} s)", flush=True)
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
