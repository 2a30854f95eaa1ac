"""Muon for a whole network: torch's own for some parameters and torch's AdamW for the others, as one optimizer.

optimizers.py decides which parameters Muon gets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MuonAndAdamW(torch.optim.Optimizer):
    """Steps both. Its parameter groups are those of Muon, followed by those of AdamW.

    Torch's Muon takes only matrices. A convolution's weights (outputs, inputs, height, width) become a matrix
    (outputs, inputs × height × width) in the same memory, as Muon's author does it (github.com/KellerJordan/Muon).
    """

    def __init__(
        self, muon_groups: Sequence[Mapping[str, Any]], adamw_groups: Sequence[Mapping[str, Any]], momentum: float
    ) -> None:
        self._matrices = {
            weight: nn.Parameter(_as_matrix(weight.detach(), weight))
            for group in muon_groups
            for weight in group["params"]
        }
        assert all(weight.data_ptr() == matrix.data_ptr() for weight, matrix in self._matrices.items())
        matrix_groups = [{**group, "params": [self._matrices[p] for p in group["params"]]} for group in muon_groups]
        self._muon = torch.optim.Muon(matrix_groups, momentum=momentum)
        self._adamw = torch.optim.AdamW([{**group} for group in adamw_groups], fused=True)
        self._weights = [group["params"] for group in muon_groups]
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        """Muon's groups, with the network's weights in place of the matrices, and AdamW's own groups."""
        pairs = zip(self._muon.param_groups, self._weights, strict=True)
        return [*({**group, "params": weights} for group, weights in pairs), *self._adamw.param_groups]

    def _pass_options_on(self) -> None:
        """Copy what was set in this optimizer's groups, such as a learning rate, to Muon's groups."""
        for ours, theirs in zip(self.param_groups, self._muon.param_groups, strict=False):
            theirs |= {name: value for name, value in ours.items() if name != "params"}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of each, on the parameters' gradients."""
        self._pass_options_on()
        for weight, matrix in self._matrices.items():
            matrix.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both parts' states by name."""
        self._pass_options_on()
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = self._groups()


def _as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """The weight, or its gradient, with a row for each output.

    The columns are in the order of the weight's memory, which does not change Muon's update.
    """
    if weight.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
