"""Every architecture as a network, and those of two projects against what the projects list."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from cifar_tune.recipe.layers import PatchWhitening, Resize, basic_block, conv_block, dense_head, double_conv
from cifar_tune.recipe.models import AirBench, Architecture, MiniResNet, Model, ResNet9, ResNet18, ResNet50

MEMBERS: tuple[type[Model], ...] = get_args(get_args(Model)[0])
every_model = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


def images(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def output_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape (channels, height, width) of each child's output for a 32 px image."""
    shapes: dict[str, tuple[int, ...]] = {}
    x = images()
    for name, child in network.named_children():
        x = child(x)
        shapes[name] = tuple(x.shape[1:])
    return shapes


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def settle(block: nn.Module) -> nn.Module:
    """Give the batch norms statistics and weights that are not the identity, and fix them."""
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
@pytest.mark.parametrize("size", [28, 45, 224])
def test_a_network_takes_images_of_every_size(member: type[Model], size: int) -> None:
    with torch.device("meta"):
        assert member().build(7)(torch.zeros(2, 3, size, size)).shape == (2, 7)


@every_model
def test_every_parameter_gets_a_gradient(member: type[Model]) -> None:
    network = member().build(10)
    F.cross_entropy(network(images(4)), torch.arange(4)).backward()  # type: ignore[no-untyped-call]
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
def test_the_last_child_is_the_head_on_flat_features(member: type[Model]) -> None:
    network = member().build(10).eval()
    with torch.no_grad():
        features = network[:-1](images(3))
        assert features.ndim == 2
        torch.testing.assert_close(network[-1](features), network(images(3)))
        assert network[-1](features).shape == (3, 10)
    assert isinstance(list(network[-1].modules())[-1], nn.Linear)


@every_model
def test_a_network_is_described_by_its_children(member: type[Model]) -> None:
    network = member().build(10)
    assert sum(num_parameters(child) for child in network.children()) == num_parameters(network)


def test_whitened_patches_are_uncorrelated_and_vary_alike() -> None:
    smooth = F.avg_pool2d(torch.randn(200, 3, 40, 40, generator=torch.Generator().manual_seed(2)), 3, stride=1)
    layer = PatchWhitening()
    layer.fit(smooth.split(64))  # type: ignore[no-untyped-call]
    whitened = layer(smooth).transpose(0, 1).flatten(1)
    torch.testing.assert_close(whitened[:12], -whitened[12:])
    products = whitened[:12] @ whitened[:12].T / whitened.shape[1]
    assert (products - torch.diag(products.diag())).abs().max() < 1e-4
    variances = torch.linalg.svdvals(F.unfold(smooth, 2).transpose(1, 2).flatten(0, 1)) ** 2 / whitened.shape[1]
    torch.testing.assert_close(products.diag(), (variances / (variances + 5e-4)).flip(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("member", [ResNet9, MiniResNet])
def test_whitening_comes_first_and_leaves_the_rest_as_it_is(member: type[ResNet9] | type[MiniResNet]) -> None:
    plain, whitened = (member(whitening=each).build(10) for each in (False, True))
    assert [name for name, _ in whitened.named_children()] == ["whiten", *(n for n, _ in plain.named_children())]
    width = output_shapes(plain)["conv1"][0]
    assert num_parameters(whitened) - num_parameters(plain) == 24 + 9 * (24 - 3) * width
    assert output_shapes(whitened)["whiten"] == (24, 31, 31)


def test_airbench_has_the_shapes_of_the_original() -> None:
    network = AirBench().build(10)
    assert output_shapes(network) == {
        "whiten": (24, 31, 31),
        "block1": (64, 15, 15),
        "block2": (256, 7, 7),
        "block3": (256, 3, 3),
        "pool": (256,),
        "head": (10,),
    }
    assert round(num_parameters(network) / 1e6, 2) == 1.97


def test_an_airbench_convolution_begins_as_the_identity() -> None:
    """Of its first channels; those that are more than its inputs begin at random."""
    network = AirBench().build(10)
    first, last = (network.get_submodule(f"block2.{place}") for place in (0, 4))
    x = torch.randn(2, 64, 9, 9)
    torch.testing.assert_close(first(x)[:, :64], x)
    assert not torch.equal(first(x)[:, 64:128], x)
    y = torch.randn(2, 256, 9, 9)
    torch.testing.assert_close(last(y), y)


def test_resnet9_has_the_output_shapes_of_the_projects_table() -> None:
    assert output_shapes(ResNet9().build(10)) == {
        "conv1": (64, 32, 32),
        "conv2": (128, 16, 16),
        "res1": (128, 16, 16),
        "conv3": (256, 8, 8),
        "conv4": (512, 4, 4),
        "res2": (512, 4, 4),
        "pool": (512,),
        "classifier": (10,),
    }


def test_resnet9_has_6_57_million_parameters() -> None:
    """3x3 weights, a scale and a shift per channel, and the classifier."""
    channels = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    expected = sum(9 * before * after + 2 * after for before, after in channels) + 512 * 10 + 10
    assert num_parameters(ResNet9().build(10)) == expected
    assert round(expected / 1e6, 2) == 6.57


@pytest.mark.parametrize("member", [ResNet9, MiniResNet])
def test_half_the_width_is_a_quarter_of_the_convolutions_parameters(member: type[ResNet9] | type[MiniResNet]) -> None:
    """Except for the first one, which keeps its three input channels."""
    half, whole = (
        [p.numel() for p in member(width=width).build(10).parameters() if p.dim() == 4] for width in (0.5, 1)
    )
    assert [4 * n for n in half[1:]] == whole[1:]
    assert 2 * half[0] == whole[0]


def test_resnet9_pools_the_highest_activation_before_its_classifier() -> None:
    network = ResNet9(dropout=0.3).build(10).eval()
    x = torch.randn(2, 512, 4, 4)
    (linear,) = (module for module in network.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(network[-2:](x), linear(x.amax(dim=(2, 3))))


def test_resnet9s_dropout_is_an_option() -> None:
    for share in (0.0, 0.2, 0.5):
        network = ResNet9(dropout=share).build(10)
        assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [share]
    assert ResNet9().dropout == 0.2


def test_mini_resnet_has_the_stages_of_the_projects_list() -> None:
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
        ("pool", (64,)),
        ("classifier", (10,)),
    ]


def test_mini_resnet_has_the_convolutions_of_the_projects_list() -> None:
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
    network = MiniResNet().build(10)
    x = torch.randn(2, 64, 8, 8)
    (linear,) = (module for module in network.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(network[-2:](x), linear(x.mean(dim=(2, 3))))


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """Torchvision's own network, with statistics and weights that are not the identity."""
    torch.manual_seed(0)
    return settle(resnet50(num_classes=10))


def test_resnet50_has_torchvisions_tensors_by_their_names(theirs: nn.Module) -> None:
    ours = ResNet50(weights="none").build(10).state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.state_dict().items()}
    assert list(ours) == list(theirs.state_dict())


def test_resnet50_computes_what_torchvisions_does(theirs: nn.Module) -> None:
    ours = ResNet50(weights="none").build(10)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images()), theirs(images()), rtol=1e-4, atol=1e-4)


def test_resnet50_at_224_pixels_computes_what_torchvisions_does_of_resized_images(theirs: nn.Module) -> None:
    ours = ResNet50(weights="none", image_size=224).build(10)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        resized = F.interpolate(images(1), (224, 224), mode="bilinear", antialias=True)
        torch.testing.assert_close(ours.eval()(images(1)), theirs(resized), rtol=1e-4, atol=1e-4)


def test_resnet18_computes_what_torchvisions_does_with_the_first_layers_of_cifar_repositories() -> None:
    torch.manual_seed(0)
    theirs = resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    settle(theirs)
    ours = ResNet18().build(10)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images()), theirs(images()), rtol=1e-4, atol=1e-4)
    assert num_parameters(ours) == 11_173_962  # the number that CIFAR repositories give


def test_resnet50s_backbone_has_23_5_million_parameters() -> None:
    network = ResNet50(weights="none").build(10)
    assert num_parameters(network[:-1]) == 23_508_032
    assert num_parameters(network[-1]) == 2048 * 10 + 10


@pytest.mark.parametrize("size", [8, 32, 224])
def test_images_are_resized_as_torch_does(size: int) -> None:
    expected = F.interpolate(images(), (size, size), mode="bilinear", antialias=True)
    assert torch.equal(Resize(size)(images()), expected)


@pytest.mark.parametrize(
    ("head", "dropout", "layers"),
    [
        ("linear", 0.0, ["Linear(2048, 10)"]),
        ("linear", 0.3, ["Dropout(0.3)", "Linear(2048, 10)"]),
        ("128-64", 0.0, ["Linear(2048, 128)", "ReLU", "Linear(128, 64)", "ReLU", "Dropout(0.0)", "Linear(64, 10)"]),
        ("512", 0.5, ["Linear(2048, 512)", "ReLU", "Dropout(0.5)", "Linear(512, 10)"]),
    ],
)
def test_resnet50s_head_is_an_option(head: str, dropout: float, layers: list[str]) -> None:
    """Dropout comes before the last layer only, as in the ResNet50 CIFAR-100 project."""
    with torch.device("meta"):
        network = ResNet50(weights="none", head=head, dropout=dropout).build(10)
    assert [describe(leaf) for leaf in network[-1].modules() if not list(leaf.children())] == layers


def describe(leaf: nn.Module) -> str:
    if isinstance(leaf, nn.Linear):
        return f"Linear({leaf.in_features}, {leaf.out_features})"
    return f"Dropout({leaf.p})" if isinstance(leaf, nn.Dropout) else type(leaf).__name__


def test_a_dense_head_is_its_layers_one_after_another() -> None:
    head = dense_head(6, [5, 4], 3, dropout=0.5).eval()
    first, second, last = (module for module in head.modules() if isinstance(module, nn.Linear))
    x = torch.randn(2, 6)
    torch.testing.assert_close(head(x), last(F.relu(second(F.relu(first(x))))))


@pytest.mark.parametrize(
    ("head", "read"),
    [([], "linear"), ([512], "512"), ([128, 64], "128-64"), ((128, 64), "128-64"), ("7-8-9", "7-8-9"), (512, None)],
    ids=str,
)
def test_a_head_is_text_or_a_list_of_widths(head: object, read: str | None) -> None:
    if read is None:
        with pytest.raises(ValidationError, match="head"):
            ResNet50.model_validate({"head": head})
    else:
        assert ResNet50.model_validate({"head": head}).head == read


@pytest.mark.parametrize(
    "head", ["", "0", "128-", "-128", "128--64", "128,64", "linear-128", "Linear", "01", [0], [-1]]
)
def test_a_head_that_is_none_is_refused(head: object) -> None:
    with pytest.raises(ValidationError, match="head"):
        ResNet50.model_validate({"head": head})


@pytest.mark.parametrize("member", [ResNet9, MiniResNet])
def test_imagenet_weights_are_resnet50s_alone(member: type[Architecture]) -> None:
    with pytest.raises(ValidationError, match="imagenet weights exist for resnet50 only"):
        member.model_validate({"weights": "imagenet"})
    assert ResNet50().weights == "imagenet"


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
