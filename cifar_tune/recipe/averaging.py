"""Weight averaging: an average of the weights over the steps, which is evaluated and kept in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cifar_tune.recipe.options import Options, Share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class NoAveraging(Options):
    """The last weights count."""

    name: Literal["none"] = "none"

    def update(self, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], step: int) -> None:
        """Leave the average as it is."""


class ExponentialAverage(Options):
    """The exponential moving average: after each step it keeps `decay` of itself and takes the rest of the weights.

    In the first steps it keeps less, (1 + step) / (10 + step), so that the random first weights are soon forgotten.
    That is TensorFlow's rule, and timm's with warm-up. The statistics of batch norms are averaged too.
    """

    name: Literal["ema"] = "ema"
    decay: Share = 0.999

    def update(self, average: Mapping[str, Tensor], weights: Mapping[str, Tensor], step: int) -> None:
        """Take step `step` (from 0) into the average, in place; whole numbers are copied."""
        import torch

        taken = 1 - min(self.decay, (1 + step) / (10 + step))
        floats = [name for name, tensor in average.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [weights[name] for name in floats], taken)
        for name in average.keys() - set(floats):
            average[name].copy_(weights[name])


Averaging = Annotated[NoAveraging | ExponentialAverage, Field(discriminator="name")]
