"""Wrong values of all public rooms, of kinds that look right: each gives one sentence of ours, and nothing is written
or computed that could not be read or undone. And right values in odd types: labels and tensors of all widths."""

import dataclasses
import itertools
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from torch import nn

from cmxlib import (
    ConvMixer,
    Dataset,
    PatchCipher,
    Scale,
    SecretKey,
    TrainSettings,
    accuracy,
    encrypt_model,
    fit,
    key_trials,
    load_dataset,
    logits,
    trained_model,
)
from cmxlib.attacks import adversarial, metrics, on_models
from cmxlib.book import challenge, claims, drawings, figures, summaries, widgets
from cmxlib.learn.checkpoint import CheckpointError, load_model, save_model
from cmxlib.learn.evaluate import right_key_rows
from cmxlib.learn.fontdigits import draw_fontdigits
from cmxlib.lock import bits, near, norm, position, use
from cmxlib.lock.blocks import BlockCipher
from cmxlib.lock.conventional import make_cipher
from cmxlib.lock.embedding import find_embedding
from cmxlib.lock.pixels import to_bytes
from cmxlib.study import records, sampling, table, tables
from cmxlib.study.scales import AttackSettings

from .test_bad_input import CIPHER, DATA, KEY, LOST, MODEL, NORM, SETTINGS, V, X, Y

RNG, PLACES = np.random.default_rng(0), np.arange(16)
P4 = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4}
BARE = nn.Conv2d(3, 8, 4, 4)
ORIGIN = dict.fromkeys(records.ORIGIN, "x") | {"seconds": 1.0}
EYE = np.eye(48)
HISTORY = pd.DataFrame([{"epoch": 1}])


class Own:
    """A cipher of one's own that changes nothing, and says of itself what it is given."""

    def __init__(self, **said):
        vars(self).update(said)

    def encrypt(self, images):
        return images

    decrypt = encrypt

    def matrix(self, size):
        return np.eye(3 * size**2), np.zeros(3 * size**2)


class Noted(nn.Sequential):
    """A model that keeps more than tensors."""

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


class Given(nn.Module):
    """Gives what a function makes of the outputs of a convolution."""

    def __init__(self, then):
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 8, 4, 4), then

    def forward(self, images):
        return self.then(self.conv(images))


class Nothing(nn.Module):
    """A model without parameters."""

    def forward(self, images):
        return images.flatten(1)[:, :10]


class Transformed:
    """Such as a data set of torchvision, whose transforms want an image."""

    def transforms(self, image, target):
        return image, target


def places(given=PLACES, patches=CIPHER):
    return BlockCipher.from_places(patches, given, 16)


def locked(cipher=CIPHER, model=MODEL, **options):
    return encrypt_model(model, cipher, **{**NORM, **options})


def by_position(model=MODEL, size=4):
    return position.encrypt_model_by_position(model, position.PositionCipher(KEY, size, image_size=16), **NORM)


def sparse():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4))
    model[0].weight = nn.Parameter(model[0].weight.detach().to_sparse())
    return model


def verified(model, encrypted=None):
    return use.verify(model, model if encrypted is None else encrypted, CIPHER, X, **NORM)


def with_classes(classes):
    return dataclasses.replace(DATA, classes=classes)


def scale(**changes):
    return Scale(**{"name": "x", "dataset": DATA, "model": P4, "train": SETTINGS, "n_wrong": 1} | changes)


def written(value=1, **row):
    """A row that is refused leaves no file."""
    try:
        records.write("rows.csv", [{"measure": "a", "value": value, **row}], ORIGIN)
    finally:
        assert not Path("rows.csv").exists()


def came_from(**changes):
    about = {"scale": "x", "dataset": "d", "settings": {}, "seeds": 0, "n_images": 1, "seconds": 1}
    return records.provenance(**about | changes)


def train(**options):
    return fit(ConvMixer(8, 1, 3, 4), DATA, SETTINGS, progress=False, **options)


def sampled(accuracy, most_images=500):
    return sampling.mean_of_keys(lambda key, m: accuracy, 0.01, 100, most_images)


def recorded(**changes):
    """Two rows as those of the table `keys`."""
    row = {"measure": "accuracy", "value": 0.5, "patch_size": 4, "steps": "flip", "case": "wrong key"}
    return pd.DataFrame([row | changes] * 2)


REPAIR = {"repair": "single bits", "attack": "ciphertext only", "seen": 9, "draw": 0, "settings": '{"public": 9}'}
ANSWERS = logits(MODEL, X, **NORM).argmax(1)


def turning(labels):
    return widgets.turn_the_key(MODEL, X, labels, CIPHER, PatchCipher(SecretKey.for_experiment(2)), **NORM)


def no_number_later():
    """A transform whose first batch alone is of numbers."""
    calls = itertools.count()
    return lambda images: images / 255 * (torch.nan if next(calls) else 1)


LOCK = {
    "steps in a set": (
        lambda: PatchCipher(KEY, steps={"shuffle", "flip"}),
        TypeError,
        "steps must be a tuple of names",
    ),
    "steps without end": (lambda: PatchCipher(KEY, steps=itertools.count()), TypeError, "steps must be a tuple"),
    "steps in an array": (lambda: PatchCipher(KEY, steps=[np.arange(2)]), ValueError, "steps must be different ones"),
    "channels of 5,001 digits": (lambda: PatchCipher(KEY, 4, 10**5000), ValueError, "is of over 30 digits"),
    "a lazy layer's images": (
        lambda: CIPHER.encrypt(nn.UninitializedParameter()),
        TypeError,
        "without values, of a lazy layer: run the model once",
    ),
    "one entry": (lambda: PatchCipher.from_entries(0, [0] * 48), ValueError, "A block has 48 entries"),
    "a conjugate matrix": (
        lambda: PatchCipher.from_affine(torch.eye(48).to(torch.complex64).conj(), np.zeros(48)),
        TypeError,
        "must be real numbers",
    ),
    "places for patches of '4'": (lambda: places().matrix("4"), TypeError, "patch_size must be a whole number"),
    "places for patches in an array": (lambda: places().matrix(V), TypeError, "patch_size must be a whole number"),
    "a std of dates": (
        lambda: locked(std=np.array(["2020-01-01"] * 3, "M8[D]")),
        TypeError,
        "std must be 3 numbers, one a channel",
    ),
    "a std with holes": (lambda: locked(std=np.ma.masked_array([1.0] * 3, [0, 1, 0])), TypeError, "std must be 3"),
    "a complex mean": (lambda: locked(mean=np.full(3, 0.5j)), TypeError, "mean must be 3 numbers"),
    "methods in an array": (lambda: make_cipher(np.array(["LE"]), KEY), ValueError, "no conventional method array"),
    "keys for 4 million blocks": (
        lambda: make_cipher("ELE", KEY, block_size=1, image_size=(2048, 2048)),
        ValueError,
        "a key for each of the 4,194,304 blocks .* over ten seconds: choose a larger block_size",
    ),
    "a table of gigabytes": (
        lambda: make_cipher("PE", KEY, image_size=(8192, 8192)),
        ValueError,
        "over 16,777,216 pixels: choose smaller images",
    ),
    "blocks of millions of entries": (
        lambda: make_cipher("NP", KEY, block_size=2**20, image_size=(2**20, 2**20)),
        ValueError,
        "block_size of 1048576, NP draws a permutation of over 10,000,000 entries",
    ),
    "blocks without end that change places": (
        lambda: make_cipher("EtC", KEY, block_size=1, image_size=(4096, 4096)),
        ValueError,
        "block_size of 1, EtC draws a permutation of over 10,000,000 entries",
    ),
    "patches without end that move": (
        lambda: BlockCipher(KEY, 1, 3, image_size=2**20),
        ValueError,
        "image_size of 1048576 x 1048576 makes 1,099,511,627,776 patches",
    ),
    "positions without end": (
        lambda: position.PositionCipher.from_ciphers(itertools.count()),
        TypeError,
        "ciphers must be PatchCiphers",
    ),
    "EtC of a million": (lambda: position.etc_variants(10**6), ValueError, "A patch of 1000000 pixels"),
    "by position, no channels": (
        lambda: position.PositionCipher(KEY, 4, image_size=16).encrypt(X[:, :0]),
        ValueError,
        r"\(N, 3, H, W\)",
    ),
    "by position, bytes": (lambda: by_position()[0](X), TypeError, "in torch.float32, but the images are torch.uint8"),
    "kinds in an array": (lambda: near.scrambled_in_part(CIPHER, np.arange(3), RNG), ValueError, "kind must be"),
    "in place in patches of a million": (lambda: near.restricted(KEY, 10**6, 0), ValueError, "A patch of 1000000"),
    "channels of a tensor": (lambda: find_embedding(MODEL, V), TypeError, "channels must be a whole number"),
    "long numbers to bytes": (lambda: to_bytes(X.long()), TypeError, "images must be uint8"),
    "a cipher that gives nothing": (
        lambda: use.Encrypt(Own(encrypt=lambda images: None))(X),
        TypeError,
        "what cipher.encrypt gives must be a torch tensor, but this is NoneType",
    ),
    "a cipher that gives nothing, verified": (
        lambda: use.verify(MODEL, MODEL, Own(encrypt=lambda images: None), X, **NORM),
        TypeError,
        "what cipher.encrypt gives must be a torch tensor",
    ),
    "logits without values, verified": (
        lambda: use.verify(MODEL, MODEL, CIPHER, X, **NORM, take=lambda output: output.to("meta")),
        TypeError,
        "The model's logits must be an ordinary tensor, .* on the meta device",
    ),
    "a key from nowhere": (lambda: SecretKey.load(None), TypeError, "path must be a text or a pathlib.Path, but"),
    "a key from bytes": (lambda: SecretKey.load(b"my.key"), TypeError, "path must be a text .* this is bytes"),
    "a key that is not there": (lambda: SecretKey.load("no.key"), FileNotFoundError, "no.key: .*; give the path that"),
    "a key saved as half a character": (lambda: KEY.save("\ud800"), ValueError, "holds half a character, as no path"),
    "damaged by a number": (lambda: near.damaged(CIPHER, 2, 0, 42), TypeError, "rng must be a numpy Generator"),
    "damaged by nothing": (lambda: near.damaged(CIPHER, 2, 0, None), TypeError, r"use numpy.random.default_rng"),
    "torch's generator": (
        lambda: near.scrambled_in_part(CIPHER, "all", torch.Generator()),
        TypeError,
        "rng must be a numpy Generator",
    ),
    "an older generator": (
        lambda: near.scrambled_in_part(CIPHER, "within channels", np.random.RandomState(0)),
        TypeError,
        "rng must be a numpy Generator",
    ),
    "turned by a list": (lambda: near.turned(CIPHER, ["half turn"]), ValueError, "turn must be one of"),
    "partway to other blocks": (
        lambda: near.partway(CIPHER, PatchCipher(KEY, 2, 12), 4),
        ValueError,
        "of one size, but theirs are of 4 pixels in 3 channels and 2 pixels in 12 channels",
    ),
    "places as floats": (lambda: places(PLACES * 1.0), ValueError, "places must hold .* in whole numbers"),
    "places as truth": (lambda: places(PLACES > 3), ValueError, "places must hold the number of each of the 16"),
    "places as objects": (lambda: places(PLACES.astype(object)), ValueError, "places must hold"),
    "no places": (lambda: places(None), ValueError, "places must hold"),
    "one place": (lambda: places(0), ValueError, "places must hold"),
    "no patches": (lambda: places(patches=None), TypeError, "patches must be a PatchCipher, but this is NoneType"),
    "places of places": (lambda: places(patches=places()), TypeError, "patches must be a PatchCipher"),
    "bits of a matrix": (
        lambda: PatchCipher.from_affine(EYE, np.zeros(48)).key_bits(),
        ValueError,
        "without a key, has no key space",
    ),
    "a matrix of 1e-320": (
        lambda: PatchCipher.from_affine(EYE * 1e-320, np.zeros(48)),
        ValueError,
        "between 1e-20 and 1e20",
    ),
    "a matrix of 1e-50": (lambda: PatchCipher.from_affine(EYE * 1e-50, np.zeros(48)), ValueError, "scale it"),
    "a matrix of 1e300": (lambda: PatchCipher.from_affine(EYE * 1e300, np.zeros(48)), ValueError, "scale it"),
    "bits of 2.7": (lambda: bits.from_bits(torch.full((1, 8, 1, 1), 2.7)), ValueError, "bits must be 0 or 1"),
    "bits of 0.5": (lambda: bits.from_bits(torch.full((1, 8, 1, 1), 0.5)), ValueError, "bits must be 0 or 1"),
    "bits of -1": (lambda: bits.from_bits(torch.full((1, 8, 1, 1), -1.0)), ValueError, "bits must be 0 or 1"),
    "bits of NaN": (lambda: bits.from_bits(torch.full((1, 8, 1, 1), torch.nan)), ValueError, "bits must be 0 or 1"),
    "bits of 255": (lambda: bits.from_bits(X[:, :1].repeat(1, 8, 1, 1)), ValueError, "bits must be 0 or 1"),
    "positions of 2 in patches of 4": (
        lambda: by_position(size=2),
        ValueError,
        "keys for patches of 2 pixels, but the model's have 4",
    ),
    "by position, larger": (
        lambda: by_position()(torch.zeros(1, 3, 32, 32)),
        ValueError,
        "filters for 16 positions, but the images have 64 patches",
    ),
    "by position, one patch": (lambda: by_position()(torch.zeros(1, 3, 4, 4)), ValueError, "the images have 1 patches"),
    "by position, as arrays": (
        lambda: position.PositionEmbedding(np.zeros((4, 8, 48)), np.zeros((4, 8)), 4),
        TypeError,
        "weight must be a torch tensor",
    ),
    "by position, of two sizes": (
        lambda: position.PositionEmbedding(torch.zeros(4, 8, 48), torch.zeros(8), 4),
        ValueError,
        r"not \(4, 8, 48\) and \(8,\)",
    ),
    "an embedding in a list": (lambda: locked(embedding=["0"]), ValueError, r"no module named \['0'\]"),
    "a sparse weight": (lambda: locked(model=sparse()), ValueError, r"put weight.to_dense\(\) in its place"),
    "blocks of 0": (lambda: locked(Own(block_size=0)), ValueError, "cipher.block_size must be a whole number from 1"),
    "blocks of None": (lambda: locked(Own(block_size=None)), TypeError, "cipher.block_size must be a whole number"),
    "places of no size": (lambda: locked(Own(places=PLACES)), TypeError, "cipher.image_size must be a whole number"),
    "places of another size": (
        lambda: locked(Own(places=PLACES, image_size=32)),
        ValueError,
        "cipher.places must hold the number of each of the 64 patches",
    ),
    "places of three sides": (
        lambda: locked(Own(places=PLACES, image_size=(4, 4, 4))),
        ValueError,
        "cipher.image_size must be one whole number or",
    ),
    "a mean of 10**400": (lambda: locked(mean=(10**400,) * 3), ValueError, "mean must be finite"),
    "a model without values": (lambda: verified(MODEL, ConvMixer(8, 1, 3, 4).to("meta")), ValueError, "on the meta"),
    "one number": (lambda: verified(Given(torch.mean)), ValueError, r"gives a tensor \(\): take= must say"),
    "statistics of transforms": (lambda: norm.statistics_of(Transformed()), ValueError, "Transformed does not say"),
}

LEARNING = {
    "a rate of 10**400": (lambda: TrainSettings(1, max_lr=10**400), ValueError, "max_lr must be a finite number"),
    "a rate of -10**400": (lambda: TrainSettings(1, max_lr=-(10**400)), ValueError, "but it is -inf"),
    "a rate of 1j": (lambda: TrainSettings(1, max_lr=1j), TypeError, "max_lr must be a number, an int or float"),
    "a rate as Decimal": (lambda: TrainSettings(1, max_lr=Decimal("0.1")), TypeError, "max_lr must be a number"),
    "a rate as bytes": (lambda: TrainSettings(1, max_lr=b"1"), TypeError, "max_lr must be a number"),
    "a rate as a date": (
        lambda: TrainSettings(1, max_lr=np.datetime64("2020-01-01")),
        TypeError,
        "max_lr must be a number",
    ),
    "classes as numbers": (lambda: with_classes(tuple(np.arange(10))), TypeError, "classes must be texts, but one is"),
    "classes as paths": (lambda: with_classes((*"012", Path("a"))), TypeError, "classes must be texts"),
    "a label of 2**63": (
        lambda: accuracy(MODEL, X, torch.tensor([2**63, 0, 0, 0], dtype=torch.uint64), **NORM),
        ValueError,
        "labels must be classes from 0 to 9",
    ),
    "channels in a list": (
        lambda: load_dataset("folder", "none", size=8, channels=[3]),
        TypeError,
        "channels must be a whole number",
    ),
    "complex logits": (
        lambda: accuracy(Given(lambda found: found.mean((2, 3)) * 1j), X, Y, **NORM),
        TypeError,
        "logits must be ordinary floating tensors, but are torch.complex64",
    ),
    "sparse logits": (
        lambda: accuracy(Given(lambda found: found.mean((2, 3)).to_sparse()), X, Y, **NORM),
        TypeError,
        "ordinary floating tensors",
    ),
    "classes for logits": (
        lambda: accuracy(Given(lambda found: found.mean((2, 3)).long()), X, Y, **NORM),
        TypeError,
        "ordinary floating tensors, but are torch.int64",
    ),
    "images of no pixel": (lambda: metrics.psnr(X[..., :0], X[..., :0]), ValueError, "must have a pixel at least"),
    "no images of no pixel": (lambda: metrics.ssim(X[..., :0], X[..., :0]), ValueError, "must have a pixel at least"),
    "a transform to NaN": (
        lambda: train(transform=lambda images: images * torch.nan),
        ValueError,
        "images that transform returns must hold values .* NaN",
    ),
    "a transform to grey levels": (
        lambda: train(transform=lambda images: images.float()),
        ValueError,
        "images that transform returns must hold values .*: divide grey levels by 255",
    ),
    "a transform to NaN, later": (
        lambda: train(transform=no_number_later()),
        FloatingPointError,
        "mend transform, which gave images that are NaN",
    ),
    "a model of NaN": (
        lambda: fit(LOST, DATA, SETTINGS, progress=False),
        ValueError,
        "The model holds weights that are not finite .* load or make it anew",
    ),
    "normalised together, perhaps": (lambda: train(sync_norm="no"), TypeError, "sync_norm must be a bool"),
    "a device of 2**63": (lambda: train(device=2**63), ValueError, "cannot be used here"),
    "no name of a device": (lambda: train(device=""), ValueError, "The device '' cannot be used here"),
    "twice the steps": (lambda: SETTINGS.lr(2), ValueError, "progress must be a finite number from 0 to 1"),
    "wrong keys as bytes": (
        lambda: key_trials(MODEL, DATA, {}, b"x"),
        TypeError,
        "n_wrong must be a whole number or the numbers of keys",
    ),
    "wrong keys of no number": (lambda: key_trials(MODEL, DATA, {}, np.array(3.5)), TypeError, "n_wrong must be"),
    "rows of no data": (lambda: right_key_rows(MODEL, None, {}), TypeError, "data must be a Dataset"),
    "data sets in an array": (
        lambda: load_dataset(np.array(["cifar10"] * 2)),
        ValueError,
        "There is no data set array",
    ),
    "images on the meta device": (lambda: MODEL(V.to("meta")), TypeError, "images must be .* on the meta device"),
    "logits on the meta device": (
        lambda: accuracy(Given(lambda found: found.mean((2, 3)).to("meta")), X, Y, **NORM),
        TypeError,
        "logits must be an ordinary tensor, .* on the meta device",
    ),
    "saved nowhere": (lambda: save_model(None, MODEL, HISTORY, []), TypeError, "path must be a text"),
    "saved in a file": (
        lambda: save_model(Path(__file__) / "m", MODEL, HISTORY, []),
        ValueError,
        "test_bad_values.py is no folder",
    ),
    "no model saved": (lambda: save_model("m", None, HISTORY, []), TypeError, "model must be a Module"),
    "no history saved": (lambda: save_model("m", MODEL, [], []), TypeError, "history must be a DataFrame"),
    "a recipe in a set": (lambda: save_model("m", MODEL, HISTORY, {1}), TypeError, "recipe .* must be what JSON can"),
    "loaded from nowhere": (lambda: load_model(None, MODEL), TypeError, "path must be a text"),
    "loaded from no file": (lambda: load_model("m", MODEL), CheckpointError, "give the path of one that was saved"),
    "loaded without values": (
        lambda: load_model("m", ConvMixer(8, 1, 3, 4).to("meta")),
        TypeError,
        "0.weight of the model is no tensor with values",
    ),
    "fonts without end": (lambda: draw_fontdigits(10**9), ValueError, "n_train must be .* from 1 to 100000"),
}

STUDY = {
    "the width of one": (lambda: sampling.half_width([0.5]), ValueError, "values must be two at least"),
    "the width of none": (lambda: sampling.half_width([]), ValueError, "values must be two at least"),
    "accuracies of none": (lambda: sampling.images_per_key([], 500), ValueError, "of two keys at least"),
    "the accuracy of one": (lambda: sampling.images_per_key([0.5], 500), ValueError, "of two keys at least"),
    "per cent": (lambda: sampling.images_per_key([50.0, 60.0], 500), ValueError, "accuracies must be .* from 0 to 1"),
    "on 0 images": (lambda: sampling.images_per_key([0.5, 0.6], 0), ValueError, "n_images must be"),
    "a trial of None": (lambda: sampled(None), TypeError, "accuracies must be a number"),
    "a trial of NaN": (lambda: sampled(float("nan")), ValueError, "accuracies must be a finite number"),
    "trials of 0 images": (lambda: sampled(0.5, 0), ValueError, "most_images must be"),
    "a value as a text": (lambda: written("abc"), ValueError, "value must be a number, int or float, but .* 'abc'"),
    "the width of a text": (lambda: sampling.half_width("12"), TypeError, "values must be several numbers"),
    "the width of arrays": (lambda: sampling.half_width(X.numpy()), TypeError, "values must be a number"),
    "seconds of None": (lambda: records.uninterrupted(None), TypeError, "seconds must be several numbers"),
    "no pictures": (lambda: figures.image_grid([]), ValueError, "rows must hold an image at least"),
    "a picture for rows": (lambda: figures.image_grid(X[0]), ValueError, r"An image must be of the shape \(C, H, W\)"),
    "nothing for rows": (lambda: figures.image_grid(None), TypeError, "rows must be a list of lists of images"),
    "a row without its title": (lambda: figures.image_grid([X, X], ["a"]), ValueError, "a text for each row"),
    "rows in a list": (lambda: figures.wrong_keys([]), TypeError, "rows must be a DataFrame"),
    "rows of another table": (lambda: figures.anatomy(recorded()), ValueError, "one column kind and one wrong"),
    "values in texts": (
        lambda: figures.wrong_keys(recorded(value="0.5")),
        ValueError,
        "The column value of rows must hold numbers",
    ),
    "rows of no patches": (
        lambda: figures.wrong_keys(recorded(patch_size=np.nan)),
        ValueError,
        "must hold some of what is drawn",
    ),
    "no rows": (lambda: figures.wrong_keys(recorded()[:0]), LookupError, "rows hold none of the measure accuracy"),
    "a rule without the right key": (
        lambda: claims.exact(recorded(n_images=9)),
        LookupError,
        "No row of the correct key",
    ),
    "repairs that nobody attacked": (
        lambda: claims.exact_repairs(recorded(repair="single bits", attack=None, n_images=9)),
        LookupError,
        "rows hold none of the measure differ",
    ),
    "repairs of no number": (
        lambda: claims.repairs_hold(recorded(measure="share_recovered", value=np.nan, **REPAIR)),
        ValueError,
        "A recorded share_recovered is no number",
    ),
    "stills of nothing": (lambda: widgets.stills(None), TypeError, "piece must be a Piece"),
    "a rule on a list": (lambda: claims.exact([]), TypeError, "rows must be a DataFrame"),
    "a claim without its comma": (
        lambda: claims.Claim("It is so", "book", "keys", claims.exact),
        TypeError,
        "tables must be a tuple of names, such as",
    ),
    "a claim that nobody judges": (
        lambda: claims.Claim("It is so", "book", ("keys",), None),
        TypeError,
        "judge must be a function",
    ),
    "a judge who says nothing": (
        lambda: claims.judge(claims.Claim("It is so", "book", ("turns",), lambda rows: None)),
        TypeError,
        "judge must give",
    ),
    "one filter": (lambda: figures.filters(V[0]), ValueError, r"weight must be finite filters \(N, C, p, p\)"),
    "the mean of none": (lambda: summaries.summary([]), ValueError, "values must be one number or more"),
    "no accuracy": (lambda: summaries.share_left(None, 0.9), TypeError, "accuracy must be a number or several"),
    "a claim of one picture": (lambda: figures.claim(X, "ab"), TypeError, "paths must be tuples"),
    "a patch of another size": (lambda: drawings.patch_to_patch(V[0], CIPHER), ValueError, "patch must be floats"),
    "pictures in a list": (lambda: widgets.key_lab([X[0]], KEY), TypeError, "pictures must be a Mapping"),
    "all labels wrong": (lambda: turning(ANSWERS + 1), ValueError, "must read one of the images rightly"),
    "a flag in a number": (lambda: challenge.is_flag(1, 5), TypeError, "sentence must be a str"),
    "a lock from nowhere": (
        lambda: challenge.load_lock(1, Path("nowhere")),
        FileNotFoundError,
        "a folder that challenge.make",
    ),
    "trials of nothing": (lambda: sampling.mean_of_keys(None, 1, 1, 1), TypeError, "trial must be a function"),
    "seeds in an array": (lambda: tables.changed(scale(), np.ones(2)), TypeError, "seeds must be a whole number"),
    "no jobs": (lambda: table.in_turns(None, 1), TypeError, "jobs must be a Mapping"),
    "jobs of no rounds": (lambda: table.in_turns({}, 0), ValueError, "rounds must be a whole number from 1 up"),
    "a model on an array": (
        lambda: trained_model("quick", device=X),
        ValueError,
        "The device 'tensor.* cannot be used",
    ),
    "seeds as one number of NumPy": (lambda: scale(seeds=np.array(1)), TypeError, "seeds must be a tuple of whole"),
    "arrays for a data set": (lambda: scale(dataset=X.numpy()), ValueError, "dataset must be a Dataset or one of"),
    "a row that is none": (lambda: records.write("rows.csv", [3]), TypeError, "a row must be a Mapping"),
    "rows that are none": (lambda: records.write("rows.csv", 3), TypeError, "rows must be mappings, one a row"),
    "rows for an origin": (lambda: records.write("rows.csv", [], X), TypeError, "origin a mapping that records"),
    "rows to nowhere": (lambda: records.write(None, []), TypeError, "path must be a text or a pathlib.Path"),
    "a sparse value": (lambda: written(V.to_sparse()), TypeError, "a value must be an ordinary tensor"),
    "a name of a tensor": (lambda: records.results_dir(X), ValueError, "There is no scale tensor"),
    "a truth value": (lambda: written(True), ValueError, "but in a row it is 'True'"),
    "NumPy's truth value": (lambda: written(np.True_), ValueError, "but in a row it is 'True'"),
    "two values": (lambda: written([1, 2]), ValueError, "but in a row it is '1 2'"),
    "a tensor of two": (lambda: written(torch.ones(2)), ValueError, "but in a row it is '1.0 1.0'"),
    "a complex value": (lambda: written(1j), ValueError, "but in a row it is '1j'"),
    "a carriage return": (lambda: written(case="a\rb"), ValueError, "could not be read back: take out"),
    "half a character": (lambda: written(case="\ud800"), ValueError, "take out half characters"),
    "a name of half a character": (lambda: written(**{"\ud800": 1}), ValueError, "take out half characters"),
    "200,000 characters": (lambda: written(case="a" * 200_000), ValueError, "of 131,072 characters at most"),
    "settings of two kinds": (lambda: written(made={1: 2, "a": 3}), TypeError, "Settings must be a mapping"),
    "rows of no such device": (
        lambda: came_from(device="cuda:99"),
        ValueError,
        "The device 'cuda:99' cannot be used here",
    ),
    "rows of no device": (lambda: came_from(device="meta"), ValueError, "The device 'meta' cannot be used here"),
    "names of two kinds": (lambda: came_from(settings={1: 2, "a": 3}), TypeError, "of names that are texts"),
    "no epochs": (lambda: records.uninterrupted([]), ValueError, "seconds must be those of one epoch at least"),
    "scales in a list": (lambda: trained_model(["quick"]), ValueError, r"no scale \['quick'\]: SCALE is one of"),
    "sizes in a list": (lambda: scale().at([4]), TypeError, "patch_size must be a whole number"),
    "a network that is not there": (lambda: scale().of("CNN"), ValueError, "no other network 'CNN' .* it has none"),
    "networks in a list": (lambda: scale(others={"A": (P4, {})}).of(["A"]), ValueError, "no other network .* has A"),
    "a network that nobody knows": (
        lambda: scale(model={"network": "ResNet", "patch_size": 4}),
        ValueError,
        "must be one of ConvMixer, ViT, MLP-Mixer, but it is 'ResNet'",
    ),
    "sizes of NumPy": (lambda: scale(model=P4 | {"dim": np.int64(8)}), TypeError, "model must hold plain numbers"),
    "a size in a set": (lambda: scale(model=P4 | {"dim": {8}}), TypeError, "model must hold plain numbers"),
}


ROWS = LOCK | LEARNING | STUDY


@pytest.mark.parametrize(("call", "error", "words"), ROWS.values(), ids=ROWS)
def test_a_wrong_value_is_refused_in_a_sentence(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


@pytest.mark.parametrize("dtype", WHOLE)
def test_labels_may_be_of_any_integer_type(dtype):
    labels = Y.to(dtype)
    data = Dataset("toy", X, labels, X, labels, tuple("0123456789"), **NORM)
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert data.fingerprint() == DATA.fingerprint()
    assert accuracy(MODEL, X, labels, **NORM) == accuracy(MODEL, X, Y, **NORM)
    for attack in (
        lambda y: adversarial.pgd(MODEL, X, y, **NORM, steps=2),
        lambda y: adversarial.square(MODEL, X, y, **NORM, queries=2),
        lambda y: on_models.random_keys(MODEL, X, y, **NORM, trials=2).matrix()[0],
        lambda y: on_models.hill_climb(MODEL, X, y, **NORM, trials=2)[1],
        lambda y: on_models.gradient_search(MODEL, X, y, **NORM, iterations=2)[1],
        lambda y: on_models.key_loss(MODEL, CIPHER, X, y, **NORM),
    ):
        assert np.array_equal(attack(labels), attack(Y))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint16, np.int32, np.uint64])
def test_places_may_be_of_any_integer_type_and_order(dtype):
    given = PLACES.astype(dtype)
    cipher = places(given[::-1])
    given[:] = 0  # is the caller's
    assert torch.equal(cipher.encrypt(X), places(PLACES[::-1].copy()).encrypt(X))
    assert torch.equal(cipher.decrypt(cipher.encrypt(X)), X)


def test_bfloat16_is_taken_as_what_it_holds():
    halves = (V / 2).to(torch.bfloat16)
    for measure in (metrics.psnr, metrics.ssim):
        assert np.array_equal(measure(halves, V.to(torch.bfloat16)), measure(halves.float(), V.bfloat16().float()))
    swapped = PatchCipher.from_entries(torch.arange(48).flip(0), torch.ones(48, dtype=torch.bfloat16))
    assert swapped.flipped.all()
    affine = PatchCipher.from_affine(torch.eye(48, dtype=torch.bfloat16) / 2, torch.zeros(48, dtype=torch.bfloat16))
    assert np.array_equal(affine.matrix()[0], EYE / 2)
    assert torch.equal(
        locked(mean=torch.full((3,), 0.5).bfloat16(), std=torch.ones(3).bfloat16())[0].weight,
        locked(std=(1, 1, 1))[0].weight,
    )


def test_a_model_that_is_its_embedding_alone_is_widened_and_split_too():
    twice = nn.Sequential(BARE)
    values = bits.to_bits(X)
    assert torch.equal(bits.bit_model(BARE, **NORM)(values), bits.bit_model(twice, **NORM)(values))
    assert torch.equal(by_position(BARE)(V), by_position(twice)(V)) and isinstance(BARE, nn.Conv2d)


def test_models_of_odd_kinds_are_verified():
    noted = Noted(nn.Conv2d(3, 8, 4, 4), nn.Flatten()).eval()
    assert verified(noted, locked(model=noted)).startswith("Equal")
    assert verified(Nothing()).startswith("NOT EQUAL")


def test_a_fraction_is_a_number():
    assert TrainSettings(1, max_lr=Fraction(1, 8)).max_lr == 0.125


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_keys_that_are_all_alike_are_told_at_once(accuracy):
    found = sampled(accuracy)
    assert (found["accuracy"], found["half_width"], found["keys"]) == (accuracy, 0, sampling.PILOT_KEYS)
    assert sampling.images_per_key([accuracy] * 2, 500) == sampling.images_per_key([0.5] * 2, 500)


def test_a_scale_keeps_what_was_checked():
    found = scale(seeds=(i for i in (1, 2)), compared_seeds=itertools.islice(itertools.count(), 3), n_wrong=np.int64(3))
    assert (found.seeds, found.compared_seeds, type(found.n_wrong)) == ((1, 2), (0, 1, 2), int)
    assert type(AttackSettings(public=np.int64(5)).public) is int


def test_files_may_be_named_by_texts(tmp_path):
    name = str(tmp_path / "m")
    save_model(name, MODEL, pd.DataFrame([{"epoch": 1}]), ["recipe"])
    assert load_model(name, ConvMixer(8, 1, 3, 4))["recipe"] == ["recipe"]
    records.write(f"{name}.csv", [{"measure": "a", "value": 1, "draws": np.arange(3)}], ORIGIN)
    assert "a,1,0 1 2," in (tmp_path / "m.csv").read_text()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: position.PositionCipher.from_ciphers(None), "ciphers must be PatchCiphers of one patch size"),
        (lambda: position.PositionCipher.from_ciphers([]), "ciphers must be PatchCiphers"),
        (
            lambda: position.PositionCipher.from_ciphers([PatchCipher(KEY, 4, 1), PatchCipher(KEY, 4, 3)]),
            "and number of channels",
        ),
        (lambda: scale(others={"a": 3}), "others must give two mappings for a"),
        (lambda: scale(others={"a": [1]}), "others must give two mappings for a"),
        (lambda: scale(ciphers={"a": 3}), "ciphers must give a function of a key for a"),
    ],
)
def test_what_is_made_of_several_is_looked_through(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_what_is_no_path_or_no_ordinary_image_is_told(tmp_path):
    with pytest.raises(ValueError, match="holds a null character"):
        fit(ConvMixer(8, 1, 3, 4), DATA, SETTINGS, checkpoint="a\0b", progress=False)
    with pytest.raises(ValueError, match="holds a null character"):
        load_dataset("folder", "a\0b", size=8)
    with pytest.raises(TypeError, match=r"use .to_dense\(\)"):
        MODEL((X / 255).to_sparse())


@pytest.mark.parametrize("channels", [3.0, np.array([3]), True])
def test_channels_of_a_folder_are_a_whole_number(channels):
    with pytest.raises(TypeError, match="channels must be a whole number"):
        load_dataset("folder", "none", size=8, channels=channels)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.array, torch.tensor])
def test_whole_numbers_may_be_of_any_type(kind):
    """Of small ones NumPy's squares overflow: 16 * 16 is 0."""
    size, images = kind(16), torch.arange(3 * 32 * 32).to(torch.uint8).view(1, 3, 32, 32)
    for make in (
        lambda n: make_cipher("LE", KEY, block_size=n),
        lambda n: make_cipher("SUB", KEY, block_size=n),
        lambda n: near.restricted(KEY, n, n),
        lambda n: position.PositionCipher(KEY, n),
        lambda n: position.PositionCipher.etc(KEY, n),
        lambda n: near.damaged(PatchCipher(KEY, n), n, n, np.random.default_rng(0)),
    ):
        assert torch.equal(make(size).encrypt(images), make(16).encrypt(images))
    assert np.array_equal(KEY.half(size, purpose="x"), KEY.half(16, purpose="x"))
    assert torch.equal(logits(MODEL, X, **NORM, batch_size=kind(3)), logits(MODEL, X, **NORM, batch_size=3))
    assert ConvMixer(kind(8), kind(1), kind(3), kind(4))(V).shape == (4, 10)


def test_a_class_may_be_written_in_two_forms_of_unicode(tmp_path):
    for part, names in (("train", ("e\u0301te", "eu")), ("test", ("\u00e9te", "eu"))):
        for name, grey in zip(names, (0, 255), strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            PIL.Image.new("L", (8, 8), grey).save(tmp_path / part / name / "0.png")
    found = load_dataset("folder", tmp_path, size=np.int64(8), channels=1)
    assert found.classes == ("eu", "\u00e9te")
    for images, labels in ((found.train_images, found.train_labels), (found.test_images, found.test_labels)):
        assert (images[labels == 0] == 255).all() and (images[labels == 1] == 0).all()


def test_the_key_is_turned_for_one_image_that_is_read_rightly():
    labels = ANSWERS + 1
    labels[2] -= 1
    assert "accuracy 25.0% on 4 images" in turning(labels).draw(turned=0)[1]
