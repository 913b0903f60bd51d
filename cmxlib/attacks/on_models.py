"""Use a stolen encrypted model without its key: search for the key, or train the key away.

The attacker holds the encrypted model and plain images, some of them labelled. Searches return a PatchCipher without
a key, as the attacks on images do: ``decrypt_model(encrypted_model, estimate, ...)`` is then a model for plain images.

    random_keys, hill_climb     try ciphers, keep what classifies best
    gradient_search             a relaxed permutation (Sinkhorn), learned by gradient descent
    from_statistics             what the first batch normalisation remembers, without any label
    from_filters                the encrypted filters alone, against those of another model
    retrain                     train the embedding, everything, or a new model, on the labelled images
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from ..learn.data import Dataset
from ..learn.evaluate import logits, logits_of, normalise
from ..learn.train import TrainSettings, fit
from ..lock import checks
from ..lock.embedding import copied
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, find_embedding
from ..lock.patch import PatchCipher, to_blocks
from .matching import check_images, check_labelled, check_steps, match_moments

if TYPE_CHECKING:
    import pandas as pd


def random_keys(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    trials: int,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    seed: int = 10_000,
) -> PatchCipher:
    """The best of ``trials`` random ciphers, by the loss of the encrypted model on labelled plain images."""
    trials = checks.whole(trials, "trials", 1)
    seed = checks.seed(seed)
    check_steps(steps)
    labels = check_labelled(images, labels)
    size = find_embedding(model)[1].kernel_size[0]
    ciphers = (PatchCipher(SecretKey.for_experiment(seed + trial), size, steps=steps) for trial in range(trials))
    best = min(ciphers, key=lambda cipher: key_loss(model, cipher, images, labels, mean=mean, std=std))
    return PatchCipher.from_affine(*best.matrix(), size) if best.permutation is None else best


def hill_climb(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    trials: int,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    start: PatchCipher | None = None,
    seed: int = 0,
) -> tuple[PatchCipher, list[float]]:
    """Change a shuffle-and-flip cipher step by step while that lowers the loss on labelled plain images.

    A step exchanges two entries, or flips one; ``trials`` of them are tried, in random order, each for one pass of the
    images through the network. Returns the cipher and its loss after each trial.
    """
    trials = checks.whole(trials, "trials", 1)
    check_steps(steps, orthogonal=False)
    labels = check_labelled(images, labels)
    size, rng = find_embedding(model)[1].kernel_size[0], np.random.default_rng(checks.seed(seed))
    if start is None:
        start = PatchCipher(SecretKey.for_experiment(10_000 + seed), size, steps=steps)
    checks.instance(start, PatchCipher, "start")
    if start.permutation is None or (start.n, start.channels) != (3 * size**2, 3):
        raise ValueError(f"start must be a cipher of shuffles and flips, in blocks of {size} pixels and 3 channels.")
    best, losses = start, [key_loss(model, start, images, labels, mean=mean, std=std)]
    for _ in range(trials):
        permutation, flipped = best.permutation.copy(), best.flipped.copy()
        i, j = rng.choice(best.n, 2, replace=False)
        if "shuffle" in steps and ("flip" not in steps or rng.random() < 0.5):
            permutation[[i, j]] = permutation[[j, i]]  # flips stay: they are of encrypted entries
        else:
            flipped[i] ^= True
        tried = PatchCipher.from_entries(permutation, flipped, size)
        loss = key_loss(model, tried, images, labels, mean=mean, std=std)
        best = tried if loss < losses[-1] else best
        losses.append(min(loss, losses[-1]))
    return best, losses


@torch.inference_mode(False)  # wherever it is called from, it needs gradients
@torch.enable_grad()
def gradient_search(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    iterations: int,
    flipped: np.ndarray | None = None,
    batch_size: int = 128,
    lr: float = 0.1,
    seed: int = 0,
) -> tuple[PatchCipher, list[float]]:
    """Learn a shuffle-and-flip cipher by gradient descent on the loss of the encrypted model on labelled plain images.

    The permutation is relaxed to a doubly stochastic matrix by Sinkhorn's normalisation (Mena et al., ICLR 2018) at a
    temperature that falls from 1 to 0.1, and the signs to numbers in (-1, 1); a linear assignment rounds them. Where
    the flips are known, for instance from ``from_statistics``, give them as ``flipped`` (n,): then only the
    permutation is learned. Returns the cipher and the (relaxed) loss of each iteration.
    """
    iterations = checks.whole(iterations, "iterations", 1)
    batch_size = checks.whole(batch_size, "batch_size", 1)
    lr = checks.number(lr, "lr", 0)
    seed = checks.seed(seed)
    labels = check_labelled(images, labels)
    # In float32, wherever the model computes and in whatever type.
    name, conv = find_embedding(model := copied(model).float().eval().requires_grad_(False))
    size, n = conv.kernel_size[0], conv.weight[0].numel()
    generator = torch.Generator().manual_seed(seed)
    scores = (0.1 * torch.randn(n, n, generator=generator)).requires_grad_()
    leaning = 0.1 * torch.randn(n, generator=generator)
    if flipped is not None:
        flipped = checks.array(flipped, "flipped")
        if flipped.shape != (n,) or flipped.dtype != bool:
            raise ValueError(f"flipped must be {n} truth values, one for each entry of a patch.")
        leaning = torch.where(torch.tensor(flipped), -10.0, 10.0)
    learned = [scores] if flipped is not None else [scores, leaning.requires_grad_()]
    optimizer = torch.optim.Adam(learned, lr=lr)
    mu, sigma = _by_entry(mean, std, size)
    (weight, bias), losses = _about_the_middle(conv, mean, std), []
    for iteration in range(iterations):
        permutation, signs = _relaxed(scores, leaning, temperature=0.1 ** (iteration / iterations))
        folded = weight @ (signs[:, None] * permutation)  # what the embedding does with plain patches
        offset = bias + folded @ (mu - 0.5)
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        changed = {f"{name}.weight": (folded * sigma).view_as(conv.weight), f"{name}.bias": offset}
        output = functional_call(model, changed, (normalise(images[chosen], mean, std),))
        loss = F.cross_entropy(logits_of(output, int(labels.max()) + 1), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    permutation, signs = _relaxed(scores.detach(), leaning.detach(), temperature=0.1)
    permutation = linear_sum_assignment(-permutation.numpy())[1]
    return PatchCipher.from_entries(permutation, signs.numpy() < 0, size), losses


def from_statistics(
    model: nn.Module,
    images: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    trials: int,
    steps: tuple[str, ...] = ("shuffle", "flip"),
    n_patches: int = 500,
    seed: int = 0,
) -> tuple[PatchCipher, float]:
    """Estimate a shuffle-and-flip cipher from what the model remembers of its training images; no labels are needed.

    A batch normalisation stores the mean and variance that each of its channels had in training. In the first one
    these are of the activated embedding, so that other plain images of the same kind, prepared as for training, must
    give the same under the right key. Simulated annealing looks for a cipher that does: ``trials`` exchanges of two
    entries, or flips of one, of which some that make it worse are kept at first. Only the first layer is ever
    computed, on ``n_patches`` patches.

    Returns the cipher and its mismatch, the mean over channels of the squared difference of the means, in standard
    deviations, plus that of the logarithms of the standard deviations.
    """
    trials = checks.whole(trials, "trials", 1)
    n_patches = checks.whole(n_patches, "n_patches", 2)
    seed = checks.seed(seed)
    check_steps(steps, orthogonal=False)
    conv = find_embedding(model)[1]
    check_images(images, conv.kernel_size[0])
    layers = [module for module in model.modules() if not list(module.children())]
    activation, norm, *_ = [*layers[layers.index(conv) + 1 :], None, None]
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        raise ValueError("The embedding must be followed by an activation and a batch normalisation that keeps means.")
    weight, offset = _about_the_middle(conv, mean, std)
    values = to_blocks(normalise(images, (0.5,) * 3, (1,) * 3), conv.kernel_size[0]).flatten(0, 1)
    if len(values) < 2:
        raise ValueError("images must hold two patches at least, for one has no spread.")
    values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:n_patches]].T
    centre, variance = (of.float().cpu() for of in (norm.running_mean[:, None], norm.running_var + norm.eps))
    activation = copied(activation).float().cpu()

    def mismatch(outputs):
        found = activation(outputs)
        means = (found.mean(1, keepdim=True) - centre).squeeze(1).square() / variance
        return (means + ((found.var(1) + norm.eps) / variance).log().square() / 4).mean().item()

    rng, n = np.random.default_rng(seed), len(values)
    order = rng.permutation(n) if "shuffle" in steps else np.arange(n)
    signs = rng.choice([-1.0, 1.0], n).astype(np.float32) if "flip" in steps else np.ones(n, np.float32)
    with torch.no_grad():
        outputs = torch.addmm(offset[:, None], weight, values[order] * torch.from_numpy(signs)[:, None])
        loss = mismatch(outputs)
        for temperature in np.geomspace(0.1, 0.001, trials):
            (i, j), new_order, new_signs = rng.choice(n, 2, replace=False), order.copy(), signs.copy()
            if "shuffle" in steps and ("flip" not in steps or rng.random() < 0.5):
                new_order[[i, j]] = order[[j, i]]
            else:
                new_signs[i] *= -1
            change = values[new_order[[i, j]]] * torch.from_numpy(new_signs[[i, j]])[:, None]
            change -= values[order[[i, j]]] * torch.from_numpy(signs[[i, j]])[:, None]
            tried = torch.addmm(outputs, weight[:, [i, j]], change)
            found = mismatch(tried)
            if found < loss or rng.random() < math.exp((loss - found) / temperature):
                outputs, loss, order, signs = tried, found, new_order, new_signs
    return PatchCipher.from_entries(order, signs < 0, conv.kernel_size[0]), loss


def from_filters(
    model: nn.Module,
    other: nn.Module,
    *,
    std: Sequence[float],
    steps: tuple[str, ...] = ("shuffle", "flip"),
    restarts: int = 10,
    seed: int = 0,
) -> PatchCipher:
    """Estimate the cipher from the encrypted filters alone, given another, plain model of the same patch size.

    Trained filters are smooth: the products of their columns, W^T W, are alike from model to model, and encryption
    rearranges them as it does a covariance of patches. A flip of all entries cannot be told from none.
    """
    check_steps(steps, orthogonal=False)
    restarts = checks.whole(restarts, "restarts", 1)
    encrypted, plain = (_products(net, std) for net in (model, other))
    if encrypted.shape != plain.shape:
        raise ValueError("Both models must have patches of one size and number of channels.")
    permutation, signs = match_moments(encrypted, plain, steps, np.random.default_rng(checks.seed(seed)), restarts)
    return PatchCipher.from_entries(permutation, signs < 0, find_embedding(model)[1].kernel_size[0])


def retrain(
    model: nn.Module,
    data: Dataset,
    n_images: int,
    settings: TrainSettings,
    *,
    n_steps: int,
    train: str = "everything",
    frozen: bool = False,
) -> "pd.DataFrame":
    """Train on the first ``n_images`` plain training images; the history of ``fit``.

    train: "everything", or "embedding" for the patch embedding alone; ``model`` is changed in place. With a new model
    this is training from nothing. n_steps: the budget, in batches of ``settings.batch_size``; images are repeated.
    frozen: whether batch normalisations go on using, and keep, the statistics that they have.
    """
    checks.instance(data, Dataset, "data")
    n_images = checks.whole(n_images, "n_images", 1, len(data.train_images))
    if not isinstance(train, str) or train not in ("everything", "embedding"):
        raise ValueError(f'train must be "everything" or "embedding", not {checks.shown(train)}.')
    checks.truth(frozen, "frozen")
    checks.instance(settings, TrainSettings, "settings")
    n_steps = checks.whole(n_steps, "n_steps", 1, 10**9)
    embedding = find_embedding(model)[1]
    model.requires_grad_(train == "everything")
    embedding.requires_grad_(True)
    # An epoch of fit is as many batches as the images give: they are repeated until one epoch holds a tenth of all.
    epochs = min(10, n_steps)
    wanted = math.ceil(n_steps / epochs) * settings.batch_size
    chosen = torch.arange(wanted) % n_images
    some = {"train_images": chosen, "train_labels": chosen, "test_images": slice(100), "test_labels": slice(100)}
    few = dataclasses.replace(data, **{name: getattr(data, name)[which] for name, which in some.items()})
    norms = [module for module in model.modules() if frozen and isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval().train = lambda mode=True: None  # type: ignore[method-assign]
    try:
        history = fit(model, few, dataclasses.replace(settings, epochs=epochs), progress=False)
    finally:
        for norm in norms:
            del norm.train
    model.requires_grad_(True)
    return history


def key_loss(
    model: nn.Module,
    cipher: PatchCipher,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> float:
    """Cross-entropy of the encrypted model on plain images (N, C, H, W) that ``cipher`` encrypts."""
    opened = decrypt_model(model, cipher, mean=mean, std=std)
    labels = checks.labels(labels, len(checks.images(images)))
    output = logits(opened, images, mean=mean, std=std)
    return F.cross_entropy(logits_of(output, int(labels.max()) + 1), labels).item()


def _relaxed(scores, leaning, temperature):
    """A nearly doubly stochastic matrix (n, n), and signs in (-1, 1)."""
    scores = scores / temperature
    for _ in range(20):
        scores = scores - scores.logsumexp(1, keepdim=True)
        scores = scores - scores.logsumexp(0, keepdim=True)
    return scores.exp(), torch.tanh(leaning)


def _about_the_middle(conv, mean, std):
    """The embedding as weight (h, n) and offset (h,) of values less 1/2, where a flip is a change of sign alone."""
    mu, sigma = _by_entry(mean, std, conv.kernel_size[0])
    weight = conv.weight.detach().float().cpu().flatten(1) / sigma
    return weight, weight @ (0.5 - mu) + (0 if conv.bias is None else conv.bias.detach().float().cpu())


def _by_entry(mean, std, size):
    """Mean and std of each entry of a patch, float32 (n,)."""
    return (torch.from_numpy(v).float().repeat_interleave(size**2) for v in checks.statistics(mean, std, 3))


def _products(model, std):
    conv = find_embedding(model)[1]
    sigma = np.repeat(checks.statistics((0,) * 3, std, 3)[1], conv.kernel_size[0] ** 2)
    weight = conv.weight.detach().double().flatten(1).cpu().numpy() / sigma
    if not (np.isfinite(weight).all() and weight.any()):
        raise ValueError("The filters of both models must be finite, and not all of them 0.")
    return weight.T @ weight / np.trace(weight.T @ weight)
