"""An encrypted model in use: encrypt images in a pipeline of transforms, and compare two models in a short report."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from . import checks
from .norm import normalised, statistics_or
from .probe import like


class Encrypt(nn.Module):
    """A transform that encrypts images, after resizing and cropping and before normalising.

    It takes what ``cipher.encrypt`` takes, keeps the kind of tensor (such as torchvision's Image), and can be pickled
    for the workers of a DataLoader: a cipher holds the map that was drawn, not the key. Resizing or cropping *after*
    it makes the images useless to the encrypted model.
    """

    def __init__(self, cipher):
        super().__init__()
        checks.cipher(cipher, "encrypt")
        self.cipher = cipher

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = _encrypted(self.cipher, checks.tensor(images, "images").as_subclass(torch.Tensor))
        return found if type(images) is torch.Tensor else found.as_subclass(type(images))

    def extra_repr(self) -> str:
        return repr(self.cipher)


def _encrypted(cipher, images):
    return checks.images(cipher.encrypt(images), name="what cipher.encrypt gives", ndim=(images.ndim,))


Take = Callable[[Any], torch.Tensor] | None  # from a model's output to its logits (N, classes)


def taken(output: Any, take: Take) -> Any:
    """What ``take`` takes of a model's output; without it, its ``logits``, or the output itself."""
    if not (take is None or callable(take)):
        raise TypeError(f"take must be a function of the model's output, but this is {checks.shown(take)}.")
    return getattr(output, "logits", output) if take is None else take(output)


@torch.no_grad()
def verify(
    model: nn.Module,
    encrypted: nn.Module,
    cipher: Any,
    images: torch.Tensor,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    take: Take = None,
) -> str:
    """A short report of how far an encrypted model with encrypted images is from the plain one with plain images.

    It begins with "Equal" where no logit differs by more than rounding makes of it in the type of the model: by 300
    units of it, of the largest logit, in 32 bits or more; by 30 in 16 bits, where layers round as well. Else with
    "NOT EQUAL".
    images: (N, C, H, W), uint8 or floating, plain. Both models are run as they are, in one batch: put them into
    evaluation mode. Their logits are what ``take`` takes of the output; without it, the output itself or its attribute
    ``logits``. mean and std are as for ``encrypt_model``.
    """
    images = checks.images(images).as_subclass(torch.Tensor)
    if not images.numel():
        raise ValueError(f"images must hold at least one image, but this is {tuple(images.shape)}.")
    for name, net in {"model": model, "encrypted": encrypted}.items():
        if not isinstance(net, nn.Module):
            raise TypeError(f"{name} must be a torch module, but this is {type(net).__name__}.")
        if any(value.is_meta for value in (*net.parameters(), *net.buffers())):
            raise ValueError(f"{name} is on the meta device and has no values: load its weights first.")
    checks.cipher(cipher, "encrypt")
    norm = statistics_or(model, mean, std)
    started, found = time.perf_counter(), []
    for net, batch in ((model, images), (encrypted, _encrypted(cipher, images)), (encrypted, images)):
        output = net(normalised(batch, **norm, like=like(net)))
        output = taken(output, take)
        if not isinstance(output, torch.Tensor) or not output.ndim or not output.numel():
            what = f"a tensor {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(f"The model gives {what}: take= must say where its logits are.")
        found.append(checks.tensor(output, "The model's logits").double().cpu())
    plain, locked, missing = found
    if plain.shape != locked.shape:
        raise ValueError(
            f"model and encrypted must give logits of one shape, not {tuple(plain.shape)} and {tuple(locked.shape)}: "
            "give a model and its own encrypted copy."
        )
    before, after = model.state_dict(), encrypted.state_dict()
    after = {n: v for n, v in after.items() if isinstance(v, torch.Tensor)}  # not what get_extra_state gives
    changed = [n for n, v in after.items() if n not in before or not torch.equal(v.cpu(), before[n].cpu())]
    kept, largest, most = like(model).dtype, plain.abs().max(), (locked - plain).abs().max()
    equal = most <= (300 if kept.itemsize > 2 else 30) * torch.finfo(kept).eps * largest  # false for NaN too
    best = plain.topk(min(2, plain.shape[-1])).values
    return (
        f"{'Equal' if equal else 'NOT EQUAL'}: "
        f"{(locked.argmax(-1) != plain.argmax(-1)).sum()} of {len(images)} predictions differ "
        f"({(missing.argmax(-1) != plain.argmax(-1)).sum()} for images that were not encrypted)\n"
        f"largest difference of a logit {most:.2g}, of {largest:.3g}\n"
        f"smallest margin between the two best classes {(best[..., 0] - best[..., -1]).min():.2g}\n"
        f"changed: {', '.join(changed) or 'nothing'}; {time.perf_counter() - started:.1f} s"
    )
