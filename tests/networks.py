"""Small networks of many families with random weights, and squares by autograd alone to hold ours to."""

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from t2v_hub.fisher import FilterLayer
from t2v_hub.probe import Preprocessing, ProbeNetwork

SIDE = 32
SMALL = Preprocessing(size=(SIDE, SIDE), resize=SIDE)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random weights and statistics everywhere: fresh ones have zeros that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(1.5 * noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise + name.endswith("weight"))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.eval()


def timm_networks() -> dict[str, Callable[[], nn.Module]]:
    """Small members of timm's families by name."""
    from timm.models.densenet import DenseNet
    from timm.models.mlp_mixer import MlpMixer
    from timm.models.vgg import VGG

    def make(name: str, **options: object) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(name, num_classes=5, **options)

    vit = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return {
        "resnet": make("resnet18", layers=(1, 1, 1, 1), channels=(8, 12, 16, 20)),
        "resnet_bottleneck": make("test_resnet"),
        "vgg": lambda: VGG(cfg=[8, "M", 12, "M"], num_classes=5, mlp_ratio=1 / 64),
        "densenet": lambda: DenseNet(growth_rate=4, block_config=(2, 2), bn_size=2, num_classes=5),
        "mobilenetv2": make("mobilenetv2_035"),
        "mobilenetv2_same": make("mobilenetv2_035", pad_type="same"),
        "mobilenetv3": make("mobilenetv3_small_050"),
        "efficientnet": make("test_efficientnet"),
        "convnext": make("test_convnext"),
        "regnet": make("regnetx_002"),
        "vit": make("vit_tiny_patch16_224", **vit),
        "deit_distilled": make("deit_tiny_distilled_patch16_224", **vit),
        "dinov2": make("vit_small_patch14_dinov2", **vit),
        "beit": make("beit_base_patch16_224", **vit),
        "mixer": lambda: MlpMixer(5, img_size=SIDE, patch_size=8, embed_dim=24, num_blocks=2),
        "swin": make(
            "swin_tiny_patch4_window7_224",
            img_size=SIDE, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2),
        ),
    }  # fmt: skip


def transformers_networks() -> dict[str, Callable[[], nn.Module]]:
    """Small members of transformers' families by name."""
    import transformers as hf

    vit = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "image_size": SIDE,
        "patch_size": 8,
        "num_labels": 5,
    }
    return {
        "ResNet": lambda: hf.ResNetForImageClassification(
            hf.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 12], depths=[1, 2], layer_type="basic", num_labels=5
            )
        ),
        "ViT": lambda: hf.ViTForImageClassification(hf.ViTConfig(**vit)),
        "DeiT": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**vit)),
        "Dinov2": lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**vit)),
        "Swin": lambda: hf.SwinForImageClassification(
            hf.SwinConfig(
                image_size=SIDE, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2],
                window_size=4, num_labels=5,
            )
        ),
        "ConvNext": lambda: hf.ConvNextForImageClassification(
            hf.ConvNextConfig(hidden_sizes=[8, 12, 16, 16], depths=[1, 1, 1, 1], num_labels=5)
        ),
        "MobileNetV2": lambda: hf.MobileNetV2ForImageClassification(
            hf.MobileNetV2Config(depth_multiplier=0.35, min_depth=8, image_size=SIDE, num_labels=5)
        ),
        "MobileNetV1": lambda: hf.MobileNetV1ForImageClassification(
            hf.MobileNetV1Config(depth_multiplier=0.125, min_depth=8, image_size=SIDE, num_labels=5)
        ),
        "EfficientNet": lambda: hf.EfficientNetForImageClassification(
            hf.EfficientNetConfig(
                width_coefficient=0.25, depth_coefficient=0.25, depth_divisor=4, hidden_dim=320,
                image_size=SIDE, num_labels=5,
            )
        ),
        "RegNet": lambda: hf.RegNetForImageClassification(
            hf.RegNetConfig(
                embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], groups_width=4, num_labels=5
            )
        ),
    }  # fmt: skip


def small_probe(module: nn.Module, **options: object) -> ProbeNetwork:
    """A probe of a network for inputs of ``SIDE`` pixels."""
    return ProbeNetwork.load(module, **{"preprocessing": SMALL, **options})  # type: ignore[arg-type]


def images(n: int = 3, side: int = SIDE) -> Tensor:
    """Noise in place of normalised images, ``(n, 3, side, side)`` float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, side, side, generator=generator, dtype=torch.float64)


def autograd_squares(
    features: Callable[[Tensor], Tensor], layers: tuple[FilterLayer, ...], inputs: Tensor, directions: Tensor
) -> Tensor:
    """Mean squared derivatives by autograd, one example at a time: ``(n_directions, n_filters)``.

    Args:
        features: Maps inputs to features.
        layers: The weights to differentiate by.
        inputs: ``(batch, ...)``.
        directions: ``(batch, n_features)``, or ``(batch, k, n_features)`` for k directions each.
    """
    rows = []
    weights = [layer.weight for layer in layers]
    flags = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    for x, some in zip(inputs, directions, strict=True):
        # A network may overwrite what a layer has read.
        with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
            values = some.reshape(-1, some.shape[-1]) @ features(x[None])[0]
            for value in values:
                gradients = torch.autograd.grad(value, weights, allow_unused=True, retain_graph=True)
                rows.append(torch.cat([_by_filter(*pair) for pair in zip(layers, gradients, strict=True)]))
    for weight, flag in zip(weights, flags, strict=True):
        weight.requires_grad_(flag)
    return torch.stack(rows)


def _by_filter(layer: FilterLayer, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        return torch.zeros(layer.n_filters, dtype=torch.float64)
    groups = [group.transpose(0, layer.filter_dim) for group in gradient.double().chunk(layer.groups)]
    return torch.cat([group.reshape(len(group), -1).square().mean(dim=1) for group in groups])
