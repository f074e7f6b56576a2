"""Squared per-example gradients against autograd, one example at a time, over many kinds of network."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2v_hub.errors import SlowPathWarning
from t2v_hub.fisher import FilterLayer, SquaredGradients, filter_layers, frozen, kernels, squares
from tests.networks import (
    autograd_squares,
    images,
    shaken,
    small_probe,
    timm_networks,
    transformers_networks,
)

TIMM, TRANSFORMERS = timm_networks(), transformers_networks()


def assert_like_autograd(
    module: nn.Module,
    features: Callable[[Tensor], Tensor],
    layers: tuple[FilterLayer, ...],
    inputs: Tensor,
    *,
    rtol: float = 1e-9,
    way: kernels.Way | None = None,
) -> SquaredGradients:
    """Both agree for every example and filter, relative to the filter or a 1e-6th of the layer's mean."""
    with frozen(module):
        measured = SquaredGradients(module, features, layers, way=way)
        outputs = measured.forward(inputs)
        generator = torch.Generator().manual_seed(3)
        shape = (len(inputs), 2, outputs.shape[1])
        directions = torch.randn(shape, generator=generator, dtype=torch.float64).to(outputs)
        first = measured.backward(directions[:, 0], keep=True)
        again = measured.backward(directions[:, 0], keep=True)
        # The graph, and what else is kept of it, must serve another direction as well.
        second = measured.backward(directions[:, 1])
        expected = autograd_squares(features, layers, inputs, directions)

    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert first.dtype == torch.float64
    actual = torch.stack([first, second], dim=1).flatten(0, 1)
    assert actual.shape == expected.shape
    start = 0
    for layer in layers:
        part = slice(start, start + layer.n_filters)
        start += layer.n_filters
        floor = 1e-6 * expected[:, part].mean(dim=1, keepdim=True)
        error = (actual[:, part] - expected[:, part]).abs() / torch.maximum(expected[:, part], floor)
        assert torch.nan_to_num(error).max() <= rtol, f"{layer.name}: {error.max():.2e}"
    assert expected.sum(dim=1).min() > 0
    return measured


def layers_of(module: nn.Module, inputs: Tensor, *, normalisation: bool = False) -> tuple[FilterLayer, ...]:
    with frozen(module):
        return filter_layers(module, module, inputs[:1], normalisation=normalisation)


@pytest.mark.parametrize("normalisation", [False, True], ids=["filters", "scales"])
@pytest.mark.parametrize("family", TIMM)
def test_squares_equal_autograd_for_timm(family, normalisation):
    """Every family has its own traps: in-place activations, groups, windows, padding, shared inputs."""
    module = shaken(TIMM[family]()).double()
    head = {"vit": "head", "deit_distilled": "head"}.get(family)
    probe = small_probe(module, head=head, normalisation=normalisation)

    assert_like_autograd(module, probe.features, probe.layers, images())


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_squares_equal_autograd_for_transformers(family):
    """Written apart from timm's, with other shapes of the same operations."""
    module = shaken(TRANSFORMERS[family]()).double()
    probe = small_probe(module)

    assert_like_autograd(module, probe.features, probe.layers, images())


class Flat(nn.Module):
    """A body whose maps are averaged to features."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x.flatten(2).mean(dim=2) if x.dim() > 2 else x


CONVOLUTIONS = {
    "padding_same": dict(kernel_size=3, padding="same"),
    "padding_same_even": dict(kernel_size=(4, 2), padding="same"),
    "padding_same_dilated": dict(kernel_size=4, padding="same", dilation=(2, 1)),
    "padding_valid": dict(kernel_size=3, padding="valid"),
    "padding_circular": dict(kernel_size=3, padding=2, padding_mode="circular"),
    "padding_reflect_same": dict(kernel_size=3, padding="same", padding_mode="reflect"),
    "dilation": dict(kernel_size=3, dilation=2, padding=1),
    "stride": dict(kernel_size=(3, 2), stride=(2, 3)),
    "stride_that_drops_the_rest": dict(kernel_size=2, stride=3, padding=1),
    "pointwise": dict(kernel_size=1),
    "pointwise_stride": dict(kernel_size=1, stride=2),
    "pointwise_padded": dict(kernel_size=1, padding=1),
    "depthwise": dict(kernel_size=3, groups=6, padding=1),
    "depthwise_multiplied": dict(kernel_size=3, groups=6, out_channels=12),
    "grouped": dict(kernel_size=3, groups=3, stride=2, padding=(0, 1)),
    "without_bias": dict(kernel_size=3, bias=False),
}


@pytest.mark.parametrize("way", kernels.WAYS)
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_squares_equal_autograd_for_every_option_of_a_convolution(options, way):
    """Each option changes which patch a position sees; all ways to square must see the same."""
    convolution = nn.Conv2d(6, **{"out_channels": 9 if options.get("groups") == 3 else 6, **options})
    module = shaken(Flat(nn.Conv2d(3, 6, 1), nn.Tanh(), convolution, nn.Tanh(), nn.Conv2d(
        convolution.out_channels, 4, 1), nn.Tanh())).double()  # fmt: skip
    inputs = images(side=11)

    measured = assert_like_autograd(module, module, layers_of(module, inputs), inputs, way=way)

    assert measured.slow == ()


@pytest.mark.parametrize("way", kernels.WAYS)
@pytest.mark.parametrize("family", ["resnet", "swin", "vit", "mobilenetv2", "regnet"])
def test_all_ways_to_square_agree_with_autograd(family, way):
    """Which of them is taken hangs on the sizes, so that small networks alone would leave some untested."""
    module = shaken(TIMM[family]()).double()
    probe = small_probe(module)

    # Sums of squares that nearly cancel lose more digits by way of positions.
    assert_like_autograd(module, probe.features, probe.layers, images(), rtol=1e-8, way=way)


@pytest.mark.parametrize("way", kernels.WAYS)
@pytest.mark.parametrize("chunk", [1, 3000])
def test_squares_do_not_depend_on_the_size_of_chunks(chunk, way, monkeypatch):
    """Large batches are unfolded in parts, whose order must be the batch's."""
    module = shaken(TIMM["resnet"]()).double()
    probe = small_probe(module)
    monkeypatch.setattr(kernels, "_CHUNK_BYTES", chunk)

    assert_like_autograd(module, probe.features, probe.layers, images(5), rtol=1e-8, way=way)


@pytest.mark.parametrize("way", kernels.WAYS)
@pytest.mark.parametrize("family", ["resnet", "convnext", "vit", "mobilenetv2"])
def test_squares_under_autocast_are_those_of_autograd_under_autocast(family, way):
    """Passes are rounded to 8 bits; what is made of them is not, so nothing adds to that rounding."""
    module = shaken(TIMM[family]())
    probe = small_probe(module, normalisation=True)
    inputs = images().float()
    with frozen(module):
        measured = SquaredGradients(module, probe.features, probe.layers, way=way, autocast=torch.bfloat16)
        outputs = measured.forward(inputs)
        directions = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(3))
        actual = measured.backward(directions)
        with torch.autocast("cpu", torch.bfloat16):
            expected = autograd_squares(probe.features, probe.layers, inputs, directions.bfloat16()[:, None])

    assert measured.slow == ()
    for layer, ours, truth in zip(
        probe.layers,
        actual.split([layer.n_filters for layer in probe.layers], dim=1),
        expected.split([layer.n_filters for layer in probe.layers], dim=1),
        strict=True,
    ):
        assert (ours - truth).norm() <= 0.05 * truth.norm(), layer.name


def test_gram_matrices_are_made_once_and_kept_only_where_they_are_small(monkeypatch):
    """Another label needs no new ones; on large maps they would outgrow the activations."""
    inputs = images(side=12)
    module = shaken(
        Flat(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.MaxPool2d(4), nn.Conv2d(6, 8, 2), nn.Tanh())
    ).double()
    made = []
    unfold = F.unfold
    monkeypatch.setattr(kernels.F, "unfold", lambda *args: made.append(1) or unfold(*args))
    with frozen(module):
        measured = SquaredGradients(module, module, layers_of(module, inputs), way="positions")
        directions = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double()
        measured.forward(inputs)  # and compared with autograd
        made.clear()
        for more in (True, True, False):
            measured.backward(directions, keep=more)

    assert len(made) == 3 + 1  # 100 positions of 27 numbers each: not kept; one of 24: kept


class Twice(nn.Module):
    """One convolution and one linear layer used twice each, on other inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x = torch.tanh(self.shared(torch.tanh(self.shared(x))[..., ::2]))
        x = x.flatten(2).transpose(1, 2)  # tokens
        return torch.tanh(self.linear(torch.tanh(self.linear(x)).mean(dim=1)))


class Tied(nn.Module):
    """One parameter in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3, stride=2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x)))).mean(dim=(2, 3))


class Mixed(nn.Module):
    """One weight used by an operation with a kernel and by one without: only both make its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3))
        return torch.tanh(self.linear(torch.tanh(x @ self.linear.weight)))


class Functional(nn.Module):
    """A weight outside of any module for it, handed over by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.rows = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(F.conv2d(input=x, weight=self.kernel, stride=2)).mean(dim=(2, 3))
        return torch.tanh(F.linear(input=x, weight=self.rows, bias=None))


class Unused(nn.Module):
    """A layer whose output nobody reads, once of the two times that it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.convolution(x))
        self.convolution(x)
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("network", [Twice, Tied, Functional, Unused])
def test_a_weight_used_twice_or_outside_its_module_is_counted_once_and_rightly(network):
    """Gradients of both uses are summed before they are squared."""
    torch.manual_seed(0)
    module = network().double().eval()
    inputs = images(side=12)

    measured = assert_like_autograd(module, module, layers_of(module, inputs), inputs)

    assert measured.slow == ()


class OneDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.across = nn.Conv2d(3, 4, 3, stride=3), nn.Conv1d(4, 5, 3, groups=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.across(torch.tanh(self.lift(x)).flatten(2))).mean(dim=2)


class ThreeDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.deep = nn.Conv2d(3, 4, 3, stride=3), nn.Conv3d(1, 3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.deep(torch.tanh(self.lift(x))[:, None])).flatten(2).mean(dim=2)


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 6, 3, stride=3), nn.ConvTranspose2d(6, 4, 3, stride=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.up(torch.tanh(self.down(x)))).square().mean(dim=(2, 3))


class GroupedTransposed(Transposed):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.patches(x)).flatten(2).transpose(1, 2)
        return torch.tanh(self.last(self.attention(x, x, x, need_weights=False)[0].mean(dim=1)))


class TokensFirst(nn.Module):
    """Tokens stand before the batch, as in the first transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.linear = nn.Conv2d(3, 8, 3, stride=3), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.patches(x)).flatten(2).permute(2, 0, 1)  # (16, batch, 8)
        return torch.tanh(self.linear(x)).mean(dim=0)


class Neighbours(nn.Module):
    """Pixels of all images in one long batch, shuffled: no image has rows of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, pixels = len(x), x[0, 0].numel()
        rows = x.flatten(2).permute(2, 0, 1).reshape(pixels * batch, 3)
        return torch.tanh(self.linear(rows)).reshape(pixels, batch, 6).mean(dim=0)


@pytest.mark.parametrize(
    ("network", "slow"),
    [
        (OneDimensional, ["across"]),
        (ThreeDimensional, ["deep"]),
        (Transposed, ["up"]),
        (GroupedTransposed, ["up"]),
        (Attention, ["attention.in_proj_weight", "attention.out_proj"]),
        (TokensFirst, ["linear"]),
        (Neighbours, ["linear"]),
        (Mixed, ["linear"]),
    ],
)
def test_what_has_no_fast_kernel_is_measured_one_image_at_a_time(network, slow):
    """Right but slow, and it says so; silently wrong would be worse than both."""
    torch.manual_seed(0)
    module = network().double().eval()
    inputs = images(side=12)
    layers = layers_of(module, inputs)

    with pytest.warns(SlowPathWarning, match=rf"{len(slow)} of {len(layers)} layers \({', '.join(slow)}\)"):
        measured = assert_like_autograd(module, module, layers, inputs)

    assert [layer.name for layer in measured.slow] == slow


def test_weight_standardised_convolutions_are_measured_slowly_and_rightly():
    """Their weight is computed anew in each pass: the parameter itself is never handed to a kernel."""
    import timm

    module = shaken(timm.create_model("test_nfnet", num_classes=5)).double()
    probe = small_probe(module)

    with pytest.warns(SlowPathWarning, match=r"layers \(stem\.conv1, .* and \d+ more\)"):
        assert_like_autograd(module, probe.features, probe.layers, images())


class BatchMixer(nn.Module):
    """Takes the batch's mean away, which no evaluation mode should."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = x - 0.5 * x.mean(dim=0, keepdim=True)
        return torch.tanh(self.second(x)).mean(dim=(2, 3))


class DetachedMixer(BatchMixer):
    """The same, without a gradient: only the features themselves show it."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = x - 0.5 * x.mean(dim=0, keepdim=True).detach()
        return torch.tanh(self.second(x)).mean(dim=(2, 3))


@pytest.mark.parametrize("network", [BatchMixer, DetachedMixer])
def test_a_network_that_mixes_examples_is_measured_one_image_at_a_time(network):
    """Its batches have no per-example gradients; each image alone does."""
    torch.manual_seed(0)
    module = network().double().eval()
    inputs = images(side=12)

    with pytest.warns(SlowPathWarning, match=r"2 of 2 layers \(first, second\)"):
        assert_like_autograd(module, module, layers_of(module, inputs), inputs)


@pytest.mark.parametrize("kind", ["layer_norm", "group_norm", "rms_norm", "frozen_statistics_absent"])
def test_scales_of_normalisation_layers_equal_autograd(kind):
    """Scales are weights of their own; kinds without a kernel take the slow path."""
    norm = {
        "layer_norm": nn.LayerNorm((6, 8, 8)),
        "group_norm": nn.GroupNorm(2, 6),
        "rms_norm": nn.RMSNorm((8,)),
        "frozen_statistics_absent": nn.BatchNorm2d(6, track_running_stats=False),
    }[kind]
    module = shaken(Flat(nn.Conv2d(3, 6, 3, padding=1), norm, nn.Tanh(), nn.Conv2d(6, 4, 1), nn.Tanh()))
    module = module.double()
    inputs = images(side=8)
    layers = layers_of(module, inputs, normalisation=True)

    with pytest.warns(SlowPathWarning, match="one image at a time"):
        assert_like_autograd(module, module, layers, inputs)

    assert "body.1" in [layer.name for layer in layers]


class Overwriting(nn.Module):
    """Changes in place what a convolution has read; fine for inference, not for autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = torch.tanh(self.second(x))
        x.mul_(0.5).add_(y)
        x = x.mean(dim=(2, 3))
        z = self.third(x)
        x.fill_(7.0)
        return torch.tanh(z)


def test_an_input_overwritten_after_a_layer_read_it_is_kept_for_the_gradient():
    """What the layer saw, not what lies there later, makes the gradient."""
    torch.manual_seed(0)
    module = Overwriting().double().eval()
    inputs = images(side=8)
    layers = layers_of(module, inputs)

    measured = assert_like_autograd(module, module, layers, inputs)

    assert measured.slow == ()
    assert measured._copies_inputs


def test_activations_in_place_need_no_copies_of_the_inputs():
    """Copies would cost memory in every ResNet and VGG, whose activations overwrite outputs only."""
    module = shaken(TIMM["vgg"]()).double()
    probe = small_probe(module)

    measured = assert_like_autograd(module, probe.features, probe.layers, images())

    assert not measured._copies_inputs


class Routed(nn.Module):
    """Which of two layers an image passes is decided by the first image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.tanh(self.stem(x)).mean(dim=(2, 3))
        return torch.tanh((self.left if x.mean() > 0 else self.right)(features))


def test_a_layer_that_a_batch_does_not_pass_gets_zeros():
    """A column left out would shift all that follow it."""
    torch.manual_seed(0)
    module = Routed().double().eval()
    inputs = images(2, side=8)
    layers = tuple(FilterLayer(n, m.weight) for n, m in module.named_modules() if n)
    with frozen(module), warnings.catch_warnings():
        warnings.simplefilter("ignore", SlowPathWarning)
        measured = SquaredGradients(module, module, layers)
        directions = torch.ones(2, 4, dtype=torch.float64)
        rows = []
        for shift in (5.0, -5.0):
            measured.forward(inputs + shift)
            rows.append(measured.backward(directions))
        expected = [autograd_squares(module, layers, inputs + shift, directions) for shift in (5.0, -5.0)]

    torch.testing.assert_close(torch.stack(rows), torch.stack(expected), rtol=1e-9, atol=0)
    assert (rows[0][:, 8:] == 0).all()
    assert (rows[1][:, 4:8] == 0).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_squares_of_an_image_do_not_depend_on_its_batch(n):
    """A gradient of the batch's mean would shrink with the batch."""
    module = shaken(TIMM["resnet"]()).double()
    probe = small_probe(module)
    inputs = images(7)
    directions = torch.randn(7, probe.n_features, generator=torch.Generator().manual_seed(2)).double()
    with frozen(module):
        measured = SquaredGradients(module, probe.features, probe.layers)
        parts = []
        for x, direction in zip(inputs.split(n), directions.split(n), strict=True):
            measured.forward(x)
            parts.append(measured.backward(direction))
        measured.forward(inputs)
        whole = measured.backward(directions)

    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-30)


def test_a_single_image_needs_memory_for_one_only():
    """The comparison with autograd must not ask for two where a single image is all that fits."""
    module = shaken(TIMM["resnet"]()).double()
    probe = small_probe(module)
    sizes = []

    def features(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return probe.features(x)

    with frozen(module):
        measured = SquaredGradients(module, features, probe.layers)
        measured.forward(images(1))
        measured.backward(torch.ones(1, probe.n_features))

        assert set(sizes) == {1}

        measured.forward(images(3))  # now it is seen whether examples mix

    assert 2 in sizes


def test_a_pass_frees_the_graph_of_one_that_failed_before():
    """After running out of memory the next attempt must not find the memory still taken."""
    import gc
    import weakref

    module = shaken(TIMM["resnet"]())
    probe = small_probe(module)
    seen: list[bool] = []
    outputs: list[weakref.ref[Tensor]] = []

    def features(x: Tensor) -> Tensor:
        if outputs:
            gc.collect()
            seen.append(outputs[-1]() is None)
        result = probe.features(x)
        outputs.append(weakref.ref(result))
        return result

    with frozen(module):
        measured = SquaredGradients(module, features, probe.layers)
        measured.forward(images(2).float())  # and no backward: it failed
        measured.forward(images(2).float())

    assert seen[-1]


def test_images_that_show_nothing_are_not_taken_for_a_check(monkeypatch):
    """Black ones pass any kernel of a first layer; the next pass is looked at as well."""
    module = shaken(Flat(nn.Conv2d(3, 4, 3, bias=False), nn.Tanh()))
    inputs = images(3).float()

    def doubled(a, weight, g, options):  # type: ignore[no-untyped-def]
        return kernels.convolution(a, weight, g * 1.02, options)

    monkeypatch.setitem(squares._OPERATIONS, torch.conv2d, (doubled, squares._OPERATIONS[torch.conv2d][1]))
    with frozen(module):
        measured = SquaredGradients(module, module, layers_of(module, inputs))
        measured.forward(torch.zeros_like(inputs))
        assert measured.slow == ()
        with pytest.warns(SlowPathWarning, match="1 of 1 layers"):
            measured.forward(inputs)


def test_a_wrong_kernel_is_found_out():
    """The comparison with autograd is the net below all kernels, present and future."""
    module = shaken(TIMM["resnet"]())
    probe = small_probe(module)

    def doubled(a, weight, g, options):  # type: ignore[no-untyped-def]
        return kernels.convolution(a, weight, g * (1.02 if weight.shape[2] == 7 else 1), options)

    before = squares._OPERATIONS[torch.conv2d]
    squares._OPERATIONS[torch.conv2d] = (doubled, before[1])
    try:
        with frozen(module), pytest.warns(SlowPathWarning, match=r"1 of \d+ layers \(conv1\)"):
            measured = SquaredGradients(module, probe.features, probe.layers)
            measured.forward(images().float())
    finally:
        squares._OPERATIONS[torch.conv2d] = before

    assert [layer.name for layer in measured.slow] == ["conv1"]
