"""The export of a search's winner: a search space with it as the baseline, its weights, and a torch.export program."""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from cifar_tune.recipe.recipe import Recipe
from cifar_tune.store import WEIGHTS
from cifar_tune.training.inference import Classifier, load_classifier

SPACE, PROGRAM = "winner.py", "model.pt2"
NUM_EXAMPLES = 2  # torch.export would treat a batch size of one as a constant


def export_winner(folder: Path, weights: Path, space: str) -> None:
    """Write `winner.py` with the text `space`, `weights.safetensors` and `model.pt2` to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / WEIGHTS)
    (folder / SPACE).write_text(space, encoding="utf-8")
    classifier, _ = load_classifier(weights)
    with without_warning():
        torch.export.save(as_program(classifier), folder / PROGRAM)


@contextmanager
def without_warning() -> Iterator[None]:
    """Save exported programs without torch's warning of how it writes tensors; the programs are whole all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        yield


def with_baseline(space: str, settings: Mapping[str, str], baseline: Recipe, comment: str) -> str:
    """A space file's text with another baseline and the settings of its search.

    The new lines come last, under the `comment`; everything above them stays, the ranges too.
    """
    fields = "".join(f"    {name}={value!r},\n" for name, value in baseline.model_dump(mode="json").items())
    lines = [
        space.rstrip(),
        f"\n\n# {comment}",
        "from cifar_tune import Recipe  # noqa: E402",
        f"\nBASELINE = Recipe(\n{fields})",
        "BASELINES = [BASELINE]",
        f"SETTINGS = {dict(settings)!r}  # the search's own --set\n",
    ]
    return "\n".join(lines)


def as_program(classifier: Classifier) -> ExportedProgram:
    """The network with its preprocessing as a graph: uint8 images (n, 3, S, S) to logits (n, classes), for any n."""
    example = torch.zeros(NUM_EXAMPLES, 3, classifier.image_size, classifier.image_size, dtype=torch.uint8)
    return torch.export.export(classifier, (example,), dynamic_shapes={"images": {0: Dim("batch", min=1)}})
