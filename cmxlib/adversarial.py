"""Adversarial examples: plain images, changed by at most eps in each value, that a classifier gets wrong.

What an attacker knows is which model the examples are made on; the victim is attacked by what comes out:

    the plain model                                       all is known
    the encrypted model, as if it took plain images       the model, but not the key
    decrypt_model(encrypted model, estimated cipher)      the model, and an estimate of the key
    a model of the attacker's own                         nothing but data of the same kind

Examples are made before encryption. Since an encrypted model does with encrypted images exactly what the plain model
does with plain ones, what fools the plain model fools the encrypted pipeline too.
"""

import numpy as np
import torch
from torch.nn import functional as F

from .evaluate import normalise

EPS = 8 / 255


def pgd(model, images, labels, *, mean, std, eps=EPS, steps=20, step_size=None, batch_size=200, seed=0):
    """Projected gradient descent from a random start (Madry et al., ICLR 2018), in the maximum norm.

    images: (N, C, H, W), uint8 or float in [0, 1]. ``step_size`` is 2.5 eps / steps unless given. Returns float images
    in [0, 1] that differ from the given ones by at most eps.
    """
    step_size = step_size or 2.5 * eps / steps
    generator = torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    found = []
    for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        plain = _values(batch)
        change = (torch.rand(plain.shape, generator=generator) * 2 - 1) * eps
        for _ in range(steps):
            tried = (plain + change).clamp(0, 1).requires_grad_()
            loss = F.cross_entropy(model(normalise(tried, mean, std)), truth, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, tried)
            change = (tried.detach() + step_size * gradient.sign() - plain).clamp(-eps, eps)
        found.append((plain + change).clamp(0, 1))
    model.train(was_training)
    return torch.cat(found)


def square(model, images, labels, *, mean, std, eps=EPS, queries=500, batch_size=200, seed=0):
    """Square Attack (Andriushchenko et al., ECCV 2020), which asks for outputs only, by the library ART.

    Arguments and result as for ``pgd``; ``queries`` is how often it may ask about an image.
    """
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import PyTorchClassifier

    shape = images.shape[1:]
    norm = tuple(np.reshape(np.float32(v), (-1, 1, 1)) for v in (mean, std))
    classifier = PyTorchClassifier(
        model.eval(), torch.nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), preprocessing=norm, device_type="cpu"
    )
    state = np.random.get_state()  # noqa: NPY002 (ART draws from the global generator)
    np.random.seed(seed)  # noqa: NPY002
    try:
        attack = SquareAttack(classifier, eps=eps, max_iter=queries, batch_size=batch_size, verbose=False)
        changed = attack.generate(_values(images).numpy(), labels.numpy())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return torch.from_numpy(changed)


def _values(images):
    return images.float() / 255 if images.dtype == torch.uint8 else images
