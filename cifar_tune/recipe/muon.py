"""Muon for a whole network: it for some parameters and torch's AdamW for the others, as one optimizer.

optimizers.py decides which parameters Muon gets. The step is that of torch.optim.Muon, but in float32 on a CPU: torch
orthogonalises in bfloat16 everywhere, and a CPU without instructions for it multiplies matrices 20 times slower so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Of Newton and Schulz's iteration, from Muon's author (kellerjordan.github.io/posts/muon) and torch.optim.Muon.
COEFFICIENTS = (3.4445, -4.775, 2.0315)
NUM_ITERATIONS = 5
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, whose update of each weight is orthogonalised as a matrix with a row for each output.

    A convolution's weights (outputs, inputs, height, width) become (outputs, inputs × height × width), as Muon's author
    does it. Groups need `lr` and `weight_decay`, which is decoupled.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], momentum: float) -> None:
        super().__init__([{**group} for group in groups], {"momentum": momentum})
        weights = [weight for group in groups for weight in group["params"]]
        assert all(_as_matrix(weight, weight).data_ptr() == weight.data_ptr() for weight in weights)  # not a copy

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step on the weights' gradients; those without one stay as they are."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    update = self._update(weight, weight.grad, group["momentum"])
                    rate = group["lr"] * math.sqrt(max(1.0, update.shape[0] / update.shape[1]))
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    _as_matrix(weight, weight).add_(update, alpha=-rate)

    def _update(self, weight: nn.Parameter, gradient: Tensor, momentum: float) -> Tensor:
        gradient, state = _as_matrix(gradient, weight), self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return orthogonalised(gradient.lerp(average, momentum))


class MuonAndAdamW(torch.optim.Optimizer):
    """Steps both. Its parameter groups are those of Muon, followed by those of AdamW."""

    def __init__(
        self, muon_groups: Sequence[Mapping[str, Any]], adamw_groups: Sequence[Mapping[str, Any]], momentum: float
    ) -> None:
        self._muon = Muon(muon_groups, momentum)
        self._adamw = torch.optim.AdamW([{**group} for group in adamw_groups], fused=True)
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """The groups of both, which they share with this optimizer: a rate that is set in one is set in the other."""
        return [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each, on the parameters' gradients."""
        self._muon.step()
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both parts' states by name."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = self._groups()


def orthogonalised(matrix: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns: singular values are moved to between 0.7 and 1.2.

    In bfloat16 on a GPU, in float32 on a CPU. The result has that type.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=EPS)
    for _ in range(NUM_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """The weight, or its gradient, with a row for each output, in the same memory where the two are alike.

    The columns are in the order of the weight's memory, which does not change Muon's update.
    """
    if weight.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
