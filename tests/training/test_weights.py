"""Starting weights: located or downloaded from a local server, read from files of every kind, fitted into networks."""

import hashlib
import pickle
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from helpers.image_files import Tripwire
from safetensors.torch import save_file
from torch import nn

from cifar_tune import Recipe
from cifar_tune.errors import UserError
from cifar_tune.recipe.models import MiniResNet, ResNet9, ResNet50
from cifar_tune.store import WEIGHTS
from cifar_tune.training.checkpoint import save_state, save_weights
from cifar_tune.training.weights import (
    IMAGENET,
    Published,
    Weights,
    check_weights,
    find_published,
    find_weights,
    fitting,
    for_network,
    load_weights,
    read_weights,
)

M = TypeVar("M", bound=nn.Module)


def network(num_classes: int = 10, seed: int = 0) -> nn.Sequential:
    """A backbone with a batch norm, and a head of one layer that is named `head`."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
    model.add_module("head", nn.Linear(8 * 30 * 30, num_classes))
    nn.init.normal_(model.get_parameter("1.weight"))
    return model


def plain(model: nn.Module, dataset: str | None = None) -> Weights:
    """The model's weights as they would be read from a file."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Weights(tensors, {"dataset": dataset} if dataset else None, digest="", file_digest="", source="given.pth")


def without(weights: Weights, *endings: str) -> Weights:
    return replace(weights, tensors={name: t for name, t in weights.tensors.items() if not name.endswith(endings)})


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def on_meta(build: Callable[[], M]) -> M:
    with torch.device("meta"):
        return build()


def sentence(refused: pytest.ExceptionInfo[UserError]) -> str:
    """The message that the user reads: one line that ends with a period."""
    message = str(refused.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Finding a file


def test_none_is_no_file() -> None:
    assert find_weights("none") is None


@pytest.mark.parametrize("name", ["here.pth", "~/here.pth", "folder/../here.pth"])
def test_a_path_is_relative_to_here_or_to_home(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "here.pth").touch()
    path = find_weights(name)
    assert path is not None
    assert path.is_absolute()
    assert path.samefile(tmp_path / "here.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagnet", "No weights at .*imagnet, where nothing is; model/weights is none, imagenet or the path of a file"),
        ("", "where a folder is"),
        ("~nobody-by-this-name/x.pth", "'~nobody-by-this-name/x.pth' cannot be looked for .*; correct the path"),
        ("x" * 300, "cannot be looked for .File name too long.; correct the path|where nothing is"),
    ],
)
def test_a_path_without_a_file_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        find_weights(name)
    sentence(refused)


def test_the_published_weights_are_torchvisions() -> None:
    from torchvision.models import ResNet50_Weights

    assert IMAGENET.url == ResNet50_Weights.IMAGENET1K_V1.url
    assert (IMAGENET.filename, IMAGENET.hash_prefix) == ("resnet50-0676ba61.pth", "0676ba61")


# The download

CONTENT = bytes(range(256)) * 100
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
NOWHERE = Published(f"http://127.0.0.1:9/{NAME}")


class Server(ThreadingHTTPServer):
    """Sends CONTENT, or only its beginning under headers that announce all of it; slowly, so that requests overlap."""

    num_sent = len(CONTENT)
    num_requests = 0

    @property
    def published(self) -> Published:
        return Published(f"http://127.0.0.1:{self.server_port}/models/{NAME}")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.num_requests += 1
        time.sleep(0.2)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: self.server.num_sent])

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free local port."""
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch hub's downloads, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def kept(hub: Path) -> list[str]:
    """The files in the folder, without the lock, which can stay."""
    return [path.name for path in hub.iterdir() if path.suffix != ".lock"]


def test_what_is_missing_is_downloaded_once(server: Server, hub: Path) -> None:
    assert find_published(server.published) == hub / NAME
    assert find_published(server.published).read_bytes() == CONTENT
    assert server.num_requests == 1
    assert kept(hub) == [NAME]


def test_a_file_that_the_user_put_there_needs_no_network(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT)
    assert find_published(NOWHERE) == hub / NAME
    assert kept(hub) == [NAME]


@pytest.mark.parametrize("wrong", [CONTENT[:-1], b"", b"<html>"])
def test_a_wrong_file_is_replaced(server: Server, hub: Path, wrong: bytes) -> None:
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(wrong)
    assert find_published(server.published).read_bytes() == CONTENT


def test_a_file_that_is_damaged_later_is_noticed(server: Server, hub: Path) -> None:
    find_published(server.published).write_bytes(CONTENT[:-1])
    assert find_published(server.published).read_bytes() == CONTENT
    assert server.num_requests == 2


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_one_works(server: Server, hub: Path) -> None:
    server.num_sent = 1000
    with pytest.raises(UserError, match=f"{NAME}.*--set model/weights=none") as refused:
        find_published(server.published)
    sentence(refused)
    assert kept(hub) == []
    server.num_sent = len(CONTENT)
    assert find_published(server.published).read_bytes() == CONTENT


def test_a_download_with_a_wrong_checksum_is_refused_and_leaves_nothing(server: Server, hub: Path) -> None:
    wrong = Published(server.published.url.replace(NAME, "net-00000000.pth"))
    with pytest.raises(UserError, match=r"not the published net-00000000.pth .its SHA-256 differs.; try again, or"):
        find_published(wrong)
    assert kept(hub) == []


def test_two_that_need_the_file_at_once_download_it_once(server: Server, hub: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        paths = list(threads.map(find_published, [server.published] * 2))
    assert paths == [hub / NAME] * 2
    assert server.num_requests == 1


def test_without_a_network_the_user_learns_what_is_missing_and_the_ways_out(hub: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_published(NOWHERE)
    message = sentence(refused)
    assert f"{hub / NAME} is missing" in message
    assert f"put it into {hub}," in message
    for hint in (NOWHERE.url, "Connection refused", "--set model/weights=none", "the path of a checkpoint"):
        assert hint in message


def test_without_a_network_a_wrong_file_is_called_damaged_and_stays(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=f"{NAME} is damaged and could not be downloaded"):
        find_published(NOWHERE)
    assert kept(hub) == [NAME]


def test_a_cache_that_cannot_be_made_is_named(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.touch()
    with pytest.raises(UserError, match=f"{hub} cannot hold {NAME} .*; point TORCH_HOME at") as refused:
        find_published(NOWHERE)
    sentence(refused)


def test_imagenet_is_looked_for_in_torch_hubs_folder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy on a port where nothing listens stands for a machine without a network."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(UserError, match=f"{hub / 'resnet50-0676ba61.pth'} is missing"):
        find_weights("imagenet")


# Reading a file


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_our_own_weights_know_their_dataset(tmp_path: Path) -> None:
    model = network()
    save_weights(tmp_path, model, {"recipe": {"dataset": "cifar100"}, "scores": {"epoch": 3}})
    weights = read_weights(tmp_path / "weights.safetensors")
    assert (weights.dataset, weights.source) == ("cifar100", "weights.safetensors")
    assert weights.file_digest == digest_of(tmp_path / "weights.safetensors")
    assert load_weights(started := network(seed=1), weights, "cifar100") is None
    assert same(started, model)


def test_equal_networks_have_one_digest_however_they_are_saved(tmp_path: Path) -> None:
    """The bytes of the files differ, because safetensors orders the metadata anew at each save."""
    metadata: dict[str, Any] = {"recipe": {"dataset": "cifar100"}, "scores": {"epoch": 3}, "preprocessing": {}}
    saved = []
    for number in range(12):
        save_weights(tmp_path / str(number), network(), metadata)
        saved.append(read_weights(tmp_path / str(number) / "weights.safetensors"))
    torch.save(network().state_dict(), tmp_path / "plain.pth")
    assert len({weights.digest for weights in saved}) == 1
    assert len({weights.file_digest for weights in saved}) > 1
    others = [{"recipe": {"dataset": "cifar10"}}, metadata]
    for number, (other, seed) in enumerate(zip(others, (0, 1), strict=True)):
        save_weights(tmp_path / f"other{number}", network(seed=seed), other)
        assert read_weights(tmp_path / f"other{number}" / "weights.safetensors").digest != saved[0].digest


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"recipe": "soup"}, {"recipe": "[1]"}, {"recipe": '{"dataset": {}}'}]
)
def test_safetensors_of_other_programs_have_no_dataset(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file(network().state_dict(), tmp_path / "other.safetensors", metadata=metadata)
    weights = read_weights(tmp_path / "other.safetensors")
    assert weights.dataset is None
    assert weights.tensors.keys() == network().state_dict().keys()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_plain_state_dict_is_read_in_both_of_torchs_formats(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "plain.pth"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=as_zip)
    weights = read_weights(path)
    assert (weights.dataset, weights.source, weights.file_digest) == (None, "plain.pth", digest_of(path))
    assert load_weights(started := network(seed=1), weights, "cifar10") is None
    assert same(started, network())


def test_parameters_without_buffers_are_a_plain_state_dict_too(tmp_path: Path) -> None:
    torch.save(dict(network().named_parameters()), tmp_path / "parameters.pth")
    assert "0.weight" in read_weights(tmp_path / "parameters.pth").tensors


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_of_anything_else_is_refused_and_never_unpickled(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save({"0.weight": Tripwire(tmp_path / "sprung")}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UserError, match=r"is not a plain state_dict .* torch.save\(model.state_dict\(\), path\)") as no:
        read_weights(path)
    sentence(no)
    assert not (tmp_path / "sprung").exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model.pth is not a plain state_dict"):
        read_weights(tmp_path / "model.pth")


def test_a_pickle_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Tripwire(tmp_path / "sprung"), protocol=2))
    with pytest.raises(UserError, match=r"model.pkl is"):
        read_weights(tmp_path / "model.pkl")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.ones(3),
        {},
        {"epoch": 3},
        {1: torch.ones(3)},
        {"state_dict": {"0.weight": 1.0}},
        {"state_dict": [torch.ones(3)], "model": {}},
        {"generator": {"0.weight": torch.ones(3)}, "discriminator": {"0.weight": torch.ones(3)}},
        {"0.weight": torch.ones(3).to_sparse()},
    ],
)
def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:  # noqa: ANN401 - anything
    torch.save(content, tmp_path / "content.pth")
    with pytest.raises(UserError, match=r"content.pth holds something other than a state_dict of tensors") as refused:
        read_weights(tmp_path / "content.pth")
    sentence(refused)


@pytest.mark.parametrize("as_zip", [True, False])
def test_the_message_names_what_is_not_unpickled(tmp_path: Path, as_zip: bool) -> None:
    checkpoint = {"state_dict": NETWORK, "losses": deque([0.5])}
    torch.save(checkpoint, tmp_path / "model.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UserError, match=r"nothing else is unpickled \(it holds collections.deque\); make one"):
        read_weights(tmp_path / "model.pth")


def test_a_state_to_resume_from_is_known_as_one(tmp_path: Path) -> None:
    save_state(tmp_path, {"recipe": {}, "history": [], "model": network().state_dict(), "optimizer": {}})
    with pytest.raises(UserError, match=r"state.pt is a state to resume .*; give the weights.safetensors") as refused:
        read_weights(tmp_path / "state.pt")
    sentence(refused)


NETWORK = network().state_dict()


@pytest.mark.parametrize(
    ("checkpoint", "key"),
    [
        ({"epoch": 3, "state_dict": NETWORK, "best_acc1": torch.tensor(0.9)}, "state_dict"),
        ({"model_state_dict": NETWORK, "optimizer_state_dict": {"state": {}, "param_groups": []}}, "model_state_dict"),
        ({"model": NETWORK, "ema": NETWORK, "args": Namespace(lr=0.1, folder=[None])}, "model"),
        ({"net": NETWORK, "acc": 91.2}, "net"),
        ({"net": NETWORK, "acc": np.float64(91.2), "epoch": np.int64(3), "loss": np.float32(0.1)}, "net"),
    ],
)
def test_a_checkpoint_around_the_state_dict_is_opened(tmp_path: Path, checkpoint: dict[str, Any], key: str) -> None:
    torch.save(checkpoint, tmp_path / "wrapped.pt")
    weights = read_weights(tmp_path / "wrapped.pt")
    assert weights.tensors.keys() == NETWORK.keys()
    assert for_network(weights, network())[1] == f"wrapped.pt: {key!r} is taken out of the checkpoint."


def test_the_weights_of_a_trial_may_be_read_by_whoever_may_read_new_files(tmp_path: Path) -> None:
    save_weights(tmp_path, network(), {})
    new = tmp_path / "new"
    new.touch()
    assert (tmp_path / WEIGHTS).stat().st_mode == new.stat().st_mode


@pytest.mark.parametrize("size", [0, 4, 100, -10])
@pytest.mark.parametrize("name", ["weights.safetensors", "zip.pth", "legacy.pth"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, size: int) -> None:
    save_weights(tmp_path, network(), {})
    torch.save(network().state_dict(), tmp_path / "zip.pth")
    torch.save(network().state_dict(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=f"{name} is (damaged|not a plain state_dict)") as refused:
        read_weights(path)
    sentence(refused)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html><title>404 Not Found</title>")
    with pytest.raises(UserError, match=f"{name} is") as refused:
        read_weights(tmp_path / name)
    sentence(refused)


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read \((No such file or directory|Is a directory)\)") as refused:
        read_weights(tmp_path / name)
    sentence(refused)


# Fitting them into a network


@pytest.mark.parametrize("dataset", [None, "cifar10"])
def test_everything_is_taken_where_everything_fits(dataset: str | None) -> None:
    assert load_weights(started := network(seed=1), plain(network(), dataset), "cifar10") is None
    assert same(started, network())


def test_the_network_keeps_its_own_memory_and_layout() -> None:
    model = network(seed=1).to(memory_format=torch.channels_last)
    weight = model.get_parameter("0.weight")
    address = weight.data_ptr()
    load_weights(model, plain(network()), "cifar10")
    assert model.get_parameter("0.weight") is weight
    assert weight.data_ptr() == address
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.requires_grad
    assert weight.is_leaf


@pytest.mark.parametrize(
    ("num_classes", "dataset", "classes"),
    [
        (100, "cifar100", "for 100 classes of cifar100"),
        (10, "shapes", "for 10 classes of shapes"),
        (1000, None, "for 1000 classes"),
        (100, "cifar10", "for 100 classes of cifar10"),
    ],
)
def test_the_head_of_other_classes_is_replaced(num_classes: int, dataset: str | None, classes: str) -> None:
    """A head for the same number of classes is replaced too, if the file says that they are another data set's."""
    fresh, model = network(seed=1), network(seed=1)
    note = load_weights(model, plain(network(num_classes), dataset), "cifar10")
    assert note == f"The head of given.pth is {classes} and is replaced by a new one."
    assert same(model[:-1], network(num_classes)[:-1])
    assert same(model[-1], fresh[-1])


def with_hidden_layer(num_classes: int = 10, *more: nn.Module) -> nn.Sequential:
    model = network()
    model.head = nn.Sequential(nn.Linear(8 * 30 * 30, 16), nn.ReLU(), nn.Linear(16, num_classes), *more)
    return model


@pytest.mark.parametrize(
    ("file", "own", "dataset", "classes"),
    [
        (network(10), with_hidden_layer(), "cifar10", "of other layers"),
        (network(1000), with_hidden_layer(), None, "for 1000 classes"),
        (with_hidden_layer(10), network(10), None, "of other layers"),
        (with_hidden_layer(100), network(10), "cifar100", "for the classes of cifar100"),
        (with_hidden_layer(100), with_hidden_layer(10), None, "of other layers"),
        (with_hidden_layer(10, nn.Linear(10, 10)), with_hidden_layer(10), None, "of other layers"),
    ],
)
def test_a_head_of_other_layers_is_replaced(
    file: nn.Sequential, own: nn.Sequential, dataset: str | None, classes: str
) -> None:
    tensors, note = fitting(own, plain(file, dataset), "cifar10")
    assert note == f"The head of given.pth is {classes} and is replaced by a new one."
    assert tensors.keys() == file[:-1].state_dict().keys()


def test_a_backbone_alone_is_enough() -> None:
    fresh, model = network(seed=1), network(seed=1)
    note = load_weights(model, plain(network()[:-1]), "cifar10")
    assert note == "given.pth has no head for these layers; the network starts with a new one."
    assert same(model[:-1], network()[:-1])
    assert same(model[-1], fresh[-1])


def test_batch_norms_that_do_not_count_their_batches_are_taken() -> None:
    file = without(plain(network()), "num_batches_tracked")
    assert load_weights(started := network(seed=1), file, "cifar10") is None
    assert same(started, network())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_converted(dtype: torch.dtype) -> None:
    file = plain(network().to(dtype))
    load_weights(model := network(seed=1), file, "cifar10")
    weight = model.get_parameter("0.weight").detach()
    assert torch.equal(weight, file.tensors["0.weight"].to(torch.float32))
    assert weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value", "misfit"),
    [
        ("0.weight", torch.ones(8, 3, 5, 5), "0.weight is 8x3x5x5 instead of 8x3x3x3"),
        ("0.weight", torch.ones(8, 3, 3, 3, dtype=torch.int64), r"0.weight is torch.int64 instead of torch.float32"),
        ("1.num_batches_tracked", torch.ones(1, dtype=torch.int64), "1.num_batches_tracked is 1 instead of one number"),
        ("1.num_batches_tracked", torch.tensor(0.5), r"1.num_batches_tracked is torch.float32 instead of torch.int64"),
        ("module.0.weight", torch.ones(8), "module.0.weight is not one of the network's"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused_by_name(name: str, value: torch.Tensor, misfit: str) -> None:
    weights = plain(network())
    weights.tensors[name] = value
    fresh, model = network(seed=1), network(seed=1)
    with pytest.raises(UserError, match=rf"given.pth does not hold this architecture's weights \({misfit}\); choose"):
        load_weights(model, weights, "cifar10")
    assert same(model, fresh)


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(UserError, match=r"weights \(1.running_var is missing\); choose") as refused:
        fitting(network(), without(plain(network()), "running_var"), "cifar10")
    sentence(refused)


def test_another_architecture_is_refused_with_the_first_differences() -> None:
    file = plain(on_meta(lambda: ResNet9().build(10)))
    with pytest.raises(UserError, match=r"conv1.0.weight is 64x3x3x3 instead of 16x3x3x3, .*, and \d+ more") as refused:
        fitting(on_meta(lambda: MiniResNet().build(10)), file, "cifar10")
    assert len(sentence(refused)) < 400


def test_a_network_without_memory_is_enough_to_know_what_fits() -> None:
    model = on_meta(network)
    assert model.get_parameter("0.weight").is_meta
    file = plain(network())
    tensors, note = fitting(model, file, "cifar10")
    assert (tensors, note) == (file.tensors, None)
    with pytest.raises(UserError, match="does not hold this architecture's weights"):
        fitting(model, without(file, "0.bias"), "cifar10")


@pytest.mark.parametrize("model", [ResNet50(), ResNet50(head="128-64", image_size=224)])
def test_torchvisions_resnet50_fits_ours_but_for_its_head(model: ResNet50) -> None:
    from torchvision.models import resnet50

    published = plain(on_meta(resnet50))
    tensors, note = fitting(on_meta(lambda: model.build(10)), published, "cifar10")
    assert note == "The head of given.pth is for 1000 classes and is replaced by a new one."
    assert published.tensors.keys() - tensors.keys() == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod.", "net."])
def test_a_prefix_of_every_name_is_stripped(prefix: str) -> None:
    file = replace(plain(network()), tensors={f"{prefix}{name}": tensor for name, tensor in NETWORK.items()})
    weights, note = for_network(file, network())
    assert note == f"given.pth: the prefix {prefix!r} is stripped from its names."
    assert load_weights(started := network(seed=1), weights, "cifar10") is None
    assert same(started, network())


def test_the_rest_of_a_lightning_module_is_left_out() -> None:
    beside = {"criterion.weight": torch.ones(10), "metric.total": torch.tensor(0)}
    file = replace(plain(network()), tensors={**{f"model.{name}": t for name, t in NETWORK.items()}, **beside})
    weights, note = for_network(file, network())
    assert note == (
        "given.pth: the prefix 'model.' is stripped from its names, 2 tensors beside the network are left out."
    )
    assert weights.tensors.keys() == NETWORK.keys()


def test_of_a_network_and_its_average_the_network_is_taken_and_of_two_of_other_names_none() -> None:
    twice = {
        **{f"model.{name}": t for name, t in NETWORK.items()},
        **{f"ema.module.{name}": t for name, t in NETWORK.items()},
    }
    weights, note = for_network(replace(plain(network()), tensors=twice), network())
    assert weights.tensors.keys() == NETWORK.keys()
    assert note is not None
    assert "'model.'" in note
    pair = {f"{part}.{name}": tensor for part in ("student", "teacher") for name, tensor in NETWORK.items()}
    weights, note = for_network(replace(plain(network()), tensors=pair), network())
    assert (weights.tensors.keys(), note) == (pair.keys(), None)
    with pytest.raises(UserError, match="does not hold this architecture's weights"):
        fitting(network(), weights, "cifar10")


def test_a_prefix_does_not_hide_that_another_network_does_not_fit() -> None:
    file = plain(on_meta(lambda: ResNet9().build(10)))
    file = replace(file, tensors={f"module.{name}": tensor for name, tensor in file.tensors.items()})
    model = on_meta(lambda: MiniResNet().build(10))
    with pytest.raises(UserError, match=r"\(conv1.0.weight is 64x3x3x3 instead of 16x3x3x3, "):
        fitting(model, for_network(file, model)[0], "cifar10")


def test_plain_names_are_taken_as_they_are() -> None:
    file = plain(network())
    assert for_network(file, network()) == (file, None)
    with pytest.raises(UserError, match=r"module.0.weight is not one of the network's"):
        fitting(
            network(),
            for_network(replace(file, tensors={**file.tensors, "module.0.weight": torch.ones(8)}), network())[0],
            "cifar10",
        )


# Before a search


def starting(weights: str, model: str = "mini_resnet", lr: float = 0.1, dataset: str = "shapes") -> Recipe:
    return Recipe.model_validate(
        {
            "dataset": dataset,
            "model": {"name": model, "weights": weights},
            "optimizer": {"name": "sgd", "lr": lr},
            "schedule": {"name": "constant"},
            "finetune": {"name": "full"},
            "epochs": 2,
            "batch_size": 32,
        }
    )


@pytest.fixture
def of_shapes(tmp_path: Path) -> str:
    """A file of a Mini-ResNet that was trained on the built-in data set."""
    save_weights(tmp_path, MiniResNet().build(10), {"recipe": starting("none").model_dump(mode="json")})
    return str(tmp_path / "weights.safetensors")


def test_recipes_without_weights_need_no_file() -> None:
    assert check_weights([starting("none"), starting("none", "resnet50")]) == ({}, [])


def test_every_file_that_recipes_start_from_has_its_digest(of_shapes: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.pth")
    torch.save(ResNet9().build(10).state_dict(), other)
    recipes = [starting(of_shapes), starting(of_shapes, lr=0.2), starting(other, "resnet9"), starting("none")]
    digests, notes = check_weights(iter(recipes))
    assert digests == {name: read_weights(Path(name)).digest for name in (of_shapes, other)}
    assert notes == []


def test_a_search_that_knows_a_file_by_its_bytes_goes_on_with_it(of_shapes: str) -> None:
    known = {of_shapes: digest_of(Path(of_shapes))}
    assert check_weights([starting(of_shapes)], known)[0] == known
    assert check_weights([starting(of_shapes)], {of_shapes: "another"})[0] != known


def test_a_head_that_is_replaced_is_noted_once(of_shapes: str) -> None:
    recipes = [starting(of_shapes, lr=lr, dataset=name) for lr in (0.1, 0.2) for name in ("shapes", "cifar100")]
    assert check_weights(recipes)[1] == [
        "The head of weights.safetensors is for 10 classes of shapes and is replaced by a new one."
    ]


def test_what_is_stripped_is_noted(tmp_path: Path) -> None:
    name = str(tmp_path / "parallel.pt")
    state = {f"module.{key}": tensor for key, tensor in MiniResNet().build(10).state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, name)
    assert check_weights([starting(name)])[1] == [
        "parallel.pt: 'state_dict' is taken out of the checkpoint, the prefix 'module.' is stripped from its names."
    ]


def test_timms_and_torchvisions_resnet50_in_safetensors_are_taken(tmp_path: Path) -> None:
    from torchvision.models import resnet50

    name = str(tmp_path / "model.safetensors")
    save_file(resnet50().state_dict(), name, metadata={"format": "pt"})
    assert check_weights([starting(name, "resnet50")])[1] == [
        "The head of model.safetensors is for 1000 classes and is replaced by a new one."
    ]


@pytest.mark.parametrize("name", ["missing.pth", "damaged.pth", "other architecture"])
def test_what_one_recipe_of_many_cannot_start_from_is_refused(of_shapes: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    bad = starting(of_shapes, "resnet9") if name == "other architecture" else starting(str(tmp_path / name))
    with pytest.raises(UserError) as refused:
        check_weights([starting("none"), starting(of_shapes), bad])
    sentence(refused)


def test_a_network_of_another_width_is_refused_among_recipes_of_the_files_own(of_shapes: str) -> None:
    fits = starting(of_shapes)
    with pytest.raises(UserError, match="does not hold this architecture's weights"):
        check_weights([fits.replace({"model/width": 0.5}), fits])
