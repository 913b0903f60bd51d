"""Which networks can be encrypted, and how exactly: architectures of six families at random weights, and stems that
cannot be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..learn.convmixer import ConvMixer
from ..learn.evaluate import logits, normalise
from ..lock.embedding import locate
from ..lock.keys import SecretKey
from ..lock.model import encrypt_model
from ..lock.patch import PatchCipher
from ..paths import need
from .scales import Scale
from .table import Table

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PRECISIONS = {str(t).removeprefix("torch."): t for t in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
N_IMAGES, N_CLASSES = 2, 10


@dataclass(frozen=True)
class Architecture:
    """One network: ``make(name)`` at the size of its authors, or ``make(name, **small)`` for quick runs, where there is
    such a size. Its images have ``size`` pixels a side, or ``small_size``.
    """

    name: str
    family: str
    make: Callable
    size: int = 224
    small: tuple[tuple[str, Any], ...] = ()
    small_size: int = 64

    def build(self, full: bool = True) -> nn.Module:
        """The network at random weights, drawn from seed 0, in evaluation mode.

        What would keep an image from counting at such weights is put right: parameters that start at zero or nearly,
        such as timm's heads and scales of layers, are drawn too, and BatchNorm has the statistics of the images.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.make(self.name, **({} if full else dict(self.small)))
            for parameter in model.parameters():
                if parameter.numel() and parameter.abs().max() < 1e-3:
                    nn.init.normal_(parameter, std=0.3)
        if norms := [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]:
            for module in norms:
                module.momentum = 1.0
            with torch.no_grad():
                model.train()(normalise(self.images(full), **IMAGENET))
        return model.eval()

    def images(self, full: bool = True) -> torch.Tensor:
        """Images of coloured squares, uint8 (2, 3, H, W), that it takes; the squares are no larger than a patch."""
        size = self.size if full else self.small_size
        noise = torch.rand(N_IMAGES, 3, size // 4 + 1, size // 4 + 1, generator=torch.Generator().manual_seed(0))
        return (noise.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :size, :size] * 256).to(torch.uint8)


def _timm(name, **arguments):
    return need("timm", "book").create_model(name, num_classes=N_CLASSES, **arguments)


def _at_224(name, **arguments):
    return _timm(name, **{"img_size": 224, **arguments})


def _mixer(name, **small):
    """A network of MLPs; timm's functions fix how deep and wide they are, so that a small one is made by hand."""
    if not small:
        return _timm(name)
    mixers = need("timm", "book").models.mlp_mixer
    block = {"mixer": "MixerBlock", "gmlp": "SpatialGatingBlock", "resmlp": "ResBlock"}[name.split("_")[0]]
    return mixers.MlpMixer(num_classes=N_CLASSES, block_layer=getattr(mixers, block), **small)


def _torchvision(name, **arguments):
    return need("torchvision", "book").models.get_model(name, weights=None, num_classes=N_CLASSES, **arguments)


def _convmixer(name, dim=256, depth=8):
    return ConvMixer(dim=dim, depth=depth, patch_size=7 if name.endswith("7") else 4, num_classes=N_CLASSES)


def _sequential(name, **arguments):
    """The plain nn.Sequential of ConvMixer's authors, from its state dict."""
    model = nn.Sequential(*_convmixer(name, **arguments))
    model.load_state_dict(_convmixer(name, **arguments).state_dict())
    return model


def _small(**arguments):
    return tuple(arguments.items())


_VIT = _small(img_size=64, depth=2, embed_dim=48, num_heads=3)
_VIT14 = _small(img_size=56, depth=2, embed_dim=48, num_heads=3)
_SWIN = _small(img_size=56, depths=(1, 1), embed_dim=24, num_heads=(2, 2))
_NEXT = _small(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
_MIXER = _small(img_size=64, num_blocks=2, embed_dim=48)

ARCHITECTURES = tuple(
    Architecture(*each)
    for each in (
        ("vit_tiny_patch16_224", "ViT", _timm, 224, _VIT),
        ("deit_tiny_patch16_224", "ViT", _timm, 224, _VIT),
        ("deit_tiny_distilled_patch16_224", "ViT", _timm, 224, _VIT),
        ("deit3_small_patch16_224", "ViT", _timm, 224, _VIT),
        ("flexivit_small", "ViT", _timm, 240, _VIT),
        ("cait_xxs24_224", "ViT", _timm, 224, _VIT),
        ("convit_tiny", "ViT", _timm, 224, _VIT),
        ("vit_relpos_small_patch16_224", "ViT", _timm, 224, _VIT),
        ("eva02_tiny_patch14_224", "ViT", _timm, 224, _VIT14, 56),
        ("naflexvit_base_patch16_gap", "ViT", _timm, 224, _small(depth=2, embed_dim=48, num_heads=3)),
        ("vit_b_16", "ViT", _torchvision),
        ("swin_tiny_patch4_window7_224", "Swin", _timm, 224, _SWIN, 56),
        ("swinv2_tiny_window8_256", "Swin", _timm, 256, _small(**dict(_SWIN) | {"img_size": 64}), 64),
        ("swinv2_cr_tiny_224", "Swin", _timm, 224, _small(**dict(_SWIN), window_size=7), 56),
        ("swin_t", "Swin", _torchvision),
        ("convnext_atto", "ConvNeXt", _timm, 224, _NEXT),
        ("convnextv2_atto", "ConvNeXt", _timm, 224, _NEXT),
        ("convnext_tiny", "ConvNeXt", _torchvision),
        ("edgenext_xx_small", "ConvNeXt", _timm),
        ("inception_next_atto", "ConvNeXt", _timm),
        ("mixer_s16_224", "Mixer and gMLP", _mixer, 224, _MIXER),
        ("gmixer_12_224", "Mixer and gMLP", _timm),
        ("resmlp_12_224", "Mixer and gMLP", _mixer, 224, _MIXER),
        ("gmlp_ti16_224", "Mixer and gMLP", _mixer, 224, _MIXER),
        ("vit_small_patch14_dinov2", "DINOv2 and CLIP", _at_224, 224, _VIT14, 56),
        ("vit_small_patch14_reg4_dinov2", "DINOv2 and CLIP", _at_224, 224, _VIT14, 56),
        ("vit_small_patch16_dinov3", "DINOv2 and CLIP", _timm, 256, _VIT),
        ("vit_base_patch32_clip_224", "DINOv2 and CLIP", _timm, 224, _VIT),
        ("vit_base_patch16_siglip_224", "DINOv2 and CLIP", _timm, 224, _VIT),
        ("ConvMixer-256/8, patches of 4", "ConvMixer", _convmixer, 32, _small(dim=16, depth=2), 32),
        ("ConvMixer-256/8, patches of 7", "ConvMixer", _convmixer, 112, _small(dim=16, depth=2), 56),
        ("convmixer_1024_20_ks9_p14", "ConvMixer", _timm, 56),
        ("nn.Sequential of ConvMixer's authors", "ConvMixer", _sequential, 32, _small(dim=16, depth=2), 32),
    )
)
SMALL = tuple(each for each in ARCHITECTURES if each.small)
REFUSED = tuple(
    Architecture(name, "refused", _timm, 240 if "240" in name else 224, (), 240 if "240" in name else 224)
    for name in (
        *("resnet18", "poolformer_s12", "pvt_v2_b0", "vit_tiny_r_s16_p8_224", "levit_128s", "xcit_nano_12_p8_224"),
        *("pit_ti_224", "mobilevit_xxs", "crossvit_tiny_240"),
    )
)


def exactness(architecture: Architecture, dtype: torch.dtype, full: bool = True) -> dict[str, float]:
    """What one key, of shuffles and flips, does to a network at random weights, in a type.

    "difference": the largest difference of a logit between the plain network on plain images and the encrypted one on
    encrypted images, as a share of the largest logit; "without key": the same where the images stay plain;
    "parameters", and "changed", how many of them the key changed.
    """
    model, images = architecture.build(full).to(dtype), architecture.images(full)
    cipher = PatchCipher(SecretKey.for_experiment(0), locate(model, 3, None).size)
    encrypted = encrypt_model(model, cipher, **IMAGENET)
    plain, locked, missing = (
        logits(net, batch, **IMAGENET).double()
        for net, batch in ((model, images), (encrypted, cipher.encrypt(images)), (encrypted, images))
    )
    before = dict(model.named_parameters())
    return {
        "difference": ((locked - plain).abs().max() / plain.abs().max()).item(),
        "without key": ((missing - plain).abs().max() / plain.abs().max()).item(),
        "parameters": sum(p.numel() for p in before.values()),
        "changed": sum(
            p.numel() for n, p in encrypted.named_parameters() if n not in before or not torch.equal(p, before[n])
        ),
    }


def refusal(architecture: Architecture, full: bool = True) -> str:
    """The sentence that refuses a network; empty where it is not refused."""
    model = architecture.build(full)
    try:
        encrypt_model(model, PatchCipher(SecretKey.for_experiment(0), 4), **IMAGENET)
    except ValueError as error:
        return str(error)
    return ""


def _full(scale):
    return scale.name == "paper"


def _units(scale: Scale) -> Iterator[dict]:
    for each in ARCHITECTURES if _full(scale) else SMALL:
        for precision in PRECISIONS if _full(scale) else ("float64", "float32"):
            yield {"architecture": each.name, "family": each.family, "precision": precision}
    for each in REFUSED:
        yield {"architecture": each.name, "family": each.family, "precision": "float32"}


def _measure(scale: Scale, unit: dict) -> Iterator[dict]:
    by_name = {each.name: each for each in ARCHITECTURES + REFUSED}
    found = by_name[unit["architecture"]]
    if found in REFUSED:
        yield {"measure": "refused", "value": float(bool(refusal(found, _full(scale))))}
        return
    for measure, value in exactness(found, PRECISIONS[unit["precision"]], _full(scale)).items():
        yield {"measure": measure, "value": value}


MATRIX = Table(
    "architectures",
    _units,
    _measure,
    lambda scale, unit: {"dataset": "squares", "settings": {}, "seeds": 0, "n_keys": 1, "n_images": N_IMAGES},
    left_out=("small",),
)
