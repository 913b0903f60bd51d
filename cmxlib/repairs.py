"""Repairs: what could make the patch cipher harder to break while encrypted models stay exact.

Two of them need code of their own; the others (orthogonal mixing, other patch sizes, new keys) are choices of a key.
The attacks on them are in `repair_attacks`.

    PositionCipher, encrypt_model_by_position    a key of its own for each position of the image
    to_bits, from_bits, bit_model                flips and shuffles of single bits instead of values
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from .cipher import PatchCipher, _from_blocks, _to_blocks
from .keys import SecretKey
from .protect import encrypt_model, find_embedding

# -- a key for each position ---------------------------------------------------------------------------------------


class PositionCipher:
    """A PatchCipher with a key of its own, ``key.subkey("position i")``, for each patch of a square image.

    Images are (N, C, S, S) with S = ``image_size``; positions count along rows. ``ciphers`` holds one for each.
    """

    def __init__(self, key: SecretKey, patch_size=4, channels=3, steps=("shuffle", "flip"), *, image_size=32):
        positions = range((image_size // patch_size) ** 2)
        subkeys = (key.subkey(f"position {i}") for i in positions)
        self.ciphers = [PatchCipher(subkey, patch_size, channels, steps) for subkey in subkeys]
        self.patch_size = patch_size

    @classmethod
    def from_ciphers(cls, ciphers: list[PatchCipher]) -> "PositionCipher":
        """The cipher that has a given PatchCipher at each position, as an attack estimates them."""
        self = cls.__new__(cls)
        self.ciphers, self.patch_size = list(ciphers), ciphers[0].patch_size
        return self

    def encrypt(self, images):
        return _by_position(images, self.patch_size, [cipher.encrypt for cipher in self.ciphers])

    def decrypt(self, images):
        return _by_position(images, self.patch_size, [cipher.decrypt for cipher in self.ciphers])


class PositionEmbedding(nn.Module):
    """A patch embedding with filters of its own at each position: (N, C, H, W) -> (N, dim, H / p, W / p).

    weight: (positions, dim, n), bias: (positions, dim). As much arithmetic as a convolution, ``positions`` times its
    memory.
    """

    def __init__(self, weight, bias, patch_size):
        super().__init__()
        self.weight, self.bias, self.patch_size = nn.Parameter(weight), nn.Parameter(bias), patch_size

    def forward(self, images):
        patches = F.unfold(images, self.patch_size, stride=self.patch_size)  # (N, n, positions)
        embedded = torch.einsum("pdn,bnp->bdp", self.weight, patches) + self.bias.T
        rows = images.shape[2] // self.patch_size
        return embedded.unflatten(2, (rows, -1))


def encrypt_model_by_position(model: nn.Module, cipher: PositionCipher, *, mean, std) -> nn.Module:
    """A copy of ``model`` whose patch embedding undoes each position's own cipher; all other layers stay."""
    name, conv = find_embedding(model)
    folded = [encrypt_model(nn.Sequential(conv), each, mean=mean, std=std)[0] for each in cipher.ciphers]
    weight = torch.stack([each.weight.detach().flatten(1) for each in folded])
    bias = torch.stack([each.bias.detach() for each in folded])
    encrypted = copy.deepcopy(model)
    encrypted.set_submodule(name, PositionEmbedding(weight, bias, conv.kernel_size[0]))
    return encrypted


def _by_position(images, size, functions):
    c, h, w = images.shape[-3:]
    blocks = _to_blocks(images, size)
    if blocks.shape[1] != len(functions):
        raise ValueError(
            f"There are keys for {len(functions)} positions, but the images have {blocks.shape[1]} patches."
        )
    patches = blocks.unflatten(2, (c, size, size)).unbind(1)
    moved = [function(patch).flatten(1) for function, patch in zip(functions, patches, strict=True)]
    return _from_blocks(torch.stack(moved, 1), size, (c, h, w))


# -- single bits ---------------------------------------------------------------------------------------------------


_PLACES = torch.arange(7, -1, -1, dtype=torch.uint8).view(-1, 1, 1)  # shifts, for (N, C, 8, H, W)


def to_bits(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, C, H, W) -> the bits of each value as floats 0 and 1 (N, 8 C, H, W), highest first.

    Flipping one bit of a value v is no affine map of v (only flipping all eight is: 255 - v), so no embedding of values
    can undo it. It is one of the bits, b -> 1 - b: an embedding of bits can.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"Only uint8 images have bits, not {images.dtype}.")
    bits = images[:, :, None] >> _PLACES & 1
    return bits.flatten(1, 2).float()


def from_bits(bits: torch.Tensor) -> torch.Tensor:
    """The inverse of ``to_bits``; also shows encrypted bits as an image."""
    return (bits.round().to(torch.uint8).unflatten(1, (-1, 8)) << _PLACES).sum(2, dtype=torch.uint8)


def bit_model(model: nn.Module, *, mean, std) -> nn.Module:
    """A copy of ``model`` that takes ``to_bits(images)``, not normalised, and gives the same logits.

    Its embedding has 8 times the weights; encrypt it with a PatchCipher of 8 C channels, mean 0 and std 1.
    """
    name, conv = find_embedding(model)
    share = 2.0 ** _PLACES.to(conv.weight) / 255  # of each bit in a value; broadcasts to (dim, C, 8, p, p)
    mu, sigma = (conv.weight.new_tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    scaled = conv.weight.detach() / sigma
    wide = nn.Conv2d(8 * conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride).to(conv.weight)
    with torch.no_grad():
        wide.weight.copy_((scaled[:, :, None] * share).flatten(1, 2))
        wide.bias.copy_((0 if conv.bias is None else conv.bias) - (scaled * mu).sum((1, 2, 3)))
    widened = copy.deepcopy(model)
    widened.set_submodule(name, wide)
    return widened
