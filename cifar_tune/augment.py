"""Where the space files of version 0.1 import `Augment` from; new ones import it from `cifar_tune`."""

from cifar_tune.recipe.augment import Augment

__all__ = ["Augment"]
