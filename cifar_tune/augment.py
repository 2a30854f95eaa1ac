"""`Augment` for the space files of version 0.1, which import it from here; new ones import it from `cifar_tune`."""

from cifar_tune.recipe.augment import Augment

__all__ = ["Augment"]
