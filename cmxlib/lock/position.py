"""A repair of the patch cipher: a key of its own for each position of the image, and the embedding that undoes it.

The attacks on it are in `cmxlib.attacks.on_repairs`.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from .keys import SecretKey
from .model import encrypt_model, find_embedding
from .patch import PatchCipher, from_blocks, to_blocks


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
    blocks = to_blocks(images, size)
    if blocks.shape[1] != len(functions):
        raise ValueError(
            f"There are keys for {len(functions)} positions, but the images have {blocks.shape[1]} patches."
        )
    patches = blocks.unflatten(2, (c, size, size)).unbind(1)
    moved = [function(patch).flatten(1) for function, patch in zip(functions, patches, strict=True)]
    return from_blocks(torch.stack(moved, 1), size, (c, h, w))
