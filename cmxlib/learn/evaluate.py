"""Logits, accuracies, and what they become under correct, wrong and missing keys."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..lock import checks
from ..lock.keys import SecretKey
from ..lock.model import decrypt_model, encrypt_model, find_embedding
from ..lock.patch import PatchCipher
from ..lock.probe import evaluating, like
from ..lock.use import Take, taken
from ..paths import need
from .convmixer import ConvMixer
from .data import Dataset
from .device import memory_for

if TYPE_CHECKING:
    import pandas as pd


def normalise(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(v - mean) / std per channel, for images (N, C, H, W) or (C, H, W), where v in [0, 1] is the float value or
    uint8 / 255."""
    mean, std = checks.statistics(mean, std, checks.images(images, ndim=(3, 4)).shape[-3])
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize > 1):
        raise TypeError(
            f"dtype must be a floating type of 16 bits at least, such as torch.float32, not {checks.shown(dtype)}."
        )
    # mean and std are made in the final type: going through float32 would cost a float64 model nine digits.
    mean, std = (torch.as_tensor(v, dtype=dtype, device=images.device).view(-1, 1, 1) for v in (mean, std))
    values = images.to(dtype)
    if images.dtype == torch.uint8:
        values /= 255
    return values.sub_(mean).div_(std) if values is not images else (values - mean) / std


@torch.no_grad()
def logits(
    model: nn.Module,
    images: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 500,
    autocast: bool = False,
    take: Take = None,
) -> torch.Tensor:
    """The model's logits (N, classes), on the CPU, computed where the model is, in the type of its parameters.

    Args:
        model: any classifier of normalised images, with an output (N, classes) or one whose ``logits`` are that; or
            ``take`` says what to take of its output. It is in eval mode during the call, and each of its modules in
            its own mode afterwards.
        images: (N, C, H, W), uint8 or float in [0, 1].
        mean, std: per channel, of values in [0, 1].
        autocast: compute in bfloat16 where that is safe. Quicker, good to about two digits: for accuracies, not
            for exactness.

    MemoryError where there is not enough for ``batch_size``.
    """
    checks.instance(model, nn.Module, "model")
    checks.values(checks.images(images))
    if isinstance(model, ConvMixer):  # of other models nothing is known
        model.check_shape(images)
    checks.statistics(mean, std, images.shape[1])
    batch_size = checks.whole(batch_size, "batch_size", 1, 2**31)
    checks.instance(autocast, bool, "autocast")
    as_held = like(model)
    if as_held.is_meta or as_held.dtype.itemsize == 1:
        raise ValueError(
            f"model is {as_held.dtype} on {as_held.device}, in which nothing can be computed: load or convert it."
        )
    found = []
    enough = memory_for("the logits", batch_size)
    with enough, evaluating(model), torch.autocast(as_held.device.type, torch.bfloat16, enabled=autocast):
        # Of no images, one that is thrown away tells the number of classes.
        for batch in (images if len(images) else images.new_zeros(1, *images.shape[1:])).split(batch_size):
            batch = normalise(batch.to(as_held.device), mean, std, as_held.dtype)
            with _types_blamed(model):
                output = model(batch.contiguous(memory_format=torch.channels_last))
            found.append(checks.tensor(logits_of(output, take=take), "The model's logits").to(as_held.dtype))
            if found[-1].shape != (len(batch), found[0].shape[1]):
                raise ValueError(
                    f"The model must give logits (N, classes), of as many classes for each batch, but for {len(batch)} "
                    f"images gave {tuple(found[-1].shape)}: a function take= may say where in its output they are."
                )
    return torch.cat(found)[: len(images)].cpu()


@contextmanager
def _types_blamed(model: nn.Module) -> Iterator[None]:
    """TypeError where a model of several types fails in the block with words of torch on them."""
    try:
        yield
    except RuntimeError as error:
        types = sorted({str(p.dtype) for p in model.parameters() if p.is_floating_point()})
        if len(types) < 2 or not any(word in str(error) for word in ("dtype", "scalar type", "type (")):
            raise
        raise TypeError(
            f"The model's parameters are {' and '.join(types)}, and what one layer gives the next does not take: cast "
            f"between them in its forward, or use model.float() (torch says: {error})."
        ) from error


def logits_of(output: Any, n_classes: int = 1, take: Take = None) -> torch.Tensor:
    """The logits (N, classes) in a model's output: what ``take`` takes of it, else itself or its ``logits``. ValueError
    where there are none, or fewer than ``n_classes``."""
    output = taken(output, take)
    ordinary = isinstance(output, torch.Tensor) and not output.is_nested
    if isinstance(output, torch.Tensor) and not (
        ordinary and output.is_floating_point() and output.layout == torch.strided
    ):
        raise TypeError(
            f"The model's logits must be ordinary floating tensors, but are {output.dtype}, {output.layout}."
        )
    shape = tuple(output.shape) if ordinary else type(output).__name__
    if ordinary and output.ndim == 2 and output.shape[1]:
        way_out = f"make it with as many as the labels name, not with {output.shape[1]}"
    else:
        way_out = "wrap it in a module that gives them, or say by take=, where a function has it, where they are"
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < n_classes:
        raise ValueError(
            f"The model must give logits (N, classes) for at least {n_classes} classes, but gave {shape}: {way_out}."
        )
    return output


def accuracy(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    **options: Any,
) -> float:
    """The share, in [0, 1], of images that the model classifies as labelled; ``options`` go to ``logits``."""
    return _share(logits(model, images, mean=mean, std=std, **options), labels)


def _share(found: torch.Tensor, labels: torch.Tensor) -> float:
    labels = checks.labels(labels, len(found)).cpu()
    if not len(labels):
        raise ValueError("There are no images, and so no accuracy.")
    if not 0 <= labels.min() <= labels.max() < found.shape[1]:
        raise ValueError(
            f"labels must be classes from 0 to {found.shape[1] - 1}, as the model has them, "
            f"but they run from {labels.min()} to {labels.max()}."
        )
    if found.isnan().any():
        raise ValueError(
            "The model's logits are no numbers (NaN), so that they tell no class: look at it and the images."
        )
    return (found.argmax(1) == labels).double().mean().item()


# -- trials of keys ---------------------------------------------------------------------------------------------------

_MOST_KEYS = 1_000_000  # of one call, which keeps the rows of all in memory

Cipher = Mapping | Callable[[SecretKey], object] | object


def key_trials(
    model: nn.Module,
    data: Dataset,
    cipher: Cipher,
    n_wrong: int | Iterable[int] | None = None,
    *,
    n_images: int | None = None,
    seed: int = 0,
    take: Take = None,
    **options: Any,
) -> "pd.DataFrame":
    """Accuracy of a plain model and of its encrypted twin, under correct, wrong and missing keys.

    Args:
        model: a trained plain classifier with a patch embedding.
        data: the Dataset whose first ``n_images`` test images are used (all by default).
        cipher: arguments of PatchCipher without the key, such as dict(patch_size=4, steps=("shuffle",)); or a function
            from a SecretKey to a cipher; or a cipher, which has no wrong keys. A cipher has encrypt, decrypt, matrix.
        n_wrong: how many wrong keys (10 by default): SecretKey.for_experiment(seed + 1), (seed + 2) and so on; or
            their numbers themselves, such as range(11, 21).
        seed: the correct key is SecretKey.for_experiment(seed).
        take: from the model's output to its logits, as for ``logits``.
        options: go to ``logits`` for the wrong keys; all other cases are computed in the model's own type.

    Returns a tidy DataFrame, one row a case and key, with the columns

        case                  "plain", "correct key", "wrong key", "no key" (plain images into the encrypted model),
                              or "encrypted images into the plain model"
        key_seed              of the key that encrypted the images (-1: none, or the cipher that was given)
        accuracy              in [0, 1]
        n_images
        differ                predictions that differ from the plain model's on plain images
        max_logit_difference  the largest absolute difference of a logit from the plain model's, likewise
    """
    pandas = need("pandas", "book")
    checks.instance(data, Dataset, "data")
    seed = checks.whole(seed, "seed", 0)
    if n_images is not None:
        n_images = checks.whole(n_images, "n_images", 1, len(data.test_images))
    if n_wrong is None:
        n_wrong = 0 if _is_cipher(cipher) else 10
    if not isinstance(n_wrong, Iterable):
        n_wrong = range(seed + 1, seed + 1 + checks.whole(n_wrong, "n_wrong", 0, _MOST_KEYS))
    given = checks.items(n_wrong, _MOST_KEYS)
    if given is None:
        raise TypeError(f"n_wrong must be a whole number or the numbers of keys, but this is {checks.shown(n_wrong)}.")
    wrong_seeds = [_wrong(cipher, key_seed, seed) for key_seed in given]
    if len(wrong_seeds) > _MOST_KEYS:
        raise ValueError(f"n_wrong names over {_MOST_KEYS:,} keys: try them in several calls.")
    if len(set(wrong_seeds)) < len(wrong_seeds):
        raise ValueError(f"n_wrong must name each wrong key once, but it names {checks.shown(wrong_seeds)}.")
    locked = _locked(model, data, cipher, seed)
    rows, plain = _right(model, locked, data, cipher, n_images, seed, take)
    for key_seed in wrong_seeds:
        found = _wrong_logits(locked, data, cipher, key_seed, n_images, {**options, "take": take})
        rows.append(_row("wrong key", key_seed, found, plain, data))
    return pandas.DataFrame(rows)


def right_key_rows(model: nn.Module, data: Dataset, cipher: Cipher) -> list[dict]:
    """The rows of ``key_trials`` that are of no wrong key, as dicts; arguments as there."""
    return _right(model, _locked(model, data, cipher, 0), data, cipher, None, 0)[0]


def wrong_key_accuracy(
    model: nn.Module, data: Dataset, cipher: Cipher, key_seed: int, *, n_images: int | None = None, **options: Any
) -> float:
    """Accuracy on test images encrypted with SecretKey.for_experiment(key_seed), of the model encrypted with
    for_experiment(0); arguments as for ``key_trials``."""
    key_seed, locked = _wrong(cipher, key_seed, 0), _locked(model, data, cipher, 0)
    found = _wrong_logits(locked, data, cipher, key_seed, n_images, options)
    return _share(found, data.test_labels[: len(found)])


def opener(model: nn.Module, data: Dataset, cipher: Cipher) -> Callable[[int], nn.Module]:
    """A function from a wrong key's number to what the model, encrypted with for_experiment(0), makes of plain images
    that this key encrypts: one network, whose first layer each call exchanges.

    A key then costs a millisecond, and not the look at the whole network that ``decrypt_model`` takes first. Arguments
    as for ``key_trials``; the embedding must be a convolution.
    """
    opened = _locked(model, data, cipher, 0)
    name, layer = find_embedding(opened, data.train_images.shape[1])

    def at(key_seed: int) -> nn.Module:
        opened.set_submodule(name, decrypt_model(layer, _made(cipher, _wrong(cipher, key_seed, 0)), **data.norm))
        return opened

    return at


def share_right(model: nn.Module, data: Dataset, which: torch.Tensor) -> float:
    """The share, in [0, 1], of some test images, by their numbers, that a model classifies as labelled."""
    return _share(logits(model, data.test_images[which], **data.norm), data.test_labels[which])


def _is_cipher(cipher: Cipher) -> bool:
    verbs = all(hasattr(cipher, verb) for verb in ("encrypt", "decrypt", "matrix"))
    return verbs and not isinstance(cipher, type)  # a class is a function from a key


def _made(cipher: Cipher, key_seed: int):
    """The cipher of an experiment key."""
    if _is_cipher(cipher):
        return cipher
    key = SecretKey.for_experiment(key_seed)
    if isinstance(cipher, Mapping):
        try:
            return PatchCipher(key, **cipher)
        except TypeError as error:
            raise TypeError(f"cipher must be a mapping of PatchCipher's arguments ({error}).") from error
    if callable(cipher):
        return cipher(key)
    raise TypeError(
        "cipher must be a mapping of PatchCipher's arguments, a function from a SecretKey to a cipher, or an object "
        f"with encrypt, decrypt and matrix, but this is {type(cipher).__name__}."
    )


def _wrong(cipher: Cipher, key_seed: int, seed: int) -> int:
    """``key_seed``, if it is the number of a wrong key."""
    if _is_cipher(cipher):
        raise ValueError("A cipher has no wrong keys to try: leave n_wrong out, or give a function that makes one.")
    if (key_seed := checks.whole(key_seed, "a key's number", 0)) == seed:
        raise ValueError(f"Key {seed} is the correct one: choose other numbers for wrong keys, or another seed.")
    return key_seed


def _locked(model, data, cipher, seed):
    checks.instance(data, Dataset, "data")
    return encrypt_model(model, _made(cipher, seed), mean=data.mean, std=data.std)


def _right(model, locked, data, cipher, n_images, seed, take=None):
    """The rows of all cases but wrong keys, and the plain model's logits."""
    images, how = _images(data, n_images), {**data.norm, "take": take}
    encrypted = _made(cipher, seed).encrypt(images.clone())  # for one of the reader's own may change what it is given
    seed = -1 if _is_cipher(cipher) else seed
    plain = logits(model, images, **how)
    cases = [
        ("plain", -1, plain),
        ("correct key", seed, logits(locked, encrypted, **how)),
        ("no key", -1, logits(locked, images, **how)),
        ("encrypted images into the plain model", seed, logits(model, encrypted, **how)),
    ]
    return [_row(case, key_seed, found, plain, data) for case, key_seed, found in cases], plain


def _wrong_logits(locked, data, cipher, key_seed, n_images, options):
    """Logits of images encrypted with a wrong key. The wrong map folds into the encrypted model's embedding, so that
    each key costs one forward pass and no encryption of images."""
    norm = data.norm
    opened = decrypt_model(locked, _made(cipher, key_seed), **norm)
    return logits(opened, _images(data, n_images), **norm, **options)


def _images(data, n_images):
    return data.test_images[: None if n_images is None else checks.whole(n_images, "n_images", 1)]


def _row(case, key_seed, found, plain, data):
    return {
        "case": case,
        "key_seed": key_seed,
        "accuracy": _share(found, data.test_labels[: len(found)]),
        "n_images": len(found),
        "differ": (found.argmax(1) != plain.argmax(1)).sum().item(),
        "max_logit_difference": (found - plain).abs().max().item(),
    }
