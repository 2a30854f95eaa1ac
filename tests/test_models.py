"""Every architecture as a network, and the documents' two against what the documents list."""

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_tune.layers import basic_block, conv_block, double_conv
from cifar_tune.models import MiniResNet, Model, ResNet9

MEMBERS: tuple[type[Model], ...] = get_args(get_args(Model)[0])
every_model = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)


@pytest.fixture(autouse=True)
def one_thread_and_one_seed() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def output_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """(channels, height, width) that each child gives for a 32 px image."""
    shapes: dict[str, tuple[int, ...]] = {}
    x = images()
    for name, child in network.named_children():
        x = child(x)
        shapes[name] = tuple(x.shape[1:])
    return shapes


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def settle(block: nn.Module) -> nn.Module:
    """Give the batch norms statistics and weights that are no identity, and leave them fixed."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, -0.5, 0.5)
            for tensor in (module.running_var, module.weight):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return block.eval()


def norm(x: Tensor, layer: nn.BatchNorm2d) -> Tensor:
    """A batch norm in evaluation, by its formula."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance, weight, bias = (
        tensor.view(1, -1, 1, 1) for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / (variance + layer.eps).sqrt() * weight + bias


def parts(block: nn.Module) -> list[tuple[Tensor, nn.BatchNorm2d]]:
    """The convolutions' weights with the batch norm that follows each."""
    convolutions = [module.weight for module in block.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    return list(zip(convolutions, norms, strict=True))


@every_model
@pytest.mark.parametrize("num_classes", [10, 100])
def test_a_network_gives_one_logit_per_class(member: type[Model], num_classes: int) -> None:
    logits = member().build(num_classes)(images(3))
    assert (logits.shape, logits.dtype) == ((3, num_classes), torch.float32)


@every_model
def test_every_parameter_gets_a_gradient(member: type[Model]) -> None:
    network = member().build(10)
    F.cross_entropy(network(images(4)), torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@every_model
def test_the_layout_in_memory_changes_no_logit(member: type[Model]) -> None:
    network = settle(member().build(10))
    contiguous = network(images())
    channels_last = network.to(memory_format=torch.channels_last)(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, contiguous, rtol=1e-4, atol=1e-4)


@every_model
def test_the_same_seed_gives_the_same_first_weights(member: type[Model]) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(member().build(10).state_dict())
    first, second, other = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@every_model
def test_an_image_is_classified_alone_in_evaluation(member: type[Model]) -> None:
    network = settle(member().build(10))
    batch = images(4)
    torch.testing.assert_close(network(batch)[1:2], network(batch[1:2]), rtol=1e-4, atol=1e-4)


@every_model
def test_a_network_is_described_by_its_children(member: type[Model]) -> None:
    network = member().build(10)
    assert sum(num_parameters(child) for child in network.children()) == num_parameters(network)


def test_resnet9_has_the_output_shapes_of_the_documents_table() -> None:
    assert output_shapes(ResNet9().build(10)) == {
        "conv1": (64, 32, 32),
        "conv2": (128, 16, 16),
        "res1": (128, 16, 16),
        "conv3": (256, 8, 8),
        "conv4": (512, 4, 4),
        "res2": (512, 4, 4),
        "classifier": (10,),
    }


def test_resnet9_has_6_57_million_parameters() -> None:
    """3x3 weights, a scale and a shift per channel, and the classifier."""
    channels = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    expected = sum(9 * before * after + 2 * after for before, after in channels) + 512 * 10 + 10
    assert num_parameters(ResNet9().build(10)) == expected
    assert round(expected / 1e6, 2) == 6.57


def test_resnet9_pools_the_highest_activation_before_its_classifier() -> None:
    classifier = ResNet9(dropout=0.3).build(10).get_submodule("classifier").eval()
    x = torch.randn(2, 512, 4, 4)
    (linear,) = (module for module in classifier.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(classifier(x), linear(x.amax(dim=(2, 3))))


def test_resnet9s_dropout_is_an_option() -> None:
    for share in (0.0, 0.2, 0.5):
        network = ResNet9(dropout=share).build(10)
        assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [share]
    assert ResNet9().dropout == 0.2


def test_mini_resnet_has_the_stages_of_the_documents_list() -> None:
    assert list(output_shapes(MiniResNet().build(10)).items()) == [
        ("conv1", (16, 32, 32)),
        ("res1", (16, 32, 32)),
        ("res2", (16, 32, 32)),
        ("down1", (32, 16, 16)),
        ("res3", (32, 16, 16)),
        ("res4", (32, 16, 16)),
        ("down2", (64, 8, 8)),
        ("res5", (64, 8, 8)),
        ("res6", (64, 8, 8)),
        ("classifier", (10,)),
    ]


def test_mini_resnet_has_the_convolutions_of_the_documents_list() -> None:
    network = MiniResNet().build(10)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convolutions] == [
        (3, 16, 1),
        *[(16, 16, 1)] * 4,
        (16, 32, 2),
        *[(32, 32, 1)] * 4,
        (32, 64, 2),
        *[(64, 64, 1)] * 4,
    ]
    assert {(c.kernel_size, c.padding) for c in convolutions} == {((3, 3), (1, 1))}


def test_mini_resnet_averages_before_its_classifier() -> None:
    classifier = MiniResNet().build(10).get_submodule("classifier")
    x = torch.randn(2, 64, 8, 8)
    (linear,) = (module for module in classifier.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(classifier(x), linear(x.mean(dim=(2, 3))))


@pytest.mark.parametrize(("stride", "pool"), [(1, False), (2, False), (1, True)])
def test_a_conv_block_is_convolution_norm_relu_and_pool(stride: int, pool: bool) -> None:
    block = settle(conv_block(4, 6, stride=stride, pool=pool))
    x = torch.randn(2, 4, 8, 8)
    ((weight, layer),) = parts(block)
    expected = F.relu(norm(F.conv2d(x, weight, stride=stride, padding=1), layer))
    torch.testing.assert_close(block(x), F.max_pool2d(expected, 2) if pool else expected)


def test_resnet9s_block_adds_the_shortcut_after_two_whole_conv_blocks() -> None:
    block = settle(double_conv(5))
    x = torch.randn(2, 5, 8, 8)
    y = x
    for weight, layer in parts(block):
        y = F.relu(norm(F.conv2d(y, weight, padding=1), layer))
    torch.testing.assert_close(block(x), x + y)


def test_a_basic_block_adds_the_shortcut_before_its_second_relu() -> None:
    block = settle(basic_block(5))
    x = torch.randn(2, 5, 8, 8)
    (first, first_norm), (second, second_norm) = parts(block)
    y = norm(F.conv2d(F.relu(norm(F.conv2d(x, first, padding=1), first_norm)), second, padding=1), second_norm)
    torch.testing.assert_close(block(x), F.relu(x + y))
