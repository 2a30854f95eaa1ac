"""A network that was kept gives its users the logits that it gave in training."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from helpers.runs import variants, with_settings

from cifar_tune.recipe.augment import Scaling
from cifar_tune.recipe.recipe import Value
from cifar_tune.training.checkpoint import save_weights
from cifar_tune.training.inference import load_classifier
from cifar_tune.training.inputs import DeviceData, Normalization
from cifar_tune.training.loop import Training


def save(training: Training, folder: Path) -> Path:
    """The weights file with what a classifier is read from."""
    preprocessing = {"mean": training.pixels.mean, "std": training.pixels.std}
    recipe = training.recipe.model_dump(mode="json")
    save_weights(folder, training.model, {"recipe": recipe, "preprocessing": preprocessing})
    return folder / "weights.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "scaling"),
    [*((model, "dataset") for model in variants("model")), *(("mini_resnet", name) for name in get_args(Scaling)[1:])],
)
def test_a_classifiers_logits_are_those_of_training_to_the_bit(
    model: str, scaling: str, handful: DeviceData, tmp_path: Path
) -> None:
    settings: dict[str, Value] = {
        "model/name": model,
        "model/weights": "none",
        "scaling": scaling,
        "epochs": 1,
        "batch_size": 3,
    }
    training = Training(with_settings(settings), handful)
    list(training.fit())
    classifier, recipe = load_classifier(save(training, tmp_path))
    assert recipe == training.recipe
    expected = training.predict(handful.val)
    channels_first = handful.val.images.permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        assert torch.equal(classifier(channels_first), expected)


def test_normalization_is_the_definition() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    mean, std = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    expected = (pixels.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    normalized = Normalization(mean, std)(pixels)
    assert normalized.dtype == torch.float32
    torch.testing.assert_close(normalized, expected.float())


def test_a_classifier_leaves_its_callers_images_as_they_are(handful: DeviceData, tmp_path: Path) -> None:
    classifier, _ = load_classifier(save(Training(with_settings({"epochs": 1}), handful), tmp_path))
    images = torch.full((2, 3, 32, 32), 100.0)
    classifier(images)
    assert torch.equal(images, torch.full((2, 3, 32, 32), 100.0))
