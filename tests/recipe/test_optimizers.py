"""Every optimizer and every kind of gradient clipping against torch's own, step by step."""

import io
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from cifar_tune.recipe.models import MiniResNet
from cifar_tune.recipe.optimizers import (
    SGD,
    Adam,
    AdamW,
    ClipByNorm,
    ClipByValue,
    GradClip,
    Muon,
    NoClipping,
    Optimizer,
    set_rate,
)

OPTIMIZERS: tuple[type[Optimizer], ...] = get_args(get_args(Optimizer)[0])
GRAD_CLIPS: tuple[type[GradClip], ...] = get_args(get_args(GradClip)[0])

ROUNDING = 0.006  # of torch's Muon in three steps at a rate of 0.1, because it computes in bfloat16 on a CPU, too

Reference = Callable[[nn.Sequential], list[torch.optim.Optimizer]]


def torchs(optimizer: Callable[..., torch.optim.Optimizer], **options: Any) -> Reference:  # noqa: ANN401 - its own
    """Torch's optimizer of all parameters, in its plainest form: a loop over them."""
    return lambda network: [optimizer(network.parameters(), foreach=False, **options)]


def muon_and_adamw(*, adamw_lr: float = 3e-4, weight_decay: float, **options: Any) -> Reference:  # noqa: ANN401
    """Torch's Muon of the only hidden weight, and its AdamW of everything else."""

    def build(network: nn.Sequential) -> list[torch.optim.Optimizer]:
        others = [parameter for name, parameter in network.named_parameters() if name != "3.weight"]
        return [
            torch.optim.Muon([network.get_parameter("3.weight")], weight_decay=weight_decay, **options),
            torch.optim.AdamW(others, lr=adamw_lr, weight_decay=weight_decay, foreach=False),
        ]

    return build


# Options of every class with what torch calls them; a class that is missing here fails the tests below.
CASES: list[tuple[Optimizer, Reference]] = [
    (Adam(lr=0.01), torchs(torch.optim.Adam, lr=0.01)),
    (
        Adam(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.9),
        torchs(torch.optim.Adam, lr=0.01, weight_decay=0.1, betas=(0.8, 0.9)),
    ),
    (AdamW(lr=0.01), torchs(torch.optim.AdamW, lr=0.01)),
    (
        AdamW(lr=0.01, weight_decay=0.3, beta1=0.8, beta2=0.9),
        torchs(torch.optim.AdamW, lr=0.01, weight_decay=0.3, betas=(0.8, 0.9)),
    ),
    (SGD(lr=0.1), torchs(torch.optim.SGD, lr=0.1, momentum=0.9)),
    (SGD(lr=0.1, momentum=0.0), torchs(torch.optim.SGD, lr=0.1)),
    (
        SGD(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
        torchs(torch.optim.SGD, lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True),
    ),
    (Muon(lr=0.1), muon_and_adamw(lr=0.1, weight_decay=0.01)),
    (
        Muon(lr=0.1, momentum=0.8, weight_decay=0.2, adamw_lr=0.05),
        muon_and_adamw(lr=0.1, momentum=0.8, weight_decay=0.2, adamw_lr=0.05),
    ),
]
cases = pytest.mark.parametrize(("options", "reference"), CASES, ids=[str(options) for options, _ in CASES])
every_optimizer = pytest.mark.parametrize("member", OPTIMIZERS)


def precision(options: Optimizer) -> float:
    return ROUNDING if options.name == "muon" else 1e-7


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def set_gradients(model: nn.Module, step: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def names_of(groups: list[dict[str, Any]], model: nn.Module) -> list[list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [[names[parameter] for parameter in group["params"]] for group in groups]


def test_every_optimizer_has_a_reference() -> None:
    assert {type(options) for options, _ in CASES} == set(OPTIMIZERS)


@cases
def test_three_steps_are_torchs(options: Optimizer, reference: Reference) -> None:
    ours, theirs = network(), network()
    optimizer, expected = options.build(ours), reference(theirs)
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        for each in [optimizer, *expected]:
            each.step()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=precision(options))
    assert not torch.equal(next(iter(ours.parameters())), next(iter(network().parameters())))


@every_optimizer
def test_the_schedules_rate_and_momentum_are_what_the_next_step_uses(member: type[Optimizer]) -> None:
    optimizer = member(lr=0.1).build(network())
    set_rate(optimizer, 0.25, 0.5)
    assert optimizer.param_groups[0]["lr"] == 0.25
    for group in optimizer.param_groups:
        assert (group["betas"][0] if "betas" in group else group["momentum"]) == 0.5


@every_optimizer
def test_a_rate_alone_leaves_the_momentum(member: type[Optimizer]) -> None:
    optimizer = member(lr=0.1).build(network())
    before = [{k: v for k, v in group.items() if k not in {"lr", "params"}} for group in optimizer.param_groups]
    set_rate(optimizer, 0.25, None)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert before == [{k: v for k, v in group.items() if k not in {"lr", "params"}} for group in optimizer.param_groups]


@pytest.mark.parametrize("member", [Adam, AdamW])
def test_momentum_leaves_beta2(member: type[Adam | AdamW]) -> None:
    optimizer = member(lr=0.1, beta2=0.95).build(network())
    set_rate(optimizer, 0.1, 0.5)
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.95)


@cases
def test_steps_of_changing_rates_are_torchs(options: Optimizer, reference: Reference) -> None:
    ours, theirs = network(), network()
    optimizer, expected = options.build(ours), reference(theirs)
    shares = [each.param_groups[0]["lr"] / options.lr for each in expected]
    for step, lr in enumerate([0.01, 0.1, 0.001]):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        set_rate(optimizer, lr, None)
        optimizer.step()
        for each, share in zip(expected, shares, strict=True):
            each.param_groups[0]["lr"] = lr * share
            each.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=precision(options))


@every_optimizer
def test_a_loaded_state_goes_on_to_the_bit(member: type[Optimizer]) -> None:
    """Through a file that nothing is unpickled from, as checkpoints are."""
    options = member(lr=0.1, weight_decay=0.1, decay_norms_and_biases=False, head_lr_scale=3.0)
    whole, cut = network(), network()
    first, before = options.build(whole), options.build(cut)
    for model, optimizer in ((whole, first), (cut, before)):
        set_gradients(model, 0)
        set_rate(optimizer, 0.05, 0.8)
        optimizer.step()
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    again = options.build(cut)
    again.load_state_dict(torch.load(file, weights_only=True))
    for model, optimizer in ((whole, first), (cut, again)):
        set_gradients(model, 1)
        optimizer.step()
        set_gradients(model, 2)
        set_rate(optimizer, 0.02, None)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


# Groups of parameters


@pytest.mark.parametrize("member", [Adam, AdamW, SGD])
def test_without_options_there_is_one_group_in_the_networks_order(member: type[Adam | AdamW | SGD]) -> None:
    model = network()
    (names,) = names_of(member(lr=0.1, weight_decay=0.1).build(model).param_groups, model)
    assert names == [name for name, _ in model.named_parameters()]


@every_optimizer
@pytest.mark.parametrize("decays_all", [True, False])
def test_weight_decay_leaves_norms_and_biases_out_where_asked(member: type[Optimizer], decays_all: bool) -> None:
    """A step without gradients moves what is decayed, and nothing else."""
    model = network()
    for parameter in model.parameters():
        nn.init.ones_(parameter)  # a new norm's bias is 0, which no decay moves
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = member(lr=0.1, weight_decay=0.1, decay_norms_and_biases=decays_all).build(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    norms_and_biases = {"0.bias", "1.weight", "1.bias", "3.bias", "5.bias"}
    assert moved == before.keys() - (set() if decays_all else norms_and_biases)


@every_optimizer
def test_the_heads_rate_follows_the_schedule_at_its_own_scale(member: type[Optimizer]) -> None:
    model = network()
    head = set(model[-1].parameters())
    plain, scaled = (member(lr=0.1, head_lr_scale=scale).build(model) for scale in (1.0, 5.0))
    for lr in (0.1, 0.02, 0.3):
        set_rate(plain, lr, None)
        set_rate(scaled, lr, None)
        before, after = (
            {p: group["lr"] for group in each.param_groups for p in group["params"]} for each in (plain, scaled)
        )
        assert after == pytest.approx({p: rate * (5 if p in head else 1) for p, rate in before.items()})


def test_the_head_alone_has_its_scale_too() -> None:
    """Where the backbone requires no gradients, the head is all that is trained, whatever it is made of."""
    model = nn.Sequential(nn.Linear(6, 5), nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    model[0].requires_grad_(False)
    optimizer = SGD(lr=0.1, head_lr_scale=0.5).build(model)
    assert names_of(optimizer.param_groups, model) == [["1.0.weight", "1.0.bias", "1.2.weight", "1.2.bias"]]
    set_rate(optimizer, 0.2, None)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_groups_of_their_own_step_as_torchs_do() -> None:
    """The head at half the rate, norms and biases without decay: torch's own SGD with groups written by hand."""
    ours, theirs = network(), network()
    optimizer = SGD(lr=0.1, weight_decay=0.3, decay_norms_and_biases=False, head_lr_scale=0.5).build(ours)
    weights = [p for p in theirs[:-1].parameters() if p.ndim > 1]
    others = [p for p in theirs[:-1].parameters() if p.ndim == 1]
    groups = [
        {"params": weights, "weight_decay": 0.3, "lr": 0.1},
        {"params": others, "lr": 0.1},
        {"params": [theirs[-1].weight], "weight_decay": 0.3, "lr": 0.05},
        {"params": [theirs[-1].bias], "lr": 0.05},
    ]
    expected = torch.optim.SGD(groups, momentum=0.9, foreach=False)
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step()
        expected.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_a_state_of_version_0_1_has_groups_without_a_scale() -> None:
    """Their rate is the schedule's."""
    optimizer = Adam(lr=0.1).build(network())
    state = optimizer.state_dict()
    state["param_groups"] = [{k: v for k, v in group.items() if k != "lr_scale"} for group in state["param_groups"]]
    optimizer.load_state_dict(state)
    set_rate(optimizer, 0.25, None)
    assert optimizer.param_groups[0]["lr"] == 0.25


# Muon


def convolutional() -> nn.Sequential:
    """Two hidden convolutions, one of them of single pixels, and a hidden layer in the head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.Conv2d(6, 8, 1),
        nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 2)),
    )


def test_muon_has_the_hidden_weights_and_adamw_everything_else() -> None:
    model = convolutional()
    muon, adamw = Muon(lr=0.1).build(model).param_groups
    assert names_of([muon], model) == [["2.weight", "3.weight", "4.0.weight"]]
    assert names_of([adamw], model) == [
        ["0.weight", "0.bias", "1.weight", "1.bias", "3.bias", "4.0.bias", "4.2.weight", "4.2.bias"]
    ]


def test_behind_whitening_every_convolution_is_hidden() -> None:
    model = MiniResNet(whitening=True).build(10)
    muon, _ = Muon(lr=0.1).build(model).param_groups
    convolutions = [f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Conv2d)]
    assert names_of([muon], model) == [convolutions]


def test_the_schedule_moves_the_rates_of_muon_and_adamw_alike() -> None:
    optimizer = Muon(lr=0.1, adamw_lr=0.002, head_lr_scale=5.0).build(convolutional())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.5, 0.002, 0.01])
    set_rate(optimizer, 0.05, None)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.25, 0.001, 0.005])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_convolution_is_to_muon_the_matrix_of_its_outputs(memory_format: torch.memory_format) -> None:
    """In both memory formats the step is torch's own on the flattened weights."""
    model = convolutional().to(memory_format=memory_format)
    optimizer = Muon(lr=0.1, weight_decay=0.1).build(model)
    hidden = [model.get_parameter(name) for name in ("2.weight", "3.weight", "4.0.weight")]
    matrices = [nn.Parameter(weight.detach().flatten(1).clone()) for weight in hidden]
    expected = torch.optim.Muon(matrices, lr=0.1, weight_decay=0.1)
    for step in range(3):
        set_gradients(model, step)
        for weight, matrix in zip(hidden, matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = weight.grad.flatten(1)
        optimizer.step()
        expected.step()  # type: ignore[no-untyped-call]
    for weight, matrix in zip(hidden, matrices, strict=True):
        torch.testing.assert_close(weight.flatten(1), matrix, rtol=0, atol=ROUNDING)
    for parameter in model.parameters():
        assert parameter.grad is not None
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_head_of_one_layer_has_nothing_for_muon() -> None:
    model = convolutional()
    model[:-1].requires_grad_(False)
    hidden, others = Muon(lr=0.1).build(model).param_groups
    assert names_of([hidden, others], model) == [["4.0.weight"], ["4.0.bias", "4.2.weight", "4.2.bias"]]
    model = network()
    model[:-1].requires_grad_(False)
    optimizer = Muon(lr=0.1, adamw_lr=0.002).build(model)
    assert type(optimizer) is torch.optim.AdamW
    assert names_of(optimizer.param_groups, model) == [["5.weight", "5.bias"]]
    set_rate(optimizer, 0.05, None)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


# Gradient clipping


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
