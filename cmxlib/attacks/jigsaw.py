"""A jigsaw solver's attack on EtC by position: the pieces stay in their places, but each is turned as its key says.

At a border of two patches an image goes on, so that the right turns of two neighbours are those whose borders are
likest. That is how jigsaw solvers put blocks back that were moved as well (Chuman and Kiya, arXiv 2211.02369). Here
only the turns are unknown, and all images under one key tell of them together.
"""

from itertools import pairwise

import numpy as np
import torch

from ..lock.patch import PatchCipher, to_blocks
from ..lock.pixels import to_values
from ..lock.position import PositionCipher, etc_variants
from .matching import check_images
from .on_repairs import chained


def jigsaw_by_position(encrypted: torch.Tensor, public: torch.Tensor, patch_size: int = 4) -> PositionCipher:
    """Estimate a ``PositionCipher.etc`` from encrypted images (N, C, H, W), and other images of the same kind.

    The borders tell the turns of all patches at once, but for what can be done to the whole image: its negative, and
    the order of its colours. These are told by public images: by the covariances of colours, and by brightness.
    """
    check_images(public, patch_size, "public")
    channels, height, width = check_images(encrypted, patch_size).shape[1:]
    grid, variants = (height // patch_size, width // patch_size), etc_variants(patch_size, channels)
    costs = _border_costs(encrypted, patch_size, grid, variants)
    # A whole variant would be guessed at the first patch; its way to lie is, and the rest is the same for all patches.
    starts = [(place, way) for place in range(grid[0] * grid[1]) for way in range(8)]
    labels, _ = min((_placed(costs, grid, *start) for start in starts), key=lambda found: found[1])
    turned = [variants[label] for label in labels]
    upright = PositionCipher.from_ciphers(turned).decrypt(encrypted)
    whole = _whole(upright, public, variants[::8])  # those that do not turn
    return PositionCipher.from_ciphers([chained(whole, each) for each in turned])


def _border_costs(images, size, grid, variants):
    """{(patch, neighbour): (variants, variants)}: how much their borders differ when either is decrypted so."""
    n = variants[0].n
    entries = np.arange(n).reshape(-1, size, size)
    borders = {"left": entries[:, :, 0], "right": entries[:, :, -1], "top": entries[:, 0], "bottom": entries[:, -1]}
    # Entry i of a decrypted patch is entry back[i] of the encrypted one, as its negative where the variant has one.
    back = np.stack([np.argsort(each.permutation) for each in variants])
    signs = torch.tensor([-1.0 if each.flipped[0] else 1.0 for each in variants])
    places = np.arange(grid[0] * grid[1]).reshape(grid)
    pairs = [(a, b, "right", "left") for row in places for a, b in pairwise(row)]
    pairs += [(a, b, "bottom", "top") for column in places.T for a, b in pairwise(column)]
    costs = {(a, b): torch.zeros(len(variants), len(variants)) for a, b, *_ in pairs}
    for batch in images.split(100):
        blocks = to_blocks(to_values(batch), size) - 0.5  # (images, patches, n)
        for a, b, of_a, of_b in pairs:
            first, second = (
                (blocks[:, place][:, back[:, borders[name].ravel()]] * signs[:, None]).transpose(0, 1).flatten(1)
                for place, name in ((a, of_a), (b, of_b))
            )
            costs[a, b] += torch.cdist(first, second) ** 2
    both = {(a, b): cost.numpy() for (a, b), cost in costs.items()}
    return both | {(b, a): cost.T for (a, b), cost in both.items()}


def _placed(costs, grid, start, way):
    """Variants of all patches, from the way that one lies: outwards from it, then one after the other while that
    helps. Returns (labels, cost of all borders)."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    order = np.argsort(abs(rows - rows[start]) + abs(columns - columns[start]), kind="stable")
    next_to = {place: [b for a, b in costs if a == place] for place in order}
    labels = {start: way}
    for place in order[1:]:
        labels[place] = sum(costs[b, place][labels[b]] for b in next_to[place] if b in labels).argmin()
    for _ in range(20):
        before = dict(labels)
        for place in order:
            labels[place] = sum(costs[b, place][labels[b]] for b in next_to[place]).argmin()
        if labels == before:
            break
    found = [labels[place] for place in range(len(order))]
    return found, sum(cost[found[a], found[b]] for (a, b), cost in costs.items())


def _whole(upright, public, changes) -> PatchCipher:
    """Of changes to the whole image (order of colours, negative) the one that makes public images like ``upright``."""
    (mean, spread), (known_mean, known_spread) = (_colours(images) for images in (upright, public))

    def distance(change):
        order = change.permutation[:: len(change.permutation) // len(mean)] // (len(change.permutation) // len(mean))
        sign = -1 if change.flipped[0] else 1
        # Which order it is, spreads tell; the mean tells a negative, and must not have a say in the order.
        return np.abs(spread - known_spread[np.ix_(order, order)]).sum().round(9), -sign * mean.sum() * known_mean.sum()

    return min(changes, key=distance)


def _colours(images):
    """Mean (C,) of the colours, from mid grey, and their covariances (C, C), of trace 1."""
    values = (to_values(images).double() - 0.5).transpose(0, 1).flatten(1).numpy()
    covariance = np.cov(values)
    return values.mean(1), covariance / np.trace(covariance)
