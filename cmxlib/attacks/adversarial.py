"""Adversarial examples: images, changed by at most eps in each value, that a classifier gets wrong.

What an attacker knows is which model the examples are made on; the victim is attacked by what comes out:

    the plain model                                       all is known
    the encrypted model, as if it took plain images       the model, but not the key
    the encrypted model, its first layer learnt anew      the model, and labelled plain images
    decrypt_model(encrypted model, estimated cipher)      the model, and an estimate of the key
    a model of the attacker's own                         nothing but data of the same kind
    Pipeline(encrypted model, cipher)                     nothing but answers to the attacker's plain images
    the encrypted model, on encrypted images              the model, and a way to change what is sent to it

All but the last change images before encryption. An encrypted model does with encrypted images exactly what the plain
one does with plain ones, so such an example fools both or neither. The last needs no key: shuffles and flips keep
the size of every change.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..learn.evaluate import evaluating, normalise
from ..lock import checks

EPS = 8 / 255


def pgd(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    eps: float = EPS,
    steps: int = 20,
    step_size: float | None = None,
    batch_size: int = 200,
    seed: int = 0,
) -> torch.Tensor:
    """Projected gradient descent from a random start (Madry et al., ICLR 2018), in the maximum norm.

    images: (N, C, H, W), uint8 or float in [0, 1]; the model is asked where it is. ``step_size`` is 2.5 eps / steps
    unless given. Returns float images in [0, 1], on the CPU, that differ from the given ones by at most eps.
    """
    _check(images, labels, eps)
    step_size = step_size or 2.5 * eps / checks.whole(steps, "steps", 1)
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    found = []
    with evaluating(model):
        for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            change = ((torch.rand(batch.shape, generator=generator) * 2 - 1) * eps).to(device)
            plain, truth = _values(batch).to(device), truth.to(device)
            for _ in range(steps):
                tried = (plain + change).clamp(0, 1).requires_grad_()
                loss = F.cross_entropy(model(normalise(tried, mean, std)), truth, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, tried)
                change = (tried.detach() + step_size * gradient.sign() - plain).clamp(-eps, eps)
            found.append((plain + change).clamp(0, 1).cpu())
    return torch.cat(found)


def square(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    eps: float = EPS,
    queries: int = 500,
    batch_size: int = 200,
    seed: int = 0,
) -> torch.Tensor:
    """Square Attack (Andriushchenko et al., ECCV 2020), which asks for outputs only, by the library ART.

    Arguments and result as for ``pgd``; ``queries`` is how often it may ask about an image. It leaves an image alone
    once the model answers something else than its label. So what it finds hardly carries over to other models, and
    on a model that is wrong from the start it does nothing, unless ``labels`` are that model's own answers.
    """
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    _check(images, labels, eps)
    checks.whole(queries, "queries", 1)
    parameter, state = next(model.parameters()), np.random.get_state()  # noqa: NPY002 (ART draws from this generator)
    with evaluating(model):
        with torch.no_grad():
            n_classes = model(_values(images[:1]).to(parameter)).shape[1]
        classifier = PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            images.shape[1:],
            n_classes,
            clip_values=(0, 1),
            preprocessing=tuple(np.reshape(np.float32(v), (-1, 1, 1)) for v in (mean, std)),
            device_type="gpu" if parameter.is_cuda else "cpu",
        )
        np.random.seed(seed)  # noqa: NPY002
        try:
            attack = SquareAttack(classifier, eps=eps, max_iter=queries, batch_size=batch_size, verbose=False)
            changed = attack.generate(_values(images).numpy(), labels.numpy())
        finally:
            np.random.set_state(state)  # noqa: NPY002
    return torch.from_numpy(changed)


def noise(images: torch.Tensor, *, eps: float = EPS, seed: int = 0) -> torch.Tensor:
    """The control: each value changed by eps up or down at random, as much as any attack here may change it."""
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (_values(images) + eps * signs).clamp(0, 1)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images as a file holds them: float in [0, 1] -> uint8. Within 8 / 255 of byte images they stay so."""
    return (images * 255).round().to(torch.uint8)


class Pipeline(nn.Module):
    """What somebody sees who may only ask: plain values in [0, 1] -> logits of the encrypted model, (N, classes).

    Encryption and normalisation happen inside, so that attacks on it take mean 0 and std 1.
    """

    def __init__(self, encrypted_model, cipher, *, mean, std):
        super().__init__()
        self.model, self.cipher, self.norm = encrypted_model, cipher, (mean, std)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.model(normalise(self.cipher.encrypt(values), *self.norm))


def _values(images):
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _check(images, labels, eps):
    checks.labels(labels, len(checks.images(images)))
    checks.number(eps, "eps", 0, 1)
