import copy

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cmxlib import ConvMixer, PatchCipher, SecretKey, decrypt_model, encrypt_model, logits
from cmxlib.lock.model import find_embedding

KEY = SecretKey.for_experiment(7)
UNEQUAL = {"mean": (0.49, 0.41, 0.45), "std": (0.25, 0.2, 0.31)}
STEPS = [(), ("shuffle",), ("flip",), ("shuffle", "flip"), ("flip", "shuffle"), ("orthogonal",)]


def images(dtype=torch.float64, size=16, n=3):
    return torch.rand(n, 3, size, size, dtype=dtype, generator=torch.Generator().manual_seed(5))


def small_net(patch_size=4, dtype=torch.float64):
    torch.manual_seed(3)
    return ConvMixer(dim=12, depth=2, kernel_size=3, patch_size=patch_size).to(dtype).eval()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(STEPS),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 4), (8, 8)]),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.05, 2), min_size=3, max_size=3),
    st.integers(0, 10**6),
)
def test_exact_in_float64(steps, patch_and_block, mean, std, seed):
    patch, block = patch_and_block
    norm = {"mean": mean, "std": std}
    net = small_net(patch)
    cipher = PatchCipher(SecretKey.for_experiment(seed), patch, 3, steps, block_size=block)
    encrypted = encrypt_model(net, cipher, **norm)
    x = images()
    plain = logits(net, x, **norm)
    assert (logits(encrypted, cipher.encrypt(x), **norm) - plain).abs().max() < 1e-9
    assert (logits(decrypt_model(encrypted, cipher, **norm), x, **norm) - plain).abs().max() < 1e-9


@pytest.mark.parametrize("steps", STEPS)
def test_close_in_float32(steps):
    net = small_net(dtype=torch.float32)
    cipher = PatchCipher(KEY, 4, steps=steps)
    x = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    plain = logits(net, x, **UNEQUAL)
    found = logits(encrypt_model(net, cipher, **UNEQUAL), cipher.encrypt(x), **UNEQUAL)
    assert (found - plain).abs().max() <= 1e-4 * plain.abs().max()


def test_a_wrong_key_is_wrong():
    net, x = small_net(), images()
    encrypted = encrypt_model(net, PatchCipher(KEY, 4), **UNEQUAL)
    wrong = PatchCipher(SecretKey.for_experiment(8), 4)
    assert (logits(encrypted, wrong.encrypt(x), **UNEQUAL) - logits(net, x, **UNEQUAL)).abs().max() > 1e-3


def test_the_shortcut_without_statistics_is_wrong_where_they_are_unequal():
    # Permuting and negating filter columns, bias untouched, is right for mean = std = 0.5 only.
    cipher, x = PatchCipher(KEY, 4), images()
    net = small_net()
    shortcut = copy.deepcopy(net)
    signs = torch.from_numpy(np.where(cipher.flipped, -1.0, 1.0))
    with torch.no_grad():
        shortcut[0].weight.copy_((net[0].weight.flatten(1)[:, cipher.permutation] * signs).view_as(net[0].weight))
    halves = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    for norm, equal in ((halves, True), (UNEQUAL, False)):
        difference = (logits(shortcut, cipher.encrypt(x), **norm) - logits(net, x, **norm)).abs().max()
        assert (difference < 1e-9) == equal


def test_the_old_model_is_untouched_and_the_new_one_is_of_the_same_kind():
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    encrypted = encrypt_model(net, PatchCipher(KEY, 4), **UNEQUAL)
    assert type(encrypted) is ConvMixer and encrypted.state_dict().keys() == before.keys()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(encrypted.state_dict()[name], value) == (name not in ("0.weight", "0.bias"))


def test_an_embedding_without_bias_gets_one():
    net = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4, bias=False), nn.Flatten()).double()
    cipher, x = PatchCipher(KEY, 4), images()
    found = logits(encrypt_model(net, cipher, **UNEQUAL), cipher.encrypt(x), **UNEQUAL)
    assert (found - logits(net, x, **UNEQUAL)).abs().max() < 1e-9
    assert net[0].bias is None


def test_a_vision_transformer():
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=5).double()
    nn.init.normal_(net.heads.head.weight)  # torchvision starts with a head of zeros, on which anything is exact
    cipher, x = PatchCipher(KEY, 8), images()
    assert find_embedding(net)[0] == "conv_proj"
    encrypted = encrypt_model(net, cipher, **UNEQUAL)
    plain = logits(net, x, **UNEQUAL)
    assert plain.abs().max() > 0.1
    assert (logits(encrypted, cipher.encrypt(x), **UNEQUAL) - plain).abs().max() < 1e-9


def test_gray_images():
    net = ConvMixer(dim=8, depth=1, kernel_size=3, patch_size=2, channels=1).double()
    cipher = PatchCipher(KEY, 2, channels=1)
    x = images()[:, :1]
    norm = {"mean": (0.3,), "std": (0.2,)}
    found = logits(encrypt_model(net, cipher, **norm), cipher.encrypt(x), **norm)
    assert (found - logits(net, x, **norm)).abs().max() < 1e-9


def test_which_layer_is_the_embedding():
    two = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.ModuleDict({"b": nn.Conv2d(3, 4, 4, stride=4)}))
    with pytest.raises(ValueError, match=r"0, 1\.b; name one"):
        find_embedding(two)
    assert find_embedding(two, embedding="1.b")[1] is two[1]["b"]
    with pytest.raises(ValueError, match="no module named 'c'"):
        find_embedding(two, embedding="c")
    with pytest.raises(ValueError, match="'1' is no patch embedding"):
        find_embedding(two, embedding="1")
    for layer in (
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 4, stride=4, padding=1),
        nn.Conv2d(3, 4, 4, stride=4, dilation=2),
        nn.Conv2d(3, 3, 4, stride=4, groups=3),
        nn.Conv2d(3, 4, (4, 2), stride=(4, 2)),
        nn.Linear(3, 3),
    ):
        with pytest.raises(ValueError, match="no patch embedding"):
            find_embedding(nn.Sequential(layer))


@pytest.mark.parametrize(
    "cipher, norm, message",
    [
        (PatchCipher(KEY, 8), UNEQUAL, "nothing that mixes patches"),
        (PatchCipher(KEY, 3), UNEQUAL, "do not divide the patches of 4"),
        (PatchCipher(KEY, 4, channels=1), UNEQUAL, "no patch embedding"),
        (PatchCipher(KEY, 4), {**UNEQUAL, "mean": (0.5,)}, "mean must hold 3 numbers"),
        (PatchCipher(KEY, 4), {**UNEQUAL, "std": (0.5, 0.0, 0.5)}, "std must be above 0"),
    ],
)
def test_bad_input_gets_one_clear_sentence(cipher, norm, message):
    for verb in (encrypt_model, decrypt_model):
        with pytest.raises(ValueError, match=message) as caught:
            verb(small_net(), cipher, **norm)
        assert "\n" not in str(caught.value)
