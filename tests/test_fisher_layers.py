"""Which weights have filters, how many, and that the network is handed back as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from t2v_hub.errors import ProbeError
from t2v_hub.fisher import FilterLayer, SquaredGradients, filter_layers, frozen
from tests.networks import images, shaken, small_probe, timm_networks


def names_and_counts(module: nn.Module, inputs: Tensor, **options: object) -> dict[str, int]:
    with frozen(module):
        layers = filter_layers(module, module, inputs, **options)  # type: ignore[arg-type]
    return {layer.name: layer.n_filters for layer in layers}


@pytest.fixture(scope="module")
def image() -> Tensor:
    return images(1, 8).float()


class Backbone(nn.Module):
    """Every kind of parameter that is no filter beside some that are, in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 7)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.positions = nn.Parameter(torch.randn(1, 37, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.patches = nn.Conv2d(3, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12, bias=False)
        self.pooler = nn.Linear(4, 4)
        self.never = nn.Conv2d(3, 2, 1)
        self.table = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=2)
        x = x + self.scale * nn.functional.scaled_dot_product_attention(q, k, v)
        self.pooler(x[:, 0])
        return self.last(x.mean(dim=1) + self.table.weight[0])


def test_only_filters_that_the_features_depend_on_are_found_in_the_modules_order(image):
    """Tables, tokens, biases and layer scales are no filters, nor is a pooler that nobody reads."""
    torch.manual_seed(0)

    found = names_and_counts(Backbone(), image)

    assert list(found.items()) == [("last", 7), ("patches", 4), ("qkv", 12)]


def test_normalisation_scales_are_an_option(image):
    torch.manual_seed(0)

    found = names_and_counts(Backbone(), image, normalisation=True)

    assert list(found.items()) == [("last", 7), ("patches", 4), ("norm", 4), ("qkv", 12)]


def test_excluded_parameters_are_left_out(image):
    module = Backbone()

    found = names_and_counts(module, image, exclude=list(module.last.parameters()))

    assert set(found) == {"patches", "qkv"}


@pytest.mark.parametrize(
    ("layer", "n_filters", "n_weights"),
    [
        (nn.Conv2d(6, 8, 3, groups=2), 8, 27),
        (nn.Conv2d(6, 6, 5, groups=6), 6, 25),
        (nn.Conv1d(6, 4, 3), 4, 18),
        (nn.Conv3d(6, 4, 2), 4, 48),
        (nn.Linear(6, 5), 5, 6),
        (nn.ConvTranspose2d(6, 4, 3), 4, 54),
        (nn.ConvTranspose2d(6, 4, 3, groups=2), 4, 27),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_filter_is_one_output_channel(layer, n_filters, n_weights):
    """The mean over a filter's weights divides by their number."""
    transposed = isinstance(layer, nn.ConvTranspose2d)
    filters = FilterLayer("layer", layer.weight, int(transposed), layer.groups if transposed else 1)
    gradient = torch.randn(layer.weight.shape)

    means = filters.squares(gradient)

    assert (filters.n_filters, filters.n_weights, means.shape) == (n_filters, n_weights, (n_filters,))
    assert means.sum().item() * n_weights == pytest.approx(gradient.double().square().sum().item())


def test_each_filter_of_a_transposed_convolution_is_the_channel_that_it_makes():
    """Its weight lists inputs first, and the outputs of one group only."""
    layer = nn.ConvTranspose2d(4, 6, 2, groups=2).double()
    filters = FilterLayer("up", layer.weight, 1, 2)
    output = layer(torch.randn(1, 4, 3, 3, dtype=torch.float64))

    for channel in range(6):
        (gradient,) = torch.autograd.grad(output[0, channel].sum(), layer.weight, retain_graph=True)
        squares = filters.squares(gradient)

        assert squares[channel] > 0
        assert squares.count_nonzero() == 1


def test_a_computed_weight_is_refused_with_a_remedy(image):
    """Its own parameters have no filters to speak of."""
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten())

    with pytest.raises(ProbeError, match=r"Layer '0' computes its weight .*remove_parametrizations"):
        names_and_counts(module, image)


def test_a_computed_weight_in_the_head_does_not_matter(image):
    """Heads with normalised weights are common, and are not measured."""
    head = nn.utils.parametrizations.weight_norm(nn.Linear(144, 2))
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), head)

    assert names_and_counts(module, image, exclude=list(head.parameters())) == {"0": 4}


def test_a_network_without_filters_is_refused(image):
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())

    with pytest.raises(ProbeError, match="depend on no convolution or linear layer"):
        names_and_counts(module, image)


def state(module: nn.Module) -> dict[str, object]:
    """All of a network that a caller could find changed."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "bytes": {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()},
        "identity": {name: (id(tensor), tensor.data_ptr()) for name, tensor in tensors.items()},
        "state dict": {name: t.numpy().tobytes() for name, t in module.state_dict().items()},
        "gradients": {
            name: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
            for name, p in module.named_parameters()
        },
        "wanted": {name: p.requires_grad for name, p in module.named_parameters()},
        "mode": {name: child.training for name, child in module.named_modules()},
        "hooks": {
            name: [
                list(getattr(child, kind))
                for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
            ]
            for name, child in module.named_modules()
        },
        "hooks of parameters": {name: list(p._backward_hooks or ()) for name, p in module.named_parameters()},
    }


class Counting(nn.Module):
    """Changes its buffers with each pass, in both ways that people write it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.zeros(2))
        self.register_buffer("anew", torch.zeros(2))
        self.register_buffer("not_kept", torch.full((2,), torch.nan), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.in_place += 1
        self.anew = self.anew * 0.9 + 1
        self.not_kept = self.not_kept + 1
        return x


@pytest.fixture
def trained() -> nn.Module:
    """A network in the middle of training: modes mixed, gradients there, some weights constant, hooked."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), Counting(), nn.Dropout(0.5),
        nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 6),
    )  # fmt: skip
    module.train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module(images(2, 8).float()).sum().backward()
    module[5].bias.grad = None
    module[2].register_forward_hook(lambda child, inputs, output: output)
    module[5].register_forward_pre_hook(lambda child, inputs: None)
    module[5].register_full_backward_hook(lambda child, inputs, outputs: None)
    module[7].weight.register_hook(lambda gradient: gradient)
    return module


def measure(module: nn.Module) -> None:
    inputs = images(3, 8).float()
    layers = filter_layers(module, module, inputs[:1], normalisation=True)
    measured = SquaredGradients(module, module, layers)
    for _ in range(2):
        measured.backward(torch.ones_like(measured.forward(inputs)))


def test_the_network_is_handed_back_byte_for_byte(trained):
    """State, mode, gradients, hooks and flags are the caller's; even running statistics must not move."""
    before = state(trained)

    with frozen(trained):
        assert not any(child.training for child in trained.modules())
        assert not any(parameter.requires_grad for parameter in trained.parameters())
        measure(trained)

    assert state(trained) == before


def test_the_network_is_handed_back_also_after_a_failure(trained):
    before = state(trained)

    with pytest.raises(ZeroDivisionError), frozen(trained):
        measure(trained)
        trained[4].train()
        trained[0].bias.requires_grad_(True)
        trained(images(2, 8).float())
        raise ZeroDivisionError

    assert state(trained) == before


def test_the_network_is_handed_back_also_when_it_fails_in_the_middle(trained):
    """On the slow path parameters want gradients while the network runs."""
    before = state(trained)
    calls = []

    def failing(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return trained(x)

    with pytest.raises(KeyboardInterrupt), frozen(trained):
        layers = filter_layers(trained, failing, images(1, 8).float())
        SquaredGradients(trained, failing, layers).forward(images(2, 8).float())

    assert state(trained) == before


def test_loading_a_probe_leaves_the_network_as_it_was(trained):
    before = state(trained)

    small_probe(trained, head="7", image_size=8)

    assert state(trained) == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_what_is_measured_does_not_hang_on_the_callers_gradient_mode(context):
    """People embed inside of evaluation loops, under no_grad or inference_mode."""
    module = shaken(timm_networks()["resnet"]())
    probe = small_probe(module)

    def squares() -> Tensor:
        with frozen(module):
            measured = SquaredGradients(module, probe.features, probe.layers)
            return measured.backward(torch.ones_like(measured.forward(images(2).float())))

    with context():
        inside = squares()

    torch.testing.assert_close(inside, squares(), rtol=0, atol=0)


def test_a_copy_of_the_network_has_the_same_layers():
    """Deep copies serve for other devices and types."""
    module = shaken(timm_networks()["densenet"]())

    ours, theirs = small_probe(module), small_probe(copy.deepcopy(module))

    assert ours.filters == theirs.filters
    assert ours.digest == theirs.digest
