"""Augmentation of whole batches as tensors, on whatever device they are on."""

import torch

from ..lock import checks
from ..paths import need

GROUP = 8  # neighbours in a batch that share what RandAugment draws: one by one, it would cost more than it adds


def augment(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    crop_padding: int = 4,
    flip: bool = True,
    rand_augment: int = 0,
) -> torch.Tensor:
    """Randomly shift and mirror images, and change them by RandAugment.

    Args:
        images: (N, C, H, W), uint8 or floating in [0, 1]; a new tensor of the same shape and type is returned.
        generator: the ``torch.Generator``, on the images' device, that all randomness comes from.
        crop_padding: each image is moved by up to so many pixels in each direction, zeros filling in; at most by its
            own height or width.
        flip: mirror every image left to right with probability 1/2.
        rand_augment: a magnitude of 0 (off) to 30. Two operations, drawn from fourteen for each ``GROUP`` images, move,
            turn, shear or recolour them (RandAugment, arXiv 1909.13719, by torchvision, for 1 or 3 channels).
    """
    n, channels, h, w = checks.images(images).shape
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, but this is {type(generator).__name__}.")
    checks.truth(flip, "flip")
    crop_padding = checks.whole(crop_padding, "crop_padding", 0, min(h, w))
    if (rand_augment := checks.whole(rand_augment, "rand_augment", 0, 30)) and channels not in (1, 3):
        raise ValueError(f"rand_augment is for images of 1 or 3 channels, not {channels}: set it to 0.")
    everyone = torch.arange(n, device=images.device)

    def draw(high):
        return torch.randint(high, (n,), generator=generator, device=images.device)

    if crop_padding:
        padded = torch.nn.functional.pad(images, (crop_padding,) * 4)
        windows = padded.unfold(2, h, 1).unfold(3, w, 1)  # a view: (N, C, shifts, shifts, H, W)
        images = windows[everyone, :, draw(2 * crop_padding + 1), draw(2 * crop_padding + 1)]
    if flip:
        images = torch.where(draw(2).bool().view(n, 1, 1, 1), images.flip(3), images)
    if rand_augment and n:
        change = need("torchvision.transforms.v2", "book").RandAugment(num_ops=2, magnitude=rand_augment)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            torch.manual_seed(int(draw(2**62)[0]))
            images = torch.cat([change(group) for group in images.split(GROUP)])
    return images
