"""Measures the training loop: images per second of `Training.fit()`, of a tutorial's loop, and of the bare network.

    uv run python analysis/speed/loop.py
    uv run python analysis/speed/loop.py --models mini_resnet --threads 2 --against ../other-checkout --json loop.json

`bare` is forward, loss, backward and step on one batch that stays in memory, in the faster memory format: the limit of
every loop. `tutorial` is torchvision's transforms on PIL images, a DataLoader without workers, torch's default
optimizer, and `.item()` in each step, in a process of its own with torch's default settings. `validation` is compared
with the bare forward pass. All take turns, round by round; printed are medians of the rounds, and of the ratios within
a round. On a GPU all of them run there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from subprocess import PIPE
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from cifar_tune import Recipe
from cifar_tune.data.datasets import load_training_data
from cifar_tune.data.images import Images, TrainingData
from cifar_tune.recipe.augment import mean_and_std
from cifar_tune.training.inputs import DeviceData, autocast
from cifar_tune.training.loop import Training

ROOT = Path(__file__).parents[2]
COMMON: dict[str, Any] = {"dataset": "shapes", "schedule": {"name": "constant"}, "epochs": 1_000}  # more than rounds
ADAM = {"name": "adam", "lr": 0.001}
RECIPES = {  # the published recipes, with a learning rate that is safe from the first step on
    "mini_resnet": Recipe(
        **COMMON, model={"name": "mini_resnet"}, optimizer=ADAM, augment={"padding_mode": "zero"}, batch_size=100
    ),
    "resnet9": Recipe(
        **COMMON,
        model={"name": "resnet9"},
        optimizer={**ADAM, "weight_decay": 1e-4},
        grad_clip={"name": "value", "limit": 0.1},
        batch_size=400,
    ),
    "resnet50": Recipe(
        **COMMON,
        model={"name": "resnet50", "weights": "none"},
        optimizer={"name": "sgd", "lr": 0.01, "weight_decay": 5e-4},
        augment={"padding_mode": "zero"},
        batch_size=128,
    ),
}
NUM_STEPS = {"mini_resnet": 20, "resnet9": 1, "resnet50": 1}  # of a measurement on a CPU: seconds to half a minute
NUM_STEPS_ON_A_GPU = 100
NUM_VAL = 500
RATIOS = [
    ("fit", "bare"),
    ("fit", "tutorial"),
    ("fit", "other fit"),
    ("validation", "bare forward"),
    ("validation", "other validation"),
]
ORDER = ["bare", "fit", "other fit", "tutorial", "bare forward", "validation", "other validation"]
Rates = dict[str, float]  # images per second


class Bench:
    """One model's loops in this process. The first measurement of each is a warm-up."""

    def __init__(
        self, recipe: Recipe, data: TrainingData, num_steps: int, device: torch.device, num_val: int = NUM_VAL
    ) -> None:
        num_images = num_steps * recipe.batch_size
        repeated = np.resize(np.arange(len(data.train)), num_images)  # a GPU takes more images than there are
        self._train = Images(data.train.images[repeated], data.train.labels[repeated])
        self._val = Images(data.val.images[:num_val], data.val.labels[:num_val])
        self._data = DeviceData.place(replace(data, train=self._train, val=self._val), device)
        self._recipe, self._num_steps, self._device = recipe, num_steps, device

    def measure(self, kind: str) -> Rates:
        """The rates of a kind, which is one of the next three methods."""
        rates: Rates = getattr(self, kind)()
        return rates

    def fit(self) -> Rates:
        """One epoch of the product."""
        metrics = next(self._epochs)
        seconds = len(self._train) / metrics.images_per_second
        return {"fit": metrics.images_per_second, "validation": len(self._val) / (metrics.seconds - seconds)}

    @cached_property
    def _epochs(self) -> Iterator[Any]:
        return Training(self._recipe, self._data).fit()

    def bare(self) -> Rates:
        """The network alone: as many steps as the others take, and a pass over as many images as validate."""
        step, forward = self._fastest
        return {
            "bare": len(self._train) / self._seconds(lambda: [step() for _ in range(self._num_steps)]),
            "bare forward": len(self._val) / self._seconds(forward),
        }

    @cached_property
    def _fastest(self) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """The step and the forward pass of the memory format in which a step takes less time."""
        networks = {}
        for memory_format in (torch.contiguous_format, torch.channels_last):
            step, forward = self.network(memory_format)
            step()
            networks[min(self._seconds(step) for _ in range(2))] = step, forward
        return networks[min(networks)]

    def network(
        self, memory_format: torch.memory_format, *, capturable: bool = False
    ) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """A step and a forward pass of the bare network; a CUDA graph takes a step that is `capturable`."""
        recipe, device = self._recipe, self._device
        model = recipe.model.build(self._data.num_classes).to(device, memory_format=memory_format)  # type: ignore[call-overload]
        optimizer = recipe.optimizer.build(model)
        for group in optimizer.param_groups if capturable else ():
            group["capturable"] = True
        images = torch.rand(max(recipe.batch_size, len(self._val)), 3, 32, 32).to(device, memory_format=memory_format)
        labels = torch.zeros(recipe.batch_size, dtype=torch.int64, device=device)

        def step() -> Tensor:
            with autocast(recipe, device):
                logits = model.train()(images[: recipe.batch_size])
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            return loss.detach()

        @torch.inference_mode()
        def forward() -> Tensor:
            with autocast(recipe, device):
                logits: Tensor = model.eval()(images[: len(self._val)])
            return logits

        return step, forward

    def tutorial(self) -> Rates:
        """One epoch of the loop that most write first."""
        model, optimizer, loader = self._tutorial
        return {"tutorial": len(self._train) / self._seconds(lambda: self._run_tutorial(model, optimizer, loader))}

    @cached_property
    def _tutorial(self) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
        recipe = self._recipe
        mode = "reflect" if recipe.augment.padding_mode == "reflect" else "constant"
        transform = transforms.Compose(
            [
                transforms.RandomCrop(32, recipe.augment.crop_padding, padding_mode=mode),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*mean_and_std(recipe.scaling, self._data.train.images)),
            ]
        )
        model = recipe.model.build(self._data.num_classes).to(self._device)
        classes: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
        options = {"lr": recipe.optimizer.lr, "weight_decay": recipe.optimizer.weight_decay}
        optimizer = classes[recipe.optimizer.name](model.parameters(), **options)
        return model, optimizer, DataLoader(_Pictures(self._train, transform), recipe.batch_size, shuffle=True)  # type: ignore[arg-type]

    def _run_tutorial(self, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any]) -> float:
        total_loss, num_hits = 0.0, 0
        model.train()
        for images, labels in loader:
            images, labels = images.to(self._device), labels.to(self._device)
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._recipe.grad_clip.clip(model.parameters())
            optimizer.step()
            total_loss += loss.item() * len(labels)
            num_hits += (logits.argmax(dim=1) == labels).sum().item()
        return total_loss / len(loader)

    def _seconds(self, call: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class _Pictures:
    """A data set as torchvision's: a PIL image is made and transformed whenever it is asked for."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self._pixels = np.ascontiguousarray(images.images.transpose(0, 2, 3, 1))
        self._labels = images.labels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), int(self._labels[index])


def compare(num_rounds: int, contestants: Sequence[tuple[str, Callable[[], Rates]]]) -> dict[str, list[float]]:
    """The rates of every contestant by name, one for each round; the first round is a warm-up and left out."""
    rates: dict[str, list[float]] = defaultdict(list)
    # Each round begins with another contestant, so that none always follows the same one.
    for i in range(num_rounds + 1):
        for prefix, measure in islice(cycle(contestants), i, i + len(contestants)):
            for name, rate in measure().items():
                if i:
                    rates[prefix + name].append(rate)
    return rates


def summarize(rates: Mapping[str, Sequence[float]]) -> Rates:
    """The medians, and the medians of the ratios within a round."""
    ratios = {
        f"{over}/{under}": median(a / b for a, b in zip(rates[over], rates[under], strict=True))
        for over, under in RATIOS
        if under in rates
    }
    return {name: median(rates[name]) for name in sorted(rates, key=ORDER.index)} | ratios


@contextmanager
def process_of(
    checkout: Path, model: str, arguments: argparse.Namespace, store: Path, *more: str
) -> Iterator[Callable[[str], Rates]]:
    """A process with the checkout's package, and what asks it for the rates of one kind."""
    options = {"--threads": arguments.threads, "--steps": arguments.steps, "--device": arguments.device}
    flags = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
    flags += [*more, *(["--processor-time"] if arguments.processor_time else [])]
    command = [sys.executable, __file__, "--serve", model, "--data", str(store), *flags]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    with subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(kind: str) -> Rates:
            print(kind, file=stdin, flush=True)
            rates: Rates = json.loads(stdout.readline())
            return rates

        yield ask
        stdin.close()


def _set_as_a_worker_does() -> None:
    with suppress(ImportError):  # an older checkout's workers set nothing
        from cifar_tune.training.memory import keep_freed_memory

        keep_freed_memory()


def _serve(model: str, arguments: argparse.Namespace) -> None:
    """Answer each line of stdin, a kind, with a line of its rates."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not arguments.plain:
        _set_as_a_worker_does()
    if arguments.processor_time:
        torch.set_num_threads(1)
        time.perf_counter = time.process_time  # the package's loop reads this clock, too
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    num_steps = arguments.steps or (NUM_STEPS[model] if device.type == "cpu" else NUM_STEPS_ON_A_GPU)
    data = load_training_data("shapes", train_images=None, data_dir=None, store=arguments.data)
    bench = Bench(RECIPES[model], data, num_steps, device)
    for line in sys.stdin:
        print(json.dumps(bench.measure(line.strip())), flush=True)


def _measure(model: str, arguments: argparse.Namespace, store: Path) -> Rates:
    with ExitStack() as stack:

        def start(checkout: Path, *more: str) -> Callable[[str], Rates]:
            return stack.enter_context(process_of(checkout.absolute(), model, arguments, store, *more))

        this = start(ROOT)
        contestants = [("", partial(this, "bare")), ("", partial(this, "fit"))]
        if arguments.against:
            contestants.append(("other ", partial(start(arguments.against), "fit")))
        contestants.append(("", partial(start(ROOT, "--plain"), "tutorial")))
        return summarize(compare(arguments.rounds, contestants))


def _print(rows: Mapping[str, Rates]) -> None:
    columns = list(next(iter(rows.values())))
    print("| model | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for model, row in rows.items():
        cells = [f"{row[name]:.3f}" if "/" in name else f"{row[name]:,.0f}" for name in columns]
        print(f"| {model} | {' | '.join(cells)} |")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="optimizer steps of one measurement")
    parser.add_argument("--threads", type=int, help="of torch; its own choice where left out")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the GPU where there is one")
    parser.add_argument("--processor-time", action="store_true", help="on one thread of a CPU that others use, too")
    parser.add_argument("--against", type=Path, help="another checkout of cifar-tune")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--serve", choices=RECIPES, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.serve, arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = {model: _measure(model, arguments, Path(folder)) for model in arguments.models}
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
