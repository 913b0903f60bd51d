"""A cipher that also lets whole patches change places, for models with absolute position embeddings.

What encrypted images tell of it: `cmxlib.attacks.jigsaw`, and the table `moved`.
"""

import numpy as np
import torch

from . import checks
from .keys import LARGEST_PERMUTATION, SecretKey
from .patch import PatchCipher, from_blocks, to_blocks


class BlockCipher:
    """A PatchCipher, ``patches``, after which patch i of an image, counted along rows, is the one from ``places[i]``.

    Images are (N, C, H, W) with (H, W) = ``image_size``, one number for square ones. Other arguments are PatchCipher's.
    ``encrypt_model`` undoes the places in the position embeddings of the patches;
    class and register tokens keep theirs. A network that tells where a patch stands in any other way is refused: one
    of convolutions (ConvMixer), of windows or relative positions (Swin), of weights for each place (Mixer).
    """

    def __init__(
        self,
        key: SecretKey,
        patch_size: int = 16,
        channels: int = 3,
        steps: tuple[str, ...] = ("shuffle", "flip"),
        *,
        image_size: int | tuple[int, int],
    ):
        n_patches = self._set(PatchCipher(key, patch_size, channels, steps), image_size)
        self.places = key.permutation(n_patches, purpose="blocks")

    @classmethod
    def from_places(cls, patches: PatchCipher, places: np.ndarray, image_size: int | tuple[int, int]) -> "BlockCipher":
        """The cipher with a given PatchCipher and given places of the patches, without a key of its own."""
        self = cls.__new__(cls)
        checks.instance(patches, PatchCipher, "patches")
        self.places = checks.places(places, self._set(patches, image_size))
        return self

    def _set(self, patches, image_size):
        """Note the sizes; the number of patches."""
        self.patches, self.channels = patches, patches.channels
        patch_size = self.patch_size = self.block_size = patches.patch_size
        height, width = checks.sides(image_size)
        if height % patch_size or width % patch_size:
            raise ValueError(
                f"Patches of {patch_size} pixels do not divide images of {height} x {width}: choose others."
            )
        if (n_patches := height * width // patch_size**2) > LARGEST_PERMUTATION:
            raise ValueError(
                f"An image_size of {height} x {width} makes {n_patches:,} patches, over {LARGEST_PERMUTATION:,}: "
                "choose smaller images or larger patches."
            )
        self.image_size = height, width
        return n_patches

    def encrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Encrypt images (N, C, H, W) or (C, H, W), as a PatchCipher does."""
        return self._move(self.patches.encrypt(images), self.places)

    def decrypt(self, images: torch.Tensor) -> torch.Tensor:
        """Undo ``encrypt``."""
        return self.patches.decrypt(self._move(images, np.argsort(self.places)))

    def matrix(self, patch_size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(A, b) of each patch, as of a PatchCipher; ValueError for patches of another size, which move otherwise."""
        if patch_size is not None and checks.whole(patch_size, "patch_size", 1) != self.patch_size:
            raise ValueError(f"The key moves patches of {self.patch_size} pixels, but the model's have {patch_size}.")
        return self.patches.matrix()

    def _move(self, images, places):
        checks.images(images, self.channels, ndim=(3, 4))
        if tuple(images.shape[-2:]) != self.image_size:
            h, w = images.shape[-2:]
            raise ValueError(f"The key moves patches of images of {self.image_size}, but these are {h} x {w}.")
        blocks = to_blocks(images.reshape(-1, *images.shape[-3:]), self.patch_size)
        moved = blocks[:, torch.from_numpy(places).to(images.device)]
        return from_blocks(moved, self.patch_size, images.shape[-3:]).view(images.shape)

    def __repr__(self):
        steps = (*self.patches.steps, "blocks") if hasattr(self, "places") else ("unfinished",)
        return f"<BlockCipher {'+'.join(steps)}, patches of {getattr(self, 'patch_size', 0)}>"
