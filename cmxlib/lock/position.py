"""A repair of the patch cipher: a key of its own for each position of the image, and the embedding that undoes it.

Proposed for ConvMixer by Lin, Imaizumi and Kiya (Information 15(11), 723, 2024), with a permutation matrix for each
patch or with an EtC cipher within each patch. The attacks on it are in `cmxlib.attacks.on_repairs` and `jigsaw`.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import checks
from .conventional import turns
from .embedding import checked_copy, find_embedding, replaced
from .keys import SecretKey, check_key
from .model import encrypt_model
from .patch import LARGEST, PatchCipher, from_blocks, n_entries, to_blocks


class PositionCipher:
    """A PatchCipher with a key of its own, ``key.subkey("position i")``, for each patch of a square image.

    Images are (N, C, S, S) with S = ``image_size``; positions count along rows. ``ciphers`` holds one for each.
    """

    def __init__(
        self,
        key: SecretKey,
        patch_size: int = 4,
        channels: int = 3,
        steps: tuple[str, ...] = ("shuffle", "flip"),
        *,
        image_size: int = 32,
    ):
        subkeys = _subkeys(key, patch_size, image_size)
        self.ciphers = [PatchCipher(subkey, patch_size, channels, steps) for subkey in subkeys]
        self.patch_size = self.ciphers[0].patch_size

    @classmethod
    def etc(cls, key: SecretKey, patch_size: int = 4, channels: int = 3, *, image_size: int = 32) -> "PositionCipher":
        """The block-wise EtC of Lin, Imaizumi and Kiya (2024): one of ``etc_variants`` for each patch; none moves."""
        variants = etc_variants(patch_size, channels)
        subkeys = _subkeys(key, patch_size, image_size)
        return cls.from_ciphers([variants[key.permutation(len(variants), purpose="EtC")[0]] for key in subkeys])

    @classmethod
    def from_ciphers(cls, ciphers: Iterable[PatchCipher]) -> "PositionCipher":
        """The cipher that has a given PatchCipher at each position, as an attack estimates them."""
        self = cls.__new__(cls)
        ciphers = checks.items(ciphers, LARGEST) or []
        alike = {(each.patch_size, each.channels) for each in ciphers if isinstance(each, PatchCipher)}
        if len(alike) != 1 or len(ciphers) > LARGEST or not all(isinstance(each, PatchCipher) for each in ciphers):
            raise TypeError(
                "ciphers must be PatchCiphers of one patch size and number of channels, one for each position."
            )
        self.ciphers, self.patch_size = ciphers, ciphers[0].patch_size
        return self

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Encrypt images (N, C, S, S) or (C, S, S), as a PatchCipher does."""
        return _by_position(images, self.ciphers, "encrypt")

    def decrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Undo ``encrypt``."""
        return _by_position(images, self.ciphers, "decrypt")


def etc_variants(patch_size: int = 4, channels: int = 3) -> list[PatchCipher]:
    """The ciphers that EtC can make of one patch: rotated and mirrored (8 ways), a negative or not, its colours in any
    order; 96 for three colours, of which there may be 4. They are affine, a permutation with one sign for all, and so
    fold into an embedding."""
    patch_size, channels = checks.whole(patch_size, "patch_size", 1), checks.whole(channels, "channels", 1, 4)
    n_entries("A patch", patch_size, channels)
    ways = turns(np.arange(channels * patch_size**2).reshape(channels, patch_size, patch_size))
    negatives = (np.full(ways[0].size, negative) for negative in (False, True))
    orders = (list(order) for order in itertools.permutations(range(channels)))
    return [
        PatchCipher.from_entries(way[order].ravel(), negative, patch_size, channels)
        for negative, order, way in itertools.product(negatives, orders, ways)
    ]


class PositionEmbedding(nn.Module):
    """A patch embedding with filters of its own at each position: (N, C, H, W) -> (N, dim, H / p, W / p).

    weight: (positions, dim, n), bias: (positions, dim). As much arithmetic as a convolution, ``positions`` times its
    memory.
    """

    def __init__(self, weight, bias, patch_size):
        super().__init__()
        if checks.tensor(weight, "weight").ndim != 3 or checks.tensor(bias, "bias").shape != weight.shape[:2]:
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise ValueError(f"weight and bias must be (positions, dim, n) and (positions, dim), not {shapes}.")
        patch_size = checks.whole(patch_size, "patch_size", 1)
        self.weight, self.bias, self.patch_size = nn.Parameter(weight), nn.Parameter(bias), patch_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if checks.images(images).dtype != self.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            raise TypeError(f"The embedding computes in {self.weight.dtype}, but the images are {images.dtype}.")
        patches = F.unfold(images, self.patch_size, stride=self.patch_size)  # (N, n, positions)
        if patches.shape[2] != len(self.weight):
            raise ValueError(
                f"The embedding has filters for {len(self.weight)} positions, but the images have {patches.shape[2]} "
                "patches: give images of the size that the model was encrypted for."
            )
        embedded = torch.einsum("pdn,bnp->bdp", self.weight, patches) + self.bias.T
        rows = images.shape[2] // self.patch_size
        return embedded.unflatten(2, (rows, -1))


def encrypt_model_by_position(
    model: nn.Module, cipher: PositionCipher, *, mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    """A copy of ``model`` whose patch embedding undoes each position's own cipher; all other layers stay.

    Where the embedding has no bias, its place is taken by one that has: the network is another one in any case, and
    has to be built with a ``PositionEmbedding`` before saved weights of it are loaded.
    """
    if not isinstance(cipher, PositionCipher):
        raise TypeError(f"cipher must be a PositionCipher, but this is {type(cipher).__name__}.")
    channels = cipher.ciphers[0].channels
    encrypted, found = checked_copy(model, channels, find_embedding(model, channels)[0])
    conv = found.layer
    if cipher.patch_size != conv.kernel_size[0]:
        raise ValueError(
            f"The cipher has keys for patches of {cipher.patch_size} pixels, but the model's have "
            f"{conv.kernel_size[0]}: make one of that patch_size."
        )
    folded = [encrypt_model(conv, each, mean=mean, std=std) for each in cipher.ciphers]
    weight = torch.stack([each.weight.detach().flatten(1) for each in folded])
    none = conv.weight.new_zeros(len(conv.weight))
    bias = torch.stack([none if each.bias is None else each.bias.detach() for each in folded])
    return replaced(encrypted, found, PositionEmbedding(weight, bias, conv.kernel_size[0]))


def _subkeys(key, patch_size, image_size):
    """A key for each position of a square image."""
    check_key(key)
    patch_size, image_size = checks.whole(patch_size, "patch_size", 1), checks.whole(image_size, "image_size", 1)
    if image_size % patch_size:
        raise ValueError(
            f"Patches of {patch_size} pixels do not divide images of {image_size} x {image_size}: choose others."
        )
    if (count := (image_size // patch_size) ** 2) > LARGEST:
        raise ValueError(f"An image of {count:,} patches has over {LARGEST:,} positions: choose smaller images.")
    return [key.subkey(f"position {i}") for i in range(count)]


def _by_position(images, ciphers, verb):
    size = ciphers[0].patch_size
    c, h, w = checks.images(images, ciphers[0].channels, ndim=(3, 4)).shape[-3:]
    if h % size or w % size:
        raise ValueError(f"Patches of {size} pixels do not divide images of {h} x {w}; crop or pad them first.")
    if (count := (h // size) * (w // size)) != len(ciphers):
        raise ValueError(
            f"There are keys for {len(ciphers)} positions, but the images have {count} patches: make a cipher with the "
            "image_size of the images."
        )
    blocks = to_blocks(images.reshape(-1, c, h, w), size)
    patches = blocks.unflatten(2, (c, size, size)).unbind(1)
    moved = [getattr(cipher, verb)(patch).flatten(1) for cipher, patch in zip(ciphers, patches, strict=True)]
    return from_blocks(torch.stack(moved, 1), size, (c, h, w)).view(images.shape)
