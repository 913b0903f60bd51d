"""Run a model on a probe image: which layers see its patches, and whether the embedding alone sees the image and uses
its weights."""

import contextlib
import math
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..paths import out_of_memory
from .patch import to_blocks


@dataclass
class Embedding:
    """A layer that embeds patches of size x size pixels, each by itself.

    order: entry i of the layer's input is entry order[i] of the patch in channel, row, column order.
    norm: the name of a LayerNorm over the patch in front of it, or None.
    image_size: (H, W) of images that the model was seen to take, or None.
    """

    name: str
    layer: nn.Module
    size: int
    order: np.ndarray
    norm: str | None = None
    image_size: tuple[int, int] | None = None


class _Spy(nn.Module):
    """Stands for a layer while a probe runs: keeps what comes in, and gives out what came out at the first call."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.seen, self.kept = layer, [], None

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)

    def forward(self, *args, **kwargs):
        # Copies, for a model may work in place on what it is given.
        self.seen.append((args[0] if args else next(iter(kwargs.values()))).clone())
        if self.kept is None:
            self.kept = self.layer(*args, **kwargs)
        return self.kept.clone()


def check_sees_image(model: nn.Module, found: Embedding, channels: int) -> tuple[int, int] | None:
    """ValueError where the embedding does not get the model's input as it is, or where another layer reads it too, or
    the embedding's weights.

    One probe is run with the embedding watched; then another one, and the first one with other weights, both with the
    embedding's output for the first: nothing may then differ. ``model`` comes back as it was. Returns the size (H, W)
    of the probe; None, with a warning, where none can be run.
    """
    twice = [name for name, module in model.named_modules(remove_duplicate=False) if module is found.layer]
    if len(twice) > 1:
        raise ValueError(f"One layer stands at {' and '.join(twice)}, so that changing it would change both.")
    if not found.name:
        return None
    for first, second in _probes(model, channels, found.size, found.layer.weight):
        spy = _Spy(found.layer)
        model.set_submodule(found.name, spy)
        try:
            with evaluating(model):
                try:
                    one = run(model, first)
                except Exception as error:  # whatever a model says of a size or a kind of input that it does not take
                    if out_of_memory(error):
                        raise
                    continue
                _compare(spy, found, first, model)
                two = run(model, second)
                with _other_weights(found.layer, *([model.get_submodule(found.norm)] if found.norm else [])):
                    three = run(model, first)
                if any(each.isnan().any() for each in tensors(one)):  # which no comparison would tell apart
                    continue
        finally:
            model.set_submodule(found.name, found.layer)
        if not _same(one, two):
            raise ValueError(
                f"Another layer than {found.name!r} reads the image as well, and would not know how to undo the cipher."
            )
        if not _same(one, three):
            raise ValueError(
                f"The weight or bias of {found.name!r} is used elsewhere in the model too, as by a decoder that is "
                "tied to it, where it must not change: give that place a parameter of its own."
            )
        return tuple(first.shape[-2:])
    warnings.warn(
        f"Whether {found.name!r} sees the image as it is was not checked, since the model gives no numbers on one "
        "tensor of images of a size that could be guessed: compare its outputs on encrypted and plain images.",
        stacklevel=4,
    )
    return None


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@contextlib.contextmanager
def _other_weights(*layers):
    """Random numbers in place of the layers' weights and biases; as in an encrypted model, these are new parameters, so
    that a layer that shares an old one keeps it."""
    make = torch.Generator().manual_seed(1)
    kept = [(layer, n, p) for layer in layers for n in ("weight", "bias") if (p := getattr(layer, n, None)) is not None]
    try:
        for layer, name, old in kept:
            setattr(layer, name, nn.Parameter(torch.randn(old.shape, generator=make).to(old)))
        yield
    finally:
        for layer, name, old in kept:
            setattr(layer, name, old)


def _compare(spy, found, image, model):
    if len(spy.seen) != 1:
        raise ValueError(f"The model calls {found.name!r} {len(spy.seen)} times for an image, not once.")
    expected = image
    if isinstance(found.layer, nn.Linear):
        expected = to_blocks(image, found.size)[..., found.order]
        if found.norm:
            expected = model.get_submodule(found.norm)(expected)
    seen = spy.seen[0].to(expected)
    if seen.numel() != expected.numel() or not torch.equal(seen.reshape(expected.shape), expected):
        raise ValueError(
            f"{found.name!r} does not see the image as it is: the model changes it first, so no cipher of its patches "
            "can be undone there."
        )


def linear_embeddings(model: nn.Module, channels: int, name: str | None) -> Any:
    """The Linear layers that get the patches of the image, found by running the model on a probe."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.LayerNorm)) and _side(m, channels)}
    found, norms = {}, []

    def watch(layer_name, layer):
        def hook(_, args, output):
            if args and (what := patch_order(args[0], image, _side(layer, channels))) is not None:
                found.setdefault(layer_name, (what, None))
                norms.append((layer_name, what, output))
            for norm, what, kept in norms:
                if isinstance(layer, nn.Linear) and args and args[0] is kept and norm != layer_name:
                    found.setdefault(layer_name, (what, norm))

        return layer.register_forward_hook(hook)

    sizes = sorted({_side(layer, channels) for layer in layers.values()}, reverse=True)
    for image, _ in (pair for size in sizes for pair in _probes(model, channels, size, like(model))):
        hooks = [watch(*item) for item in layers.items()]
        try:
            with evaluating(model), contextlib.suppress(Exception):
                run(model, image)
        finally:
            for hook in hooks:
                hook.remove()
        if found:
            break
    return [
        Embedding(n, layers[n], _side(layers[n], channels), what, norm)
        for n, (what, norm) in found.items()
        if isinstance(layers[n], nn.Linear) and name in (None, n)
    ]


def _side(layer, channels):
    """The size of the patches whose entries a Linear or LayerNorm takes; 0 where there is none."""
    n = layer.in_features if isinstance(layer, nn.Linear) else math.prod(layer.normalized_shape)
    size = math.isqrt(n // channels)
    return size if channels * size**2 == n else 0


def patch_order(value: Any, image: torch.Tensor, size: int) -> np.ndarray | None:
    """The order of entries in which ``value`` holds the patches of ``image``; None where it holds something else."""
    if not isinstance(value, torch.Tensor) or value.numel() != image.numel():
        return None
    if image.shape[-2] % size or image.shape[-1] % size:
        return None
    n, blocks = image.shape[1] * size**2, to_blocks(image, size)
    place = np.arange(n).reshape(-1, size, size)
    for order in (place.ravel(), place.transpose(1, 2, 0).ravel()):
        if torch.equal(value.reshape(blocks.shape).to(blocks), blocks[..., order]):
            return order
    return None


def _probes(model, channels, size, like):
    """Pairs of random images (1, C, H, W) of the sizes that the model may take: as it says itself, then by guess.

    Their values lie within +-20, as those of images that are normalised in any usual way, so that a model that cuts
    off some is seen; then, for a model that cannot count so far, within +-1.
    """
    said = []
    for module in model.modules():
        for holder in (module, getattr(module, "config", None)):
            for word in ("image_size", "img_size"):
                value = getattr(holder, word, None)
                value = (value, value) if isinstance(value, int) else value
                if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) for v in value):
                    said.append(tuple(value))
    make = torch.Generator().manual_seed(0)
    for h, w in dict.fromkeys([*said, (4 * size, 4 * size), (32, 32), (224, 224)]):
        for reach in (20, 1) if h % size == 0 and w % size == 0 else ():
            values = reach * (2 * torch.rand(2, 1, channels, h, w, generator=make) - 1)
            yield values.to(like.device, like.dtype).unbind(0)


def like(model: nn.Module) -> torch.Tensor:
    """A tensor of the type that a model computes in, and on its device; of one that holds nothing, float32 on the
    CPU."""
    held = (*model.parameters(), *model.buffers())
    return next((value for value in held if value.is_floating_point()), torch.empty(0))


_LOCK = threading.Lock()
_EVALUATED: dict[int, list] = {}  # of each model that is being evaluated: the modes that it had, and by how many blocks


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards, also after an error, every module is in the mode that it was in.

    Several threads may be in such blocks of one model: the last one out puts its modes back.
    """
    with _LOCK:
        blocks = _EVALUATED.setdefault(id(model), [[(module, module.training) for module in model.modules()], 0])
        blocks[1] += 1
        model.eval()
    try:
        yield
    finally:
        with _LOCK:
            blocks[1] -= 1
            if not blocks[1]:
                del _EVALUATED[id(model)]
                for module, training in blocks[0]:
                    module.training = training


@torch.no_grad()
def run(model: nn.Module, image: torch.Tensor) -> Any:
    """What a model makes of a batch; randomness, as of paths that are dropped, is the same at each call. Nothing is
    compiled for it."""
    # Only what is imported already can have compiled the model, and importing it takes seconds.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()
    with torch.random.fork_rng(), eager:
        torch.manual_seed(0)
        return model(image.clone())


def tensors(output: Any) -> list[torch.Tensor]:
    """All tensors in what a model returns."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
