"""The network of the book: ConvMixer (Trockman and Kolter, arXiv 2201.09792)."""

from functools import lru_cache

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks

from ..lock import checks
from .device import memory_for
from .engine import products


class Residual(nn.Module):
    """Add a branch's output to its input: x -> x + fn(x)."""

    def __init__(self, fn: nn.Module):
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fn(x)


class ConvMixer(nn.Sequential):
    """ConvMixer with the authors' layout, so that their plain ``nn.Sequential`` state dicts load as they are.

    Input: normalised images (N, channels, H, W) with H and W divisible by ``patch_size``.
    Output: logits (N, num_classes).

    On a CPU, ``forward`` computes the same with matrix products alone (see ``engine``), several times quicker. Where a
    layer was exchanged or changed, where it has hooks, and where the network is traced or compiled, it runs the layers
    one by one.
    """

    def __init__(self, dim=256, depth=8, kernel_size=5, patch_size=2, num_classes=10, channels=3):
        depth = checks.whole(depth, "depth", 0, 10_000)
        sizes = {"dim": dim, "kernel_size": kernel_size, "patch_size": patch_size}
        sizes |= {"num_classes": num_classes, "channels": channels}
        dim, kernel_size, patch_size, num_classes, channels = (
            checks.whole(size, name, 1, 2**24) for name, size in sizes.items()
        )
        with memory_for("a network of these sizes"):
            super().__init__(
                nn.Conv2d(channels, dim, patch_size, stride=patch_size),
                nn.GELU(),
                nn.BatchNorm2d(dim),
                *[
                    nn.Sequential(
                        Residual(
                            nn.Sequential(
                                nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"),
                                nn.GELU(),
                                nn.BatchNorm2d(dim),
                            )
                        ),
                        nn.Conv2d(dim, dim, 1),
                        nn.GELU(),
                        nn.BatchNorm2d(dim),
                    )
                    for _ in range(depth)
                ],
                nn.AdaptiveAvgPool2d((1, 1)),
                nn.Flatten(),
                nn.Linear(dim, num_classes),
            )
        self._sizes = dim, depth, kernel_size, patch_size  # for _is_untouched

    def __getitem__(self, index):
        # A slice is a plain nn.Sequential: the constructor here takes sizes, not layers.
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(x, "dim"):  # a list, an array
            checks.tensor(x, "images")
        if _is_traced(x):
            return super().forward(x)
        weight = next(self.parameters(), x)
        if not (x.is_meta and weight.is_meta):
            checks.tensor(x, "images")
        self.check_shape(x)
        held = weight.dtype
        if x.dtype != held and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"The network computes in {held}, but the images are {x.dtype}: normalise them to {held}.")
        quick = _fits(x, self[0]) and _is_untouched(self, x.dtype)
        return products(self, x) if quick else super().forward(x)

    def check_shape(self, x: torch.Tensor) -> None:
        """ValueError where these are no images (N, C, H, W) of the network's channels that its patches fill."""
        first = self[0]
        if type(first) is not nn.Conv2d or first.kernel_size != first.stride:
            return
        if x.dim() != 4:
            raise ValueError(f"images must have the shape (N, C, H, W), but this is {tuple(x.shape)}.")
        if x.shape[1] != first.in_channels:
            raise ValueError(
                f"The network takes images of {first.in_channels} channels, (N, {first.in_channels}, H, W), but the "
                f"shape of these is {tuple(x.shape)}."
            )
        if any(n < size or n % size for n, size in zip(x.shape[2:], first.kernel_size, strict=True)):
            raise ValueError(
                f"Images must be filled by the network's patches of {first.kernel_size[0]} pixels, but these are "
                f"{x.shape[2]} x {x.shape[3]}: crop, resize or pad them first."
            )


def _is_traced(x):
    """Whether somebody records or transforms what is computed, and has to see the layers themselves."""
    return (
        torch.compiler.is_compiling()  # true for torch.export too; first, for then they read no further
        or torch.jit.is_tracing()
        or type(x) is not torch.Tensor  # fake tensors, proxies of torch.fx
        or torch._C._len_torch_dispatch_stack() > 0  # make_fx, counters of operations
        or torch._C._are_functorch_transforms_active()  # torch.func: grad, vmap
        or forward_ad._current_level >= 0
        or any(getattr(hooks, f"_global{name}") for name in _HOOKS[:4])
    )


def _fits(x, embedding):
    """Whether the products know such an input: images on the CPU, as large as a patch or larger, of a usual type."""
    if type(embedding) is not nn.Conv2d or x.device.type != "cpu" or x.layout != torch.strided or x.dim() != 4:
        return False
    n, channels, *size = x.shape
    if torch.is_autocast_enabled("cpu"):  # it leaves float64 alone
        known = x.dtype == torch.float32 and torch.get_autocast_dtype("cpu") == torch.bfloat16
    else:
        known = x.dtype in (torch.float64, torch.float32, torch.bfloat16)
    return known and n > 0 and channels == embedding.in_channels and min(size) >= max(embedding.kernel_size)


def _is_untouched(model, dtype):
    """Whether a network has the very layers of its constructor, with parameters of that type on the CPU and no hooks.

    Looked up anew at each call, in half a millisecond at depth 8, since layers may be changed at any time. The
    first and the last layer may have other numbers of channels and of classes.
    """
    parameters = model.parameters()
    if not all(type(p) in _USUAL and p.dtype == dtype and p.device.type == "cpu" for p in parameters):
        return False
    first, last = model[0], model[-1]
    if type(last) is not nn.Linear:
        return False
    return _children(model) == _expected(*model._sizes, last.out_features, first.in_channels)


def _children(layer):
    """What each child is: its name, and its class, attributes, shapes of parameters and children, or None if hooked.

    A layer that was exchanged, given other attributes or another ``forward`` differs in them; torch's parametrizations
    make another class of it.
    """
    return [(name, _described(child)) for name, child in layer._modules.items()]


def _described(layer):
    own = layer.__dict__
    if any(own.get(name) for name in _HOOKS):
        return None
    attributes = {name: value for name, value in own.items() if name[0] != "_" and name != "training"}
    shapes = {name: p.shape for name, p in own["_parameters"].items() if p is not None}
    return type(layer), attributes, shapes, _children(layer)


_USUAL = nn.Parameter, torch.Tensor
_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl"


@lru_cache(maxsize=32)
def _expected(*sizes):
    """What ``_is_untouched`` has to find in a ConvMixer of these sizes."""
    with torch.device("meta"):  # no memory, and no random numbers drawn
        return _children(ConvMixer(*sizes))
