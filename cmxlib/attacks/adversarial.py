"""Adversarial examples: images, changed by at most eps in each value, that a classifier gets wrong.

What an attacker knows is which model the examples are made on; the victim is attacked by what comes out. Where the
provider encrypts, an attacker changes plain images:

    the plain model                                       all is known
    the encrypted model, as if it took plain images       the model, but not the key
    the encrypted model, its first layer retrained        the model, and labelled plain images
    a model of the attacker's own                         nothing but data of the same kind
    Pipeline(encrypted model, cipher)                     nothing but answers to the attacker's plain images

Where the client encrypts, encrypted images travel:

    the encrypted model, on encrypted images              the model, and a way to change what is sent to it
    decrypt_model(encrypted model, estimated cipher)      the model, and an estimate of the key from encrypted images

An encrypted model does with encrypted images exactly what the plain one does with plain ones, so an example fools both
pipelines or neither. Shuffles and flips keep the size of every change; an orthogonal cipher keeps the sum of squares.
"""

import collections
import contextlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..learn.evaluate import logits_of, normalise
from ..lock import checks
from ..lock.pixels import to_values
from ..lock.probe import evaluating, like
from .matching import check_labelled

EPS = 8 / 255


@torch.inference_mode(False)  # wherever it is called from, it needs gradients
@torch.enable_grad()
def pgd(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    eps: float = EPS,
    steps: int = 20,
    limits: tuple[float, float] = (0, 1),
    batch_size: int = 200,
    seed: int = 0,
) -> torch.Tensor:
    """Projected gradient descent from a random start (Madry et al., ICLR 2018), in the maximum norm.

    images: (N, C, H, W), uint8 or float, with values within ``limits``, which those of an orthogonal cipher need wider;
    the model is asked where it is, in steps of 2.5 eps / steps. Returns float images within ``limits``, on the CPU,
    that differ from the given ones by at most eps.
    """
    labels = _check(model, images, labels, eps, limits)
    steps = checks.whole(steps, "steps", 1)
    size = checks.whole(batch_size, "batch_size", 1)
    classes = int(labels.max()) + 1
    generator = torch.Generator().manual_seed(checks.seed(seed))
    device, dtype = (held := like(model)).device, held.dtype
    found = []
    with evaluating(model):
        for batch, truth in zip(images.split(size), labels.split(size), strict=True):
            change = ((torch.rand(batch.shape, generator=generator) * 2 - 1) * eps).to(device)
            plain, truth = to_values(batch).to(device), truth.to(device)
            for _ in range(steps):
                tried = (plain + change).clamp(*limits).requires_grad_()
                output = logits_of(model(normalise(tried, mean, std, dtype)), classes).float()
                loss = F.cross_entropy(output, truth, reduction="sum")
                if not loss.requires_grad:
                    raise ValueError("model gives no gradient of its logits: attack it by square, which asks for none.")
                (gradient,) = torch.autograd.grad(loss, tried)
                change = (tried.detach() + 2.5 * eps / steps * gradient.sign() - plain).clamp(-eps, eps)
            found.append((plain + change).clamp(*limits).cpu())
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

    queries, batch_size = checks.whole(queries, "queries", 1), checks.whole(batch_size, "batch_size", 1)
    with _classifier(model, images, labels, eps, mean, std, (0, 1), seed) as classifier:
        attack = SquareAttack(classifier, eps=eps, max_iter=queries, batch_size=batch_size, verbose=False)
        return torch.from_numpy(attack.generate(_array(images), labels.numpy()))


def autoattack(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    eps: float = EPS,
    limits: tuple[float, float] = (0, 1),
    queries: int = 5000,
    starts: int = 5,
    batch_size: int = 100,
    seed: int = 0,
) -> torch.Tensor:
    """The ensemble that the library ART calls AutoAttack, each attack on the images that those before it left.

    These are APGD on the cross-entropy and on the ratio of differences of logits (Croce and Hein, ICML 2020), 100
    steps from up to ``starts`` starts; DeepFool, where it stays within eps; and Square. The authors' own ensemble has
    targeted APGD and FAB in place of DeepFool. Arguments and result as for ``pgd`` and ``square``; of use where
    ``model`` is right about the images as they are.
    """
    from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack

    given = {"queries": queries, "starts": starts, "batch_size": batch_size}
    queries, starts, batch_size = (checks.whole(value, name, 1) for name, value in given.items())
    with _classifier(model, images, labels, eps, mean, std, limits, seed) as classifier:
        truth = labels.numpy()
        of = {"eps": eps, "batch_size": batch_size, "verbose": False}
        losses = "cross_entropy", "difference_logits_ratio"
        apgd = {**of, "eps_step": 2 * eps, "max_iter": 100, "nb_random_init": starts}
        attacks = [AutoProjectedGradientDescent(classifier, loss_type=loss, **apgd) for loss in losses]
        attacks += [DeepFool(classifier, nb_grads=10, epsilon=1e-3, batch_size=batch_size, verbose=False)]
        attacks += [SquareAttack(classifier, max_iter=queries, nb_restarts=starts, **of)]
        found = _array(images).copy()
        left = np.flatnonzero(classifier.predict(found).argmax(1) == truth)
        for attack in attacks:
            if len(left):
                tried = attack.generate(found[left], truth[left])
                within = np.abs(tried - found[left]).max((1, 2, 3)) <= eps * (1 + 1e-4)
                fooled = within & (classifier.predict(tried).argmax(1) != truth[left])
                found[left[fooled]] = tried[fooled]
                left = left[~fooled]
    return torch.from_numpy(found)


@contextlib.contextmanager
def _classifier(model, images, labels, eps, mean, std, limits, seed):
    """ART's view of the model, with ART's random numbers drawn from ``seed`` and the model in eval mode meanwhile."""
    from art.estimators.classification import PyTorchClassifier

    class Whole(nn.Module):
        """The model as one piece: of an nn.Sequential ART runs the layers, past the model's own ``forward``."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, values):  # ART computes in float32
            return self.model(values.to(parameter.dtype)).float()

    class Remembering(PyTorchClassifier):
        """Asks nothing twice: Square asks again in each step what it was told in the one before, thrice."""

        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            self.told = collections.deque([{}] * 3, maxlen=3)

        def predict(self, x, **how):
            names = [image.tobytes() for image in x]
            known = {name: answer for answers in self.told for name, answer in answers.items()}
            if new := [i for i, name in enumerate(names) if name not in known]:
                known.update(zip((names[i] for i in new), super().predict(x[new], **how), strict=True))
            self.told.append({name: known[name] for name in names})
            return np.stack([known[name] for name in names])

    labels = _check(model, images, labels, eps, limits)
    norm = checks.statistics(mean, std, images.shape[1])
    checks.seed(seed)
    checks.number(eps, "eps", 1e-6, 1)  # ART takes no 0
    if images.shape[2] != images.shape[3] or images.shape[2] < 5:
        raise ValueError(
            f"images must be square, of 5 pixels a side at least, for Square to draw on, not {tuple(images.shape)}."
        )
    parameter = like(model)
    state = np.random.get_state()  # noqa: NPY002 (ART draws from this generator)
    with evaluating(model), torch.no_grad():
        n_classes = logits_of(model(to_values(images[:1]).to(parameter)), int(labels.max()) + 1).shape[1]
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield Remembering(
                Whole(),
                nn.CrossEntropyLoss(),
                images.shape[1:],
                n_classes,
                clip_values=limits,
                preprocessing=tuple(np.float32(v)[:, None, None] for v in norm),
                device_type="gpu" if parameter.is_cuda else "cpu",
            )
        finally:
            np.random.set_state(state)  # noqa: NPY002


def _array(images):
    """Images as ART takes them: values in float32."""
    return to_values(images.detach().cpu()).float().numpy()


def noise(images: torch.Tensor, *, eps: float = EPS, seed: int = 0) -> torch.Tensor:
    """The control: each value changed by eps up or down at random, as much as any attack here may change it."""
    checks.values(checks.images(images), limits=(0, 1))
    checks.number(eps, "eps", 0, 1)
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(checks.seed(seed))) * 2 - 1
    return (to_values(images) + eps * signs).clamp(0, 1)


class Pipeline(nn.Module):
    """What somebody sees who may only ask: plain values in [0, 1] -> logits of the encrypted model, (N, classes).

    Encryption and normalisation happen inside, so that attacks on it take mean 0 and std 1.
    """

    def __init__(self, encrypted_model, cipher, *, mean, std):
        super().__init__()
        checks.instance(encrypted_model, nn.Module, "encrypted_model")
        checks.cipher(cipher, "encrypt")
        checks.statistics(mean, std, getattr(cipher, "channels", 3))
        self.model, self.cipher, self.norm = encrypted_model, cipher, (mean, std)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.model(normalise(self.cipher.encrypt(values), *self.norm))


def _check(model, images, labels, eps, limits):
    """``labels`` as int64; an error where an argument that all attacks share is wrong."""
    checks.instance(model, nn.Module, "model")
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        raise TypeError(
            f"limits must be two numbers, the lowest value and the highest, but this is {checks.shown(limits)}."
        )
    low, high = (checks.number(each, "limits", *checks.ENCRYPTED) for each in limits)
    if low >= high:
        raise ValueError(f"limits must be the lowest value and then the highest, but they are {low:g} and {high:g}.")
    checks.number(eps, "eps", 0, 1)
    return check_labelled(images, labels, (low, high))
