"""Wrong arguments of attacks: each gives one sentence of ours, and not what a library below says midway."""

import contextlib
import itertools
import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

from cmxlib import ConvMixer, PatchCipher, encrypt_model, key_trials, logits
from cmxlib.attacks import adversarial, higher_order, jigsaw, on_images, on_models, on_repairs
from cmxlib.learn.evaluate import normalise
from cmxlib.lock.conventional import key_space_bits
from cmxlib.lock.patch import to_blocks
from cmxlib.lock.position import PositionCipher, PositionEmbedding

from .test_bad_input import CIPHER, DATA, KEY, MIXING, MODEL, NORM, SETTINGS, X, Y

ONE = X[..., :4, :4]
W = torch.randn(60, 48, generator=torch.Generator().manual_seed(0))
STD = {"std": NORM["std"]}
ALL = {**NORM, "trials": 3}
BLANK = ConvMixer(8, 1, 3, 4)
nn.init.zeros_(BLANK[0].weight)
BARE = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
FORGETFUL = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.BatchNorm2d(8, track_running_stats=False))
MOMENTS = on_images.patch_moments(X, 4)
LOST = (np.full(48, np.nan), np.full((3, 48, 48), np.nan))


class Wavering(nn.Module):
    """Gives as many classes as there are images."""

    def forward(self, x):
        return x.flatten(1)[:, : len(x)]


class Deaf(nn.Module):
    """Answers without a gradient."""

    def forward(self, x):
        return torch.zeros(len(x), 10)


class Keeping(nn.Sequential):
    """Keeps something that cannot be copied."""

    def __init__(self, kept):
        super().__init__(nn.Conv2d(3, 8, 4, 4))
        self.kept = kept


class Itself(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


class Odd:
    """A cipher whose matrix, or channels, are as they are given."""

    def __init__(self, matrix, channels=3):
        self.found, self.channels = matrix, channels

    def encrypt(self, images):
        return images

    decrypt = encrypt

    def matrix(self, size):
        return self.found


def search(**options):
    return on_models.gradient_search(MODEL, X, Y, **NORM, iterations=1, **options)


def climb(**options):
    return on_models.hill_climb(MODEL, X, Y, **ALL, **options)


def statistics(model=MODEL, **options):
    return on_models.from_statistics(model, X, **ALL, **options)


def thief(**options):
    return on_models.retrain(MODEL, DATA, 2, SETTINGS, n_steps=1, **options)


def found(public, **options):
    return on_images.ciphertext_only(X, public, **options)


SEEDED = {
    "ciphertext_only": lambda seed: found(X, seed=seed),
    "components": lambda seed: higher_order.independent_components(X, 4, seed=seed),
    "places": lambda seed: jigsaw.jigsaw_of_places(X, X, seed=seed),
    "random keys": lambda seed: on_models.random_keys(MODEL, X, Y, **ALL, seed=seed),
    "climb": lambda seed: climb(seed=seed),
    "search": lambda seed: search(seed=seed),
    "statistics": lambda seed: statistics(seed=seed),
    "filters": lambda seed: on_models.from_filters(MODEL, MODEL, **STD, seed=seed),
    "pgd": lambda seed: adversarial.pgd(MODEL, X, Y, **NORM, seed=seed),
    "square": lambda seed: adversarial.square(MODEL, X, Y, **NORM, seed=seed),
    "autoattack": lambda seed: adversarial.autoattack(MODEL, X, Y, **NORM, seed=seed),
    "noise": lambda seed: adversarial.noise(X, seed=seed),
}


@pytest.mark.parametrize("attack", SEEDED)
def test_a_seed_is_a_whole_number_that_every_generator_takes(attack):
    for seed, error in {None: TypeError, "a": TypeError, 1.5: TypeError, -1: ValueError, 2**32: ValueError}.items():
        with pytest.raises(error, match="seed must be a whole number"):
            SEEDED[attack](seed)


ROWS = {
    "images of no channel": (lambda: found(X[:, :0]), ValueError, "public must hold at least one image"),
    "images that ask for gradients": (
        lambda: on_images.ciphertext_only((X / 255).requires_grad_(), X),
        ValueError,
        r"use images.detach\(\)",
    ),
    "steps without an end": (lambda: found(X, steps=itertools.count()), TypeError, "steps must be a tuple of names"),
    "steps as arrays": (lambda: found(X, steps=(np.ones(2), np.ones(2))), ValueError, "steps must be different ones"),
    "neighbours as an array": (lambda: found(X, neighbours=np.ones(2)), TypeError, "neighbours must be True or False"),
    "steps of 30 digits": (lambda: adversarial.pgd(MODEL, X, Y, **NORM, steps=10**30), ValueError, "steps must be"),
    "images for steps": (lambda: adversarial.pgd(MODEL, X, Y, **NORM, steps=X), TypeError, "steps must be a whole"),
    "numbers for moments": (lambda: found((1, 2)), ValueError, "be what patch_moments makes"),
    "three moments": (lambda: found((*MOMENTS, 0)), ValueError, "be what patch_moments makes"),
    "moments of patches of 2": (lambda: found(on_images.patch_moments(X, 2)), ValueError, r"the shapes \(48,\) and"),
    "moments of nothing": (lambda: found(LOST), ValueError, "finite arrays of"),
    "patches of 64": (
        lambda: on_images.ciphertext_only(*[X.repeat(1, 1, 8, 8)] * 2, 64),
        ValueError,
        "12,288 entries, over 1,024, would be matched for hours",
    ),
    "whole numbers for values": (
        lambda: normalise(X, **NORM, dtype=torch.int64),
        TypeError,
        "dtype must be a floating type",
    ),
    "moments of letters": (lambda: found((np.full(48, "a"), np.full((3, 48, 48), "a"))), ValueError, "finite arrays"),
    "imaginary moments": (lambda: found((MOMENTS[0] * 1j, MOMENTS[1])), ValueError, "finite arrays of"),
    "one colour seen": (lambda: on_images.ciphertext_only(0 * X, X, neighbours=False), ValueError, "patches are alike"),
    "a chosen patch of 10**9": (lambda: on_images.chosen_image(10**9), ValueError, "over 16,384"),
    "10**9 colours": (lambda: on_images.chosen_image(4, 10**9), ValueError, "over 16,384"),
    "bits of 10**5": (lambda: on_repairs.chosen_image_of_bits(10**5), ValueError, "over 16,384"),
    "10**6 pixels": (lambda: on_repairs.chosen_image_by_position(4, 3, 10**6), ValueError, "image_size must be"),
    "climbing mixed": (lambda: climb(steps=("orthogonal",)), ValueError, "which this attack knows"),
    "climbing nothing": (lambda: climb(steps=()), ValueError, "steps must be"),
    "a mixed start": (lambda: climb(start=MIXING), ValueError, "start must be a cipher of shuffles and flips"),
    "a start of 2": (lambda: climb(start=PatchCipher(KEY, 2)), ValueError, "in blocks of 4 pixels"),
    "arrays to start": (lambda: climb(start=np.ones(2)), TypeError, "start must be a PatchCipher"),
    "a key to start": (lambda: climb(start=KEY), TypeError, "start must be a PatchCipher"),
    "random, of no steps": (
        lambda: on_models.random_keys(MODEL, X, Y, **ALL, steps=("no",)),
        ValueError,
        "steps must be",
    ),
    "5 flips": (lambda: search(flipped=np.zeros(5, bool)), ValueError, "flipped must be 48 truth values"),
    "flips as floats": (lambda: search(flipped=np.zeros(48)), ValueError, "flipped must be 48 truth values"),
    "searched by none": (lambda: search(batch_size=0), ValueError, "batch_size must be"),
    "searched at NaN": (lambda: search(lr=float("nan")), ValueError, "lr must be"),
    "no batch normalisation": (lambda: statistics(BARE), ValueError, "must be followed by an activation"),
    "one that forgets": (lambda: statistics(FORGETFUL), ValueError, "a batch normalisation that keeps means"),
    "nothing behind it": (lambda: statistics(BARE[:1]), ValueError, "must be followed by an activation"),
    "one patch of means": (lambda: statistics(n_patches=1), ValueError, "n_patches must be"),
    "one patch seen": (lambda: on_models.from_statistics(MODEL, ONE[:1], **ALL), ValueError, "two patches at least"),
    "statistics of grey levels": (
        lambda: on_models.from_statistics(MODEL, X, mean=(125,) * 3, std=(60,) * 3, trials=1),
        ValueError,
        "divide both by 255",
    ),
    "searched by one mean": (
        lambda: on_models.gradient_search(MODEL, X, Y, mean=0.5, std=0.3, iterations=1),
        ValueError,
        "mean must hold 3 numbers",
    ),
    "no settings": (
        lambda: on_models.retrain(MODEL, DATA, 2, None, n_steps=1),
        TypeError,
        "settings must be a TrainSettings",
    ),
    "half of a training": (lambda: thief(train=np.array(["all"])), ValueError, 'train must be "everything" or'),
    "frozen in part": (lambda: thief(frozen=np.ones(2)), TypeError, "frozen must be True or False"),
    "no thief's model": (
        lambda: on_models.retrain(None, DATA, 2, SETTINGS, n_steps=1),
        TypeError,
        "model must be a torch module",
    ),
    "steps without end": (
        lambda: on_models.retrain(MODEL, DATA, 2, SETTINGS, n_steps=10**14),
        ValueError,
        "n_steps must be",
    ),
    "statistics, mixed": (lambda: statistics(steps=("orthogonal",)), ValueError, "which this attack knows"),
    "filters by 0": (lambda: on_models.from_filters(MODEL, MODEL, std=(0, 0, 0)), ValueError, "Every std must be"),
    "filters of 0": (lambda: on_models.from_filters(BLANK, MODEL, **STD), ValueError, "not all of them 0"),
    "square, on one pixel": (
        lambda: adversarial.square(MODEL, X[..., :1, :1], Y, **NORM),
        ValueError,
        "must be square, of 5",
    ),
    "square, on a strip": (
        lambda: adversarial.square(MODEL, X[..., :8], Y, **NORM),
        ValueError,
        "must be square, of 5 pixels",
    ),
    "square, of nothing": (lambda: adversarial.square(MODEL, X, Y, **NORM, eps=0), ValueError, "eps must be"),
    "square, of grey levels": (
        lambda: adversarial.square(MODEL, X, Y, mean=(125,) * 3, std=(60,) * 3),
        ValueError,
        "divide both by 255",
    ),
    "autoattack, std 0": (lambda: adversarial.autoattack(MODEL, X, Y, mean=(0,) * 3, std=(0,) * 3), ValueError, "std"),
    "a model of answers": (lambda: adversarial.pgd(Deaf(), X, Y, **NORM), ValueError, "gives no gradient"),
    "noise on what is encrypted": (
        lambda: adversarial.noise(MIXING.encrypt(X)),
        ValueError,
        r"values in \[0, 1",
    ),
    "no starts": (lambda: adversarial.autoattack(MODEL, X, Y, **NORM, starts=0), ValueError, "starts must be"),
    "a pipeline of a key": (lambda: adversarial.Pipeline(MODEL, KEY, **NORM), TypeError, "cipher must be"),
    "components of a wall": (lambda: higher_order.independent_components(0 * X, 4), ValueError, "more than one value"),
    "components of a patch": (
        lambda: higher_order.independent_components(X[:1], 4),
        ValueError,
        "must hold more than 48 patches",
    ),
    "a start of ones": (
        lambda: higher_order.independent_components(X, 4, np.ones((48, 48))),
        ValueError,
        "start must be an orthogonal",
    ),
    "components of 4 of them": (
        lambda: higher_order.by_components(X, np.eye(4), MIXING, 4),
        ValueError,
        "components and estimate must be",
    ),
    "no estimate": (lambda: higher_order.by_components(X, np.eye(48), None, 4), TypeError, "cipher must be"),
    "one piece": (lambda: jigsaw.jigsaw_by_position(ONE, ONE), ValueError, "of several patches"),
    "a wall": (lambda: jigsaw.jigsaw_by_position(0 * X, X), ValueError, "encrypted must hold more than one"),
    "pieces of two sizes": (lambda: jigsaw.jigsaw_of_places(X, X[..., :8]), ValueError, "must have one shape"),
    "one patch": (
        lambda: on_repairs.ciphertext_only_by_position(ONE, ONE),
        ValueError,
        "use ciphertext_only",
    ),
    "a wall by position": (
        lambda: on_repairs.ciphertext_only_by_position(X, 0 * X),
        ValueError,
        "public must hold more than one",
    ),
    "filters of NaN": (
        lambda: on_repairs.relative_cipher(W, W * torch.nan, **STD, patch_size=4),
        ValueError,
        "other must be finite filters",
    ),
    "a std for all": (
        lambda: on_repairs.relative_cipher(W, W, std=None, patch_size=4),
        TypeError,
        "std must be",
    ),
    "imaginary filters": (
        lambda: on_repairs.relative_cipher(W * 1j, W, **STD, patch_size=4),
        ValueError,
        "weight must be filters",
    ),
    "mixed bits": (
        lambda: on_repairs.ciphertext_and_model_of_bits(X, W, X, steps=("orthogonal",)),
        ValueError,
        "which this attack knows",
    ),
    "no filters": (
        lambda: on_repairs.relative_cipher(W[:0], W[:0], **STD, patch_size=4),
        ValueError,
        "weight must be finite filters, one at least",
    ),
    "black filters": (
        lambda: on_repairs.relative_cipher(0 * W, W, **STD, patch_size=4),
        ValueError,
        "not all of them 0",
    ),
    "a convolution by position": (
        lambda: on_repairs.ciphertext_and_model_by_position(X, MODEL[0], X, **STD),
        TypeError,
        "embedding must be a PositionEmbedding",
    ),
    "a lock in the model": (
        lambda: encrypt_model(Keeping(threading.Lock()), CIPHER, **NORM),
        TypeError,
        "model cannot be copied",
    ),
    "a generator in it": (
        lambda: encrypt_model(Keeping(iter(range(3)) and (i for i in ())), CIPHER, **NORM),
        TypeError,
        "model cannot be copied",
    ),
    "an activation in it": (
        lambda: encrypt_model(Keeping(MODEL[0].weight * 2), CIPHER, **NORM),
        TypeError,
        "model cannot be copied",
    ),
    "a copy that is none": (
        lambda: encrypt_model(Itself(nn.Conv2d(3, 8, 4, 4)), CIPHER, **NORM),
        TypeError,
        "gives the model itself",
    ),
    "no matrix": (lambda: encrypt_model(MODEL, Odd(None), **NORM), TypeError, "cipher.matrix must give"),
    "channels of '3'": (lambda: encrypt_model(MODEL, Odd(None, "3"), **NORM), TypeError, "cipher.channels must be"),
    "no filters at all": (
        lambda: encrypt_model(nn.Sequential(nn.Conv2d(3, 0, 4, 4)), CIPHER, **NORM),
        ValueError,
        "it has no filters",
    ),
    "as many classes as images": (
        lambda: logits(Wavering(), X, **NORM, batch_size=3),
        ValueError,
        "of as many classes for each batch",
    ),
    "a network of terabytes": (lambda: ConvMixer(2**23, 1), MemoryError, "not enough memory for a network"),
    "a network of 10**9": (lambda: ConvMixer(10**9, 1), ValueError, "dim must be a whole number from 1 to"),
    "a network as deep as the sea": (lambda: ConvMixer(1, 200_000), ValueError, "depth must be"),
    "a picture of the earth": (
        lambda: PositionCipher(KEY, 4, image_size=20_000),
        ValueError,
        "over 16,384 positions",
    ),
    "10**30 wrong keys": (lambda: key_trials(MODEL, DATA, {}, 10**30), ValueError, "n_wrong must be"),
    "keys without an end": (
        lambda: key_trials(MODEL, DATA, {}, itertools.count(1)),
        ValueError,
        "over 1,000,000 keys",
    ),
}


@pytest.mark.parametrize(("call", "error", "words"), ROWS.values(), ids=ROWS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_wrong_argument_is_refused_in_a_sentence(call, error, words, limit):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, contextlib.nullcontext])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_attacks_that_need_gradients_have_them_wherever_they_are_called_from(mode, dtype):
    model = ConvMixer(8, 1, 3, 4).eval().to(dtype)
    with mode():
        cipher, losses = on_models.gradient_search(model, X, Y, **NORM, iterations=3)
        changed = adversarial.pgd(model, X, Y, **NORM, steps=2)
        asked = adversarial.square(model, X, Y, **NORM, queries=2)
    assert cipher.n == 48 and np.isfinite(losses).all() and next(model.parameters()).dtype == dtype
    assert 0 < (changed - X / 255).abs().max() <= adversarial.EPS + 1e-6 and asked.isfinite().all()


@pytest.mark.parametrize(("size", "channels"), [(128, 1), (64, 4)])
def test_a_chosen_image_numbers_each_entry_of_the_largest_patches(size, channels):
    blocks = to_blocks(on_images.chosen_image(size, channels), size)[0]
    assert len(torch.unique(blocks, dim=1).T) == size**2 * channels and blocks.max() < 127


def test_a_thief_who_is_refused_leaves_the_model_as_it_was():
    model = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="no patch embedding"):
        on_models.retrain(model, DATA, 2, SETTINGS, n_steps=1, train="embedding")
    assert all(p.requires_grad for p in model.parameters())


def test_keys_of_large_images_are_counted_at_once(limit):
    assert key_space_bits("ELE", block_size=1, image_size=(4000, 6000)) == pytest.approx(
        24e6 * key_space_bits("LE", block_size=1) + math.lgamma(24e6 + 1) / math.log(2)
    )


def test_pieces_of_one_colour_are_solved_as_those_of_three_are():
    rough = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 200
    images = nn.functional.interpolate(rough, 16, mode="bilinear").to(torch.uint8)
    cipher = PositionCipher.etc(KEY, 4, 1, image_size=16)
    estimate = jigsaw.jigsaw_by_position(cipher.encrypt(images), images)
    assert torch.equal(estimate.decrypt(cipher.encrypt(images)), images)


def test_an_embedding_by_position_is_what_the_attack_on_it_takes():
    embedding = PositionEmbedding(W.repeat(16, 1, 1), torch.zeros(16, 60), 4)
    estimate = on_repairs.ciphertext_and_model_by_position(X, embedding, X, **STD)
    assert len(estimate.ciphers) == 16
