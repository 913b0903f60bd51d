"""Images and arrays on disk: to the bit and back, what is refused, and jobs that were interrupted."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from cmxlib import PatchCipher, SecretKey
from cmxlib.files import folders, pictures, record
from cmxlib.files.compare import plain_images

KEY = ("--key", "my.key")
RNG = np.random.default_rng(0)


def noise(*shape, kind=np.uint8):
    return RNG.integers(0, 256, shape, dtype=np.uint8).astype(kind)


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("steps", [("shuffle",), ("flip",), ("shuffle", "flip"), ("flip", "shuffle"), ()])
@pytest.mark.parametrize("shape", [(8, 8, 3), (24, 16, 3)])
def test_files_are_scrambled_as_tensors_are(steps, shape):
    cipher, image = PatchCipher(SecretKey.for_experiment(2), 8, steps=steps), noise(*shape)
    expected = cipher.encrypt(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.array_equal(pictures.scramble(image, cipher), expected)
    assert np.array_equal(pictures.scramble(expected, cipher, undo=True), image)


def test_a_folder_keeps_its_layout_and_comes_back_to_the_bit(key, cmx):
    os.makedirs("in/sub")
    images = {"a.png": noise(16, 8, 3), "sub/grey.png": noise(8, 8), "sub/b.bmp": noise(8, 8, 3)}
    for name, image in images.items():
        Image.fromarray(image).save(f"in/{name}")
    np.save("in/batch.npy", batch := noise(5, 3, 8, 8))
    open("in/notes.txt", "w").close()
    status, found, _ = cmx("encrypt-images", "in", "locked", *KEY, "--patch", 4, "--json")
    assert status == 0 and found["encrypted"] == 4 and found["left out"] == 1 and found["key"] == key.fingerprint
    assert cmx("decrypt-images", "locked", "out", *KEY)[0] == 0
    for name, image in images.items():
        name = name.replace("bmp", "png")
        assert np.array_equal(pixels(f"out/{name}"), image) and not np.array_equal(
            pixels(f"locked/{name}")[..., 0], image
        )
    assert np.array_equal(np.load("out/batch.npy"), batch)
    expected = PatchCipher(key, 4).encrypt(torch.from_numpy(batch))
    assert np.array_equal(np.load("locked/batch.npy"), expected)


def test_workers_do_what_one_process_does(key, cmx):
    os.mkdir("in")
    for i in range(70):
        Image.fromarray(noise(4, 4, 3)).save(f"in/{i}.png")
    open("in/bad.png", "w").close()
    assert cmx("encrypt-images", "in", "one", *KEY, "--patch", 4, "--workers", 1)[0] == 1
    status, out, err = cmx("encrypt-images", "in", "two", *KEY, "--patch", 4, "--workers", 2)
    assert status == 1 and "70 encrypted" in out and "1 failed" in out and "bad.png is no image" in err
    assert all(open(f"one/{i}.png", "rb").read() == open(f"two/{i}.png", "rb").read() for i in range(70))


def test_files_of_images_are_encrypted_without_torch(key):
    RGB.save("a.png")
    code = "import sys; from cmxlib.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "encrypt-images", "a.png", "b.png", *KEY, "--patch", "4"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith("\n0 False\n")
    assert pictures.recorded(Path("b.png")).encrypted


def test_an_interrupted_job_goes_on_and_nothing_else_is_replaced(key, cmx):
    os.mkdir("in")
    for name in "abc":
        Image.fromarray(noise(4, 4, 3)).save(f"in/{name}.png")
    command = ("encrypt-images", "in", "out", *KEY, "--patch", 4)
    assert cmx(*command)[0] == 0
    os.truncate("out/b.png", os.path.getsize("out/b.png") - 20)
    assert "out/b.png is cut off, as by a crash: delete it" in cmx(*command)[2]
    os.unlink("out/b.png")
    first, status = os.stat("out/a.png").st_mtime_ns, cmx(*command, "--json")
    assert status[1]["encrypted"] == 1 and status[1]["done before"] == 2
    assert os.stat("out/a.png").st_mtime_ns == first
    os.rename("in", "old")
    shutil.copytree("old", "in")  # the same images, newer than what was made of them
    assert cmx(*command, "--json")[1]["done before"] == 3
    Image.fromarray(noise(4, 4, 3)[::-1]).save("in/a.png")
    os.utime("in/a.png", (0, 0))  # another image, older than what was made of the first
    assert "out/a.png was not made of in/a.png as it is now: give --force" in cmx(*command)[2]
    assert "exists already" in cmx(*command, "--steps", "flip")[2]
    SecretKey.for_experiment(2).save("other.key")
    of_another = cmx(*command, "--key", "other.key")[2]
    assert f"out/a.png exists already, encrypted with the key {key.fingerprint}, not with the key" in of_another
    Image.fromarray(noise(4, 4, 3)).save("out/c.png")  # somebody else's
    assert "out/c.png exists already: give --force" in cmx(*command)[2]
    assert cmx(*command, "--force", "--json")[1]["encrypted"] == 3


def test_two_commands_at_once_replace_nothing_of_each_other(key):
    """Two keys, one folder: each file is of the one that says it encrypted it, and the other says that it is there."""
    SecretKey.for_experiment(2).save("other.key")
    os.mkdir("in")
    for i in range(200):
        Image.fromarray(noise(4, 4, 3)).save(f"in/{i}.png")
    command = [sys.executable, "-m", "cmxlib", "encrypt-images", "in", "out", "--patch", "4", "--json", "--workers"]
    both = [
        subprocess.Popen([*command, "1", "--key", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("my.key", "other.key")
    ]
    said = [process.communicate() for process in both]
    done = {(found := json.loads(out))["key"]: found["encrypted"] for out, _ in said}
    assert sum(done.values()) == 200 and sum(err.count("exists already") for _, err in said) == 200
    keys = [pictures.recorded(path).key for path in Path("out").iterdir()]
    assert {name: keys.count(name) for name in done} == done


def test_padding_is_removed_and_sizes_that_do_not_divide_are_told(key, cmx):
    Image.fromarray(image := noise(10, 7, 3)).save("a.png")
    _, _, err = cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)
    assert "7 x 10" in err and "--crop" in err and "--pad" in err
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4, "--pad")[0] == 0
    assert cmx("decrypt-images", "b.png", "c.png", *KEY)[0] == 0
    assert pixels("b.png").shape == (12, 8, 3) and np.array_equal(pixels("c.png"), image)


def test_resizing_and_cropping_is_what_torchvision_does(key, cmx):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    Image.fromarray(noise(50, 37, 3)).save("a.png")
    for resample in ("bilinear", "bicubic"):
        mode = getattr(v2.InterpolationMode, resample.upper())
        expected = v2.CenterCrop(16)(v2.Resize(20, interpolation=mode)(Image.open("a.png")))
        size = ("--resize", 20, "--crop", 16, "--resample", resample)
        assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4, *size, "--force")[0] == 0
        assert cmx("decrypt-images", "b.png", "c.png", *KEY, "--force")[0] == 0
        assert np.array_equal(pixels("c.png"), expected)
    assert "smaller than --crop" in cmx("encrypt-images", "a.png", "d.png", *KEY, "--patch", 4, "--crop", 40)[2]


def test_orthogonal_goes_through_arrays_alone(key, cmx):
    np.save("a.npy", images := noise(3, 3, 4, 4))
    Image.fromarray(noise(4, 4, 3)).save("a.png")
    orthogonal = (*KEY, "--patch", 4, "--steps", "orthogonal")
    assert cmx("encrypt-images", "a.npy", "b.npy", *orthogonal)[0] == 0
    assert np.load("b.npy").dtype == np.float32
    assert cmx("decrypt-images", "b.npy", "c.npy", *KEY)[0] == 0 and np.array_equal(np.load("c.npy"), images)
    assert "numbers that no image file holds" in cmx("encrypt-images", "a.png", "b.png", *orthogonal)[2]


def test_a_wrong_key_and_another_cipher_are_told(key, cmx):
    SecretKey.for_experiment(9).save("other.key")
    Image.fromarray(noise(4, 4, 3)).save("a.png")
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)[0] == 0
    for options, said in (
        (("--key", "other.key"), f"b.png was encrypted with the key {key.fingerprint}, not with the key"),
        ((*KEY, "--patch", 2), "b.png was encrypted with --patch 4, not with --patch 2"),
        ((*KEY, "--steps", "flip"), "b.png was encrypted with --steps shuffle,flip, not with --steps flip"),
    ):
        assert said in cmx("decrypt-images", "b.png", "c.png", *options)[2]
    assert "is encrypted already" in cmx("encrypt-images", "b.png", "c.png", *KEY, "--patch", 4)[2]
    assert "no record of a cipher" in cmx("decrypt-images", "a.png", "c.png", *KEY)[2]
    found = Image.open("b.png")
    info = PngImagePlugin.PngInfo()
    info.add_text("cmxlib", found.info["cmxlib"])
    found.resize((8, 8)).save("e.png", pnginfo=info)
    assert "was resized or changed after it was encrypted" in cmx("decrypt-images", "e.png", "c.png", *KEY)[2]
    assert not os.path.exists("c.png")


@pytest.mark.parametrize(
    "edit",
    [
        lambda image: image.rotate(90),
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.point(lambda v: min(v + 1, 255)),
    ],
    ids=["turned", "mirrored", "brightened"],
)
def test_an_image_that_was_edited_while_its_record_was_kept_is_told(key, cmx, edit):
    RGB.save("a.png")
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)[0] == 0
    found, info = Image.open("b.png"), PngImagePlugin.PngInfo()
    info.add_text("cmxlib", found.info["cmxlib"])
    edit(found).save("e.png", pnginfo=info)
    assert "changed after it was encrypted" in cmx("decrypt-images", "e.png", "c.png", *KEY)[2]
    info = PngImagePlugin.PngInfo()
    info.add_text("cmxlib", found.info["cmxlib"].replace('"RGB"', '"L"'))
    found.save("g.png", pnginfo=info)
    assert "changed after it was encrypted" in cmx("decrypt-images", "g.png", "c.png", *KEY)[2]
    older = json.loads(found.info["cmxlib"]) | {"version": 1}
    del older["crc"]
    info = PngImagePlugin.PngInfo()
    info.add_text("cmxlib", json.dumps(older))
    found.save("f.png", pnginfo=info)  # as before there were sums
    assert cmx("decrypt-images", "f.png", "c.png", *KEY)[0] == 0 and np.array_equal(pixels("c.png"), np.asarray(RGB))


def test_an_array_with_anothers_record_is_told_and_a_grey_one_comes_back(key, cmx):
    for name, kind in (("a", np.uint8), ("b", np.float32)):
        grey = noise(3, 1, 8, 8) if name == "a" else noise(1, 8, 8) / np.float32(255)
        np.save(f"{name}.npy", grey)
        assert cmx("encrypt-images", f"{name}.npy", f"{name}_e.npy", *KEY, "--patch", 4)[0] == 0
        assert np.load(f"{name}_e.npy").shape[-3] == 3
        assert cmx("decrypt-images", f"{name}_e.npy", f"{name}_d.npy", *KEY)[0] == 0
        assert np.load(f"{name}_d.npy").dtype == kind and np.allclose(np.load(f"{name}_d.npy"), grey, atol=1e-6)
    np.save("a_e.npy", np.load("a_e.npy")[::-1])
    assert "a_e.npy: it was changed" in cmx("decrypt-images", "a_e.npy", "c.npy", *KEY)[2]
    assert not os.path.exists("c.npy")


def test_a_folder_that_begins_with_damaged_files_is_decrypted(key, cmx):
    os.mkdir("in")
    np.save("in/a.npy", noise(2, 3, 8, 8))
    for name in ("b.png", "c.png"):
        RGB.save(f"in/{name}")
    assert cmx("encrypt-images", "in", "locked", *KEY, "--patch", 4)[0] == 0
    Path("locked/a.npy.json").write_text("{}")
    os.truncate("locked/b.png", 20)
    status, found, err = cmx("decrypt-images", "locked", "out", *KEY, "--json")
    assert status == 1 and found["decrypted"] == 1 and os.listdir("out") == ["c.png"]
    assert "a.npy.json has a damaged record" in err and "b.png is" in err
    os.unlink("locked/c.png")
    assert "a.npy.json has a damaged record" in cmx("decrypt-images", "locked", "out", *KEY)[2]


@pytest.mark.parametrize("kind", ["add_text", "compressed", "add_itxt"])
def test_a_record_behind_the_pixels_counts(key, cmx, kind):
    RGB.save("a.png")
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)[0] == 0
    text, found = pictures.recorded(Path("b.png")).text(), PngImagePlugin.PngInfo()
    found.add_itxt("cmxlib", text) if kind == "add_itxt" else found.add_text("cmxlib", text, kind == "compressed")
    late = b"".join(png_chunk(*chunk[:2]) for chunk in found.chunks)
    Image.open("b.png").save("plain.png", pnginfo=None)
    data = Path("plain.png").read_bytes()
    Path("late.png").write_bytes(data[:-12] + late + data[-12:])
    assert "is encrypted already" in cmx("encrypt-images", "late.png", "c.png", *KEY, "--patch", 4)[2]
    assert cmx("decrypt-images", "late.png", "c.png", *KEY)[0] == 0
    assert np.array_equal(pixels("c.png"), np.asarray(RGB))
    bad = png_chunk(b"tEXt", b"cmxlib\0{}")
    Path("late.png").write_bytes(data[:-12] + bad + data[-12:])
    for command in (("encrypt-images", "--patch", "4"), ("decrypt-images",)):
        assert "late.png has a damaged record" in cmx(*command, "late.png", "d.png", *KEY)[2]


def test_arrays_of_any_layout_and_a_record_of_another_kind(key, cmx):
    plain = RNG.random((2, 3, 8, 8))
    for order, kind in (("F", "f8"), ("C", ">f8"), ("F", ">f4"), ("F", "u1")):
        given = np.array(plain * (255 if kind == "u1" else 1), kind, order=order)
        np.save("a.npy", given)
        assert cmx("encrypt-images", "a.npy", "b.npy", *KEY, "--patch", 4, "--force")[0] == 0
        np.save("b.npy", np.array(np.load("b.npy"), kind, order=order))
        assert cmx("decrypt-images", "b.npy", "c.npy", *KEY, "--force")[0] == 0
        assert np.allclose(np.load("c.npy"), given, 0, 1e-6) and plain_images(Path("a.npy"), 4).shape == (2, 3, 8, 8)
    told = {"version": 2, "key": key.fingerprint, "steps": ["shuffle"], "patch": 4}
    for more in ({"size": [8, 8]}, {"mean": [0.0] * 3, "std": [1.0] * 3, "layers": ["a"]}):
        Path("b.npy.json").write_text(json.dumps(told | more))
        assert "b.npy.json has a damaged record" in cmx("decrypt-images", "b.npy", "d.npy", *KEY)[2]
        assert not os.path.exists("d.npy")


def test_force_replaces_a_link_and_not_what_it_points_to(key, cmx):
    for name in ("a.png", "mine.png"):
        RGB.save(name)
    os.mkdir("out")
    os.symlink("../mine.png", "out/a.png")
    assert "exists already" in cmx("encrypt-images", "a.png", "out", *KEY, "--patch", 4)[2]
    assert cmx("encrypt-images", "a.png", "out", *KEY, "--patch", 4, "--force")[0] == 0
    assert not os.path.islink("out/a.png") and np.array_equal(pixels("mine.png"), np.asarray(RGB))


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deep_png():
    """A PNG of 16 bits a channel, which Pillow opens as if it had 8."""
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(4)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


RGB = Image.fromarray(noise(8, 8, 3))
SHEER = Image.fromarray(noise(8, 8, 4), "RGBA")
REFUSED = {
    "16 bits": (deep_png(), "more than 8 bits"),
    "16 bits, grey": (encoded(Image.fromarray(noise(8, 8, kind=np.uint16))), "more than 8 bits"),
    "floats": (encoded(Image.fromarray(noise(8, 8, kind=np.float32)), "TIFF"), "more than 8 bits"),
    "transparent": (encoded(SHEER), "transparent in places"),
    "transparent colour": (encoded(RGB.quantize(8), transparency=0), "transparent in places"),
    "frames": (encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]), "has 2 frames"),
    "animated PNG": (encoded(RGB, save_all=True, append_images=[RGB.rotate(90)]), "has 2 frames"),
    "CMYK": (encoded(RGB.convert("CMYK"), "JPEG"), "has the colours CMYK"),
    "Lab": (encoded(RGB.convert("LAB"), "TIFF"), "has the colours LAB"),
    "text": (b"no image", "is no image of the formats"),
    "nothing": (b"", "is no image of the formats"),
    "another format": (encoded(RGB, "PPM"), "is no image of the formats"),
    "cut off": (encoded(Image.fromarray(noise(64, 64, 3)))[:6000], "is damaged"),
    "cut off JPEG": (encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")[:2000], "is damaged"),
    "bomb": (encoded(Image.new("1", (20_000, 20_000))), "more than 89,478,485 pixels"),
    "large": (encoded(Image.new("1", (10_000, 10_000))), "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(key, cmx, name):
    data, said = REFUSED[name]
    with open("a.png", "wb") as file:
        file.write(data)
    status, _, err = cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)
    assert status == 1 and said in err and not os.path.exists("b.png")


def turned():
    exif = RGB.getexif()
    exif[0x0112] = 6
    return encoded(RGB, exif=exif)


TAKEN = {
    "palette": (encoded(RGB.quantize(8)), np.asarray(RGB.quantize(8).convert("RGB"))),
    "opaque alpha": (encoded(RGB.convert("RGBA")), np.asarray(RGB)),
    "grey with opaque alpha": (encoded(RGB.convert("LA")), np.asarray(RGB.convert("L"))),
    "black and white": (encoded(RGB.convert("1")), np.asarray(RGB.convert("1").convert("L"))),
    "turned by EXIF": (turned(), np.asarray(RGB.transpose(Image.Transpose.ROTATE_270))),
    "lossless WebP": (encoded(RGB, "WEBP", lossless=True), np.asarray(RGB)),
    "TIFF": (encoded(RGB, "TIFF"), np.asarray(RGB)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_comes_back_and_brings_nothing_else_along(key, cmx, name):
    data, expected = TAKEN[name]
    with open("a.png", "wb") as file:
        file.write(data)
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, "--patch", 4)[0] == 0
    assert cmx("decrypt-images", "b.png", "c.png", *KEY)[0] == 0
    assert np.array_equal(pixels("c.png"), expected)
    assert set(Image.open("b.png").info) == {"cmxlib"}  # no EXIF with a place, no thumbnail


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "b.jpg"), "would be a JPEG"),
        (("a.png", "b.tiff"), "is no name of an output"),
        (("a.npy", "b.png"), "is no name for an array"),
        (("none.png", "b.png"), "none.png: No such file"),
        (("in", "in/out"), "lies in in: name an output folder outside"),
        (("in", "in"), "in is the folder of the images itself: name another"),
        (("in", "a.png"), "a.png is a file, but in is a folder"),
        (("empty", "out"), "holds no image"),
        (("twins", "out"), "would both become out/a.png"),
        (("objects.npy", "b.npy"), "is no array of numbers"),
        (("huge.npy", "b.npy"), "is no array of numbers"),
        (("whole.npy", "b.npy"), "holds int64"),
        (("nan.npy", "b.npy"), "nan.npy: Float images must hold values in [0, 1]"),
        (("last.npy", "b.npy"), "last.npy: images must have the shape (N, 3, H, W)"),
    ],
)
def test_calls_that_cannot_be_done(key, cmx, arguments, said):
    for folder in ("in", "empty", "twins"):
        os.mkdir(folder)
    for name in ("a.png", "in/a.png", "twins/a.png", "twins/a.bmp"):
        RGB.save(name)
    np.save("a.npy", noise(1, 3, 8, 8))
    np.save("objects.npy", np.array([[[print]]]), allow_pickle=True)
    np.save("whole.npy", np.zeros((1, 3, 8, 8), np.int64))
    np.save("nan.npy", np.full((1, 3, 8, 8), np.nan))
    np.save("last.npy", noise(1, 8, 8, 3))
    with open("huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 3, 8, 8)})
    status, _, err = cmx("encrypt-images", *arguments, *KEY, "--patch", 4)
    assert status == 1 and said in err


@pytest.mark.parametrize(
    "options",
    ["", "--patch 0", "--patch x", "--patch -4", f"--patch {'9' * 30}", "--patch 4 --steps turn",
     "--patch 4 --workers 0", "--patch 4 --steps flip,flip", "--patch 4 --steps orthogonal,flip",
     "--patch 4 --resample nearest"],
)  # fmt: skip
def test_wrong_options_are_a_matter_of_the_call(key, cmx, options):
    RGB.save("a.png")
    assert cmx("encrypt-images", "a.png", "b.png", *KEY, *options.split())[0] == 2


GOOD = record.of(SecretKey.for_experiment(1), PatchCipher(SecretKey.for_experiment(1)), size=(4, 4), mode="RGB")


def test_a_record_is_read_as_it_was_written():
    for found in (
        GOOD,
        record.of(SecretKey.for_experiment(1), PatchCipher(SecretKey.for_experiment(1)), mean=(0, 0.5, 1)),
    ):
        assert record.parse(found.text(), "a.png") == found


def changed(before, after):
    assert before in GOOD.text()
    return GOOD.text().replace(before, after)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1" * 70_000, "[" * 50_000, changed("[4, 4]", "[-4, 4]"), changed("[4, 4]", "[1e999, 4]"),
     changed('"flip"', '"turn"'), changed('"mode"', '"mood"'), changed("true", "1"), changed("RGB", "CMYK"),
     changed("[4, 4]", "[4]"), changed("[4, 4]", f"[{2**64}, 4]"), changed("}", ', "patch": 4}'), '{"version": 1}',
     changed("}", ', "std": [0, 1, 1]}'), changed("}", ', "mean": [0.5]}'), changed("}", ', "mean": [NaN, 0, 0]}'),
     changed("}", ', "crc": -1}')],
)  # fmt: skip
def test_a_damaged_record_is_told(text):
    with pytest.raises(ValueError, match=r"^a.png has a damaged record of its cipher"):
        record.parse(text, "a.png")


def test_a_record_of_a_later_version_is_told():
    with pytest.raises(ValueError, match="by a later cmxlib"):
        record.parse(changed('"version": 2', '"version": 3'), "a.png")


def test_a_job_that_stops_leaves_no_part_of_a_file(key, monkeypatch):
    RGB.save("a.png")

    def stopped(*names):
        raise InterruptedError

    monkeypatch.setattr(os, "replace", stopped)  # when all but the last step is done
    job = pictures.Job(PatchCipher(key, 4), GOOD.settings(), record.source_key(key), force=True)
    with pytest.raises(InterruptedError):
        folders.run(*map(Path, ("a.png", "b.png")), job)
    assert sorted(os.listdir()) == ["a.png", "my.key"]
