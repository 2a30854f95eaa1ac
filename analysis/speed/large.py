"""Measures a search on many images: the memory of each process, and the seconds until the first epoch is reported.

    uv run python analysis/speed/large.py --images 200000 --size 64 --folder large

The images are drawn and written once, as JPEG files in a folder for each of 20 classes. The search trains two short
trials beside each other, the first time with an empty cache and then with a full one. Memory is what a process has in
RAM; `private` leaves out what it shares with others, such as files that are mapped into memory.
"""

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

NUM_CLASSES = 20
SPACE = """
from cifar_tune import Recipe, Search, Trial

BASELINE = Recipe(
    dataset="folder", num_classes={classes}, image_size={size}, model={{"name": "mini_resnet", "width": 0.07}},
    optimizer={{"name": "adam", "lr": 0.01}}, schedule={{"name": "cosine"}}, augment={{"flip": True}},
    epochs=1, batch_size=500, early_stopping={{"name": "none"}},
)

def space(trial: Trial) -> Recipe:
    return BASELINE.replace({{"optimizer/lr": trial.suggest_float("optimizer/lr", 1e-3, 3e-2, log=True)}})

SEARCH = Search(num_trials=2, scheduler={{"name": "none"}})
"""


def write_images(folder: Path, num_images: int, size: int) -> None:
    """Noise with a colour that goes with its class, in folders; what is there stays."""
    random = np.random.default_rng(0)
    colours = random.integers(60, 200, (NUM_CLASSES, 3))
    for number in range(num_images):
        label = number % NUM_CLASSES
        path = folder / f"class {label:02}" / f"{number:06}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.normal(0, 40, (size // 8, size // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray((colours[label] + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def memory(process: psutil.Process) -> Iterator[tuple[str, int, int]]:
    """The role of a process and of all below it, with their bytes in RAM: all of them, and the private ones."""
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            words = " ".join(each.cmdline())
            role = "worker" if words.startswith("ray::") else Path(each.name()).name
            full = each.memory_full_info()
            yield ("driver" if each.name() == "cifar-tune" or "cifar-tune run" in words else role), full.rss, full.uss


def search(space: Path, data_dir: Path, store: Path) -> None:
    """Run the search and print what it took."""
    start, first = time.monotonic(), None
    command = ["cifar-tune", "run", space, "--data-dir", data_dir, "--store", store]
    peaks: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            for role, rss, uss in memory(psutil.Process(process.pid)):
                peaks[role] = [max(old, new) for old, new in zip(peaks[role], (rss, uss), strict=True)]
            if first is None and any(store.glob(f"searches/{space.stem}/trials/*/weights.safetensors")):
                first = time.monotonic() - start
            time.sleep(2)  # what is private takes long to count
        output = process.stdout.read().decode() if process.stdout else ""
    if process.returncode:
        sys.exit(output)
    print(f"first epoch after {first:.0f} s, the search {time.monotonic() - start:.0f} s")
    for role, (rss, uss) in sorted(peaks.items(), key=lambda each: -each[1][0])[:6]:
        print(f"  {role:24} {rss / 2**30:.2f} GB, {uss / 2**30:.2f} GB private", flush=True)


def main() -> None:
    """Write the images where they are missing, and search twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=64, help="pixels, both ways; a multiple of 8")
    parser.add_argument("--folder", type=Path, default=Path("large"), help="for images, space file and store")
    arguments = parser.parse_args()
    images = arguments.folder / "images"
    write_images(images, arguments.images, arguments.size)
    for number, cache in enumerate(("an empty cache", "a full cache")):
        space = arguments.folder / f"search_{number}.py"
        space.write_text(SPACE.format(classes=NUM_CLASSES, size=arguments.size), encoding="utf-8")
        print(f"{arguments.images:,} images of {arguments.size} px, {cache}:", flush=True)
        search(space, images, arguments.folder / "store")


if __name__ == "__main__":
    main()
