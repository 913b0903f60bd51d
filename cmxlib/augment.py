"""Augmentation of whole batches as tensors, on whatever device they are on."""

import torch


def augment(images, generator, *, crop_padding=4, flip=True, jitter=0.0, erase=0):
    """Randomly shift, mirror, recolour and blank out images.

    Args:
        images: (N, C, H, W), uint8; a new tensor of the same shape and type is returned.
        generator: the ``torch.Generator``, on the images' device, that all randomness comes from.
        crop_padding: each image is moved by up to so many pixels in each direction, zeros filling in.
        flip: mirror every image left to right with probability 1/2.
        jitter: each image's brightness and contrast are scaled by factors within 1 - jitter .. 1 + jitter.
        erase: a square of so many pixels a side, at a random place that may lie partly outside, becomes mid grey
            (Cutout, arXiv 1708.04552).
    """
    n, _, h, w = images.shape
    everyone = torch.arange(n, device=images.device)

    def draw(high):
        return torch.randint(high, (n,), generator=generator, device=images.device)

    if crop_padding:
        padded = torch.nn.functional.pad(images, (crop_padding,) * 4)
        windows = padded.unfold(2, h, 1).unfold(3, w, 1)  # a view: (N, C, shifts, shifts, H, W)
        images = windows[everyone, :, draw(2 * crop_padding + 1), draw(2 * crop_padding + 1)]
    if flip:
        images = torch.where(draw(2).bool().view(n, 1, 1, 1), images.flip(3), images)
    if jitter:
        factors = 1 + jitter * (2 * torch.rand(2, n, 1, 1, 1, generator=generator, device=images.device) - 1)
        values = images.float() * factors[0]
        middle = values.mean((1, 2, 3), keepdim=True)
        images = (middle + factors[1] * (values - middle)).clamp_(0, 255).to(torch.uint8)
    if erase:
        rows, columns = (
            (torch.arange(size, device=images.device) - draw(size).view(n, 1) + erase // 2).view(n, 1, *shape)
            for size, shape in ((h, (h, 1)), (w, (1, w)))
        )
        inside = (rows >= 0) & (rows < erase) & (columns >= 0) & (columns < erase)
        images = images.masked_fill(inside, 128)
    return images
