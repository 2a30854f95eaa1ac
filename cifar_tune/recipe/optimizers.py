"""The optimizers and the kinds of gradient clipping: one class each, with its options.

A new optimizer is a class here and its name in `Optimizer`. All steps are torch's own, but for Muon's (muon.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from cifar_tune.recipe.options import UNFINISHED, NonNegative, Options, Positive, Share

if TYPE_CHECKING:
    import torch
    from torch import nn

LR_SCALE = "lr_scale"  # in a parameter group: its learning rate as a multiple of the phase's


class BaseOptimizer(Options):
    """What every optimizer has: `lr` is the highest learning rate, which the schedule multiplies.

    `head_lr_scale` multiplies the learning rate of the head, the network's last child, in every phase, the one that
    trains the head alone included. With `decay_norms_and_biases` false, weight decay leaves batch norms and biases out.
    """

    name: str
    lr: Positive
    weight_decay: NonNegative = 0.0
    decay_norms_and_biases: bool = True
    head_lr_scale: Positive = 1.0

    def build(self, network: nn.Sequential) -> torch.optim.Optimizer:
        """Torch's optimizer for those parameters of the network that require gradients."""
        raise NotImplementedError

    def parameter_groups(self, network: nn.Sequential) -> list[dict[str, Any]]:
        """Those parameters in the network's order, in one group for each learning rate and weight decay."""
        return self._grouped(_trained(network), network)

    def _grouped(
        self, parameters: Iterable[nn.Parameter], network: nn.Sequential, lr_scale: float = 1.0
    ) -> list[dict[str, Any]]:
        head = set(network[-1].parameters())
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in parameters:
            scale = lr_scale * self.head_lr_scale if parameter in head else lr_scale
            is_decayed = self.decay_norms_and_biases or parameter.ndim > 1
            groups.setdefault((scale, self.weight_decay if is_decayed else 0.0), []).append(parameter)
        return [
            {"params": members, "lr": self.lr * scale, LR_SCALE: scale, "weight_decay": weight_decay}
            for (scale, weight_decay), members in groups.items()
        ]


class Adam(BaseOptimizer):
    """Adam with weight decay as an L2 term of the gradient, which is what `torch.optim.Adam` does."""

    name: Literal["adam"] = "adam"
    beta1: Share = 0.9
    beta2: Share = 0.999

    def build(self, network: nn.Sequential) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import Adam

        return Adam(self.parameter_groups(network), betas=(self.beta1, self.beta2), fused=True)


class AdamW(BaseOptimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegative = 0.01
    beta1: Share = 0.9
    beta2: Share = 0.999

    def build(self, network: nn.Sequential) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import AdamW

        return AdamW(self.parameter_groups(network), betas=(self.beta1, self.beta2), fused=True)


class SGD(BaseOptimizer):
    """Stochastic gradient descent with momentum, or with Nesterov's."""

    name: Literal["sgd"] = "sgd"
    momentum: Share = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self, info: ValidationInfo) -> Self:
        if self.nesterov and self.momentum == 0 and info.context != UNFINISHED:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, network: nn.Sequential) -> torch.optim.Optimizer:
        """Fused: one pass over the parameters, on the CPU too."""
        from torch.optim import SGD

        groups = self.parameter_groups(network)
        return SGD(groups, momentum=self.momentum, nesterov=self.nesterov, fused=True)


class Muon(BaseOptimizer):
    """Muon (Jordan, kellerjordan.github.io/posts/muon) for hidden weights: momentum, orthogonalised as a matrix.

    Hidden are the weights of convolutions and linear layers, except the network's first and its last. AdamW trains
    everything else, at `adamw_lr` where Muon's learning rate is `lr`: the schedule, the phase and `head_lr_scale`
    multiply both. `weight_decay` is decoupled and holds for both. The defaults are those of the author's README.
    """

    name: Literal["muon"] = "muon"
    weight_decay: NonNegative = 0.01
    momentum: Share = 0.95
    adamw_lr: Positive = 3e-4

    def build(self, network: nn.Sequential) -> torch.optim.Optimizer:
        """Where no hidden weight is trained, as in a head of one layer, AdamW alone."""
        hidden = _hidden_weights(network)
        others = [parameter for parameter in _trained(network) if parameter not in hidden]
        adamw_groups = self._grouped(others, network, self.adamw_lr / self.lr)
        if not hidden:
            from torch.optim import AdamW

            return AdamW(adamw_groups, fused=True)
        from cifar_tune.recipe.muon import MuonAndAdamW

        return MuonAndAdamW(self._grouped(hidden, network), adamw_groups, self.momentum)


Optimizer = Annotated[Adam | AdamW | SGD | Muon, Field(discriminator="name")]


def _trained(network: nn.Sequential) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _hidden_weights(network: nn.Sequential) -> dict[nn.Parameter, None]:
    """The trained ones of the network's hidden weights, in its order; whitening's count as the first layer's."""
    weights = [tensor for tensor in network.state_dict(keep_vars=True).values() if tensor.ndim > 1]
    return dict.fromkeys(weight for weight in weights[1:-1] if weight.requires_grad)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, momentum: float | None) -> None:
    """Set the learning rate of the next step, times the scale of each group, and the momentum of all groups.

    The momentum of Adam and its kind is beta1; None leaves the optimizer's own.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)  # a state that version 0.1 saved has no scales
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


class NoClipping(Options):
    """Gradients are not clipped."""

    name: Literal["none"] = "none"

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Leave the gradients as they are."""


class ClipByValue(Options):
    """Every entry of a gradient is clipped to [-limit, limit]."""

    name: Literal["value"] = "value"
    limit: Positive = 0.1

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients in place."""
        from torch.nn.utils import clip_grad_value_

        clip_grad_value_(parameters, self.limit)


class ClipByNorm(Options):
    """All gradients are scaled by one factor, so that their common L2 norm is at most `limit`."""

    name: Literal["norm"] = "norm"
    limit: Positive = 1.0

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients in place."""
        from torch.nn.utils import clip_grad_norm_

        clip_grad_norm_(parameters, self.limit)


GradClip = Annotated[NoClipping | ClipByValue | ClipByNorm, Field(discriminator="name")]
