"""The optimizers and the gradient clipping: one class each, with its own options.

A new optimizer is a class here and its name in `Optimizer`. `lr` is the highest rate; the schedule multiplies it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from cifar_tune.recipe.options import UNFINISHED, NonNegative, Options, Positive, Share

if TYPE_CHECKING:
    import torch
    from torch import nn


class Adam(Options):
    """Adam with weight decay as an L2 term of the gradient, which is what `torch.optim.Adam` does."""

    name: Literal["adam"] = "adam"
    lr: Positive
    weight_decay: NonNegative = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.999

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import Adam

        betas = (self.beta1, self.beta2)
        return Adam(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay, fused=True)


class AdamW(Options):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: Positive
    weight_decay: NonNegative = 0.01
    beta1: Share = 0.9
    beta2: Share = 0.999

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import AdamW

        betas = (self.beta1, self.beta2)
        return AdamW(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay, fused=True)


class SGD(Options):
    """Stochastic gradient descent with momentum; Nesterov's where asked."""

    name: Literal["sgd"] = "sgd"
    lr: Positive
    momentum: Share = 0.9
    weight_decay: NonNegative = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self, info: ValidationInfo) -> Self:
        if self.nesterov and self.momentum == 0 and info.context != UNFINISHED:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import SGD

        return SGD(
            parameters,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )


Optimizer = Annotated[Adam | AdamW | SGD, Field(discriminator="name")]


def set_rate(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """What the schedule says of one step; a momentum of None leaves the optimizer's own."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


class NoClipping(Options):
    """Gradients are used as they come."""

    name: Literal["none"] = "none"

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Nothing."""


class ClipByValue(Options):
    """Every gradient entry into [-limit, limit]."""

    name: Literal["value"] = "value"
    limit: Positive = 0.1

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """In place."""
        from torch.nn.utils import clip_grad_value_

        clip_grad_value_(parameters, self.limit)


class ClipByNorm(Options):
    """All gradients together scaled down to an L2 norm of at most `limit`."""

    name: Literal["norm"] = "norm"
    limit: Positive = 1.0

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """In place."""
        from torch.nn.utils import clip_grad_norm_

        clip_grad_norm_(parameters, self.limit)


GradClip = Annotated[NoClipping | ClipByValue | ClipByNorm, Field(discriminator="name")]
