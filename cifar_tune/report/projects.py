"""The five published projects from whose recipes the search spaces start: what each is, and which recipes are its kind.

Each project is a text that describes its recipe. None of the texts states an accuracy, so `published` is what single
runs of that recipe, or of a similar one, were reported to reach; runs validated on the test images are named as such.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cifar_tune.recipe.recipe import Recipe, Value


@dataclass(frozen=True)
class Project:
    """A published project: its short name, its title, the accuracy to compare with, and what its recipe has.

    No two projects fit one recipe: `dataset` and the fields in `fits` tell them apart.
    """

    name: str
    title: str
    published: str
    dataset: str
    fits: Mapping[str, Value]

    def is_of(self, recipe: Recipe) -> bool:
        """Whether the recipe is of the project's kind."""
        return recipe.dataset == self.dataset and self.fits.items() <= recipe.flatten().items()


PROJECTS = (
    Project(
        "resnet50 linear head",
        "Image classification of CIFAR-10 with ResNet-50 and a custom linear layer",  # untitled; by its first sentence
        "about 66 % at 32 px; 89 to 90 % at 224 px",
        "cifar10",
        {"model/name": "resnet50", "model/head": "linear", "finetune/name": "frozen"},
    ),
    Project(
        "resnet50 two-phase",
        "CIFAR-10 Image Classification: A Transfer Learning Approach with ResNet50",
        "about 69.5 %",
        "cifar10",
        {"model/name": "resnet50", "model/head": "128-64", "finetune/name": "two-phase"},
    ),
    Project(
        "resnet9 one-cycle",
        "CIFAR-10 Classification with ResNet9",
        "90.55 % with torch's OneCycleLR, validated on the test images",
        "cifar10",
        {"model/name": "resnet9", "schedule/name": "one-cycle"},
    ),
    Project(
        "resnet50 cifar100",
        "ResNet50 CIFAR-100 Classification",
        "82 to 86 %",
        "cifar100",
        {"model/name": "resnet50", "model/image_size": 224, "finetune/name": "full"},
    ),
    Project(
        "mini-resnet step decay",
        "ResNet for CIFAR-10 Classification",
        "88.2 % by a similar network after 80 epochs; 82.3 % without augmentation",
        "cifar10",
        {"model/name": "mini_resnet", "schedule/name": "step"},
    ),
)
