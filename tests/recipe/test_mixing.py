"""Mixed images and labels, beside torchvision's transforms with the same shares and boxes."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from helpers.runs import with_settings
from torch import Tensor
from torchvision.transforms import v2

from cifar_tune.errors import UserError
from cifar_tune.recipe.mixing import CutMix, Mix, MixUp, boxed
from cifar_tune.training.inputs import DeviceData
from cifar_tune.training.loop import Training

SIZE, NUM = 32, 6
LABELS = torch.tensor([0, 3, 1, 2, 3, 0])
MIXES = [Mix(0.3), Mix(1.0), boxed(16, 16, 8, SIZE), boxed(1, 30, 7, SIZE), boxed(5, 5, 0, SIZE)]


def images() -> Tensor:
    return torch.randn(NUM, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def torchvisions(mix: Mix) -> tuple[Tensor, Tensor]:
    """The images and the soft labels that torchvision's transform makes with the same parameters."""
    common = {"labels": LABELS, "batch_size": NUM}
    if mix.box is None:
        transform: v2.MixUp | v2.CutMix = v2.MixUp(num_classes=4)
        params = {**common, "lam": mix.share}
    else:
        top, left, bottom, right = mix.box
        transform = v2.CutMix(num_classes=4)
        params = {**common, "box": (left, top, right, bottom), "lam_adjusted": mix.share}
    return transform.transform(images(), params), transform.transform(LABELS, params)


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_images_are_mixed_as_torchvision_mixes_them(mix: Mix) -> None:
    torch.testing.assert_close(mix.inputs(images()), torchvisions(mix)[0])
    assert mix.inputs(images().contiguous(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_torchvisions_mixed_labels(mix: Mix, smoothing: float, smallest: DeviceData) -> None:
    logits = torch.randn(NUM, 4, generator=torch.Generator().manual_seed(1))
    training = Training(with_settings({"mixing/name": "mixup", "label_smoothing": smoothing}), smallest)
    expected = F.cross_entropy(logits, torchvisions(mix)[1], label_smoothing=smoothing)
    torch.testing.assert_close(training._loss(logits, LABELS, mix), expected)


def test_a_step_draws_the_same_whenever_it_is_drawn() -> None:
    for mixing in (MixUp(), CutMix()):
        draws = [mixing.draw(seed, step, SIZE) for seed in (0, 1) for step in range(5)]
        assert draws == [mixing.draw(seed, step, SIZE) for seed in (0, 1) for step in range(5)]
        assert len(set(draws)) == 10


def test_shares_follow_their_distribution() -> None:
    """Beta(1, 1) is uniform; with 0.2 most shares are near 0 or 1."""
    for alpha, middle in ((1.0, 0.5), (0.2, 0.19)):  # the probability of 0.25 to 0.75
        mixes = [MixUp(alpha=alpha).draw(0, step, SIZE) for step in range(2_000)]
        share = sum(mix is not None and 0.25 < mix.share < 0.75 for mix in mixes) / 2_000
        assert share == pytest.approx(middle, abs=0.04)


def test_boxes_lie_in_the_image_and_the_share_is_that_of_their_pixels() -> None:
    corners = Counter[tuple[bool, bool]]()
    for step in range(500):
        mix = CutMix().draw(0, step, SIZE)
        assert mix is not None
        assert mix.box is not None
        top, left, bottom, right = mix.box
        assert 0 <= top <= bottom <= SIZE
        assert 0 <= left <= right <= SIZE
        assert mix.share == 1 - (bottom - top) * (right - left) / SIZE**2
        corners[top == 0, right == SIZE] += 1
    assert len(corners) == 4


def test_a_network_that_is_frozen_throughout_is_not_mixed() -> None:
    with pytest.raises(UserError, match="mixing=mixup: a frozen network's features are not mixed"):
        with_settings({"mixing/name": "mixup", "finetune/name": "frozen"})


def test_the_frozen_phase_of_two_is_not_mixed(smallest: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    original = MixUp.draw

    def noted(mixing: MixUp, seed: int, step: int, image_size: int) -> Mix | None:
        drawn.append(step)
        return original(mixing, seed, step, image_size)

    monkeypatch.setattr(MixUp, "draw", noted)
    recipe = with_settings({"mixing/name": "mixup", "finetune/name": "two-phase", "epochs": 3})
    training = Training(recipe, smallest)
    list(training.fit())
    first = training.phase.first_epoch * training.steps_per_epoch
    assert drawn == list(range(first, 3 * training.steps_per_epoch))
