"""Models on disk: only the embedding changes, wrong keys are told, and what is refused."""

import json
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from cmxlib import ConvMixer, PatchCipher, SecretKey, encrypt_model, logits
from cmxlib.paths import ROOT

KEY = ("--key", "my.key")
NORM = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
USUAL = (*KEY, "--patch", "4", "--norm", "imagenet")


def network(**options):
    torch.manual_seed(0)
    return ConvMixer(**({"dim": 16, "depth": 2, "kernel_size": 3, "patch_size": 4} | options)).eval()


IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("steps", [("shuffle", "flip"), ("orthogonal",)])
def test_safetensors_change_in_the_embedding_alone_and_serve_as_the_encrypted_model(key, cmx, steps):
    model = network()
    save_file(model.state_dict(), "a.safetensors", {"made": "by hand"})
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL, "--steps", ",".join(steps))[0] == 0
    before, after = load_file("a.safetensors"), load_file("b.safetensors")
    assert [name for name in before if not before[name].equal(after[name])] == ["0.bias", "0.weight"]
    with safe_open("b.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["made"] == "by hand" and json.loads(metadata["cmxlib"])["key"] == key.fingerprint
    cipher = PatchCipher(key, 4, steps=steps)
    expected = encrypt_model(model, cipher, **NORM)
    locked = network()
    locked.load_state_dict(after)
    assert logits(locked, cipher.encrypt(IMAGES), **NORM).equal(logits(expected, cipher.encrypt(IMAGES), **NORM))
    assert cmx("decrypt-model", "b.safetensors", "c.safetensors", *KEY)[0] == 0
    found = load_file("c.safetensors")
    assert all(torch.allclose(found[name], before[name], rtol=0, atol=1e-6) for name in before)


def test_a_checkpoint_of_torch_keeps_what_else_it_holds(key, cmx):
    model = network()
    torch.save({"model": model.state_dict(), "epoch": 3}, "a.pt")
    status, said, _ = cmx("encrypt-model", "a.pt", "b.pt", *USUAL, "--json")
    assert status == 0 and said["layers"] == ["model.0"]
    found = torch.load("b.pt", weights_only=True)
    assert found["epoch"] == 3 and found["model"]._metadata == model.state_dict()._metadata
    expected = encrypt_model(model, PatchCipher(key, 4), **NORM).state_dict()
    assert all(found["model"][name].equal(expected[name]) for name in expected)
    status, said, _ = cmx("verify", "a.pt", "b.pt", *KEY, "--json")
    assert status == 0 and said["equal"] and said["changed layers"] == ["model.0"] and not said["differs elsewhere"]
    assert cmx("decrypt-model", "b.pt", "c.pt", *KEY)[0] == 0
    assert torch.allclose(torch.load("c.pt")["model"]["0.weight"], model[0].weight, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_stay_what_they_are(key, cmx, kind):
    save_file(network().to(kind).state_dict(), "a.safetensors")
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[0] == 0
    assert load_file("b.safetensors")["0.weight"].dtype == kind
    assert cmx("verify", "a.safetensors", "b.safetensors", *KEY)[0] == 0
    with safe_open("b.safetensors", "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    tensors["0.weight"][0] = tensors["0.weight"][0].roll(1, 2)  # one filter is of another key
    save_file(tensors, "b.safetensors", about)
    assert cmx("verify", "a.safetensors", "b.safetensors", *KEY)[0] == 1


class Flat(nn.Module):
    """A network whose embedding is a Linear on flat patches of 4 pixels, in one of the two usual orders, with a
    LayerNorm over each patch in front of it or without."""

    def __init__(self, order, norm=False):
        super().__init__()
        self.order, self.embed, self.head = order, nn.Linear(48, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(48) if norm else nn.Identity()
        for parameter in self.norm.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        n, c, h, w = x.shape
        blocks = x.view(n, c, h // 4, 4, w // 4, 4)
        blocks = blocks.permute((0, 2, 4, 1, 3, 5) if self.order == "chw" else (0, 2, 4, 3, 5, 1))
        return self.head(self.embed(self.norm(blocks.reshape(n, -1, 48))).tanh().mean(1))


@pytest.mark.parametrize("order", ["chw", "hwc"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_linear_embedding_in_the_order_that_is_told(key, cmx, order, suffix):
    torch.manual_seed(0)
    model = Flat(order).eval()
    write, read = (save_file, load_file) if suffix == "safetensors" else (torch.save, torch.load)
    write(model.state_dict(), f"a.{suffix}")
    status, said, _ = cmx("encrypt-model", f"a.{suffix}", f"b.{suffix}", *USUAL, "--layer", "embed", "--order", order)
    assert status == 0 and f"embed must take patches of the image flattened as {order}, which the file" in said
    expected = encrypt_model(model, PatchCipher(key, 4), **NORM).state_dict()
    found = read(f"b.{suffix}")
    assert all(torch.allclose(found[name], expected[name], rtol=0, atol=1e-6) for name in expected)
    status, said, _ = cmx("verify", f"a.{suffix}", f"b.{suffix}", *KEY, "--json")
    assert status == 0 and said["equal"] and said["changed layers"] == ["embed"]
    assert said["taken for granted"][0] == f"embed takes patches of the image flattened as {order}"
    wrong = ("--order", "hwc" if order == "chw" else "chw")
    assert f"with --order {order}, not with" in cmx("decrypt-model", f"b.{suffix}", f"c.{suffix}", *KEY, *wrong)[2]
    assert cmx("decrypt-model", f"b.{suffix}", f"c.{suffix}", *KEY)[0] == 0
    opened = read(f"c.{suffix}")
    assert all(torch.allclose(opened[name], value, rtol=0, atol=1e-6) for name, value in model.state_dict().items())


@pytest.mark.parametrize("order", ["chw", "hwc"])
def test_a_linear_behind_a_norm_takes_shuffles_that_the_norm_takes_too(key, cmx, order):
    torch.manual_seed(0)
    model, cipher = Flat(order, norm=True).eval(), PatchCipher(key, 4, steps=("shuffle",))
    torch.save(model.state_dict(), "a.pt")
    told = ("--layer", "embed", "--order", order)
    for other in (("--norm", "none"), ("--norm", "imagenet", "--steps", "shuffle")):
        assert "norm of a.pt normalises each patch" in cmx("encrypt-model", "a.pt", "b.pt", *KEY, *told, *other)[2]
    status, said, _ = cmx("encrypt-model", "a.pt", "b.pt", *KEY, *told, "--norm", "none", "--steps", "shuffle")
    assert status == 0 and "flattened as chw and normalised by norm" in said.replace("hwc", "chw")
    expected = encrypt_model(model, cipher, mean=(0, 0, 0), std=(1, 1, 1)).state_dict()
    assert all(torch.equal(found, expected[name]) for name, found in torch.load("b.pt").items())
    assert not torch.equal(expected["norm.bias"], model.norm.bias)
    status, said, _ = cmx("verify", "a.pt", "b.pt", *KEY, "--json")
    assert status == 0 and said["changed layers"] == ["embed", "norm"] and said["without encryption"] > 0.1
    assert cmx("decrypt-model", "b.pt", "c.pt", *KEY)[0] == 0
    assert all(torch.equal(found, model.state_dict()[name]) for name, found in torch.load("c.pt").items())


CLIP = {"img_size": (32, 48), "depth": 1, "embed_dim": 24, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_position_embeddings_take_the_offset_of_an_embedding_without_a_bias(key, cmx, suffix):
    model = pytest.importorskip("timm").create_model("vit_base_patch16_clip_224", **CLIP).eval()
    write, read = (save_file, load_file) if suffix == "safetensors" else (torch.save, torch.load)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write(before, f"a.{suffix}")
    usual = (*KEY, "--patch", "16", "--norm", "imagenet", "--image-size", "32", "48")
    status, said, _ = cmx("encrypt-model", f"a.{suffix}", f"b.{suffix}", *usual)
    assert status == 0 and "The offset is in pos_embed" in said
    expected, found = encrypt_model(model, PatchCipher(key, 16), **NORM).state_dict(), read(f"b.{suffix}")
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], expected[name], rtol=0, atol=1e-6) for name in expected)
    status, said, _ = cmx("verify", f"a.{suffix}", f"b.{suffix}", *KEY, "--json")
    assert status == 0 and said["equal"] and said["without encryption"] > 0.1
    assert said["changed layers"] == ["patch_embed.proj", "pos_embed"]
    assert cmx("decrypt-model", f"b.{suffix}", f"c.{suffix}", *KEY)[0] == 0
    opened = read(f"c.{suffix}")
    assert all(torch.allclose(opened[name], before[name], rtol=0, atol=1e-6) for name in before)
    np.save("images.npy", IMAGES.numpy())
    assert "must be 32 x 48" in cmx("verify", f"a.{suffix}", f"b.{suffix}", *KEY, "--images", "images.npy")[2]


def test_verify_looks_at_position_embeddings_too(key, cmx):
    """A patch's that is wrong shows in the outputs; another token's may not change at all."""
    state = {"a.weight": WEIGHT, "pos": torch.rand(17, 8)}
    save("a.safetensors", state)
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL, *SIDE)[0] == 0
    with safe_open("b.safetensors", "pt") as file:
        metadata = file.metadata()
    for row, said in ((0, "differs elsewhere: pos"), (1, "NOT EQUAL")):
        after = load_file("b.safetensors")
        after["pos"][row] += 0.01
        save_file(after, "c.safetensors", metadata)
        status, told, _ = cmx("verify", "a.safetensors", "c.safetensors", *KEY)
        assert status == 1 and said in told
    del after["pos"]
    save_file(after, "c.safetensors", metadata)
    assert "has no pos, which the record" in cmx("verify", "a.safetensors", "c.safetensors", *KEY)[2]
    assert "has no pos to take the offset" in cmx("decrypt-model", "c.safetensors", "d.safetensors", *KEY)[2]


def test_verify_finds_what_is_not_the_encrypted_model(key, cmx):
    SecretKey.for_experiment(9).save("other.key")
    state = network().state_dict()
    save_file(state, "a.safetensors")
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[0] == 0
    compare = ("verify", "a.safetensors", "b.safetensors")
    np.save("images.npy", IMAGES.numpy())
    status, said, _ = cmx(*compare, *KEY, "--images", "images.npy", "--json")
    assert status == 0 and said["images"] == 6 and said["without encryption"] > 0.1 > said["largest difference"]
    assert f"was encrypted with the key {key.fingerprint}, not with" in cmx(*compare, "--key", "other.key")[2]
    assert "carries no record" in cmx("verify", "a.safetensors", "a.safetensors", *KEY)[2]
    for other in ({"channels": 1}, {"dim": 8}, {"patch_size": 2}):
        save_file(network(**other).state_dict(), "other.safetensors")
        said = cmx("verify", "other.safetensors", "b.safetensors", *KEY)[2]
        assert "other.safetensors is not the plain model of b.safetensors: 0.weight has the shape" in said
    with safe_open("b.safetensors", "pt") as file:
        metadata = file.metadata()
    for name, changed in (("0.weight", "differ by"), ("3.1.bias", "differs elsewhere: 3.1.bias")):
        after = load_file("b.safetensors")
        after[name] = after[name] + 0.01
        save_file(after, "c.safetensors", metadata)
        status, said, _ = cmx("verify", "a.safetensors", "c.safetensors", *KEY)
        assert status == 1 and said.startswith("NOT EQUAL") and changed in said


def test_what_no_file_tells_is_said_not_taken_in_silence(key, cmx):
    """A padded or overlapping convolution looks as any other in a checkpoint, and so does any normalisation."""
    save("a.safetensors", nn.Sequential(nn.Conv2d(3, 8, 4, 2, padding=1)).state_dict())
    said = cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[1]
    assert "0 must take patches side by side: stride 4 and no padding, which the file does not tell" in said
    status, said, _ = cmx("verify", "a.safetensors", "b.safetensors", *KEY)
    assert status == 0 and "Taken for granted: " in said and "side by side: stride 4 and no padding" in said
    assert said.endswith("images are normalised by mean 0.485 0.456 0.406 and std 0.229 0.224 0.225.\n")


def test_a_wrong_key_or_another_normalisation_is_told(key, cmx):
    SecretKey.for_experiment(9).save("other.key")
    save_file(network().state_dict(), "a.safetensors")
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[0] == 0
    for options, said in (
        (("--key", "other.key"), "with the key"),
        ((*KEY, "--norm", "cifar10"), "with --mean 0.485 0.456 0.406, not with --mean 0.4914"),
        ((*KEY, "--patch", "8"), "with --patch 4, not with --patch 8"),
        ((*KEY, "--steps", "flip"), "with --steps shuffle,flip, not with --steps flip"),
        ((*KEY, "--layer", "1"), "with --layer 0, not with --layer 1"),
    ):
        assert said in cmx("decrypt-model", "b.safetensors", "c.safetensors", *options)[2]
    again = cmx("encrypt-model", "b.safetensors", "c.safetensors", *USUAL)[2]
    assert f"is encrypted already, with the key {key.fingerprint}: give the plain one, or decrypt it first" in again
    assert "carries no record" in cmx("decrypt-model", "a.safetensors", "c.safetensors", *KEY)[2]
    save_file(load_file("b.safetensors"), "d.safetensors")  # by another program, which drops the record
    told = ("decrypt-model", "d.safetensors", "c.safetensors", *KEY, "--layer", "0", "--norm", "imagenet")
    assert cmx(*told)[0] == 0 and cmx("verify", "c.safetensors", "b.safetensors", *KEY)[0] == 0


def save(name, state):
    save_file({key: value.contiguous() for key, value in state.items()}, name)


def with_header(name, text, data=b""):
    with open(name, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text.encode() + data)


WEIGHT, BIAS = torch.rand(8, 3, 4, 4), torch.rand(8)
ONE = {"a.weight": WEIGHT, "a.bias": BIAS}
PAIR = {**ONE, "b.weight": torch.rand(6, 3, 4, 4), "b.bias": torch.rand(6)}
HUGE = {"a.weight": torch.full((8, 3, 4, 4), 6e4, dtype=torch.float16), "a.bias": torch.zeros(8).half()}
A, NONE, MEAN = (*USUAL, "--layer", "a"), (*KEY, "--norm", "none"), (*KEY, "--mean", "0", "0", "0", "--std", "1")
CHW, SIDE = ("--order", "chw"), ("--image-size", "16")
TWICE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
REFUSED = {
    "no norm": (ONE, (*KEY, "--patch", "4"), "give --norm imagenet, cifar10 or none"),
    "no patch": (ONE, NONE, "give --patch or --layer"),
    "two": (PAIR, USUAL, "name one with --layer (on 3 channels with a square kernel: a (8, 3, 4, 4), b (6"),
    "none of that size": (ONE, (*NONE, "--patch", "7"), "patches of 7"),
    "no such layer": (ONE, (*USUAL, "--layer", "c"), "has no layer c"),
    "Linear": ({"a.weight": torch.rand(8, 48)}, A, "is a Linear (8, 48): the order in which it takes"),
    "Linear of no patches": ({"a.weight": torch.rand(8, 47)}, (*A, *CHW), "has the shape (8, 47), not (dim, 3, patch"),
    "Linear of other patches": ({"a.weight": torch.rand(8, 75)}, (*A, *CHW), "has patches of 5, not of 4"),
    "Linear without a name": ({"a.weight": torch.rand(8, 48)}, (*USUAL, *CHW), "or a Linear that --layer names"),
    "Linear with two norms": (
        {"a.0.weight": torch.rand(48), "a.1.weight": torch.rand(8, 48), "a.2.weight": torch.rand(48)},
        (*USUAL, *CHW, "--layer", "a.1"),
        "a.0.weight of a.safetensors may normalise each patch in front of a.1",
    ),
    "Linear with a norm before it or behind": (
        {"a.weight": torch.rand(48, 48), "b.weight": torch.rand(48)},
        (*A, *CHW),
        "b.weight of a.safetensors may normalise each patch in front of a,",
    ),
    "Linear behind a norm with statistics": (
        {"a.weight": torch.rand(8, 48), "b.weight": torch.rand(48), "b.running_mean": torch.rand(48)},
        (*A, *CHW),
        "b.weight of a.safetensors may normalise each patch in front of a,",
    ),
    "a copy of a Linear": (
        {"net.a.weight": torch.rand(8, 48), "ema.a.weight": torch.rand(8, 48)},
        (*USUAL, *CHW, "--layer", "net.a"),
        "also holds ema.a.weight",
    ),
    "optimiser of a Linear": (
        {"a.weight": torch.rand(8, 48), "state.0.exp_avg": torch.rand(8, 48)},
        (*A, *CHW),
        "also holds state.0.exp_avg",
    ),
    "4 channels": ({"a.weight": torch.rand(8, 4, 4, 4)}, A, "not (dim, 3, patch, patch)"),
    "a copy": ({**ONE, "ema.weight": WEIGHT.clone()}, A, "could give the key away"),
    "a copy, turned": (
        {**ONE, "h": WEIGHT.transpose(0, 1).contiguous()},
        USUAL,
        "also holds h of the same shape or values",
    ),
    "a copy, flat and half": ({**ONE, "h": WEIGHT.flatten().half()}, USUAL, "also holds h of the same shape or values"),
    "a copy among others": ({**ONE, "flat": torch.cat([BIAS, WEIGHT.flatten(), BIAS])}, USUAL, "also holds flat of"),
    "a copy at the end of two, half": (
        {**ONE, "both": torch.stack([torch.rand(WEIGHT.shape), WEIGHT]).half()},
        USUAL,
        "also holds both of",
    ),
    "optimiser": ({**ONE, "state.0.exp_avg": WEIGHT.clone()}, USUAL, "could give the key away"),
    "no bias": ({"a.weight": WEIGHT}, USUAL, "has no bias, which this cipher needs and a model would not look for."),
    "no positions": ({"a.weight": WEIGHT, "b": torch.rand(17, 8)}, (*USUAL, *SIDE), "there is not one alone, but none"),
    "positions of another size": ({"a.weight": WEIGHT, "pos": torch.rand(40, 8)}, (*USUAL, *SIDE), "but none"),
    "two positions": (
        {"a.weight": WEIGHT, "pos": torch.rand(17, 8), "q.pos": torch.rand(1, 16, 8)},
        (*USUAL, *SIDE),
        "not one alone, but pos (17, 8), q.pos (1, 16, 8)",
    ),
    "a size that patches do not divide": ({"a.weight": WEIGHT}, (*USUAL, "--image-size", "18"), "do not divide images"),
    "three sides": (ONE, (*USUAL, "--image-size", "1", "2", "3"), "takes a side, or height and width, not 3"),
    "bias of another size": ({**ONE, "a.bias": torch.rand(7)}, USUAL, "has the shape (7,), not (8,)"),
    "whole numbers": ({**ONE, "a.weight": WEIGHT.to(torch.int8)}, USUAL, "before quantising"),
    "not finite": ({**ONE, "a.bias": BIAS / 0}, USUAL, "not finite"),
    "too large for its type": (HUGE, (*USUAL, "--steps", "orthogonal"), "cannot hold the encrypted values"),
    "cut off": (lambda name: save(name, ONE) or os.truncate(name, 200), USUAL, "is no complete safetensors"),
    "empty": (lambda name: open(name, "wb").close(), USUAL, "is no complete safetensors"),
    "header missing": (lambda name: with_header(name, "{}") or os.truncate(name, 8), USUAL, "is no complete"),
    "header too long": (lambda name: open(name, "wb").write(b"\xff" * 20) and None, USUAL, "is no complete"),
    "names twice": (lambda name: with_header(name, TWICE, bytes(4)), USUAL, "is no complete"),
    "deep header": (lambda name: with_header(name, "[" * 10_000), USUAL, "is no complete"),
    "folder": (os.mkdir, USUAL, "is a folder"),
    "missing": (lambda name: None, USUAL, "No such file"),
    "negative std": (ONE, (*MEAN, "-1", "1"), "Every std must be"),
    "two stds": (ONE, (*MEAN, "1"), "std must hold 3 numbers"),
}


def test_two_tensors_of_one_joined_name_are_told_from_one_another(key, cmx):
    torch.save({"a": {"weight": WEIGHT, "bias": BIAS}, "a.weight": WEIGHT + 1, "a.bias": BIAS}, "a.pt")
    status, _, said = cmx("encrypt-model", "a.pt", "b.pt", *USUAL)
    assert status == 1 and "two tensors of one name" in said and not os.path.exists("b.pt")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(key, cmx, name):
    make, options, said = REFUSED[name]
    make("a.safetensors") if callable(make) else save("a.safetensors", make)
    status, _, err = cmx("encrypt-model", "a.safetensors", "b.safetensors", *options)
    assert status == 1 and said in err and not os.path.exists("b.safetensors")


class Malice:
    def __reduce__(self):
        return os.mkdir, ("was here",)


def nested(depth, content):
    for i in range(depth):
        content = [content] if i % 2 else {"in": content}
    return {**ONE, "more": content}


FLAT = torch.cat([BIAS, WEIGHT.flatten()])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (nested(10, WEIGHT.clone()), "also holds more.0.in.0.in.0.in.0.in.0.in of"),
        ({**ONE, "more": {(1, 2): (WEIGHT.clone(),)}}, "also holds more.(1, 2).0 of"),
        ({**ONE, "more": [{WEIGHT.clone()}]}, "also holds more.0.0 of"),
        (nested(60, WEIGHT.clone()), "is nested deeper than 50 dicts and lists"),
        ({**ONE, "flat": FLAT}, "also holds flat of"),
        ({**ONE, "rate": FLAT[:1]}, "also holds rate of"),  # with which all of it is saved
        ({"a.weight": WEIGHT, "pos": [torch.rand(16, 8)]}, "pos.0 of a.pt stands in a list"),
        (Malice(), "no checkpoint of weights alone"),
        ({"0.weight": torch.rand(8, 3, 4, 4), "extra": Malice()}, "no checkpoint of weights alone"),
        (nn.Conv2d(3, 8, 4), "no checkpoint of weights alone"),
        ([torch.rand(3)], "holds no tensors by name"),
        ({}, "holds no tensors by name"),
        ({"a.weight": torch.rand(9, 3, 4, 4)[1:], "a.bias": torch.rand(8)}, "is a part of a larger tensor"),
    ],
)
def test_checkpoints_of_torch_that_are_refused(key, cmx, content, said):
    torch.save(content, "a.pt")
    options = SIDE if isinstance(content, dict) and "a.bias" not in content else ()
    status, _, err = cmx("encrypt-model", "a.pt", "b.pt", *USUAL, *options)
    assert status == 1 and said in err and not os.path.exists("was here") and not os.path.exists("b.pt")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # which torch says once in a process
def test_a_checkpoint_that_holds_itself_and_odd_types_is_compared(key, cmx):
    content = {**ONE, "odd": torch.tensor([1 + 1j]).conj(), "wide": torch.full((2,), torch.nan, dtype=torch.complex128)}
    content["again"] = [content]
    torch.save(content, "a.pt")
    assert cmx("encrypt-model", "a.pt", "b.pt", *USUAL)[0] == 0
    assert cmx("verify", "a.pt", "b.pt", *KEY)[0] == 0
    one, two = (torch.quantize_per_tensor(torch.ones(2, 8), scale, 0, torch.qint8) for scale in (0.5, 0.25))
    torch.save({**ONE, "head": one}, "a.pt")
    assert cmx("encrypt-model", "a.pt", "b.pt", *USUAL, "--force")[0] == 0
    torch.save({**ONE, "head": two}, "a.pt")
    status, said, _ = cmx("verify", "a.pt", "b.pt", *KEY)
    assert status == 1 and "differs elsewhere: head" in said


def test_a_difference_that_is_no_number_is_none_in_json_too(key, cmx):
    save("a.safetensors", ONE)
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[0] == 0
    with safe_open("b.safetensors", "pt") as file:
        state, told = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    layer = next(name for name in state if name.endswith("weight") and state[name].ndim == 4)
    save_file(state | {layer: torch.full_like(state[layer], torch.nan)}, "b.safetensors", told)
    status, said, _ = cmx("verify", "a.safetensors", "b.safetensors", *KEY, "--json")
    assert status == 1 and said["equal"] is False and said["largest difference"] is None


@pytest.mark.parametrize("missing", ["layers", "mean", "std", "image_size", "an end"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_record_that_lacks_what_is_needed_is_damaged(key, cmx, missing, suffix):
    told = {"version": 2, "key": key.fingerprint, "steps": ["shuffle"], "patch": 4, "layers": ["a"]}
    told |= {"mean": [0.0] * 3, "std": [1.0] * 3, "positions": "pos", "image_size": [16, 16]}
    told.pop(missing, None)
    text = json.dumps(told) + " " * 70_000 * (missing == "an end")
    state = {"a.weight": WEIGHT, "pos": torch.rand(16, 8)}
    if suffix == ".pt":
        torch.save(state, "b.pt")
        with zipfile.ZipFile("b.pt", "a") as archive:
            archive.writestr("b/cmxlib.json", text)
    else:
        save_file(state, "b.safetensors", {"cmxlib": text})
    status, _, said = cmx("decrypt-model", f"b{suffix}", f"c{suffix}", *KEY)
    assert status == 1 and f"b{suffix} has a damaged record" in said and not os.path.exists(f"c{suffix}")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", pickle.dumps(Malice()), b"\x80\x02" * 100])
def test_files_that_are_no_checkpoints_of_torch(key, cmx, data):
    with open("a.pth", "wb") as file:
        file.write(data)
    assert "no checkpoint of weights alone" in cmx("encrypt-model", "a.pth", "b.pth", *USUAL)[2]
    assert not os.path.exists("was here")


def test_names_that_say_no_kind_and_outputs_that_are_there(key, cmx):
    save(target := "a.safetensors", ONE)
    for source, out, said in (
        ("a.bin", "b.bin", "is no .safetensors, .pt, .pth or .onnx"),
        ("a.safetensors", "b.pt", "must end in .safetensors"),
        ("a.safetensors", "a.safetensors", "a.safetensors is the input itself: name another output"),
        ("model.safetensors.index.json", "b.json", "is the index of a model in parts"),
    ):
        assert said in cmx("encrypt-model", source, out, *USUAL)[2]
    os.symlink(target, "b.safetensors")  # of a link, the link is replaced
    assert "exists already" in cmx("encrypt-model", target, "b.safetensors", *USUAL)[2]
    assert cmx("encrypt-model", target, "b.safetensors", *USUAL, "--force")[0] == 0
    assert "is the input itself" in cmx("encrypt-model", target, target, *USUAL, "--force")[2]


def test_a_shipped_model_goes_through(key, cmx):
    (path,) = (ROOT / "models").glob("quick-*.safetensors")
    assert cmx("encrypt-model", path, "b.safetensors", *KEY, "--patch", 4, "--norm", "none")[0] == 0
    assert cmx("verify", path, "b.safetensors", *KEY)[0] == 0


@pytest.mark.parametrize("odd", [0, 1, -1])
def test_copies_are_looked_for_quickly_where_much_looks_like_the_embedding(key, cmx, odd):
    """One number alone, or in all entries but one; and so many others of that number as would be compared for hours."""
    weight = torch.ones(8, 3, 4, 4)
    weight[3, 1, 2, 2] += odd
    tensors = {"a.weight": weight, "a.bias": BIAS, "head": torch.ones(2000, 1000)}
    save_file(tensors, "a.safetensors")
    begun = time.perf_counter()
    assert cmx("encrypt-model", "a.safetensors", "b.safetensors", *USUAL)[0] == 0
    assert time.perf_counter() - begun < 20
