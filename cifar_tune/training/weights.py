"""A run's starting weights: the published ones of ImageNet, or a file of this program or with a state_dict.

There are three steps: find the file, read it, fit its tensors into a network; foreign.py knows how others save. A
search takes them before it starts anything, so that it can refuse weights that do not fit. Nothing is ever unpickled:
`torch.load` with `weights_only`, and safetensors.
"""

import hashlib
import http.client
import json
import pickle
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.hub import download_url_to_file, get_dir

from cifar_tune.data.download import DOWNLOAD_TIMEOUT_SECONDS, socket_timeout
from cifar_tune.data.images import OWN
from cifar_tune.errors import UserError
from cifar_tune.recipe.recipe import Recipe
from cifar_tune.training.foreign import find_prefix, unwrap
from cifar_tune.training.network_size import outline

# Batch norms from before torch 0.4.1 do not count their batches, and no network here needs the count.
UNUSED = "num_batches_tracked"
NUM_NAMED = 3  # misfits that an error names; another architecture has hundreds
OTHER_WEIGHTS = "take --set model/weights=none or the path of a checkpoint"
PLAIN = "torch.save(model.state_dict(), path)"
_MAKE_NUMBER = np.float64(0).__reduce__()[0]
NUMPY_NUMBERS: list[Any] = [  # what a number of numpy's is pickled as: by numpy 1, by numpy 2, and its type
    *((_MAKE_NUMBER, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]


@dataclass(frozen=True)
class Published:
    """Weights at a public address; the file's name ends with the first digits of its SHA-256: NAME-0676ba61.pth."""

    url: str

    @property
    def filename(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """The first hex digits of the file's SHA-256."""
        return Path(self.filename).stem.rpartition("-")[2]


# torchvision's ResNet50_Weights.IMAGENET1K_V1, with which the published figures of the ResNet-50 projects agree. The
# newer V2 scores higher on ImageNet, but the label smoothing in its recipe makes frozen features worse
# (arXiv:1805.08974). torchvision knows the address too, but importing it takes seconds.
IMAGENET = Published("https://download.pytorch.org/models/resnet50-0676ba61.pth")


@dataclass(frozen=True, eq=False)
class Weights:
    """A file's tensors by name, on the CPU."""

    tensors: dict[str, Tensor]
    recipe: Mapping[str, Any] | None  # the one that they were trained by; None where the file does not say it
    digest: str  # hex SHA-256 of the tensors and the data set, the same in each file that holds them
    file_digest: str  # hex SHA-256 of the file, by which searches of version 0.1.0 know it
    source: str  # the file's name, for messages
    key: str | None = None  # of the state_dict in the checkpoint that the file is; None where it is one itself

    @property
    def dataset(self) -> str | None:
        """The data set that they were trained on; None where the file does not say it."""
        return self.recipe["dataset"] if self.recipe else None


# Finding


def find_weights(name: str) -> Path | None:
    """The file that a recipe's `model/weights` names, downloaded if necessary; None for `none`."""
    if name == "none":
        return None
    if name == "imagenet":
        return find_published(IMAGENET)
    try:
        path = Path(name).expanduser().absolute()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a folder without permission; ~ of an unknown user
        raise UserError(f"The weights {name!r} cannot be looked for ({_reason(error)}); correct the path.") from None
    what = "a folder is" if path.is_dir() else "nothing is"
    raise UserError(f"No weights at {path}, where {what}; model/weights is none, imagenet or the path of a file.")


def find_published(published: Published) -> Path:
    """The verified file in torch hub's folder (below TORCH_HOME); one process downloads it where it is missing."""
    path = Path(get_dir()).absolute() / "checkpoints" / published.filename
    try:
        # Without the lock first: a shared folder may be read-only.
        if not _is_whole(path, published):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is_whole(path, published):
                    _download(published, path)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot hold {path.name} ({_reason(error)}); point TORCH_HOME at a folder that can."
        ) from None
    return path


def _is_whole(path: Path, published: Published) -> bool:
    return path.is_file() and _file_digest(path).startswith(published.hash_prefix)


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(published: Published, path: Path) -> None:
    """Replace the file by the published one; where that fails, raise a UserError and leave the file as it is."""
    url, name = published.url, published.filename
    instead = f"get it on a machine that can and put it into {path.parent}, or {OTHER_WEIGHTS}."
    try:
        with socket_timeout(DOWNLOAD_TIMEOUT_SECONDS):
            download_url_to_file(url, str(path), published.hash_prefix, progress=sys.stderr.isatty())
    except (OSError, http.client.HTTPException) as error:
        state = "damaged" if path.exists() else "missing"
        raise UserError(
            f"{path} is {state} and could not be downloaded from {url} ({_reason(error)}); {instead}"
        ) from None
    except RuntimeError:
        raise UserError(
            f"What {url} sent is not the published {name} (its SHA-256 differs); try again, or {instead}"
        ) from None


# Reading


def open_weights(name: str) -> Weights | None:
    """The weights that a recipe's `model/weights` names; None for `none`."""
    path = find_weights(name)
    return None if path is None else read_weights(path)


def read_weights(path: Path) -> Weights:
    """The tensors of a .safetensors file, or of a state_dict that torch.save wrote, alone or in a checkpoint."""
    try:
        file_digest = _file_digest(path)
    except OSError as error:
        raise UserError(
            f"The weights {path} cannot be read ({_reason(error)}); correct the path or its rights."
        ) from None
    recipe, key = None, None
    if path.suffix == ".safetensors":
        tensors, recipe = _read_safetensors(path)
    else:
        tensors, key = _read_state_dict(path)
    digest = _digest(tensors, recipe["dataset"] if recipe else None)
    return Weights(tensors, recipe, digest, file_digest, path.name, key)


def _digest(tensors: Mapping[str, Tensor], dataset: str | None) -> str:
    """Of what decides where a run starts; a file's bytes differ each time, because safetensors orders metadata anew."""
    digest = hashlib.sha256(repr(dataset).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f" {name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        if tensor.layout == torch.strided and not tensor.is_quantized:  # no network here has others
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, _recipe(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or incomplete ({_reason(error)}); copy it again.") from None


def _recipe(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The recipe that save_weights wrote; None where the metadata is another program's."""
    try:
        recipe = json.loads(metadata["recipe"])
        return recipe if isinstance(recipe["dataset"], str) else None
    except (KeyError, TypeError, ValueError):
        return None


def _read_state_dict(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and their key in a checkpoint."""
    try:
        # Many programs save a namespace of options, or a score as a numpy number; neither runs code.
        with torch.serialization.safe_globals([Namespace, *NUMPY_NUMBERS]), warnings.catch_warnings(action="ignore"):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        what = f" (it holds {found[1]})" if found else ""
        raise UserError(
            f"{path} is not a plain state_dict of tensors, and nothing else is unpickled{what}; make one with {PLAIN}."
        ) from None
    except Exception:  # a damaged file can raise anything in torch
        raise UserError(
            f"{path} is damaged, incomplete or no state_dict; copy it again, or make it again with {PLAIN}."
        ) from None
    if isinstance(loaded, dict) and {"recipe", "history", "model"} <= loaded.keys():  # a state that save_state wrote
        raise UserError(
            f"{path} is a state to resume a run from; give the weights.safetensors of a finished run instead."
        )
    unwrapped = unwrap(loaded)
    if unwrapped is None:
        raise UserError(f"{path} holds something other than a state_dict of tensors; make one with {PLAIN}.")
    return unwrapped


# Fitting


def check_weights(
    recipes: Iterable[Recipe], known: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, str], list[str]]:
    """Read all weights that the recipes name, and check that they fit, without building a network in memory.

    Returns the digest of each file's tensors by its `model/weights`, or the `known` one if it is the file's; and a
    sentence for everything of a file that is not taken as it is: prefixes of names, parts beside the network, a head.
    """
    networks = {_tensor_options(recipe): recipe for recipe in recipes if recipe.model.weights != "none"}
    opened = {name: open_weights(name) for name in {recipe.model.weights for recipe in networks.values()}}
    files = {name: weights for name, weights in opened.items() if weights is not None}
    notes: set[str | None] = set()
    for recipe in networks.values():
        network = outline(recipe)
        weights, stripped = for_network(files[recipe.model.weights], network)
        notes |= {stripped, fitting(network, weights, recipe.dataset)[1]}
    digests = {
        name: weights.file_digest if known.get(name) == weights.file_digest else weights.digest
        for name, weights in files.items()
    }
    return digests, sorted(note for note in notes if note)


def _tensor_options(recipe: Recipe) -> str:
    """The options that decide a network's tensors: all but dropout, of which a search has as many as trials."""
    return f"{recipe.dataset} {recipe.model.model_dump(exclude={'dropout'})}"


def load_weights(model: nn.Sequential, weights: Weights, dataset: str) -> str | None:
    """Copy the tensors that fit into the model, on any device; a sentence where its head is not among them.

    The weights have the model's names; `for_network` gives them.
    """
    tensors, note = fitting(model, weights, dataset)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return note


def for_network(weights: Weights, model: nn.Sequential) -> tuple[Weights, str | None]:
    """The weights by the model's own names, and a sentence on what was stripped to get them; None where nothing was."""
    *_, (head, _) = model.named_children()
    body, _ = _split(model.state_dict(), f"{head}.")
    prefix = find_prefix(weights.tensors, [name for name in body if not name.endswith(UNUSED)])
    tensors = {name[len(prefix) :]: tensor for name, tensor in weights.tensors.items() if name.startswith(prefix)}
    stripped = [f"{weights.key!r} is taken out of the checkpoint"] if weights.key else []
    if prefix:
        stripped.append(f"the prefix {prefix!r} is stripped from its names")
    if num_others := len(weights.tensors) - len(tensors):
        stripped.append(f"{num_others} tensors beside the network are left out")
    if not stripped:
        return weights, None
    return replace(weights, tensors=tensors), f"{weights.source}: {', '.join(stripped)}."


def fitting(model: nn.Sequential, weights: Weights, dataset: str) -> tuple[dict[str, Tensor], str | None]:
    """The tensors that fit the model (on any device, also meta), and a sentence where its head is not among them.

    All children before the head must fit exactly, or a UserError is raised. The head is taken if it fits, and if the
    file does not say that it was trained on another data set: the same number of classes can be other classes. Images
    of one's own have no name to know them by, so a head that was trained on such is never taken.
    """
    *_, (last, _) = model.named_children()
    prefix = f"{last}."
    own_body, own_head = _split(model.state_dict(), prefix)
    body, head = _split(weights.tensors, prefix)
    if misfits := _misfits(own_body, body):
        raise UserError(_describe_misfits(misfits, weights.source))
    is_other = weights.dataset is not None and (weights.dataset != dataset or dataset in OWN)
    if is_other or _misfits(own_head, head):
        return body, _describe_replacement(own_head, head, weights, is_other)
    return body | head, None


def _split(tensors: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the body, and those of the head, whose names have the prefix."""
    head = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if name not in head}, head


def _misfits(own: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> list[str]:
    """Why the file's tensors cannot replace the network's own, in words; only floats convert into each other."""
    both = [(name, file[name], own[name]) for name in own if name in file]
    missing = [name for name in own if name not in file and not name.endswith(UNUSED)]
    return [
        *(f"{name} is {_shape(a)} instead of {_shape(b)}" for name, a, b in both if a.shape != b.shape),
        *(f"{name} is {a.dtype} instead of {b.dtype}" for name, a, b in both if not _converts(a, b)),
        *(f"{name} is missing" for name in missing),
        *(f"{name} is not one of the network's" for name in file if name not in own),
    ]


def _converts(tensor: Tensor, own: Tensor) -> bool:
    return tensor.dtype == own.dtype or (tensor.is_floating_point() and own.is_floating_point())


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "one number"


def _describe_misfits(misfits: list[str], source: str) -> str:
    more = f", and {len(misfits) - NUM_NAMED} more differ" if len(misfits) > NUM_NAMED else ""
    return (
        f"{source} does not hold this architecture's weights ({', '.join(misfits[:NUM_NAMED])}{more}); "
        "choose the model that they were trained with, or other model/weights."
    )


def _describe_replacement(
    own: Mapping[str, Tensor], head: Mapping[str, Tensor], weights: Weights, is_other: bool
) -> str:
    """Why the file's head is replaced. Its number of classes is certain only where it is a single layer."""
    if not head:
        return f"{weights.source} has no head for these layers; the network starts with a new one."
    matrices = [tensor for tensor in head.values() if tensor.ndim == 2]
    num_classes = len(matrices[0]) if len(matrices) == 1 else None
    has_other_number = num_classes is not None and num_classes != len(list(own.values())[-1])
    what = "of other layers"
    if is_other or has_other_number:
        classes = f"{num_classes} classes" if num_classes else "the classes"
        what = f"for {classes} of {weights.dataset}" if weights.dataset else f"for {classes}"
    return f"The head of {weights.source} is {what} and is replaced by a new one."


def _reason(error: Exception) -> str:
    """The error in a few words; a system error without its path."""
    return (isinstance(error, OSError) and error.strerror) or str(error).rstrip(".") or type(error).__name__
