"""The cache of features: computed once, checked and bounded, and training gives the same with it as without it."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from os import utime
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cuts import cut, placed
from helpers.runs import CPU, NO_AUGMENT, changed, first_epochs, repeatable, snapshot, train, with_settings
from torch import Tensor, nn

from cifar_tune import Recipe
from cifar_tune.data.images import TrainingData
from cifar_tune.recipe.layers import Residual, Resize
from cifar_tune.recipe.models import MiniResNet, Model, ResNet9, ResNet50
from cifar_tune.recipe.recipe import Value
from cifar_tune.training.checkpoint import save_weights
from cifar_tune.training.features import FeatureCache, describe_structure
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training
from cifar_tune.training.weights import read_weights

KEY = {"backbone": {"weights": "abc"}, "mean and std": [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0)], "views": None}
NUM_BYTES = 4000  # of what `Source` gives


class Source:
    """Computes features, and counts how often it was asked."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.features = torch.randn(2, 100, 5, generator=torch.Generator().manual_seed(seed)).to(dtype)
        self.num_asked = 0
        self.lock = threading.Lock()

    def __call__(self) -> Tensor:
        with self.lock:
            self.num_asked += 1
        return self.features


def get(folder: Path, key: Mapping[str, Any] = KEY, source: Source | None = None, **options: Any) -> int:  # noqa: ANN401
    """Ask a new cache, as a new process would, and count how often it had to compute."""
    source = source or Source()
    features = FeatureCache(folder, **options).get(key, CPU, source)
    assert features.dtype == source.features.dtype
    assert torch.equal(features, source.features)
    return source.num_asked


def files(folder: Path) -> list[Path]:
    """The files with features; only locks are there beside them."""
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".lock"}
    return sorted(folder.glob("*.safetensors"))


# The files


def test_features_are_computed_once(tmp_path: Path) -> None:
    assert [get(tmp_path / "features") for _ in range(3)] == [1, 0, 0]
    assert len(files(tmp_path / "features")) == 1


def test_one_cache_reads_a_file_once(tmp_path: Path) -> None:
    cache, source = FeatureCache(tmp_path), Source()
    first = cache.get(KEY, CPU, source)
    files(tmp_path)[0].unlink()
    assert cache.get(KEY, CPU, source) is first
    assert source.num_asked == 1


def test_a_cache_keeps_two_in_memory(tmp_path: Path) -> None:
    cache, sources = FeatureCache(tmp_path), [Source(seed) for seed in range(3)]
    kept = [cache.get({"n": n}, CPU, source) for n, source in enumerate(sources)]
    assert [cache.get({"n": n}, CPU, source) is kept[n] for n, source in reversed([*enumerate(sources)])] == [
        True,
        True,
        False,
    ]
    assert [source.num_asked for source in sources] == [1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_features_of_any_float_type_come_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    assert [get(tmp_path, source=Source(dtype=dtype)) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize(
    "other",
    [
        {**KEY, "views": [2, {"flip": True}]},
        {**KEY, "backbone": {"weights": "abd"}},
        {**KEY, "mean and std": [(0.5, 0.5, 0.5), (1.0, 1.0, 1.1)]},
        {**KEY, "more": None},
        {"backbone": KEY["backbone"]},
    ],
    ids=str,
)
def test_another_key_has_another_file(tmp_path: Path, other: Mapping[str, Any]) -> None:
    assert get(tmp_path) == 1
    assert get(tmp_path, other, Source(1)) == 1
    assert (get(tmp_path), get(tmp_path, other, Source(1))) == (0, 0)
    assert len(files(tmp_path)) == 2


def test_the_order_of_a_key_does_not_matter(tmp_path: Path) -> None:
    assert [get(tmp_path, key) for key in (KEY, dict(reversed(KEY.items())))] == [1, 0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: b"no features at all",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"sha256", b"sha257"),
        lambda content: content.replace(b'"features"', b'"futures!"'),
    ],
    ids=["cut", "header cut", "empty", "text", "one bit", "no digest", "no features"],
)
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    get(tmp_path)
    (path,) = files(tmp_path)
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    assert get(tmp_path) == 1
    assert path.read_bytes() == content
    assert get(tmp_path) == 0


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """Room for two; the older of them is read once more before the third comes."""
    keys = [{"n": n} for n in range(3)]
    paths = []
    for age, key in enumerate(keys[:2]):
        get(tmp_path, key, max_bytes=10_000)
        paths += [path for path in files(tmp_path) if path not in paths]
        utime(paths[-1], (1000 + age, 1000 + age))
    assert get(tmp_path, keys[0], max_bytes=10_000) == 0
    assert get(tmp_path, keys[2], max_bytes=10_000) == 1
    assert len(files(tmp_path)) == 2
    assert not paths[1].exists()
    assert [get(tmp_path, keys[n], max_bytes=10_000) for n in (0, 2, 1)] == [0, 0, 1]


@pytest.mark.parametrize("room", [1, 2, 5])
def test_the_folder_stays_within_its_bound(tmp_path: Path, room: int) -> None:
    for n in range(8):
        get(tmp_path, {"n": n}, max_bytes=room * (NUM_BYTES + 500))
    assert len(files(tmp_path)) == room
    assert sum(path.stat().st_size for path in files(tmp_path)) <= room * (NUM_BYTES + 500)


def test_what_is_larger_than_all_the_room_is_not_kept_and_drives_nothing_out(tmp_path: Path) -> None:
    get(tmp_path, {"n": 0})
    assert [get(tmp_path, {"n": 1}, max_bytes=NUM_BYTES - 1) for _ in range(2)] == [1, 1]
    assert get(tmp_path, {"n": 0}) == 0


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "abc.unfinished").write_bytes(b"half of it")
    get(tmp_path)
    assert len(files(tmp_path)) == 1


def test_an_error_in_computing_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    def fail() -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        FeatureCache(tmp_path).get(KEY, CPU, fail)
    assert files(tmp_path) == []
    assert get(tmp_path) == 1


@pytest.mark.parametrize("num_caches", [1, 4], ids=["one cache", "a cache for each"])
def test_four_at_once_compute_once(tmp_path: Path, num_caches: int) -> None:
    source = Source()
    caches = [FeatureCache(tmp_path) for _ in range(num_caches)]

    def compute() -> Tensor:
        time.sleep(0.2)
        return source()

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(caches[n % num_caches].get, KEY, CPU, compute) for n in range(4)]
        results = [each.result() for each in waiting]
    assert source.num_asked == 1
    assert all(torch.equal(each, source.features) for each in results)
    assert len(files(tmp_path)) == 1


# Training on them

FROZEN = with_settings({"finetune/name": "frozen", "epochs": 4, "batch_size": 12, "scaling": "imagenet"})
PLAIN = FROZEN.replace(NO_AUGMENT)
VIEWS = FROZEN.replace({"finetune/views": 2})
TWO_PHASE: dict[str, Value] = {"finetune/name": "two-phase", "finetune/head_epochs": 2, "finetune/lr": 1e-3}


def images_seen(training: Training) -> list[int]:
    """The size of every batch that goes through the backbone, filled in while the run goes on."""
    seen: list[int] = []
    training.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize(
    "recipe",
    [PLAIN, VIEWS, FROZEN, PLAIN.replace(TWO_PHASE), VIEWS.replace(TWO_PHASE), FROZEN.replace(TWO_PHASE)],
    ids=["plain", "views", "augmented", "two-phase plain", "two-phase views", "two-phase augmented"],
)
def test_metrics_are_those_of_a_run_without_a_cache(recipe: Recipe, smallest: DeviceData, tmp_path: Path) -> None:
    expected = train(recipe, smallest)
    for _ in range(2):  # computed, and read from the file
        for metrics, plain in zip(train(recipe, smallest, cache=FeatureCache(tmp_path)), expected, strict=True):
            assert metrics == pytest.approx(plain, rel=1e-4)


def test_resuming_on_kept_features_is_bit_for_bit(smallest: DeviceData, tmp_path: Path) -> None:
    recipe = VIEWS.replace(TWO_PHASE)
    cache = FeatureCache(tmp_path)
    expected = train(recipe, smallest, cache=cache)
    stopped = Training(recipe, smallest, cache=cache)
    list(first_epochs(stopped, 1))
    resumed = Training(recipe, smallest, cache=FeatureCache(tmp_path))
    resumed.load_state_dict(stopped.state_dict())
    assert [repeatable(metrics) for metrics in resumed.fit()] == expected[1:]


@pytest.mark.parametrize(("recipe", "num_views"), [(PLAIN, 1), (VIEWS, 2)], ids=["plain", "views"])
def test_every_image_goes_through_the_backbone_once_and_never_again(
    recipe: Recipe, num_views: int, smallest: DeviceData, tmp_path: Path
) -> None:
    first = Training(recipe, smallest, cache=FeatureCache(tmp_path))
    seen = images_seen(first)
    list(first.fit())
    assert sorted(seen) == [16] + num_views * [32]
    assert first.facts["features"] == "of the frozen backbone, computed once and cached"

    second = Training(recipe.replace({"optimizer/lr": 0.1}), smallest, cache=FeatureCache(tmp_path))
    seen = images_seen(second)
    list(second.fit())
    assert seen == []


def test_newly_augmented_images_go_through_the_backbone_each_time_and_validation_does_not(
    smallest: DeviceData, tmp_path: Path
) -> None:
    training = Training(FROZEN, smallest, cache=FeatureCache(tmp_path))
    seen = images_seen(training)
    list(training.fit())
    assert seen == [12, 12, 8, 16] + 3 * [12, 12, 8]
    assert len(files(tmp_path)) == 1
    assert "features" not in training.facts


def test_without_a_cache_no_fact_mentions_one(smallest: DeviceData) -> None:
    assert Training(PLAIN, smallest).facts == {}


def test_the_second_phase_uses_no_features(smallest: DeviceData, tmp_path: Path) -> None:
    training = Training(PLAIN.replace(TWO_PHASE), smallest, cache=FeatureCache(tmp_path))
    list(first_epochs(training, 2))
    before, kept = snapshot(training.backbone), files(tmp_path)
    *_, last = training.fit()
    assert changed(before, training.backbone)
    assert files(tmp_path) == kept
    again = Training(training.recipe, smallest)
    again.load_state_dict(training.state_dict())
    assert again.evaluate(smallest.val) == (last.val_loss, last.val_accuracy)


def test_each_epoch_takes_the_next_view(smallest: DeviceData, tmp_path: Path) -> None:
    features = Training(VIEWS, smallest, cache=FeatureCache(tmp_path)).features
    indices = torch.tensor([3, 1, 2])
    views = [features.train(indices, epoch) for epoch in range(4)]
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[1], views[3])
    assert all(not torch.equal(first, second) for first, second in zip(*views[:2], strict=True))


def test_views_are_the_same_whatever_the_seed(smallest: DeviceData) -> None:
    indices = torch.arange(32)
    first, second = (Training(VIEWS.replace({"seed": seed}), smallest).pixels.view(1, indices) for seed in (0, 1))
    assert torch.equal(first, second)


def test_training_images_may_be_evaluated_before_they_are_trained_on(smallest: DeviceData, tmp_path: Path) -> None:
    """Features that were computed in inference mode could not be trained on."""
    training = Training(PLAIN, smallest, cache=FeatureCache(tmp_path))
    training.evaluate(smallest.train)
    assert len(list(training.fit())) == 4


SHARING: dict[str, tuple[Recipe, dict[str, Value], int]] = {
    "optimizer": (
        PLAIN,
        {"optimizer/name": "sgd", "batch_size": 8, "label_smoothing": 0.1, "schedule/name": "step"},
        0,
    ),
    "policy": (PLAIN, {"finetune/name": "two-phase"}, 0),
    "dropout": (PLAIN.replace({"model/name": "resnet9"}), {"model/dropout": 0.5}, 0),
    "seed": (PLAIN, {"seed": 1}, 2),
    "scaling": (PLAIN, {"scaling": "unit"}, 2),
    "precision": (PLAIN, {"precision": "float32"}, 2),
    "views": (PLAIN, {"augment/flip": True, "finetune/views": 1}, 1),
    "more views": (VIEWS, {"finetune/views": 3}, 1),
    "other views": (VIEWS, {"augment/crop_padding": 2}, 1),
    "architecture": (PLAIN, {"model/name": "resnet9"}, 2),
}


@pytest.mark.parametrize(("recipe", "settings", "num_new"), SHARING.values(), ids=SHARING)
def test_what_does_not_change_the_features_shares_them(
    recipe: Recipe, settings: dict[str, Value], num_new: int, handful: DeviceData, tmp_path: Path
) -> None:
    for each in (recipe, recipe.replace(settings)):
        before = len(files(tmp_path)) if tmp_path.exists() else 0
        list(first_epochs(Training(each, handful, cache=FeatureCache(tmp_path)), 1))
    assert before == 2
    assert len(files(tmp_path)) == before + num_new


@pytest.mark.parametrize(("num_train", "num_val", "num_new"), [(6, 4, 0), (5, 4, 1), (6, 3, 1), (5, 3, 2)])
def test_other_images_have_other_features(
    shapes: TrainingData, tmp_path: Path, num_train: int, num_val: int, num_new: int
) -> None:
    for data in (cut(shapes, 6, 4), cut(shapes, num_train, num_val)):
        list(first_epochs(Training(PLAIN, placed(data), cache=FeatureCache(tmp_path)), 1))
    assert len(files(tmp_path)) == 2 + num_new


def test_with_weights_the_file_decides_and_not_the_seed(handful: DeviceData, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> int:
        path = tmp_path / name / "weights.safetensors"
        recipe = PLAIN.replace({"model/weights": str(path), "seed": seed})
        list(first_epochs(Training(recipe, handful, read_weights(path), FeatureCache(tmp_path / "features")), 1))
        return len(files(tmp_path / "features"))

    for seed, name in enumerate(["one", "other"]):
        torch.manual_seed(seed)
        save_weights(tmp_path / name, MiniResNet().build(10), {})
    assert [run("one", 0), run("one", 1), run("other", 0), run("one", 2)] == [2, 2, 4, 4]


# Cheap to share only where it is true

HEADS: list[tuple[Model, Model]] = [
    (ResNet50(head="linear", weights="none"), ResNet50(head="512", dropout=0.5, weights="none")),
    (ResNet9(), ResNet9(dropout=0.7)),
]


@pytest.mark.parametrize(("first", "second"), HEADS, ids=["resnet50", "resnet9"])
def test_options_of_the_head_leave_the_backbone_as_it_is(first: Model, second: Model) -> None:
    assert describe_structure(first.build(10)[:-1]) == describe_structure(second.build(10)[:-1])
    backbones: list[nn.Module] = []
    for model in (first, second):
        torch.manual_seed(3)
        backbones.append(model.build(10)[:-1])
    assert changed(snapshot(backbones[0]), backbones[1]) == set()


OTHER_STRUCTURES: dict[str, tuple[nn.Module, nn.Module]] = {
    "image size": (ResNet50(image_size=224).build(10)[:-1], ResNet50(image_size=32).build(10)[:-1]),
    "resize": (Resize(64), Resize(128)),
    "architecture": (ResNet9().build(10)[:-1], MiniResNet().build(10)[:-1]),
    "width": (MiniResNet().build(10)[:-1], MiniResNet(width=0.5).build(10)[:-1]),
    "kernel": (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)),
    "stride": (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)),
    "padding": (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding_mode="reflect")),
    "pooling": (nn.AdaptiveMaxPool2d(1), nn.AdaptiveAvgPool2d(1)),
    "activation": (nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(nn.Linear(3, 3), nn.GELU())),
    "order": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3))),
    "residual": (Residual(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(nn.Linear(3, 3), nn.ReLU())),
    "type": (nn.Linear(3, 3), nn.Linear(3, 3, dtype=torch.float64)),
}


@pytest.mark.parametrize(("first", "second"), OTHER_STRUCTURES.values(), ids=OTHER_STRUCTURES)
def test_another_structure_has_another_description(first: nn.Module, second: nn.Module) -> None:
    assert describe_structure(first) != describe_structure(second)


@pytest.mark.parametrize("model", [ResNet9(), MiniResNet(), ResNet50(image_size=224)], ids=lambda model: model.name)
def test_the_same_network_has_the_same_description(model: Model) -> None:
    """Weights, mode and memory format make no difference, and JSON keeps the description as it is."""
    torch.manual_seed(0)
    first = model.build(10).eval()
    torch.manual_seed(1)
    second = model.build(10).requires_grad_(False).to(memory_format=torch.channels_last)
    assert describe_structure(first) == describe_structure(second)
    assert json.loads(json.dumps(describe_structure(first))) == describe_structure(first)


@pytest.mark.parametrize("model", [ResNet9(), MiniResNet(), ResNet50(image_size=224)], ids=lambda model: model.name)
def test_layers_of_our_own_show_their_options(model: Model) -> None:
    """An option that only the layer itself holds is in its repr."""
    for module in model.build(10).modules():
        if type(module).__module__.startswith("cifar_tune."):
            options = {name: value for name, value in vars(module).items() if not name.startswith("_")}
            for name, value in options.items() - {("training", True)}:
                assert f"{name}={value}" in module.extra_repr()


def test_features_are_those_of_evaluation_mode_even_if_training_asks_first(
    smallest: DeviceData, tmp_path: Path
) -> None:
    early = Training(PLAIN, smallest, cache=FeatureCache(tmp_path))
    early.features.train(torch.arange(4), 0)  # the network is new, and in training mode
    ours = list(Training(PLAIN, smallest, cache=FeatureCache(tmp_path)).fit())
    theirs = list(Training(PLAIN, smallest).fit())
    assert [m.train_loss for m in ours] == pytest.approx([m.train_loss for m in theirs], rel=1e-4)


def test_features_that_cannot_be_written_cost_no_trial(smallest: DeviceData, tmp_path: Path) -> None:
    (tmp_path / "room.lock").mkdir()  # where a lock file should be
    assert len(list(Training(PLAIN, smallest, cache=FeatureCache(tmp_path)).fit())) == PLAIN.epochs
    assert files(tmp_path) == []
    (tmp_path / "file").touch()  # where a folder should be
    assert len(list(Training(PLAIN, smallest, cache=FeatureCache(tmp_path / "file")).fit())) == PLAIN.epochs
