"""Wrong commands and hostile files: exit status 1 with one sentence that names the file and what is wrong with it, or 2
where the command line itself is wrong; never a traceback, a hang, or an output."""

import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import save

from cmxlib import SecretKey
from cmxlib.__main__ import main
from cmxlib.learn import train
from cmxlib.paths import ROOT, told
from cmxlib.study import sweep

from ..files.test_graphs import far, model

POSIX = os.name == "posix"
RGB = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
STATE = {"a.weight": torch.ones(8, 3, 4, 4), "a.bias": torch.ones(8)}

# -- what the files are made by ------------------------------------------------------------------------------------


def text_of_key(**changes):
    """The text of a good key file, with lines changed by their name."""
    SecretKey.for_experiment(1).save("good.key")
    with open("good.key", "rb") as file:
        lines = file.read().decode().splitlines()
    os.unlink("good.key")
    return "".join(f"{changes.get(line.partition(':')[0], line)}\n" for line in lines)


def key_file(change, mode=0o600):
    """my.key, with the text that ``change`` makes of a good one."""

    def make():
        found = change(text_of_key().encode())
        with open(os.open("a.key", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(found)
        os.chmod("a.key", mode)

    return make


def content(name, data):
    """A file of these bytes, or what a function gives."""

    def make():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(data() if callable(data) else data)

    return make


def png(pixels=RGB, **texts):
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width, height, *chunks, rows=b""):
    """A PNG that says a size, whatever it holds."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def spoilt(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


RECORD = {"version": 1, "key": "4b3479a0c1addfaa", "steps": ["flip"], "patch": 4, "size": [8, 8], "mode": "RGB"}


def recorded(text=None, **changes):
    """An encrypted image whose record is this text, or the usual one with changes."""
    return content("a.png", lambda: png(cmxlib=json.dumps({**RECORD, **changes}) if text is None else text))


def header(text, data=b""):
    text = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape="[8,3,4,4]", kind="F32", offsets="[0,1536]"):
    return f'{{"a.weight":{{"dtype":"{kind}","shape":{shape},"data_offsets":{offsets}}}}}'


def safetensors(text, size=1536):
    return content("a.safetensors", lambda: header(text, bytes(size)))


def zipped(**entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


def array(value, name="a.npy", **options):
    return lambda: np.save(name, value, **options)


def npy(text):
    data = text.encode()
    return content("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + bytes(192))


def onnx_file(change):
    def make():
        found = model()
        given = change(found)
        with open("a.onnx", "wb") as file:
            file.write((given or found).SerializeToString())

    return make


def negative(found):
    found.graph.initializer[0].dims[0] = -8


def of_bytes(found):
    found.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    found.graph.node[0].input[0] = "floats"
    cast = onnx.helper.make_node("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT)
    found.graph.node.insert(0, cast)


def nested(found):
    """Graphs in graphs, deeper than any parser goes."""
    graph = found.graph
    for _ in range(300):
        node = graph.node.add(op_type="If", output=["z"])
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        graph = attribute.g


def circle(found):
    found.graph.node[0].input[0] = "y"


def pipe(name):
    return lambda: os.mkfifo(name)


def link(to, name):
    return lambda: os.symlink(to, name)


def folder(*makers):
    def make():
        os.makedirs("in", exist_ok=True)
        for maker in makers:
            maker()

    return make


good = content("in/a.png", png)
BEYOND = onnx_file(lambda found: far("w.bin", offset="9" * 400))
nothing = folder()
LOCK = "--key my.key --patch 4"
NORM = "--key my.key --patch 4 --norm imagenet"
SHUT, ALL = f"encrypt-images a.png b.png {LOCK}", f"encrypt-images in out {LOCK}"

# -- (what, how it is made, command, status, words) ----------------------------------------------------------------

KEY_FILES = [
    (
        "a line too many",
        key_file(lambda t: t + b"more\n"),
        "key show a.key",
        1,
        "there is something behind its last line",
    ),
    ("lines twice", key_file(lambda t: t + t), "key show a.key", 1, "something behind its last line"),
    ("UTF-16", key_file(lambda t: t.decode().encode("utf-16")), "key show a.key", 1, "has saved it in UTF-16"),
    ("a BOM", key_file(lambda t: b"\xef\xbb\xbf" + t), "key show a.key", 1, "a byte order mark"),
    ("old line ends", key_file(lambda t: t.replace(b"\n", b"\r")), "key show a.key", 1, "not a complete"),
    ("capitals", key_file(lambda t: t.upper()), "key show a.key", 1, "is no cmxlib key file"),
    ("a space", key_file(lambda t: t.replace(b"secret: ", b"secret:  ")), "key show a.key", 1, "not a complete"),
    ("no last line end", key_file(lambda t: t[:-1]), "key show a.key", 1, "its last line lacks its end"),
    ("a NUL", key_file(lambda t: t.replace(b"\n", b"\0\n", 1)), "key show a.key", 1, "not a complete"),
    ("version 9", key_file(lambda t: t.replace(b"version 2", b"version 9")), "key show a.key", 1, "not a complete"),
    ("version 1", key_file(lambda t: t.replace(b"version 2", b"version 1")), "key show a.key", 1, "check does not"),
    ("another check", key_file(lambda t: spoilt(t, -2)), "key show a.key", 1, "a.key"),
    ("another origin", key_file(lambda t: t.replace(b"t 1", b"t 2")), "key show a.key", 1, "check does not match"),
    ("a long one", key_file(lambda t: t * 10_000), "key show a.key", 1, "something behind its last line"),
    ("read by all", key_file(lambda t: t, 0o644), "key show a.key", 1, "run chmod 600 a.key"),
    ("read by a group", key_file(lambda t: t, 0o640), "key show a.key", 1, "run chmod 600 a.key"),
    ("a folder", lambda: os.mkdir("a.key"), "key show a.key", 1, "no regular file"),
    ("nowhere", nothing, "key show none/a.key", 1, "none/a.key: No such file"),
    ("nothing at all", key_file(lambda t: b""), "key show a.key", 1, "it is empty"),
    ("a PEM", content("a.key", b"-----BEGIN CERTIFICATE-----\n"), "key show a.key", 1, "is no cmxlib key file"),
    ("a photo", content("a.png", png), "encrypt-images a.png b.png --key a.png --patch 4", 1, "is no cmxlib key file"),
    ("an empty name", nothing, ["key", "show", ""], 2, "'' is no name of a file or folder (is a variable of the"),
    ("a new one of no name", nothing, ["key", "new", ""], 2, "'' is no name of a file"),
    ("a new one to the output", nothing, "key new -", 2, "'-' is no name of a file"),
    ("a new one in place of the folder", nothing, "key new .", 1, ". is a folder: name a file in it"),
    ("a passphrase told", nothing, "key new a.key --passphrase abc", 2, "--passphrase takes no value, for the"),
    ("a passphrase by =", nothing, "key new a.key --passphrase=hidden", 2, "--passphrase takes no value, for the"),
    ("its name cut short", nothing, "key new a.key --passphras=hidden", 2, "--passphrase takes no value, for the"),
    ("a passphrase to show", nothing, "key show my.key --passphrase=hidden", 2, "--passphrase takes no value"),
    ("an escape sequence", nothing, ["key", "show", "a\x1b[31m.key"], 1, "a\\x1b[31m.key: No such file"),
    ("an escape sequence too many", nothing, ["key", "show", "my.key", "\x1b[31m"], 2, "arguments: \\x1b[31m"),
    ("a new one in no folder", nothing, "key new none/a.key", 1, "none/a.key cannot be written: No such file"),
    ("a new one with a long name", nothing, f"key new {'a' * 300}", 1, "File name too long"),
    ("a new one in place of another", nothing, "key new my.key", 1, "exists already"),
    ("a new one in place of a link", link("none", "a.key"), "key new a.key", 1, "exists already"),
    ("no verb", nothing, "key", 2, "new|show"),
    ("no file", nothing, "key show", 2, "file"),
]

IMAGES = [
    ("a bit turned", content("a.png", lambda: spoilt(png(), 60)), SHUT, 1, "damaged"),
    ("no rows", content("a.png", png_of(8, 8)), SHUT, 1, "damaged"),
    ("a size of 2^31", content("a.png", png_of(2**31 - 1, 2**31 - 1)), SHUT, 1,
     "a.png has more than 89,478,485 pixels"),
    ("a width of 0", content("a.png", png_of(0, 8)), SHUT, 1, "a.png"),
    ("a text bomb", content("a.png", lambda: png_of(8, 8, chunk(b"zTXt", b"cmxlib\0\0" + zlib.compress(bytes(10**8))))),
     SHUT, 1, "a.png is damaged"),
    ("a TIFF to nowhere", content("a.tiff", b"II*\0" + b"\xff" * 60),
     f"encrypt-images a.tiff b.png {LOCK}", 1, "a.tiff"),
    ("a GIF of nothing", content("a.gif", b"GIF89a" + bytes(7)), f"encrypt-images a.gif b.png {LOCK}", 1, "a.gif"),
    ("half a WebP", content("a.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(20)),
     f"encrypt-images a.webp b.png {LOCK}", 1, "a.webp"),
    ("a BMP of 2^31", content("a.bmp", b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 2**31 - 1, 1, 1, 24) + bytes(30)),
     f"encrypt-images a.bmp b.png {LOCK}", 1, "a.bmp"),
    ("a pipe", pipe("a.png"), SHUT, 1, "a.png is no regular file"),
    ("a device to an array", nothing, f"encrypt-images /dev/null b.npy {LOCK}", 1, "/dev/null is no regular file"),
    ("a pipe in a folder", folder(good, pipe("in/b.png")), ALL, 1, "in/b.png is no regular"),
    ("a pipe as a record", folder(array(np.zeros((1, 3, 8, 8))), pipe("a.npy.json")),
     f"encrypt-images a.npy b.npy {LOCK}", 1, "a.npy.json is no regular file"),
    ("a link to itself", folder(good, link("b.png", "in/b.png")), ALL, 1, "in/b.png"),
    ("a link to a folder in it", folder(good, lambda: os.mkdir("more"), link("../more", "in/more")), ALL, 1,
     "in/more is a link to a folder: put the folder itself there"),
    ("a link to the folder itself", folder(good, link(".", "in/again")), ALL, 1, "in/again is a link to a folder"),
    ("a link to nowhere", folder(good, link("none", "in/b.png")), ALL, 1, "in/b.png: No such"),
    ("a link to zeros", folder(good, link("/dev/zero", "in/b.png")), ALL, 1, "no regular"),
    ("a folder named so", folder(lambda: os.makedirs("in/a.png/b.png")), ALL, 1, "no image"),
    ("out is in", folder(good), f"encrypt-images in in {LOCK}", 1, "in is the folder of the images itself"),
    ("out by ..", folder(good), f"encrypt-images in in/../in/out {LOCK}", 1, "lies in in"),
    ("out by a link", folder(good, link("in", "out")), ALL, 1, "out is the folder of the images itself"),
    ("out is a link to itself", folder(good, link("out", "out")), ALL, 1, "out: File exists: name another."),
    ("out in place of a folder", folder(good, lambda: os.makedirs("out/a.png")), ALL, 1, "out/a.png is a folder"),
    ("out is a folder named as an image", folder(good), f"encrypt-images in b.png {LOCK}", 1,
     "b.png is the name of a file, but in is a folder"),
    ("an escape sequence", content("in/\x1b[31m.png", b"no"), ALL, 1, "in/\\x1b[31m.png is no image"),
    ("out is a device", folder(good), f"encrypt-images in /dev/null {LOCK}", 1, "/dev/null is a file"),
    ("out below a file", folder(good), f"encrypt-images in/a.png my.key/b.png {LOCK}", 1, "my.key"),
    ("out is a link to nowhere", folder(good, link("none", "b.png")), f"encrypt-images in/a.png b.png {LOCK}", 1,
     "b.png exists already"),
    ("out on itself", folder(good), f"encrypt-images in/a.png in/a.png {LOCK}", 1, "in/a.png is the input itself"),
    ("out on itself, replaced", folder(good), f"encrypt-images in/a.png in/a.png {LOCK} --force", 1, "input itself"),
    ("in with a dash in front", content("-a.png", png), f"encrypt-images -a.png b.png {LOCK}", 2,
     "a name that begins with a dash is given as ./-NAME"),
    ("a name of two lines", content("in/a\nb.png", b"no"), ALL, 1, "in/a b.png is no image"),
    ("no name of UTF-8", content(b"\xff.png".decode("utf-8", "surrogateescape"), b"no"),
     ["encrypt-images", b"\xff.png".decode("utf-8", "surrogateescape"), "b.png", *LOCK.split()], 1, "is no image"),
    ("patches of a billion", folder(good),
     "encrypt-images in out --key my.key --patch 999999999", 1, "999999999 pixels"),
    ("patches of 128", folder(good), "encrypt-images in out --key my.key --patch 128", 1, "choose a smaller --patch."),
    ("patches larger than the image", folder(good), "encrypt-images in/a.png b.png --key my.key --patch 64", 1,
     "patches of 64 (--patch) do not fill: give --resize N to enlarge it, or --pad"),
    ("patches that do not fill it", folder(good), "encrypt-images in/a.png b.png --key my.key --patch 3", 1,
     "patches of 3 (--patch) do not fill: give --crop N"),
    ("out of other patches", folder(good, content("b.png", lambda: png(cmxlib=json.dumps(RECORD)))),
     "encrypt-images in/a.png b.png --key my.key --patch 2 --steps flip", 1,
     "b.png exists already, encrypted with --patch 4, not with --patch 2: give --force"),
    ("in encrypted already, as out", folder(*(content(name, lambda: png(cmxlib=json.dumps(RECORD)))
     for name in ("in/a.png", "b.png"))), f"encrypt-images in/a.png b.png {LOCK}", 1, "in/a.png is encrypted already"),
    ("patches of 1e3", folder(good), "encrypt-images in out --key my.key --patch 1e3", 2, "no whole number from 1"),
    ("patches in Arabic digits", folder(good), "encrypt-images in out --key my.key --patch ٣", 2, "no whole number"),
    ("patches of a trillion", folder(good), f"encrypt-images in out --key my.key --patch {10**12}", 2,
     "no whole number from 1 to 999,999,999"),
    ("no patch", folder(good), "encrypt-images in out --key my.key", 2, "--patch"),
    ("no key", folder(good), "encrypt-images in out --patch 4", 2, "--key"),
    ("a key that is not there", folder(good),
     "encrypt-images in out --key no.key --patch 4", 1, "no.key: No such file"),
    ("a crop too large", folder(good),
     f"encrypt-images in/a.png b.png {LOCK} --crop 999", 1, "smaller than --crop 999"),
    ("a side of a billion", folder(good),
     f"encrypt-images in/a.png b.png {LOCK} --resize 999999999", 1, "smaller side"),
    ("no images", nothing, ALL, 1, "holds no image"),
    ("nowhere", nothing, f"encrypt-images none out {LOCK}", 1, "none"),
    ("an empty name", nothing, ["encrypt-images", "", "b.png", *LOCK.split()], 2, "IN: '' is no name of a file"),
    ("out has no name", folder(good), ["encrypt-images", "in", "", *LOCK.split()], 2, "OUT: '' is no name of a file"),
    ("no name of a key", folder(good), ["encrypt-images", "in", "out", "--key", "", "--patch", "4"], 2, "--key: ''"),
]  # fmt: skip

OPEN = "decrypt-images a.png b.png --key my.key"
RECORDS = [
    ("a name twice", recorded('{"version": 1, "version": 1}'), OPEN, 1, "a.png has a damaged record"),
    ("a huge number", recorded('{"version": 1e999}'), OPEN, 1, "damaged record"),
    ("thousands of digits", recorded('{"version": ' + "9" * 5000 + "}"), OPEN, 1, "damaged record"),
    ("NaN", recorded('{"version": NaN}'), OPEN, 1, "damaged record"),
    ("brackets", recorded("[" * 50_000), OPEN, 1, "damaged record"),
    ("a megabyte", recorded('{"version": 1, "a": "' + "a" * 10**6 + '"}'), OPEN, 1, "damaged record"),
    ("a list", recorded("[1, 2]"), OPEN, 1, "damaged record"),
    ("nothing", recorded(""), OPEN, 1, "damaged record"),
    ("half of it", recorded(json.dumps(RECORD)[:-9]), OPEN, 1, "damaged record"),
    ("a later version", recorded(version=3), OPEN, 1, "by a later cmxlib (record of version 3)"),
    ("a patch of a million", recorded(patch=10**6), OPEN, 1, "1000000"),
    ("a patch of 2^30", recorded(patch=2**30), OPEN, 1, "damaged record"),
    ("a patch of True", recorded(patch=True), OPEN, 1, "damaged record"),
    ("a patch of 4.0", recorded(patch=4.0), OPEN, 1, "damaged record"),
    ("steps unknown", recorded(steps=["twist"]), OPEN, 1, "damaged record"),
    ("steps twice", recorded(steps=["flip", "flip"]), OPEN, 1, "a.png"),
    ("no steps", recorded(steps=[]), OPEN, 1, "damaged record"),
    ("steps as a text", recorded(steps="flip"), OPEN, 1, "damaged record"),
    ("another key", recorded(key="0" * 16), OPEN, 1, "with the key 0000000000000000"),
    ("a size of others", recorded(size=[8, 9]), OPEN, 1, "was resized or changed"),
    ("padded to more", recorded(original=[9, 9]), OPEN, 1, "damaged record"),
    ("a name unknown", recorded(run="rm"), OPEN, 1, "damaged record"),
]

CLOSE = f"encrypt-images a.npy b.npy {LOCK}"
ARRAYS = [
    ("a header of code", npy("{'descr': __import__('os').mkdir('x'), 'shape': (1,)}"), CLOSE, 1, "no array of numbers"),
    ("a shape below 0", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 3, 8, 8), }"), CLOSE, 1, "a.npy"),
    ("a shape past memory", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2**40, 3, 8, 8), }"), CLOSE, 1,
     "no array of numbers"),
    ("brackets", npy("(" * 5000), CLOSE, 1, "no array of numbers"),
    ("a header cut off", npy("{'descr': '|u1', 'fortran_order'"), CLOSE, 1, "cut off: save it anew, by numpy.save."),
    ("out on itself, an array", array(np.zeros((1, 3, 8, 8))), f"encrypt-images a.npy a.npy {LOCK} --force", 1,
     "a.npy is the input itself"),
    ("out of other steps", folder(array(np.zeros((1, 3, 8, 8))), content("b.npy", b""),
     content("b.npy.json", json.dumps(RECORD | {"dtype": "uint8"}).encode())), CLOSE, 1,
     "with --steps flip, not with --steps shuffle,flip"),
    ("no header", content("a.npy", b"\x93NUMPY"), CLOSE, 1, "no array of numbers"),
    ("nothing", content("a.npy", b""), CLOSE, 1, "no array of numbers"),
    ("no images in it", array(np.zeros((0, 3, 8, 8))), CLOSE, 1, "a.npy holds no image"),
    ("five axes", array(np.zeros((1, 1, 3, 8, 8))), CLOSE, 1, "images are (N, C, H, W)"),
    ("several by name", lambda: np.savez("a.npz", a=RGB), f"encrypt-images a.npz b.png {LOCK}", 1, "each as a .npy"),
    ("truth values", array(np.zeros((1, 3, 8, 8), bool)), CLOSE, 1, "holds bool"),
    ("complex numbers", array(np.zeros((1, 3, 8, 8), complex)), CLOSE, 1, "holds complex128"),
    ("texts", array(np.full((1, 3, 8, 8), "a")), CLOSE, 1, "images are (N, C, H, W)"),
    ("infinity", array(np.full((1, 3, 8, 8), np.inf)), CLOSE, 1, "a.npy: Float images must hold values"),
    ("a width of 7", array(np.zeros((1, 3, 8, 7))), CLOSE, 1, "divisible by the block size 4"),
    ("resized", array(np.zeros((1, 3, 8, 8))), f"{CLOSE} --resize 8", 1, "resize, crop and pad it before"),
    ("not encrypted", array(np.zeros((1, 3, 8, 8))), "decrypt-images a.npy b.npy --key my.key", 1, "no record"),
    ("a record with a BOM", folder(array(np.zeros((1, 3, 8, 8))), content("a.npy.json", b"\xef\xbb\xbf{}")), CLOSE, 1,
     "a.npy.json has a damaged record"),
    ("another's file in place of the record", folder(array(np.zeros((1, 3, 8, 8))), content("b.npy.json", b"precious")),
     CLOSE, 1, "b.npy.json exists already: give --force"),
]  # fmt: skip

FORGED = "verify a.safetensors forged.safetensors --key my.key"


def forged():
    """A model, the same under the record of its encryption by a shuffle, and an image that no shuffle changes."""
    state = {"a.weight": torch.rand(8, 3, 4, 4), "a.bias": torch.ones(8)}
    with open("a.safetensors", "wb") as file:
        file.write(save(state))
    assert main(f"encrypt-model a.safetensors b.safetensors {NORM} --steps shuffle".split()) == 0
    with safe_open("b.safetensors", "pt") as found, open("forged.safetensors", "wb") as file:
        file.write(save(state, found.metadata()))
    Image.new("RGB", (16, 16), (128,) * 3).save("grey.png")


TENSORS = f"encrypt-model a.safetensors b.safetensors {NORM}"
TORCH = f"encrypt-model a.pt b.pt {NORM}"
ONNX = f"encrypt-model a.onnx b.onnx {NORM}"
FILES_OF_MODELS = [
    ("a header of 2^63", content("a.safetensors", struct.pack("<Q", 2**63) + b"{}"), TENSORS, 1, "no complete"),
    ("a header past the end", content("a.safetensors", struct.pack("<Q", 10**6) + b"{}"), TENSORS, 1, "no complete"),
    ("a shape past memory", safetensors(tensor("[1073741824,1073741824,1073741824,4]")), TENSORS, 1, "no complete"),
    ("a shape below 0", safetensors(tensor("[-8,3,4,4]")), TENSORS, 1, "no complete"),
    ("a shape of floats", safetensors(tensor("[8.0,3,4,4]")), TENSORS, 1, "no complete"),
    ("offsets the wrong way", safetensors(tensor(offsets="[1536,0]")), TENSORS, 1, "no complete"),
    ("offsets past the end", safetensors(tensor(offsets="[0,9999]")), TENSORS, 1, "no complete"),
    ("offsets with a hole", safetensors(tensor(offsets="[512,2048]"), 2048), TENSORS, 1, "no complete"),
    ("a type unknown", safetensors(tensor(kind="F99")), TENSORS, 1, "no complete"),
    ("numbers of 400 digits", safetensors(tensor(offsets=f"[0,{'9' * 400}]")), TENSORS, 1, "no complete"),
    ("a header that is no text", safetensors(b"\xff" * 20), TENSORS, 1, "no complete"),
    ("metadata as numbers", safetensors('{"__metadata__":{"cmxlib":5},' + tensor()[1:]), TENSORS, 1, "a.safetensors"),
    ("a record of nonsense", safetensors('{"__metadata__":{"cmxlib":"no"},' + tensor()[1:]),
     TENSORS, 1, "damaged record"),
    ("more behind the end", content("a.safetensors", lambda: save(STATE) + b"more"), TENSORS, 1, "no complete"),
    ("a pipe", pipe("a.safetensors"), TENSORS, 1, "a.safetensors is no regular file"),
    ("a device", link("/dev/zero", "a.safetensors"), TENSORS, 1, "no regular file"),
    ("a pipe of torch", pipe("a.pt"), TORCH, 1, "a.pt is no regular file"),
    ("a zip of nothing", content("a.pt", lambda: zipped()), TORCH, 1, "no checkpoint of weights alone"),
    ("a zip of paths up", content("a.pt", lambda: zipped(**{"..__..__x": b"x"})), TORCH, 1, "no checkpoint"),
    ("a zip bomb", content("a.pt", lambda: zipped(a__data=bytes(10**8), a__version=b"3")), TORCH, 1, "no checkpoint"),
    ("a record bomb", content("a.pt", lambda: zipped(**{"a__cmxlib.json": bytes(10**7)})), TORCH, 1, "no checkpoint"),
    ("a pickle of before", lambda: torch.save(STATE, "a.pt", _use_new_zipfile_serialization=False),
     TORCH, 1, "torch 1.6"),
    ("a tensor alone", lambda: torch.save(torch.ones(3), "a.pt"), TORCH, 1, "holds no tensors by name"),
    ("tensors without values", lambda: torch.save(STATE | {"b": torch.ones(3, device="meta")}, "a.pt"),
     TORCH, 1, "b of a.pt is on the meta device, without values: save"),
    ("sparse tensors", lambda: torch.save(STATE | {"b": torch.eye(3).to_sparse_csr()}, "a.pt"),
     TORCH, 1, "b of a.pt is sparse: save a state dict of ordinary"),
    ("names that are numbers", lambda: torch.save({1: torch.ones(8, 3, 4, 4)}, "a.pt"), TORCH, 1, "a.pt does not tell"),
    ("a pipe of ONNX", pipe("a.onnx"), ONNX, 1, "a.onnx is no regular file"),
    ("a device of ONNX", link("/dev/zero", "a.onnx"), ONNX, 1, "a.onnx is no regular file"),
    ("a shape below 0 in ONNX", onnx_file(negative), ONNX, 1, "a.onnx"),
    ("graphs in graphs", onnx_file(nested), ONNX, 1, "a.onnx"),
    ("a graph in a circle", onnx_file(circle), ONNX, 1, "a.onnx"),
    ("no graph", content("a.onnx", lambda: onnx.ModelProto(ir_version=8).SerializeToString()), ONNX, 1, "a.onnx"),
    ("data in its own folder", onnx_file(lambda found: far(".")), ONNX, 1, "no valid ONNX model"),
    ("data nowhere", onnx_file(lambda found: far("")), ONNX, 1, "no valid ONNX model"),
    ("data that is gone", onnx_file(lambda found: far("w.bin")), ONNX, 1, "not beside it: put its file w.bin there"),
    ("data outside", onnx_file(lambda found: far("../my.key")), ONNX, 1, "no valid ONNX model"),
    ("data behind a NUL", onnx_file(lambda found: far("a\0b")), ONNX, 1, "ONNX model"),
    ("data in a pipe", folder(pipe("w.bin"), onnx_file(lambda found: far("w.bin"))), ONNX, 1, "no valid ONNX model"),
    ("an offset of 400 digits", folder(content("w.bin", bytes(2000)), BEYOND),
     ONNX, 1, "ONNX model"),
    ("another suffix", content("a.onnx", b""), f"encrypt-model a.onnx b.pt {NORM}", 1, "must end in .onnx"),
    ("no suffix", content("model", b""), f"encrypt-model model b {NORM}", 1, "is no .safetensors, .pt, .pth or .onnx"),
    ("nowhere", nothing, TORCH, 1, "No such file"),
    ("a folder of images for a model", folder(good), f"encrypt-model in b.onnx {NORM}", 1, "in is a folder: name"),
    ("an image for a model", content("a.png", png), f"encrypt-model a.png b.onnx {NORM}", 1, "is no .safetensors, .pt"),
    ("an order for a convolution", content("a.safetensors", lambda: save(STATE)), f"{TENSORS} --order hwc", 1,
     "--order is of a Linear, but a is a convolution"),
    ("a size that is not needed", content("a.safetensors", lambda: save(STATE)), f"{TENSORS} --image-size 33", 1,
     "--image-size is of models whose position"),
    ("a mean of 0_5", safetensors(tensor()), f"{TENSORS} --mean 0_5 0 0", 2, "'0_5' is no number"),
    ("a mean of NaN", safetensors(tensor()), f"{TENSORS} --mean nan 0 0 --std 1 1 1".replace("--norm imagenet ", ""), 1,
     "mean must be finite"),
    ("a std of 1e999", safetensors(tensor()), f"{TENSORS} --mean 0 0 0 --std 1e999 1 1".replace("--norm imagenet ", ""),
     1, "std must be finite"),
    ("a mean of grey levels", content("a.safetensors", lambda: save(STATE)),
     f"{TENSORS} --mean 124 116 104 --std 58 57 57".replace("--norm imagenet ", ""), 1, "divide both by 255"),
    ("a norm and a mean", content("a.safetensors", lambda: save(STATE)), f"{TENSORS} --mean 0 0 0 --std 1 1 1", 1,
     "--norm stands for a --mean and a --std"),
    ("a mean of words", safetensors(tensor()), f"{TENSORS} --mean a b c", 2, "'a' is no number"),
    ("names behind a std", nothing, f"encrypt-model {NORM} --std 1 1 1 a.pt b.pt", 2, "IN and OUT stand in front"),
    ("a norm unknown", safetensors(tensor()), TENSORS.replace("imagenet", "mine"), 2, "invalid choice"),
    ("steps unknown", safetensors(tensor()), f"{TENSORS} --steps twist", 2, "is not shuffle,flip"),
    ("a layer called 0, of other patches", content("a.safetensors", lambda: save({"0.weight": torch.ones(8, 3, 2, 2)})),
     f"{TENSORS} --layer 0", 1, "The layer 0 of a.safetensors has patches of 2, not of 4"),
    ("images of bytes in ONNX", onnx_file(of_bytes), ONNX, 1, "takes its images x as UINT8: export the model without"),
    ("verified against itself", content("a.safetensors", lambda: save(STATE)),
     "verify a.safetensors a.safetensors --key my.key", 1, "carries no record"),
    ("verified against nothing", content("a.safetensors", lambda: save(STATE)),
     "verify a.safetensors b.safetensors --key my.key", 1, "b.safetensors"),
    ("verified on images that tell nothing", forged, f"{FORGED} --images grey.png", 1,
     "changes nothing in these images"),
    ("verified, two kinds", folder(content("a.safetensors", b""), content("b.pt", b"")),
     "verify a.safetensors b.pt --key my.key", 1, "files of two kinds"),
    ("verified, none there", nothing, "verify a.safetensors b.pt --key my.key", 1, "a.safetensors: No such file"),
]  # fmt: skip

QUICK = 'base = "quick"\nname = "x"\ntables = ["keys"]\n'
BOOK = [
    ("no command", nothing, "", 2, "command"),
    ("an unknown command", nothing, "encrypt", 2, "invalid choice"),
    ("an unknown option", nothing, "counts --all", 2, "unrecognized"),
    ("a scale unknown", nothing, "study --scale huge", 1, "no scale 'huge'"),
    ("a scale outside", nothing, "study --scale ../x --status", 1, "no scale '../x'"),
    ("a table unknown", nothing, "study --status --only kyes", 1, "no table 'kyes'"),
    ("seeds backwards", nothing, "study --status --seeds 4-1", 2, "no list of numbers"),
    ("a billion seeds", nothing, "study --status --seeds 0-9999999999", 2, "a number of more than six digits"),
    ("too many seeds", nothing, "study --status --seeds 0-999999", 2, "names 1,000,000 numbers, over 10,000"),
    ("too many units", nothing, "study --status --scale quick --only keys --seeds 0-9999", 1, "has over 200,000 units"),
    ("too many keys", nothing, "study --status --keys 999999999", 1, "n_wrong must be a whole number from 0 to"),
    ("a scheduler of nonsense", nothing, "study --scale quick --scheduler nonsense", 1, "is one such as tcp://node1:87"),
    ("a sweep with a scale of another", content("a.toml", b""),
     "study --sweep a.toml --scale small", 1, "leave out --scale"),
    ("0 keys", nothing, "study --status --keys 0", 2, "no whole number from 1 to 999,999,999"),
    ("a share of 0", nothing, "study --scale quick --shard 0/3", 1, "--shard is K/N"),
    ("a share of 0, asked for", nothing, "study --scale quick --shard 0/3 --status", 1, "--shard is K/N"),
    ("a share of words", nothing, "study --scale quick --shard a/b", 1, "--shard is K/N"),
    ("a share of 12 digits", nothing, "study --scale quick --shard 1/999999999999", 1, "N of nine digits at most"),
    ("a share of 5,000 digits", nothing, f"study --scale quick --shard 1/{'9' * 5000}", 1, "--shard is K/N"),
    ("a sweep in UTF-16", content("a.toml", QUICK.encode("utf-16")), "study --status --sweep a.toml", 1,
     "not in UTF-8: save it in that encoding"),
    ("a name of spaces", nothing, ["key", "show", "  "], 2, "is a variable of the shell empty?"),
    ("links in a circle", link("a.key", "a.key"), "key show a.key", 1, "Too many levels of symbolic links; give"),
    ("no sweep", nothing, "study --status --sweep none.toml", 1,
     "none.toml: No such file or directory: name one that is there."),
    ("seeds in Arabic digits", nothing, "study --status --seeds ٣", 2, "no list of numbers"),
    ("a sweep of zeros without end", nothing, "study --status --sweep /dev/zero", 1, "/dev/zero is no regular file"),
    ("a sweep of noise", content("a.toml", b"\xff\xfe"), "study --status --sweep a.toml", 1, "a.toml is no TOML file"),
    ("a sweep without end", content("a.toml", b"a = " + b"[" * 10**4),
     "study --status --sweep a.toml", 1, "a.toml is no TOML file"),
    ("nobody to schedule", nothing, "study --scale quick --scheduler tcp://127.0.0.1:1", 1, "start one there"),
    ("a sweep of nothing", content("a.toml", b""),
     "study --status --sweep a.toml", 1, "a.toml lacks base, name, tables"),
    ("a sweep of numbers", content("a.toml", b"base = 1\nname = 2\ntables = 3"), "study --status --sweep a.toml", 1,
     "must have a text as base"),
    ("a sweep of one table", content("a.toml", b'base = "small"\nname = "x"\ntables = "keys"'),
     "study --status --sweep a.toml", 1, "tables"),
    ("a sweep with a scale of 3", content("a.toml", b'base = "small"\nname = "x"\ntables = ["keys"]\nscale = 3'),
     "study --status --sweep a.toml", 1, "scale"),
    ("a sweep named ..", content("a.toml", b'base = "small"\nname = ".."\ntables = ["keys"]'),
     "study --status --sweep a.toml", 1, "no scale"),
    ("a chapter unknown", nothing, "book --only 99", 1, "99"),
    ("a chapter unknown to save", nothing, "save --only 99", 1, "99"),
    ("an empty sweep", nothing, ["study", "--sweep", ""], 2, "argument --sweep: nothing was given"),
    ("an empty scheduler", nothing, ["book", "--scheduler", ""], 2, "argument --scheduler: nothing was given"),
    ("no workers", nothing, "book --workers 0", 2, "no whole number from 1 to 999,999,999"),
    ("two places to run", nothing, "book --workers 1 --scheduler x", 2, "not allowed with"),
]  # fmt: skip

CHANGES = [
    ("an epoch and a half", "[scale]\ntrain.epochs = 1.5", "epochs must be a whole number"),
    ("epochs as a text", "[scale]\ntrain.epochs = '8'", "epochs must be a whole number"),
    ("a rate as a text", "[scale]\ntrain.max_lr = '0.1'", "max_lr must be a number"),
    ("seeds as texts", "[scale]\nseeds = ['0']", "seeds must be a whole number"),
    ("a seed of a date", "[scale]\nseeds = [2020-01-01]", "seeds must be a whole number"),
    ("seeds twice", "[scale]\nseeds = [0, 0]", "seeds must be different"),
    ("no seeds", "[scale]\nseeds = []", "seeds must be different whole numbers, one at least"),
    ("wrong keys as a text", "[scale]\nn_wrong = '5'", "n_wrong must be a whole number"),
    ("no ciphers", "[scale]\nciphers = []", "scale.ciphers must be a list of some of"),
    ("ciphers in a list in a list", "[scale]\nciphers = [['flip']]", "scale.ciphers must be a list of some of"),
    ("a data set unknown", "[scale]\ndataset = 'cifar'", "dataset must be a Dataset or one of"),
    ("what differs at x", "[scale]\nfiner.x.epochs = 3", "scale.finer must say"),
    ("what differs by a text", "[scale]\nfiner.2.epochs = '3'", "epochs in finer must be a whole number"),
    ("another word for what differs", "[scale]\nfiner.2.epoch = 3", "finer must give epochs or n_wrong"),
    ("a name twice", "[scale]\nname = 'y'", "There is no scale.name"),
    ("a cipher twice", "[scale]\nciphers = ['flip', 'flip']", "each once"),
    ("-1 public images", "[scale]\nattack.public = -1", "public must be a whole number from 1"),
    ("a layer of terabytes", "[scale]\nmodel.dim = 10000000000000", "dim must be a whole number from 1 to"),
    (
        "one folder for two",
        "[axes]\nciphers = [['shuffle', 'flip'], ['shuffle+flip']]",
        "share the folder x-ciphers_sh",
    ),
    (
        "a million scales",
        "[axes]\n" + "".join(f"'train.{name}' = {[*range(1, 102)]}\n" for name in ("epochs", "batch_size", "seed")),
        "the axes make 1,030,301 scales",
    ),
    ("what differs by 3", "[scale]\nfiner.2 = 3", "scale.finer must say"),
    ("no draws", "[scale]\nattack.draws = 0", "draws must be a whole number from 1"),
    ("an axis of whole numbers for lists", "[axes]\nseeds = [0, 1]", "each value of axes.seeds must be a list"),
    ("an axis of nothing", "[axes]\n'model.depth' = []", "different values in model.depth, one at least"),
    ("an axis of one value twice", "[axes]\n'model.depth' = [4, 4]", "different values in model.depth"),
    ("a depth as a text", "[axes]\n'model.depth' = ['4']", "depth must be a whole number"),
]
SWEEPS = [
    ("a sweep named as a scale of the book", QUICK.replace("x", "small"), "as a scale of the book"),
    ("a sweep named almost so", QUICK.replace("x", "Small"), "no scale 'Small'"),
    ("a sweep of a list of tables", QUICK.replace('"keys"', '["keys"]'), "no table ['keys']"),
    ("a sweep of no tables", QUICK.replace('"keys"', ""), "different values in tables, one at least"),
    ("a sweep of a table twice", QUICK.replace('"keys"', '"keys", "keys"'), "different values in tables"),
    *((f"a sweep: {name}", QUICK + changes, words) for name, changes, words in CHANGES),
]
BOOK += [
    (name, content("a.toml", text.encode()), "study --status --sweep a.toml", 1, words) for name, text, words in SWEEPS
]

ROWS = [*KEY_FILES, *IMAGES, *RECORDS, *ARRAYS, *FILES_OF_MODELS, *BOOK]


@pytest.mark.skipif(not POSIX, reason="modes, pipes and devices are POSIX")
@pytest.mark.parametrize(
    ("make", "command", "status", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_command_is_refused_in_a_sentence(make, command, status, words, key, cmx, limit):
    make()
    before = sorted(os.listdir())
    found, _, said = cmx(*(command.split() if isinstance(command, str) else command))
    assert (found, words in said) == (status, True), said
    assert "hidden" not in said  # as a passphrase is called here
    left = set(os.listdir()) - set(before)
    assert not left - {"out"} and "b.png" not in (os.listdir("out") if left else left)


def test_some_of_them_in_a_process_of_their_own(key, tmp_path):
    """As a shell runs them: what argparse, the interpreter's end or a signal handler says is seen too."""
    content("a.png", b"no image")()
    for command, status in (
        (f"cmxlib {SHUT}", 1),
        ("cmxlib key show none.key", 1),
        ("cmxlib study --seeds x", 2),
        ("cmxlib.learn.train --dataset nope --epochs 1 --out o", 1),
    ):
        done = subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, text=True)
        assert done.returncode == status and "Traceback" not in done.stderr and done.stderr.count("cmx") <= 3


@pytest.mark.skipif(not POSIX, reason="Windows keeps the current folder")
def test_a_current_folder_that_was_deleted_is_told(key, tmp_path):
    (gone := tmp_path / "gone").mkdir()
    code = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from cmxlib.__main__ import main; "
    code += "raise SystemExit(main(['study', '--status', '--scale', 'quick']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "cmx: The current folder is not there any more: go to another, by cd.\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_a_standard_output_that_is_full_is_told_apart_from_the_files(key, tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "cmxlib", "key", "new", "new.key"]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "the files that it wrote are there" in done.stderr
    assert SecretKey.load("new.key")


def test_a_home_folder_that_no_shell_wrote_out_is_found(key, cmx, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SecretKey.load("~/my.key") == key
    assert cmx("key", "show", "~/my.key")[0] == 0


@pytest.mark.parametrize("does", ["__import__('matplotlib')", "need('matplotlib', 'book')"])
def test_a_variable_that_a_package_refuses_is_named(does):
    code = f"import sys; from cmxlib.paths import need, told; sys.exit(told(lambda: {does}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"MPLBACKEND": "nonsense"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith(" Unset or change the environment variable MPLBACKEND.\n")
    assert done.stderr.count("Unset") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "--epochs 0 --out o",
        "--epochs 1 --out a.png/o",
        "--epochs 1 --out .",
        "--epochs 1 --out /proc/x",
        "--epochs 1 --out x/..",
        "--epochs 1 --out there",
        "--epochs 1 --out o --depth 100000000",
        "--epochs 1 --out package",
        "--epochs 1 --out o --checkpoint a.png",
    ],
)
def test_a_training_that_cannot_be_is_told_in_a_sentence(key, monkeypatch, capsys, arguments):
    content("a.png", b"no image")()
    os.mkdir("there.safetensors")
    content("package.json", b'{"name": "mine"}')()
    monkeypatch.setattr(sys, "argv", ["train", "--dataset", "fontdigits", *arguments.split()])
    assert told(train.main, "cmxlib.learn.train") == 1
    said = capsys.readouterr().err
    assert said.startswith("cmxlib.learn.train: ") and said.count("\n") == 1 and said.count("cmx") <= 3


def test_a_scheduler_that_does_not_speak_is_told(key, cmx, monkeypatch):
    monkeypatch.setattr(sweep, "SPEAKS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        at = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        status, _, said = cmx("study", "--scale", "quick", "--only", "training", "--scheduler", at)
    assert status == 1 and f"No scheduler answers at {at}" in said


# -- what is handled right -----------------------------------------------------------------------------------------


def test_a_plain_model_under_the_record_of_its_encryption_is_not_equal(key, cmx, capsys):
    forged()
    status, said, _ = cmx(*FORGED.split())
    assert status == 1 and said.startswith("NOT EQUAL") and "Changed: nothing. " in said


def test_a_key_with_the_line_ends_of_windows_is_that_key(key, cmx):
    key_file(lambda text: text.replace(b"\n", b"\r\n"))()
    assert SecretKey.load("a.key") == key


@pytest.mark.parametrize(
    "form",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a[::-1, :, ::-1],
        lambda a: a.astype(">f4"),
        lambda a: np.lib.stride_tricks.as_strided(a[0], a.shape, (0, *a.strides[1:])),
    ],
    ids=["of Fortran", "of negative strides", "of another byte order", "of one image"],
)
def test_arrays_are_encrypted_as_what_they_are(form, key, cmx):
    given = form(np.random.default_rng(0).random((3, 3, 8, 8), np.float32))
    np.save("a.npy", given)
    assert cmx("encrypt-images", "a.npy", "b.npy", "--key", "my.key", "--patch", 4)[0] == 0
    assert cmx("decrypt-images", "b.npy", "c.npy", "--key", "my.key")[0] == 0
    assert np.allclose(np.load("c.npy"), given, atol=1e-6)


@pytest.mark.skipif(not POSIX, reason="Windows has no such names")
def test_names_of_any_bytes_are_kept(key, cmx):
    names = [b"\xff.png", b"a\nb.png", "ü ñ.png".encode(), b"-x.png", b"a" * 240 + b".png"]
    os.mkdir("in")
    for name in names:
        with open(os.path.join(b"in", name), "wb") as file:
            file.write(png())
    assert cmx("encrypt-images", "in", "out", "--key", "my.key", "--patch", 4)[0] == 0
    assert sorted(os.listdir(b"out")) == sorted(names)
    shutil.rmtree("in")
