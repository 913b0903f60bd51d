"""Wrong calls of all public rooms: each gives the exception that is documented, with one sentence that names what is
wrong. And right calls in odd forms: views, other byte orders, Windows' line ends."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cmxlib import (
    ConvMixer,
    Dataset,
    PatchCipher,
    Scale,
    SecretKey,
    TrainSettings,
    accuracy,
    decrypt_model,
    encrypt_model,
    fit,
    key_trials,
    load_dataset,
    logits,
    trained_model,
)
from cmxlib.attacks import adversarial, higher_order, jigsaw, matching, metrics, on_images, on_models, on_repairs
from cmxlib.learn.augment import augment
from cmxlib.learn.checkpoint import CheckpointError
from cmxlib.learn.cifar10 import DatasetError
from cmxlib.learn.data import channel_statistics
from cmxlib.learn.evaluate import normalise
from cmxlib.lock import bits, near, norm, position, use
from cmxlib.lock.blocks import BlockCipher
from cmxlib.lock.conventional import key_space_bits, make_cipher
from cmxlib.study import records
from cmxlib.study.scales import AttackSettings

KEY, RNG, DRAW = SecretKey.for_experiment(1), np.random.default_rng(0), torch.Generator()
CIPHER, MIXING = PatchCipher(KEY), PatchCipher(KEY, steps=("orthogonal",))
X = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
V, Y = X / 255, torch.arange(4)  # the same as values, and labels
NAN, NORM = torch.full_like(V, torch.nan), {"mean": (0.5,) * 3, "std": (0.3,) * 3}
GREY = {"mean": (125.0,) * 3, "std": (60.0,) * 3}
DATA = Dataset("toy", X, Y, X, Y, tuple("0123456789"), **NORM)
SETTINGS = TrainSettings(epochs=1, batch_size=2, crop_padding=0)
torch.manual_seed(0)
MODEL = ConvMixer(8, 1, 3, 4).eval()
LOST = ConvMixer(8, 1, 3, 4)
nn.init.constant_(LOST[0].bias, torch.nan)
NINE = ConvMixer(8, 1, 3, 4, num_classes=9).eval()
EIGHT = ConvMixer(8, 1, 3, 4).to(torch.float8_e4m3fn)
SCRIPTED = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten()))
MIXED = ConvMixer(8, 1, 3, 4).eval().bfloat16()
MIXED[0].float()
FROZEN = ConvMixer(8, 1, 3, 4).requires_grad_(False)
HALF = "\ud800"  # half a character, as a name that is no UTF-8 brings it


def data(**changes):
    return dataclasses.replace(DATA, **changes)


def train(model=None, given=DATA, settings=SETTINGS, **options):
    return fit(ConvMixer(8, 1, 3, 4) if model is None else model, given, settings, progress=False, **options)


def on_meta(call):
    with torch.device("meta"):
        call()


def quantised(values):
    return torch.quantize_per_tensor(values, 1 / 255, 0, torch.quint8)


def trials(cipher, n_wrong=None, **options):
    return key_trials(MODEL, DATA, cipher, n_wrong, **options)


def plain_key(passphrase):
    """Loaded from a file that needs no passphrase; no such file is left."""
    KEY.save("my.key")
    try:
        SecretKey.load("my.key", passphrase=passphrase)
    finally:
        os.unlink("my.key")


KEYS = [
    ("a secret of 31 bytes", lambda: SecretKey(bytes(31), "x"), ValueError, "A secret is 32 bytes"),
    ("a secret as a text", lambda: SecretKey("a" * 32, "x"), ValueError, "A secret is 32 bytes"),
    ("a secret as a bytearray", lambda: SecretKey(bytearray(32), "x"), ValueError, "A secret is 32 bytes"),
    ("origin of a wrong type", lambda: SecretKey(bytes(32), 5), ValueError, "origin must be"),
    ("passphrase as bytes", lambda: SecretKey.from_passphrase(b"a", salt=b"12345678"), TypeError, "passphrase must be"),
    ("no passphrase", lambda: SecretKey.from_passphrase(None, salt=b"12345678"), TypeError, "passphrase must be"),
    (
        "half a character",
        lambda: SecretKey.from_passphrase(HALF, salt=b"12345678"),
        ValueError,
        "passphrase holds half",
    ),
    ("salt of half a character", lambda: SecretKey.from_passphrase("a", salt=HALF * 8), ValueError, "salt holds half"),
    ("salt as a number", lambda: SecretKey.from_passphrase("a", salt=12345678), TypeError, "salt must be bytes"),
    ("seed too large", lambda: SecretKey.for_experiment(2**64), ValueError, "seed must be a whole number from 0 to"),
    ("seed as a text", lambda: SecretKey.for_experiment("1"), TypeError, "seed must be a whole number"),
    ("a seed of 5,001 digits", lambda: SecretKey.for_experiment(10**5000), ValueError, "it is of over 30 digits"),
    ("a matrix of minutes", lambda: KEY.orthogonal(3073, purpose="x"), ValueError, "from 1 to 3072"),
    ("subkey of a number", lambda: KEY.subkey(5), TypeError, "label must be a text"),
    ("subkey of half a character", lambda: KEY.subkey(HALF), ValueError, "label holds half a character"),
    ("stream of -1 bytes", lambda: KEY.stream(-1, purpose="x"), ValueError, "n_bytes must be a whole number from 0"),
    ("stream of 1.5 bytes", lambda: KEY.stream(1.5, purpose="x"), TypeError, "n_bytes must be a whole number"),
    ("purpose as a number", lambda: KEY.stream(1, purpose=7), TypeError, "purpose must be a text"),
    ("no purpose", lambda: KEY.permutation(3, purpose=None), TypeError, "purpose must be a text"),
    ("permutation of -1", lambda: KEY.permutation(-1, purpose="x"), ValueError, "n must be a whole number from 0"),
    ("permutation of 2.5", lambda: KEY.permutation(2.5, purpose="x"), TypeError, "n must be a whole number"),
    ("permutation of a text", lambda: KEY.permutation("3", purpose="x"), TypeError, "n must be a whole number"),
    ("a permutation past memory", lambda: KEY.permutation(10**12, purpose="x"), ValueError, "from 0 to 10000000, but"),
    ("half of too many", lambda: KEY.half(10**12, purpose="x"), ValueError, "n must be a whole number from 0 to 1000"),
    ("-1 bits", lambda: KEY.bits(-1, purpose="x"), ValueError, "n must be a whole number from 0"),
    ("True bits", lambda: KEY.bits(True, purpose="x"), TypeError, "n must be a whole number"),
    ("half of -5", lambda: KEY.half(-5, purpose="x"), ValueError, "n must be a whole number from 0"),
    ("a matrix of 0", lambda: KEY.orthogonal(0, purpose="x"), ValueError, "n must be a whole number from 1"),
    ("a matrix of -1", lambda: KEY.orthogonal(-1, purpose="x"), ValueError, "n must be a whole number from 1"),
    ("a matrix of 2.0", lambda: KEY.orthogonal(2.0, purpose="x"), TypeError, "n must be a whole number"),
    ("a name that is no path", lambda: SecretKey.load(5), TypeError, "int"),
    ("an empty name", lambda: SecretKey.load(""), ValueError, "is no name of a file"),
    ("saved nowhere", lambda: KEY.save(""), ValueError, "is no name of a file"),
    ("saved as a NUL", lambda: KEY.save("a\0b"), ValueError, "holds a null character"),
    ("saved as a folder", lambda: KEY.save("."), IsADirectoryError, "is a folder: name a file in it"),
    ("a stream past memory", lambda: KEY.stream(10**15, purpose="x"), MemoryError, "1,000,000,000,000,000 bytes: draw"),
    ("an origin almost an experiment's", lambda: SecretKey(bytes(32), "experiment  3"), ValueError, "origin says"),
    ("saved in no folder", lambda: KEY.save("/none/my.key"), FileNotFoundError, "/none"),
    ("a name too long", lambda: KEY.save("a" * 300), OSError, "aaa cannot be written: File name too long; name a"),
    ("saved with an empty passphrase", lambda: KEY.save("k", passphrase=""), ValueError, "passphrase is empty"),
    ("saved with bytes", lambda: KEY.save("k", passphrase=b"a"), TypeError, "passphrase must be a text"),
    ("a passphrase of a plain file", lambda: plain_key("x"), ValueError, "my.key is not encrypted: whoever reads it"),
]

CIPHERS = [
    ("a text for a key", lambda: PatchCipher("key"), TypeError, "key must be a SecretKey"),
    ("patches of a million", lambda: PatchCipher(KEY, 10**6), ValueError, "A block of 1000000 pixels"),
    ("channels of a billion", lambda: PatchCipher(KEY, 4, 10**9), ValueError, "1000000000 channels"),
    ("mixing patches of 64", lambda: PatchCipher(KEY, 64, steps=("orthogonal",)), ValueError, "mixes 12,288 entries"),
    (
        "any matrix of 33",
        lambda: PatchCipher.from_affine(np.ones((3267, 3267)), [0] * 3267, 33),
        ValueError,
        "over 3,072, takes",
    ),
    ("no channels", lambda: PatchCipher(KEY, 4, 0), ValueError, "channels must be a whole number from 1"),
    ("steps as bytes", lambda: PatchCipher(KEY, steps=(b"flip",)), ValueError, "steps must be different ones of"),
    ("steps as a number", lambda: PatchCipher(KEY, steps=5), TypeError, "steps must be a tuple"),
    ("steps in a list in a list", lambda: PatchCipher(KEY, steps=[["flip"]]), ValueError, "steps must be"),
    ("blocks across patches", lambda: PatchCipher(KEY, 4, block_size=3), ValueError, "A block of 3 pixels does not"),
    ("no entries", lambda: PatchCipher.from_entries(None, None), ValueError, "A block has 48 entries"),
    ("entries twice", lambda: PatchCipher.from_entries([0] * 48, [0] * 48), ValueError, "give a permutation"),
    ("entries as texts", lambda: PatchCipher.from_entries(["a"] * 48, [0] * 48), ValueError, "give a permutation"),
    ("flips of 2", lambda: PatchCipher.from_entries(range(48), [2] * 48), ValueError, "each True or False"),
    ("flips as floats", lambda: PatchCipher.from_entries(range(48), [0.5] * 48), ValueError, "each True or False"),
    ("entries as floats", lambda: PatchCipher.from_entries(np.arange(48.0), [0] * 48), ValueError, "in whole numbers"),
    (
        "a matrix of texts",
        lambda: PatchCipher.from_affine([["a"] * 48] * 48, [0] * 48),
        TypeError,
        "must be real numbers",
    ),
    ("a complex matrix", lambda: PatchCipher.from_affine(1j * np.eye(48), [0] * 48), TypeError, "must be real numbers"),
    ("other steps", lambda: setattr(CIPHER, "steps", ("flip",)), AttributeError, "A cipher does not change"),
    ("other blocks", lambda: setattr(MIXING, "block_size", 8), AttributeError, "instead of setting block_size"),
    ("images of 8 bits", lambda: CIPHER.encrypt(V.to(torch.float8_e4m3fn)), TypeError, "of 16 bits at least"),
    ("no offset", lambda: PatchCipher.from_affine(np.eye(48), None), ValueError, "48 x 48 matrix"),
    ("rows of two lengths", lambda: PatchCipher.from_affine([[1], [1, 2]], [0]), ValueError, "matrix must be an array"),
    ("a singular matrix", lambda: PatchCipher.from_affine(np.zeros((48, 48)), [0] * 48), ValueError, "is singular"),
    ("no images", lambda: CIPHER.encrypt(None), TypeError, "images must be a torch tensor"),
    (
        "an image of Pillow",
        lambda: CIPHER.encrypt(Image.new("RGB", (16, 16))),
        TypeError,
        "v2.functional.pil_to_tensor",
    ),
    ("a plane", lambda: CIPHER.encrypt(X[0, 0]), ValueError, "images must have the shape"),
    ("bytes as floats", lambda: CIPHER.encrypt(X.float()), ValueError, r"must hold values in \[0, 1\]"),
    ("values up to 2", lambda: CIPHER.encrypt(2 * V), ValueError, r"must hold values in \[0, 1\]"),
    ("NaN", lambda: CIPHER.encrypt(NAN), ValueError, r"must hold values in \[0, 1\]"),
    ("infinite halves", lambda: CIPHER.encrypt(V.half() * torch.inf), ValueError, r"must hold values in \[0, 1\]"),
    ("complex numbers", lambda: CIPHER.encrypt(V.to(torch.complex64)), TypeError, "complex64"),
    ("truth values", lambda: CIPHER.encrypt(X.bool()), TypeError, "torch.bool"),
    ("sparse images", lambda: CIPHER.encrypt(V.to_sparse()), TypeError, r"torch.sparse_coo: use .to_dense\(\)"),
    ("images in rows", lambda: CIPHER.encrypt(V.reshape(12, -1).to_sparse_csr()), TypeError, "torch.sparse_csr"),
    ("nested images", lambda: CIPHER.encrypt(torch.nested.nested_tensor(list(V))), TypeError, "this one is nested"),
    ("images without values", lambda: CIPHER.decrypt(V.to("meta")), TypeError, "images must .* on the meta device"),
    ("quantised images", lambda: CIPHER.encrypt(quantised(V)), TypeError, r"quantised: use .dequantize\(\)"),
    ("images of Intel's layout", lambda: bits.to_bits(V.to_mkldnn()), TypeError, "torch._mkldnn"),
    ("an array of objects", lambda: CIPHER.encrypt(np.array(V.tolist(), object)), TypeError, "this is ndarray"),
    (
        "a sparse permutation",
        lambda: PatchCipher.from_entries(Y.to_sparse(), Y),
        TypeError,
        "permutation must be an ord",
    ),
    (
        "a matrix of no values",
        lambda: PatchCipher.from_affine(V.to("meta"), Y),
        TypeError,
        "matrix must be an ordinary",
    ),
    ("a sparse mean", lambda: normalise(X, V[0, :, 0, 0].to_sparse(), (1,) * 3), TypeError, "mean must be an ordinary"),
    ("a sparse transform", lambda: use.Encrypt(CIPHER)(V.to_sparse()), TypeError, "images must be an ordinary"),
    ("complex filters", lambda: on_repairs.bits_in_order(V.to(torch.complex64)), ValueError, "weight must be filters"),
    (
        "entries as objects",
        lambda: PatchCipher.from_entries(np.array([None] * 48), [0] * 48),
        ValueError,
        "permutation",
    ),
    ("one channel", lambda: CIPHER.encrypt(X[:, :1]), ValueError, r"\(N, 3, H, W\)"),
    ("channels last", lambda: CIPHER.encrypt(X.permute(0, 2, 3, 1)), ValueError, r"\(N, 3, H, W\)"),
    ("no width", lambda: CIPHER.encrypt(X[..., :0]), ValueError, "not be 0"),
    ("a width of 15", lambda: CIPHER.encrypt(X[..., :15]), ValueError, "divisible by the block size 4"),
    ("decrypting long numbers", lambda: CIPHER.decrypt(X.long()), TypeError, "torch.int64"),
    ("decrypting two channels", lambda: CIPHER.decrypt(X[:, :2]), ValueError, r"\(N, 3, H, W\)"),
    ("a patch of 6", lambda: CIPHER.matrix(6), ValueError, "do not fit into patches of 6"),
    ("a patch of 512", lambda: CIPHER.matrix(512), ValueError, "A patch of 512 .* has 786,432 entries, over 16,384"),
    ("another permutation", lambda: CIPHER.permutation.__setitem__(0, 1), ValueError, "read-only"),
    ("other flips", lambda: CIPHER.flipped.__setitem__(0, True), ValueError, "read-only"),
    ("a patch of '4'", lambda: CIPHER.matrix("4"), TypeError, "patch_size must be a whole number"),
    ("an image of 10", lambda: BlockCipher(KEY, 4, image_size=10), ValueError, "do not divide images of 10 x 10"),
    ("an image of one side", lambda: BlockCipher(KEY, 4, image_size=(16,)), ValueError, "image_size must be one"),
    ("an image of '16'", lambda: BlockCipher(KEY, 4, image_size="16"), TypeError, "image_size must be a whole"),
    ("patches of 0 that move", lambda: BlockCipher(KEY, 0, image_size=16), ValueError, "patch_size must be"),
    ("another size", lambda: BlockCipher(KEY, 4, image_size=8).encrypt(X), ValueError, "but these are 16 x 16"),
    ("no positions", lambda: position.PositionCipher(KEY, 4, image_size=0), ValueError, "image_size must be"),
    ("no ciphers", lambda: position.PositionCipher.from_ciphers([]), TypeError, "ciphers must be PatchCiphers"),
    ("numbers for ciphers", lambda: position.PositionCipher.from_ciphers([3]), TypeError, "ciphers must be"),
    ("two sizes", lambda: position.PositionCipher.from_ciphers([CIPHER, PatchCipher(KEY, 2)]), TypeError, "one patch"),
    ("all orders of 9 colours", lambda: position.etc_variants(4, 9), ValueError, "channels must be .* from 1 to 4"),
    ("bits of floats", lambda: bits.to_bits(V), TypeError, "must be uint8"),
    ("bits of one image", lambda: bits.to_bits(X[0]), ValueError, r"\(N, C, H, W\)"),
    ("7 bits", lambda: bits.from_bits(torch.zeros(1, 7, 4, 4)), ValueError, "bits must have 8 channels"),
    ("no bits", lambda: bits.from_bits(None), TypeError, "bits must be a torch tensor"),
    ("no such method", lambda: make_cipher("XX", KEY), ValueError, "no conventional method 'XX'"),
    ("a list of methods", lambda: make_cipher(["LE"], KEY), ValueError, "no conventional method"),
    ("a method without a key", lambda: make_cipher("LE", None), TypeError, "key must be a SecretKey"),
    ("blocks of 5", lambda: make_cipher("LE", KEY, block_size=5), ValueError, "Blocks of 5 pixels do not divide"),
    ("one side", lambda: make_cipher("LE", KEY, image_size=32), ValueError, "image_size must be"),
    ("sides as floats", lambda: make_cipher("LE", KEY, image_size=(8, 8.0)), TypeError, "image_size must be"),
    ("FFX of bytes", lambda: make_cipher("FFX", KEY, image_size=(16, 16)).decrypt(X), ValueError, "FFX encrypts to"),
    ("FFX of NaN", lambda: make_cipher("FFX", KEY, image_size=(16, 16)).decrypt(NAN), ValueError, "FFX encrypts to"),
    ("the key space of nothing", lambda: key_space_bits("LE", block_size=0), ValueError, "block_size must be"),
    ("nearly no cipher", lambda: near.damaged("c", 2, 0, RNG), TypeError, "cipher must be a PatchCipher of shuffles"),
    ("nearly a mixing one", lambda: near.damaged(MIXING, 2, 0, RNG), TypeError, "PatchCipher of shuffles and flips"),
    ("in part, mixing", lambda: near.scrambled_in_part(MIXING, "all", RNG), TypeError, "of shuffles and flips"),
    ("turned sideways", lambda: near.turned(CIPHER, "sideways"), ValueError, "turn must be one of mirrored"),
    ("turned, mixing", lambda: near.turned(MIXING, "half turn"), TypeError, "of shuffles and flips"),
    ("partway to another size", lambda: near.partway(CIPHER, PatchCipher(KEY, 8), 4), ValueError, "of one size"),
    ("partway to a mixing one", lambda: near.partway(CIPHER, MIXING, 4), TypeError, "of shuffles and flips"),
    ("49 of 48 in place", lambda: near.restricted(KEY, 4, 49), ValueError, "in_place must be .* from 0 to 48"),
    ("in place, no channels", lambda: near.restricted(KEY, 4, 0, channels=0), ValueError, "channels must be"),
    ("a transform of nothing", lambda: use.Encrypt(None), TypeError, "or have encrypt, but this is"),
    ("a transform of a key", lambda: use.Encrypt(KEY), TypeError, "or have encrypt, but this is"),
    ("a transform of long numbers", lambda: use.Encrypt(CIPHER)(X.long()), TypeError, "torch.int64"),
]

MODELS = [
    ("a key for a cipher", lambda: encrypt_model(MODEL, KEY, **NORM), TypeError, "cipher must be a PatchCipher"),
    ("a class for a cipher", lambda: encrypt_model(MODEL, PatchCipher, **NORM), TypeError, "have encrypt, .* is type"),
    ("statistics of grey levels", lambda: encrypt_model(MODEL, CIPHER, **GREY), ValueError, "where they are of grey"),
    ("a std of grey levels", lambda: encrypt_model(MODEL, CIPHER, mean=[0] * 3, std=[255] * 3), ValueError, "of grey"),
    ("nothing for a cipher", lambda: decrypt_model(MODEL, None, **NORM), TypeError, "cipher must be a PatchCipher"),
    ("a name for a model", lambda: encrypt_model("m", CIPHER, **NORM), TypeError, "model must be a torch module"),
    ("a state dict", lambda: encrypt_model(MODEL.state_dict(), CIPHER, **NORM), TypeError, "call load_state_dict"),
    ("no statistics", lambda: encrypt_model(MODEL, CIPHER), ValueError, "give mean= and std="),
    ("a std alone", lambda: encrypt_model(MODEL, CIPHER, std=(0.3,) * 3), ValueError, "mean and std belong together"),
    ("one mean", lambda: encrypt_model(MODEL, CIPHER, mean=(0.5,), std=(0.3,)), ValueError, "mean must hold 3"),
    ("texts", lambda: encrypt_model(MODEL, CIPHER, mean="abc", std=(0.3,) * 3), TypeError, "mean must be 3 numbers"),
    ("a std of 0", lambda: encrypt_model(MODEL, CIPHER, mean=(0.5,) * 3, std=(0,) * 3), ValueError, "Every std must"),
    (
        "a NaN",
        lambda: encrypt_model(MODEL, CIPHER, mean=(torch.nan,) * 3, std=(1,) * 3),
        ValueError,
        "mean must be fin",
    ),
    ("no such layer", lambda: encrypt_model(MODEL, CIPHER, **NORM, embedding="no"), ValueError, "no module named 'no'"),
    ("a number of a layer", lambda: encrypt_model(MODEL, CIPHER, **NORM, embedding=3), ValueError, "no module named 3"),
    (
        "larger blocks",
        lambda: encrypt_model(MODEL, PatchCipher(KEY, 8), **NORM),
        ValueError,
        "do not divide the patches",
    ),
    ("a grey cipher", lambda: encrypt_model(MODEL, PatchCipher(KEY, 4, 1), **NORM), ValueError, "no patch embedding"),
    (
        "a lazy embedding",
        lambda: encrypt_model(nn.Sequential(nn.LazyConv2d(8, 4, 4)), CIPHER, **NORM),
        ValueError,
        "'0' .it has no weights yet: run the model once",
    ),
    ("no layers", lambda: encrypt_model(nn.Sequential(), CIPHER, **NORM), ValueError, "no patch embedding"),
    ("no values", lambda: encrypt_model(ConvMixer(8, 1, 3, 4).to("meta"), CIPHER, **NORM), ValueError, "meta device"),
    (
        "a cipher of one position",
        lambda: position.encrypt_model_by_position(MODEL, CIPHER, **NORM),
        TypeError,
        "cipher must be a PositionCipher",
    ),
    ("a bit model of nothing", lambda: bits.bit_model(None, **NORM), TypeError, "model must be a torch module"),
    ("a bit model of a scalar", lambda: bits.bit_model(MODEL, mean=0.5, std=0.3), ValueError, "mean must hold 3"),
    ("nothing to verify on", lambda: use.verify(MODEL, MODEL, CIPHER, X[:0], **NORM), ValueError, "at least one image"),
    (
        "nothing to verify",
        lambda: use.verify(None, MODEL, CIPHER, X, **NORM),
        TypeError,
        "model must be a torch module",
    ),
    ("ten classes and nine", lambda: use.verify(MODEL, NINE, CIPHER, X, **NORM), ValueError, "of one shape, not"),
    ("what says no statistics", lambda: norm.statistics_of(None), ValueError, "give mean= and std="),
    ("a model of 8 bits", lambda: encrypt_model(EIGHT, CIPHER, **NORM), ValueError, "before quantising it"),
    ("a NaN in the model", lambda: encrypt_model(LOST, CIPHER, **NORM), ValueError, "weights that are not finite"),
    ("a scripted model", lambda: encrypt_model(SCRIPTED, CIPHER, **NORM), ValueError, "is scripted or exported"),
    ("a dim of 0", lambda: ConvMixer(0), ValueError, "dim must be a whole number from 1"),
    ("a dim of 8.0", lambda: ConvMixer(8.0), TypeError, "dim must be a whole number"),
    ("a dim as a text", lambda: ConvMixer("8"), TypeError, "dim must be a whole number"),
    ("a depth of -1", lambda: ConvMixer(8, -1), ValueError, "depth must be a whole number from 0"),
    ("a kernel of 0", lambda: ConvMixer(8, 1, 0), ValueError, "kernel_size must be a whole number from 1"),
    ("a patch of 0", lambda: ConvMixer(8, 1, 3, 0), ValueError, "patch_size must be a whole number from 1"),
    ("no classes", lambda: ConvMixer(8, 1, 3, 4, 0), ValueError, "num_classes must be a whole number from 1"),
    ("no colours", lambda: ConvMixer(8, 1, 3, 4, 10, 0), ValueError, "channels must be a whole number from 1"),
    ("an image below a patch", lambda: MODEL(V[..., :2, :2]), ValueError, "filled by the network's patches of 4"),
    ("images that patches do not fill", lambda: MODEL(V[..., :15]), ValueError, "these are 16 x 15: crop"),
    ("logits of the same", lambda: logits(MODEL, X[..., :15], **NORM), ValueError, "these are 16 x 15: crop"),
    ("bytes into the network", lambda: MODEL(X), TypeError, "in torch.float32, but the images are torch.uint8: norm"),
    ("long floats into it", lambda: MODEL(V.double()), TypeError, "but the images are torch.float64"),
    ("grey images into it", lambda: MODEL(V[:, :1]), ValueError, r"3 channels, \(N, 3, H, W\), but"),
    ("logits of grey images", lambda: logits(MODEL, X[:, :1], **NORM), ValueError, "takes images of 3 channels"),
    ("a type of 'yes'", lambda: logits(MODEL, X, **NORM, autocast="yes"), TypeError, "autocast must be a bool, but"),
]

LEARNING = [
    ("no classes of data", lambda: data(classes=()), ValueError, "must count into the 0 classes"),
    ("classes as a number", lambda: data(classes=4), TypeError, "classes must be a tuple of names"),
    ("labels as a list", lambda: data(train_labels=[0, 1, 2, 3]), TypeError, "train_labels must be a torch tensor"),
    ("too few labels", lambda: data(test_labels=Y[:3]), ValueError, "test_labels must have the shape"),
    ("NaN to learn", lambda: data(train_images=NAN), ValueError, "train_images must hold values .* NaN"),
    ("infinite tests", lambda: data(test_images=V / 0), ValueError, "test_images must hold values .* NaN"),
    ("images of no width", lambda: data(train_images=X[..., :0]), ValueError, "train_images must hold at least one"),
    ("no mean", lambda: data(mean=None), ValueError, "mean must hold 3"),
    ("no such data set", lambda: load_dataset("imagenet"), ValueError, 'choose "cifar10", "cifar100", "fontdigits" or'),
    ("no name", lambda: load_dataset(None), ValueError, "no data set None"),
    ("a list of names", lambda: load_dataset(["cifar10"]), ValueError, "no data set"),
    ("no such folder", lambda: load_dataset("cifar10", root="/none"), DatasetError, "there is no such folder"),
    ("a folder of half a character", lambda: load_dataset("cifar10", root=f"/{HALF}"), ValueError, "holds half a char"),
    ("epochs of 0", lambda: TrainSettings(epochs=0), ValueError, "epochs must be a whole number from 1"),
    ("epochs of 1.5", lambda: TrainSettings(epochs=1.5), TypeError, "epochs must be a whole number"),
    ("a rate of 0", lambda: TrainSettings(epochs=1, max_lr=0), ValueError, "max_lr must be a finite number"),
    ("a rate of NaN", lambda: TrainSettings(epochs=1, max_lr=float("nan")), ValueError, "max_lr must be a finite"),
    ("a rate as a text", lambda: TrainSettings(epochs=1, max_lr="x"), TypeError, "max_lr must be a number"),
    ("a seed of -1", lambda: TrainSettings(epochs=1, seed=-1), ValueError, "seed must be a whole number from 0"),
    ("flip of 1", lambda: TrainSettings(epochs=1, flip=1), TypeError, "flip must be True or False"),
    ("smoothing of 1", lambda: TrainSettings(epochs=1, label_smoothing=1), ValueError, "label_smoothing must be"),
    ("decay of -1", lambda: TrainSettings(epochs=1, weight_decay=-1), ValueError, "weight_decay must be"),
    ("no data to learn", lambda: train(given=None), TypeError, "data must be a Dataset, but this is NoneType"),
    ("no settings", lambda: train(settings=None), TypeError, "settings must be a TrainSettings"),
    ("settings as a dict", lambda: train(settings={"epochs": 1}), TypeError, "settings must be a TrainSettings"),
    ("a text that learns", lambda: train("model"), TypeError, "model must be a Module, but this is str"),
    ("nothing to train", lambda: train(nn.Identity()), ValueError, "its parameters are none"),
    ("a number as a folder", lambda: train(checkpoint=5), TypeError, "int"),
    ("a folder that cannot be", lambda: train(checkpoint="/proc/x"), CheckpointError, "/proc/x cannot be written"),
    ("a number as a transform", lambda: train(transform=5), TypeError, "transform must be a function"),
    (
        "a transform that gives nothing",
        lambda: train(transform=lambda x: None),
        TypeError,
        "what transform returns must",
    ),
    (
        "a transform that gives nothing, kept",
        lambda: train(transform=lambda x: None, checkpoint="c"),
        TypeError,
        "what transform returns must be a torch tensor, but this is NoneType",
    ),
    (
        "a transform that drops images",
        lambda: train(transform=lambda x: x[:1]),
        ValueError,
        "transform must keep the 2 images",
    ),
    ("a transform to long numbers", lambda: train(transform=lambda x: x.long()), TypeError, r"torch.int64: use \.to"),
    (
        "one value a channel",
        lambda: train(ConvMixer(8, 1, 1, 16), settings=dataclasses.replace(SETTINGS, batch_size=1)),
        ValueError,
        "from 1 image: raise batch_size",
    ),
    ("on no device", lambda: on_meta(lambda: train(MODEL)), ValueError, "default device is meta"),
    ("fewer classes", lambda: train(ConvMixer(8, 1, 3, 4, 2)), ValueError, "gave .2, 2.: make it with as many"),
    (
        "patches larger than images",
        lambda: train(ConvMixer(8, 1, 3, 32)),
        ValueError,
        "filled by the network's patches",
    ),
    ("a batch of 5 of 4", lambda: train(settings=TrainSettings(1, 5)), ValueError, "fewer than one batch of 5"),
    (
        "shifts of a million pixels",
        lambda: train(settings=TrainSettings(1, 2, crop_padding=10**6)),
        ValueError,
        "crop_padding must be a whole number from 0 to 16",
    ),
    ("grey levels as floats", lambda: data(train_images=X.float()), ValueError, r"train_images must hold values in"),
    ("a device unknown", lambda: train(device="gpu"), ValueError, "The device 'gpu' cannot be used here"),
    ("a device elsewhere", lambda: train(device="mps:7"), ValueError, "The device 'mps:7' cannot be used"),
    ("a device of no values", lambda: train(device="meta"), ValueError, "The device 'meta' cannot be used"),
    ("nothing to train", lambda: train(FROZEN), ValueError, "No parameter of the model is trained"),
    ("bfloat16 by name", lambda: train(autocast="bf16"), TypeError, "autocast must be a bool"),
    (
        "sparse labels",
        lambda: accuracy(MODEL, X, Y.to_sparse(), **NORM),
        TypeError,
        "labels must be an ordinary tensor",
    ),
    ("labels as objects", lambda: accuracy(MODEL, X, np.array([0, 1, 2, None]), **NORM), TypeError, "this is ndarray"),
    ("means as objects", lambda: normalise(X, np.array([None] * 3), (1,) * 3), ValueError, "mean must be finite"),
    (
        "statistics of floats to 255",
        lambda: channel_statistics(X.float()),
        ValueError,
        "these run from",
    ),
    ("logits of floats to 255", lambda: logits(MODEL, X.float(), **NORM), ValueError, "divide grey levels by 255"),
    ("a root of 3", lambda: load_dataset("folder", root=3, size=8), TypeError, "root must be the path of a folder"),
    ("a device of 3.5", lambda: train(device=3.5), ValueError, "The device '3.5' cannot be used"),
    (
        "a class for cipher",
        lambda: use.verify(MODEL, MODEL, PatchCipher, X, **NORM),
        TypeError,
        "have encrypt, .* type",
    ),
    ("a folder of huge images", lambda: load_dataset("folder", root=".", size=10**6), ValueError, "from 1 to 10000"),
    ("more images than there are", lambda: trials({}, 1, n_images=99), ValueError, "n_images must .* from 1 to 4"),
    ("logits taken by name", lambda: trials({}, 1, take="logits"), TypeError, "take must be a function"),
    ("no generator", lambda: augment(X, None), TypeError, "generator must be a torch.Generator"),
    ("shifts of -1", lambda: augment(X, DRAW, crop_padding=-1), ValueError, "crop_padding must be"),
    ("mirrored, perhaps", lambda: augment(X, DRAW, flip="yes"), TypeError, "flip must be True or False"),
    ("statistics of nothing", lambda: channel_statistics(X[:0]), ValueError, "at least one image"),
    ("statistics of an image", lambda: channel_statistics(X[0]), ValueError, r"\(N, C, H, W\)"),
    ("normalising by nothing", lambda: normalise(X, None, None), ValueError, "mean must hold 3"),
    ("normalising nothing", lambda: normalise(None, **NORM), TypeError, "images must be a torch tensor"),
    ("logits of no model", lambda: logits(None, X, **NORM), TypeError, "model must be a Module"),
    ("channels last", lambda: logits(MODEL, X.permute(0, 2, 3, 1), **NORM), ValueError, r"\(N, 3, H, W\)"),
    ("logits of nothing", lambda: logits(MODEL, None, **NORM), TypeError, "images must be a torch tensor"),
    ("logits of an image", lambda: logits(MODEL, X[0], **NORM), ValueError, r"\(N, C, H, W\)"),
    ("of two types", lambda: logits(MIXED, X, **NORM), TypeError, "bfloat16 and torch.float32, and what"),
    ("batches of 0", lambda: logits(MODEL, X, **NORM, batch_size=0), ValueError, "batch_size must be"),
    ("batches of '4'", lambda: logits(MODEL, X, **NORM, batch_size="4"), TypeError, "batch_size must be"),
    ("one std", lambda: logits(MODEL, X, mean=(0.5,) * 3, std=(0.3,)), ValueError, "std must hold 3"),
    ("no logits", lambda: logits(nn.Identity(), X, **NORM), ValueError, "must give logits"),
    ("two labels", lambda: accuracy(MODEL, X, Y[:2], **NORM), ValueError, r"labels must have the shape \(4,\)"),
    ("labels in a column", lambda: accuracy(MODEL, X, Y[:, None], **NORM), ValueError, "labels must have the shape"),
    ("labels from 20", lambda: accuracy(MODEL, X, Y + 20, **NORM), ValueError, "labels must be classes from 0 to 9"),
    ("labels from -1", lambda: accuracy(MODEL, X, Y - 1, **NORM), ValueError, "labels must be classes from 0 to 9"),
    ("labels as floats", lambda: accuracy(MODEL, X, Y.float(), **NORM), TypeError, "labels must be whole numbers"),
    ("no labels", lambda: accuracy(MODEL, X, None, **NORM), TypeError, "labels must be a torch tensor"),
    ("no images at all", lambda: accuracy(MODEL, X[:0], Y[:0], **NORM), ValueError, "no images, and so no accuracy"),
    ("NaN to classify", lambda: accuracy(MODEL, NAN, Y, **NORM), ValueError, "images must hold values .* NaN"),
    ("trials of nothing", lambda: trials(None), TypeError, "cipher must be a mapping"),
    ("a misspelt argument", lambda: trials({"patch": 4}), TypeError, "mapping of PatchCipher's arguments"),
    ("patches that do not fit", lambda: trials({"patch_size": 5}), ValueError, "do not divide the patches of 4"),
    ("-1 wrong keys", lambda: trials({}, -1), ValueError, "n_wrong must be a whole number from 0"),
    ("1.5 wrong keys", lambda: trials({}, 1.5), TypeError, "n_wrong must be a whole number"),
    ("the right key as wrong", lambda: trials({}, [0]), ValueError, "Key 0 is the correct one"),
    ("a wrong key twice", lambda: trials({}, [5, 5]), ValueError, "each wrong key once"),
    ("no images for keys", lambda: trials({}, 1, n_images=0), ValueError, "n_images must be"),
    ("a seed of '0'", lambda: trials({}, 1, seed="0"), TypeError, "seed must be a whole number"),
    ("wrong keys of a cipher", lambda: trials(CIPHER, 3), ValueError, "A cipher has no wrong keys"),
    ("a function of nothing", lambda: trials(lambda key: None, 1), TypeError, "cipher must be a PatchCipher"),
    ("trials of no data", lambda: key_trials(MODEL, None, {}), TypeError, "data must be a Dataset"),
]

ALL = {"trials": 1, **NORM}
W = MODEL[0].weight


def related(*weights, patch_size=4):
    return on_repairs.relative_cipher(*weights, std=(0.3,) * 3, patch_size=patch_size)


def bounded(limits):
    return lambda: adversarial.pgd(MODEL, X, Y, **NORM, limits=limits)


LIMITS = {(1, 0): ValueError, (0, float("nan")): ValueError, (0,): TypeError, "01": TypeError, 1: TypeError}
F = X.float()  # grey levels, as floats
GREY_LEVELS = {
    "moments": lambda: on_images.patch_moments(F, 4),
    "encrypted": lambda: on_images.ciphertext_only(F, X),
    "public": lambda: on_images.ciphertext_only(X, F),
    "known": lambda: on_images.known_plaintext(F, X),
    "plain": lambda: on_images.known_plaintext(X, F),
    "by position": lambda: on_repairs.ciphertext_only_by_position(X, F),
    "known by position": lambda: on_repairs.known_plaintext_by_position(F, X),
    "turned": lambda: jigsaw.jigsaw_by_position(F, X),
    "moved": lambda: jigsaw.jigsaw_of_places(X, F),
    "components": lambda: higher_order.independent_components(F, 4),
    "tried": lambda: on_models.random_keys(MODEL, F, Y, **ALL),
    "climbed": lambda: on_models.hill_climb(MODEL, F, Y, **ALL),
    "searched": lambda: on_models.gradient_search(MODEL, F, Y, **NORM, iterations=1),
    "compared": lambda: on_models.from_statistics(MODEL, F, **ALL),
    "loss": lambda: on_models.key_loss(MODEL, CIPHER, F, Y, **NORM),
    "pgd": lambda: adversarial.pgd(MODEL, F, Y, **NORM),
    "square": lambda: adversarial.square(MODEL, F, Y, **NORM),
    "autoattack": lambda: adversarial.autoattack(MODEL, F, Y, **NORM),
    "noise": lambda: adversarial.noise(F),
}
ATTACKS = [
    ("two shapes", lambda: metrics.psnr(X, X[:2]), ValueError, r"not \(4, 3, 16, 16\) and \(2, 3, 16, 16\)"),
    ("sparse images to compare", lambda: metrics.psnr(V.to_sparse(), V.to_sparse()), TypeError, "must be an ordinary"),
    ("bytes and grey levels", lambda: metrics.psnr(X, X.float()), ValueError, "divide grey levels by 255"),
    ("grey levels alike", lambda: metrics.ssim(X.float(), X), ValueError, "these run from"),
    ("an estimate of 8", lambda: matching.share_recovered(PatchCipher(KEY, 8), CIPHER), ValueError, "one patch size"),
    ("a chain of two sizes", lambda: on_repairs.chained(CIPHER, PatchCipher(KEY, 8)), ValueError, "one patch size"),
    (
        "a chain of colours",
        lambda: on_repairs.chained(CIPHER, PatchCipher(KEY, 4, 1)),
        ValueError,
        "one patch size",
    ),
    ("a chain of nothing", lambda: on_repairs.chained(None, CIPHER), TypeError, "first must be a PatchCipher"),
    ("filters of two models", lambda: related(W, W[:5]), ValueError, "weight and other must have one shape"),
    ("filters of 5", lambda: related(W, W, patch_size=5), ValueError, r"weight must be filters \(dim, 75\)"),
    ("no other filters", lambda: related(W, None), TypeError, "other must be a torch tensor"),
    ("black images", lambda: on_images.ciphertext_only(0 * X, X), ValueError, "or all patches are alike"),
    ("black public images", lambda: on_images.ciphertext_only(X, 0 * X), ValueError, "or all patches are alike"),
    ("black pairs", lambda: on_images.known_plaintext(0 * X, 0 * X), ValueError, "encrypted must hold more than one"),
    ("a black answer", lambda: on_images.chosen_plaintext(lambda x: 0 * x), ValueError, "encrypted must hold more"),
    ("a cipher for encrypt", lambda: on_images.chosen_plaintext(CIPHER), TypeError, "such as cipher.encrypt"),
    *((f"{name} to 255", call, ValueError, "divide grey levels by 255") for name, call in GREY_LEVELS.items()),
    *((f"limits of {given}", bounded(given), error, "limits must be") for given, error in LIMITS.items()),
    ("beyond the limits", lambda: adversarial.pgd(MODEL, 2 * V, Y, **NORM, limits=(0, 1.5)), ValueError, "in .0, 1.5."),
    ("long numbers", lambda: metrics.psnr(X.long(), X.long()), TypeError, "these are int64 and int64"),
    ("nothing to compare", lambda: metrics.ssim(None, None), ValueError, "Compare two batches"),
    ("windows that do not fit", lambda: metrics.ssim(X[..., :6, :6], X[..., :6, :6]), ValueError, "7 x 7 pixels"),
    ("no estimate", lambda: matching.share_recovered(None, CIPHER), TypeError, "estimate must be a PatchCipher"),
    ("no encrypted images", lambda: on_images.ciphertext_only(X[:0], X), ValueError, "at least one image"),
    ("grey public images", lambda: on_images.ciphertext_only(X, X[:, :1]), ValueError, "as many channels"),
    ("patches of 3", lambda: on_images.ciphertext_only(X, X, 3), ValueError, "patches of 3 fill"),
    ("restarts of -1", lambda: on_images.ciphertext_only(X, X, restarts=-1), ValueError, "restarts must be"),
    ("NaN seen", lambda: on_images.ciphertext_only(NAN, X), ValueError, "some are NaN"),
    ("NaN known", lambda: on_images.known_plaintext(NAN, V), ValueError, "some are NaN"),
    ("no pairs", lambda: on_images.known_plaintext(X, None), TypeError, "plain must be a torch tensor"),
    ("half the pairs", lambda: on_images.known_plaintext(X, X[:2]), ValueError, "must pair up"),
    ("a chosen patch of 0", lambda: on_images.chosen_image(0), ValueError, "patch_size must be"),
    ("no colours chosen", lambda: on_images.chosen_image(4, 0), ValueError, "channels must be"),
    ("steps unknown", lambda: on_images.chosen_image(steps=("no",)), ValueError, "steps must be"),
    ("an oracle that says nothing", lambda: on_images.chosen_plaintext(lambda x: None), TypeError, "encrypted must be"),
    ("-1 trials", lambda: on_models.random_keys(MODEL, X, Y, trials=-1, **NORM), ValueError, "trials must be"),
    ("nothing to try on", lambda: on_models.random_keys(MODEL, X[:0], Y[:0], **ALL), ValueError, "labels must be"),
    ("no model", lambda: on_models.random_keys(None, X, Y, **ALL), TypeError, "model must be a torch module"),
    ("labels past 10", lambda: on_models.hill_climb(MODEL, X, Y + 9, **ALL), ValueError, "at least 13 classes"),
    (
        "gradients of labels past 10",
        lambda: on_models.gradient_search(MODEL, X, Y + 9, **NORM, iterations=1),
        ValueError,
        "at least 13 classes",
    ),
    ("statistics from nothing", lambda: on_models.from_statistics(MODEL, X[:0], **ALL), ValueError, "at least one"),
    (
        "filters of two sizes",
        lambda: on_models.from_filters(MODEL, ConvMixer(8, 1, 3, 8), std=(0.3,) * 3),
        ValueError,
        "patches of one size",
    ),
    ("no data stolen", lambda: on_models.retrain(MODEL, None, 2, SETTINGS, n_steps=1), TypeError, "data must be"),
    ("200 of 4", lambda: on_models.retrain(MODEL, DATA, 200, SETTINGS, n_steps=1), ValueError, "n_images must be"),
    ("two sizes", lambda: on_repairs.ciphertext_only_by_position(X, X[..., :8]), ValueError, "must have one shape"),
    ("patches of 5", lambda: on_repairs.known_plaintext_by_position(X, X, 5), ValueError, "patches of 5 fill"),
    ("0 by position", lambda: on_repairs.chosen_image_by_position(0), ValueError, "patch_size must be"),
    ("4 in 30", lambda: on_repairs.chosen_image_by_position(4, 3, 30), ValueError, "do not divide images of 30"),
    ("bits of 0", lambda: on_repairs.chosen_image_of_bits(0), ValueError, "patch_size must be"),
    ("no filters", lambda: on_repairs.bits_in_order(None), ValueError, "weight must be"),
    ("empty filters", lambda: on_repairs.bits_in_order(torch.zeros(4, 24, 4, 4)), ValueError, "no column of it 0"),
    ("no public pieces", lambda: jigsaw.jigsaw_by_position(X, X[:0]), ValueError, "public must hold at least one"),
    ("components of 5", lambda: higher_order.independent_components(X, 5), ValueError, "patches of 5 fill"),
    ("eps of -1", lambda: adversarial.pgd(MODEL, X, Y, **NORM, eps=-1), ValueError, "eps must be a finite number"),
    ("eps of NaN", lambda: adversarial.pgd(MODEL, X, Y, **NORM, eps=float("nan")), ValueError, "eps must be"),
    ("steps of 0", lambda: adversarial.pgd(MODEL, X, Y, **NORM, steps=0), ValueError, "steps must be"),
    ("batches of 0", lambda: adversarial.pgd(MODEL, X, Y, **NORM, batch_size=0), ValueError, "batch_size must be"),
    ("nobody to fool", lambda: adversarial.pgd(None, X, Y, **NORM), TypeError, "model must be a Module"),
    ("nothing to change", lambda: adversarial.pgd(MODEL, X[:0], Y[:0], **NORM), ValueError, "labels must be classes"),
    ("classes it lacks", lambda: adversarial.pgd(MODEL, X, Y + 9, **NORM), ValueError, "at least 13 classes"),
    ("classes below 0", lambda: adversarial.square(MODEL, X, Y - 1, **NORM), ValueError, "labels must be classes"),
    ("queries of '1'", lambda: adversarial.square(MODEL, X, Y, **NORM, queries="1"), TypeError, "queries must be"),
    ("noise of 2", lambda: adversarial.noise(X, eps=2), ValueError, "eps must be a finite number from 0 to 1"),
    ("noise on nothing", lambda: adversarial.noise(None), TypeError, "images must be a torch tensor"),
]

P4 = {"patch_size": 4}
STUDY = [
    ("a scale outside", lambda: records.results_dir("../x"), ValueError, r"no scale '\.\./x'"),
    ("no scale", lambda: records.results_dir(None), ValueError, "no scale None"),
    ("a table outside", lambda: records.table_path("small", "../../x"), ValueError, r"no table '\.\./\.\./x'"),
    ("a table of no rows", lambda: records.read("small", "nope"), FileNotFoundError, "No rows of 'nope'"),
    ("rows of nothing", lambda: records.write("t.csv", [{}]), ValueError, "lacks measure, value"),
    ("a huge scale", lambda: trained_model("huge"), ValueError, "SCALE is one of quick, small, paper"),
    ("no scale trained", lambda: trained_model(None), ValueError, "no scale None"),
    ("a model of '0'", lambda: trained_model("quick", seed="0"), TypeError, "seed must be a whole number"),
    ("a model of -1", lambda: trained_model("quick", seed=-1), ValueError, "seed must be a whole number from 0"),
    ("no patches", lambda: Scale("x", DATA, {}, SETTINGS, 1), ValueError, "patch_sizes must begin with"),
    (
        "a misspelt size",
        lambda: Scale("x", DATA, P4 | {"dimm": 3}, SETTINGS, 1),
        ValueError,
        "ConvMixer, but has 'dimm'",
    ),
    ("seeds twice", lambda: Scale("x", DATA, P4, SETTINGS, 1, seeds=(0, 0)), ValueError, "seeds must be different"),
    ("a seed of 0.5", lambda: Scale("x", DATA, P4, SETTINGS, 1, seeds=(0.5,)), TypeError, "seeds must be a whole"),
    ("seeds as a number", lambda: Scale("x", DATA, P4, SETTINGS, 1, seeds=3), TypeError, "seeds must be a tuple"),
    (
        "a data set unknown",
        lambda: Scale("x", "cifar", P4, SETTINGS, 1),
        ValueError,
        "dataset must be a Dataset or one",
    ),
    ("-5 wrong keys", lambda: Scale("x", DATA, P4, SETTINGS, -5), ValueError, "n_wrong must be a whole number from 0"),
    ("no draws", lambda: AttackSettings(draws=0), ValueError, "draws must be a whole number from 1"),
    (
        "what differs, as a number",
        lambda: Scale("x", DATA, P4, SETTINGS, 1, finer=3),
        TypeError,
        "finer must be a Mapping",
    ),
    (
        "what differs at 2, as one",
        lambda: Scale("x", DATA, P4, SETTINGS, 1, finer={2: 3}),
        ValueError,
        "finer must give",
    ),
    ("no training", lambda: Scale("x", DATA, P4, None, 1), TypeError, "train must be a TrainSettings"),
    (
        "a list of ciphers",
        lambda: Scale("x", DATA, P4, SETTINGS, 1, ciphers=["flip"]),
        TypeError,
        "ciphers must be a M",
    ),
    ("a model elsewhere", lambda: trained_model("quick", device="gpu"), ValueError, "The device 'gpu' cannot be used"),
    ("a scale's name", lambda: Scale("../x", DATA, {"patch_size": 4}, SETTINGS, 1), ValueError, r"no scale '\.\./x'"),
]

ROWS = [*KEYS, *CIPHERS, *MODELS, *LEARNING, *ATTACKS, *STUDY]


@pytest.mark.parametrize(("call", "error", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_call_is_refused_in_a_sentence(call, error, words, limit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*.key"))


def test_there_are_enough_rows():
    assert len(ROWS) >= 150


BOTH = torch.stack([X, X])
VIEWS = {
    "turned": X.transpose(2, 3),
    "mirrored": X.flip(3),
    "every second": BOTH[0].repeat(2, 1, 1, 1)[::2],
    "channels last": X.to(memory_format=torch.channels_last),
    "expanded": X[:1].expand(4, -1, -1, -1),
    "a window": torch.nn.functional.pad(X, (2, 2, 2, 2))[..., 2:-2, 2:-2],
    "from an array of negative strides": torch.from_numpy(X.numpy()[:, :, ::-1].copy()).flip(2),
    "asking for gradients": V.clone().requires_grad_(),
    "none": X[:0],
}
USES = {
    "encrypt": CIPHER.encrypt,
    "decrypt": CIPHER.decrypt,
    "mix": MIXING.encrypt,
    "move": BlockCipher(KEY, 4, image_size=16).encrypt,
    "by position": position.PositionCipher(KEY, 4, image_size=16).encrypt,
    "normalise": lambda x: normalise(x, **NORM),
    "logits": lambda x: logits(MODEL, x, **NORM),
    "augment": lambda x: augment(x, torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("what", USES)
def test_views_of_any_stride_are_what_they_show(what, view):
    given = VIEWS[view]
    before = given.detach().clone(memory_format=torch.contiguous_format)
    found, expected = USES[what](given), USES[what](before)
    assert found.shape == expected.shape and torch.allclose(found.double(), expected.double(), atol=1e-5)
    assert given.detach().equal(before)  # and nothing is changed in place


UNFINISHED = [PatchCipher, BlockCipher, SecretKey, position.PositionCipher]


@pytest.mark.parametrize("kind", UNFINISHED)
def test_what_was_not_finished_can_be_shown(kind):
    """A traceback that shows variables shows the object that could not be made; it must not fail itself."""
    assert kind.__name__ in repr(kind.__new__(kind))


def test_a_class_of_ciphers_is_a_function_from_a_key():
    assert trials(PatchCipher, 1).equals(trials({}, 1))
