"""Every optimizer and every gradient clipping against torch's own, step by step."""

from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from cifar_tune.recipe.optimizers import (
    SGD,
    Adam,
    AdamW,
    ClipByNorm,
    ClipByValue,
    GradClip,
    NoClipping,
    Optimizer,
    set_rate,
)

OPTIMIZERS: tuple[type[Optimizer], ...] = get_args(get_args(Optimizer)[0])
GRAD_CLIPS: tuple[type[GradClip], ...] = get_args(get_args(GradClip)[0])

# Options of every class with what torch calls them; a class that is missing here fails the tests below.
CASES: list[tuple[Optimizer, type[torch.optim.Optimizer], dict[str, Any]]] = [
    (Adam(lr=0.01), torch.optim.Adam, {"lr": 0.01}),
    (
        Adam(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.9),
        torch.optim.Adam,
        {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9)},
    ),
    (AdamW(lr=0.01), torch.optim.AdamW, {"lr": 0.01}),
    (
        AdamW(lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9),
        torch.optim.AdamW,
        {"lr": 0.01, "weight_decay": 0.3, "betas": (0.8, 0.9)},
    ),
    (SGD(lr=0.1), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD(lr=0.1, momentum=0.0), torch.optim.SGD, {"lr": 0.1}),
    (
        SGD(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
    ),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def set_gradients(model: nn.Module, step: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_every_optimizer_has_a_reference() -> None:
    assert {type(options) for options, _, _ in CASES} == set(OPTIMIZERS)


@pytest.mark.parametrize(("options", "reference", "keywords"), CASES, ids=str)
def test_three_steps_are_torchs(
    options: Optimizer, reference: type[torch.optim.Optimizer], keywords: dict[str, Any]
) -> None:
    ours, theirs = network(), network()
    optimizer = options.build(ours.parameters())
    expected = reference(theirs.parameters(), **{"foreach": False, **keywords})
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        expected.step()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)
    assert not torch.equal(next(iter(ours.parameters())), next(iter(network().parameters())))


@pytest.mark.parametrize("member", OPTIMIZERS)
def test_the_schedules_rate_and_momentum_are_what_the_next_step_uses(member: type[Optimizer]) -> None:
    optimizer = member(lr=0.1).build(network().parameters())
    set_rate(optimizer, 0.25, 0.5)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.25
    assert (group["betas"][0] if "betas" in group else group["momentum"]) == 0.5


@pytest.mark.parametrize("member", OPTIMIZERS)
def test_a_rate_alone_leaves_the_momentum(member: type[Optimizer]) -> None:
    optimizer = member(lr=0.1).build(network().parameters())
    before = {key: value for key, value in optimizer.param_groups[0].items() if key not in {"lr", "params"}}
    set_rate(optimizer, 0.25, None)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert before == {key: value for key, value in optimizer.param_groups[0].items() if key not in {"lr", "params"}}


@pytest.mark.parametrize("member", [Adam, AdamW])
def test_momentum_leaves_beta2(member: type[Adam | AdamW]) -> None:
    optimizer = member(lr=0.1, beta2=0.95).build(network().parameters())
    set_rate(optimizer, 0.1, 0.5)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.95)


@pytest.mark.parametrize(("options", "reference", "keywords"), CASES, ids=str)
def test_steps_of_changing_rates_are_torchs(
    options: Optimizer, reference: type[torch.optim.Optimizer], keywords: dict[str, Any]
) -> None:
    ours, theirs = network(), network()
    optimizer = options.build(ours.parameters())
    expected = reference(theirs.parameters(), **{"foreach": False, **keywords})
    for step, lr in enumerate([0.01, 0.1, 0.001]):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        set_rate(optimizer, lr, None)
        expected.param_groups[0]["lr"] = lr
        optimizer.step()
        expected.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("member", GRAD_CLIPS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_clipping_makes_no_gradient_larger_and_turns_no_sign(member: type[GradClip], scale: float) -> None:
    model = network()
    set_gradients(model, 0, scale)
    before = gradients(model)
    member().clip(model.parameters())
    for old, new in zip(before, gradients(model), strict=True):
        assert (new.abs() <= old.abs()).all()
        assert (new * old >= 0).all()


def test_no_clipping_changes_nothing() -> None:
    model = network()
    set_gradients(model, 0, 1e4)
    before = gradients(model)
    NoClipping().clip(model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, gradients(model), strict=True))


@pytest.mark.parametrize("limit", [0.01, 0.5, 100.0])
def test_clipping_by_value_bounds_every_entry_as_torch_does(limit: float) -> None:
    ours, theirs = network(), network()
    set_gradients(ours, 0)
    set_gradients(theirs, 0)
    before = gradients(ours)
    ClipByValue(limit=limit).clip(ours.parameters())
    clip_grad_value_(theirs.parameters(), limit, foreach=False)
    for old, new, expected in zip(before, gradients(ours), gradients(theirs), strict=True):
        assert torch.equal(new, expected)
        assert torch.equal(new, old.clamp(-limit, limit))


@pytest.mark.parametrize("limit", [0.01, 0.5, 100.0])
def test_clipping_by_norm_scales_all_gradients_together_as_torch_does(limit: float) -> None:
    ours, theirs = network(), network()
    set_gradients(ours, 0)
    set_gradients(theirs, 0)
    before = torch.cat([gradient.flatten() for gradient in gradients(ours)])
    ClipByNorm(limit=limit).clip(ours.parameters())
    clip_grad_norm_(theirs.parameters(), limit, foreach=False)
    after = torch.cat([gradient.flatten() for gradient in gradients(ours)])
    torch.testing.assert_close(after, torch.cat([gradient.flatten() for gradient in gradients(theirs)]))
    torch.testing.assert_close(after, before * min(1.0, limit / float(before.norm())), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("member", [ClipByValue, ClipByNorm])
def test_a_parameter_without_a_gradient_is_passed_by(member: type[ClipByValue | ClipByNorm]) -> None:
    model = network()
    set_gradients(model, 0)
    first = next(model.parameters())
    first.grad = None
    member(limit=0.125).clip(model.parameters())
    assert first.grad is None
    assert max(float(gradient.abs().max()) for gradient in gradients(model)) <= 0.125


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValidationError, match="momentum above 0"):
        SGD(lr=0.1, momentum=0.0, nesterov=True)
