"""Jigsaw solvers: at a border of two patches an image goes on, so that neighbours are those whose borders are likest.

That is how they put the blocks of an image back that were moved (Chuman and Kiya, arXiv 2211.02369). Here all images
under one key tell of it together: against EtC by position, whose pieces stay in their places, but are turned each as
its key says; and against a BlockCipher, whose pieces move, but are all changed alike.
"""

from itertools import combinations, pairwise

import numpy as np
import torch

from ..lock import checks
from ..lock.blocks import BlockCipher
from ..lock.conventional import turns
from ..lock.patch import PatchCipher, to_blocks
from ..lock.pixels import to_values
from ..lock.position import PositionCipher, etc_variants
from .matching import check_alike, check_steps, match_moments
from .on_images import ciphertext_only
from .on_repairs import chained

_SOLVED = 500  # images whose borders are compared


def jigsaw_by_position(encrypted: torch.Tensor, public: torch.Tensor, patch_size: int = 4) -> PositionCipher:
    """Estimate a ``PositionCipher.etc`` from encrypted images (N, C, H, W), and other images of the same kind.

    The borders tell the turns of all patches at once, but for what can be done to the whole image: its negative, and
    the order of its colours. These are told by public images: by the covariances of colours, and by brightness.
    """
    channels, height, width = _checked(encrypted, public, patch_size)
    grid, variants = (height // patch_size, width // patch_size), etc_variants(patch_size, channels)
    costs = _border_costs(encrypted, patch_size, grid, variants)
    # A whole variant would be guessed at the first patch; its way to lie is, and the rest is the same for all patches.
    starts = [(place, way) for place in range(grid[0] * grid[1]) for way in range(8)]
    labels, _ = min((_placed(costs, grid, *start) for start in starts), key=lambda found: found[1])
    turned = [variants[label] for label in labels]
    upright = PositionCipher.from_ciphers(turned).decrypt(encrypted)
    whole = _whole(upright, public, variants[::8])  # those that do not turn
    return PositionCipher.from_ciphers([chained(whole, each) for each in turned])


def _checked(encrypted, public, patch_size):
    """The shape (C, H, W) of encrypted images: several patches each, as of the public ones; an error otherwise."""
    if check_alike(encrypted, public, patch_size) < 2:
        raise ValueError(
            f"Images must be of several patches, whose borders can be compared, not of one of {patch_size}."
        )
    return encrypted.shape[1:]


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
    covariance = np.atleast_2d(np.cov(values))  # of one colour, NumPy makes a number
    return values.mean(1), covariance / np.trace(covariance)


def jigsaw_of_places(
    encrypted: torch.Tensor,
    public: torch.Tensor,
    patch_size: int = 4,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    *,
    seed: int = 0,
) -> BlockCipher:
    """Estimate a BlockCipher with these steps, or none, from encrypted images (N, C, H, W), and others of their kind.

    In turns: what each patch went through, by ``ciphertext_only``, at first without neighbours, which are not known
    then; and the places of the patches, which begin as those whose brightness goes together as that of the public
    images' places does, and change in pairs as long as borders become likelier.
    """
    channels, height, width = _checked(encrypted, public, patch_size)
    if checks.steps(steps, ("shuffle", "flip", "orthogonal")):
        check_steps(steps)
    rng, known = np.random.default_rng(checks.seed(seed)), _brightness(public, patch_size)
    stays = PatchCipher.from_entries(np.arange(n := channels * patch_size**2), np.zeros(n), patch_size, channels)
    inside, upright = stays, encrypted
    for turn in range(2):
        if steps:
            inside = ciphertext_only(upright, public, patch_size, steps, neighbours=turn > 0, seed=seed)
        seen = inside.decrypt(encrypted)
        places, _ = match_moments(_brightness(seen, patch_size), known, ("shuffle",), rng, 10)
        right, below = _borders(seen[:_SOLVED], patch_size)
        places = _swapped(places, right, below, height // patch_size)
        upright = BlockCipher.from_places(stays, places, (height, width)).decrypt(encrypted)
    return BlockCipher.from_places(inside, places, (height, width))


def _brightness(images, size):
    """Second moments (patches, patches) of the patches' mean values, about that of all."""
    means = torch.cat([to_blocks(to_values(batch), size).mean(2) for batch in images.split(1000)]).double().numpy()
    return (centred := means - means.mean()).T @ centred / len(means)


def _borders(images, size):
    """Twice (patches, patches): how one's right border differs from another's left one, and a lower from an upper."""
    patches = to_blocks(to_values(images) - 0.5, size).unflatten(2, (-1, size, size)).transpose(0, 1)
    edges = patches[..., -1], patches[..., 0], patches[..., -1, :], patches[..., 0, :]
    right, left, lower, upper = (edge.flatten(1).double() for edge in edges)
    return torch.cdist(right, left).square().numpy(), torch.cdist(lower, upper).square().numpy()


def _swapped(places, right, below, rows):
    """Places in which no two patches can change for borders that differ less."""

    def cost(order):
        grid = order.reshape(rows, -1)
        return right[grid[:, :-1], grid[:, 1:]].sum() + below[grid[:-1], grid[1:]].sum()

    # Patches as they are seen, along the rows of the image, which may have been taken for its mirror image.
    order = np.argsort(places).reshape(1, rows, -1)
    order = min(turns(order) if order.shape[2] == rows else order, key=cost).flatten()
    least, before = cost(order), np.inf
    while least < before:
        before = least
        for a, b in combinations(range(len(order)), 2):
            order[[a, b]] = order[[b, a]]
            if (found := cost(order)) < least:
                least = found
            else:
                order[[a, b]] = order[[b, a]]
    return np.argsort(order)
