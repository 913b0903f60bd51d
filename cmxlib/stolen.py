"""Use a stolen encrypted model without its key: search for the key, or train the key away.

The attacker holds the encrypted model and plain images, some of them labelled. Searches return a PatchCipher without
a key, as the attacks on images do: ``decrypt_model(encrypted_model, estimate, ...)`` is then a model for plain images.

    random_keys, hill_climb     try ciphers, keep what classifies best
    gradient_search             a relaxed permutation (Sinkhorn), learned by gradient descent
    from_filters                the encrypted filters alone, against those of another model
    retrain                     train the embedding, everything, or a new model, on the labelled images
"""

import dataclasses
import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.func import functional_call
from torch.nn import functional as F

from .attacks import _leading, _match_entries
from .cipher import PatchCipher
from .evaluate import logits, normalise
from .keys import SecretKey
from .protect import decrypt_model, find_embedding
from .train import TrainSettings, fit


def random_keys(model, images, labels, *, mean, std, trials, steps=("shuffle", "flip"), seed=10_000) -> PatchCipher:
    """The best of ``trials`` random ciphers, by the loss of the encrypted model on labelled plain images."""
    size = find_embedding(model)[1].kernel_size[0]
    ciphers = (PatchCipher(SecretKey.for_experiment(seed + trial), size, steps=steps) for trial in range(trials))
    best = min(ciphers, key=lambda cipher: key_loss(model, cipher, images, labels, mean=mean, std=std))
    return PatchCipher.from_affine(*best.matrix(), size) if best.permutation is None else best


def hill_climb(
    model, images, labels, *, mean, std, trials, steps=("shuffle", "flip"), start=None, seed=0
) -> tuple[PatchCipher, list[float]]:
    """Change a shuffle-and-flip cipher step by step while that lowers the loss on labelled plain images.

    A step exchanges two entries, or flips one; ``trials`` of them are tried, in random order, each for one pass of the
    images through the network. Returns the cipher and its loss after each trial.
    """
    size, rng = find_embedding(model)[1].kernel_size[0], np.random.default_rng(seed)
    start = start or PatchCipher(SecretKey.for_experiment(10_000 + seed), size, steps=steps)
    best, losses = start, [key_loss(model, start, images, labels, mean=mean, std=std)]
    for _ in range(trials):
        permutation, flipped = best.permutation.copy(), best.flipped.copy()
        i, j = rng.choice(best.n, 2, replace=False)
        if "shuffle" in steps and ("flip" not in steps or rng.random() < 0.5):
            permutation[[i, j]], flipped[[i, j]] = permutation[[j, i]], flipped[[j, i]]
        else:
            flipped[i] ^= True
        tried = PatchCipher.from_entries(permutation, flipped, size)
        loss = key_loss(model, tried, images, labels, mean=mean, std=std)
        best = tried if loss < losses[-1] else best
        losses.append(min(loss, losses[-1]))
    return best, losses


def gradient_search(
    model, images, labels, *, mean, std, iterations, steps=("shuffle", "flip"), batch_size=128, lr=0.1, seed=0
) -> tuple[PatchCipher, list[float]]:
    """Learn a shuffle-and-flip cipher by gradient descent on the loss of the encrypted model on labelled plain images.

    The permutation is relaxed to a doubly stochastic matrix by Sinkhorn's normalisation (Mena et al., ICLR 2018) at a
    temperature that falls from 1 to 0.1, and the signs to numbers in (-1, 1); a linear assignment rounds them. Returns
    the cipher and the (relaxed) loss of each iteration.
    """
    name, conv = find_embedding(model)
    size, n = conv.kernel_size[0], conv.weight[0].numel()
    generator = torch.Generator().manual_seed(seed)
    scores = (0.1 * torch.randn(n, n, generator=generator)).requires_grad_("shuffle" in steps)
    leaning = (0.1 * torch.randn(n, generator=generator)).requires_grad_("flip" in steps)
    optimizer = torch.optim.Adam([p for p in (scores, leaning) if p.requires_grad], lr=lr)
    # In values about 1/2, a flip is a change of sign: x' - 1/2 = signs * P (x - 1/2).
    mu, sigma = (torch.tensor(v).repeat_interleave(size**2) for v in (mean, std))
    weight, losses = conv.weight.detach().flatten(1) / sigma, []
    bias = 0 if conv.bias is None else conv.bias.detach()
    was_training = model.training
    model.eval()
    for iteration in range(iterations):
        permutation, signs = _relaxed(scores, leaning, steps, temperature=0.1 ** (iteration / iterations))
        folded = weight @ (signs[:, None] * permutation)  # what the embedding does with plain patches
        offset = bias + weight @ (0.5 - mu) - folded @ (0.5 - mu)
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        changed = {f"{name}.weight": (folded * sigma).view_as(conv.weight), f"{name}.bias": offset}
        output = functional_call(model, changed, (normalise(images[chosen], mean, std),))
        loss = F.cross_entropy(output, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.train(was_training)
    permutation, signs = _relaxed(scores.detach(), leaning.detach(), steps, temperature=0.1)
    permutation = linear_sum_assignment(-permutation.numpy())[1]
    return PatchCipher.from_entries(permutation, signs.numpy() < 0, size), losses


def from_filters(model, other, *, std, steps=("shuffle", "flip"), restarts=10, seed=0) -> PatchCipher:
    """Estimate the cipher from the encrypted filters alone, given another, plain model of the same patch size.

    Trained filters are smooth: the products of their columns, W^T W, are alike from model to model, and encryption
    rearranges them as it does a covariance of patches. A flip of all entries cannot be told from none.
    """
    encrypted, plain = (_products(net, std) for net in (model, other))
    permutation, signs = np.arange(len(plain)), np.ones(len(plain))
    if "shuffle" in steps:
        size = np.abs if "flip" in steps else np.array
        permutation = _match_entries(size(encrypted), size(plain), np.random.default_rng(seed), restarts)
    if "flip" in steps:
        signs = np.sign(_leading(encrypted * plain[np.ix_(permutation, permutation)]))
    return PatchCipher.from_entries(permutation, signs < 0, find_embedding(model)[1].kernel_size[0])


def retrain(model, data, n_images, settings: TrainSettings, *, n_steps, train="everything", progress=False):
    """Train on the first ``n_images`` plain training images; the history of ``fit``.

    train: "everything", or "embedding" for the patch embedding alone; ``model`` is changed in place. With a new model
    this is training from nothing. n_steps: the budget, in batches of ``settings.batch_size``; images are repeated.
    """
    if train not in ("everything", "embedding"):
        raise ValueError(f'train must be "everything" or "embedding", not {train!r}.')
    kept = {"everything": model, "embedding": find_embedding(model)[1]}[train]
    needed = {id(parameter) for parameter in kept.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in needed)
    # An epoch of fit is as many batches as the images give: they are repeated until one epoch holds a tenth of all.
    epochs = min(10, n_steps)
    wanted = math.ceil(n_steps / epochs) * settings.batch_size
    chosen = torch.arange(wanted) % n_images
    few = dataclasses.replace(data, train_images=data.train_images[chosen], train_labels=data.train_labels[chosen])
    few = dataclasses.replace(few, test_images=data.test_images[:100], test_labels=data.test_labels[:100])
    history = fit(model, few, dataclasses.replace(settings, epochs=epochs), progress=progress)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return history


def key_loss(model, cipher, images, labels, *, mean, std) -> float:
    """Cross-entropy of the encrypted model on plain images (N, C, H, W) that ``cipher`` encrypts."""
    opened = decrypt_model(model, cipher, mean=mean, std=std)
    return F.cross_entropy(logits(opened, images, mean=mean, std=std), labels).item()


def _relaxed(scores, leaning, steps, temperature):
    """A nearly doubly stochastic matrix (n, n) and signs in (-1, 1), as far as the steps leave them open."""
    n = len(scores)
    permutation = torch.eye(n)
    if "shuffle" in steps:
        scores = scores / temperature
        for _ in range(20):
            scores = scores - scores.logsumexp(1, keepdim=True)
            scores = scores - scores.logsumexp(0, keepdim=True)
        permutation = scores.exp()
    return permutation, torch.tanh(leaning) if "flip" in steps else torch.ones(n)


def _products(model, std):
    conv = find_embedding(model)[1]
    weight = conv.weight.detach().double().flatten(1).cpu().numpy() / np.repeat(std, conv.kernel_size[0] ** 2)
    return weight.T @ weight / np.trace(weight.T @ weight)
