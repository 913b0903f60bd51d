import copy
import pickle
import time
import warnings

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from cmxlib import ConvMixer, PatchCipher, SecretKey, decrypt_model, encrypt_model, logits
from cmxlib.learn.evaluate import normalise
from cmxlib.lock.bits import bit_model
from cmxlib.lock.embedding import find_embedding, locate
from cmxlib.lock.patch import to_blocks
from cmxlib.lock.position import PositionCipher, encrypt_model_by_position
from cmxlib.lock.probe import run, tensors
from cmxlib.lock.use import Encrypt, verify

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


@pytest.mark.parametrize("part", ["whole", "stem"])
def test_nothing_is_compiled_to_encrypt_a_compiled_model(part):
    compiled, net, cipher, x = [], small_net(), PatchCipher(KEY), images()

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    stem, rest = torch.compile(net if part == "whole" else net[:2], backend=backend), nn.Sequential(*net[2:])
    given = stem if part == "whole" else nn.Sequential(stem, rest)
    encrypted = encrypt_model(given, cipher, **UNEQUAL)
    assert not compiled and type(encrypted) is type(given)
    found = logits(encrypted, cipher.encrypt(x), **UNEQUAL)
    assert compiled and torch.allclose(found, logits(net, x, **UNEQUAL), 1e-9, 1e-9)  # net is as it was


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


def test_an_embedding_without_bias_gets_none_unasked():
    net = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4, bias=False), nn.Flatten()).double()
    cipher, x = PatchCipher(KEY, 4), images()
    with pytest.raises(ValueError, match=r"'0' has no bias .*get_submodule\('0'\).bias = ") as caught:
        encrypt_model(net, cipher, **UNEQUAL)
    assert "\n" not in str(caught.value)
    net[0].bias = nn.Parameter(torch.zeros(6).double())  # the way out that it names
    found = logits(encrypt_model(net, cipher, **UNEQUAL), cipher.encrypt(x), **UNEQUAL)
    assert (found - logits(net, x, **UNEQUAL)).abs().max() < 1e-9


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
    with pytest.raises(ValueError, match=r"0 \(4, 3, 2, 2\), 1\.b \(4, 3, 4, 4\); name one .*CrossViT"):
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


# -- the weight that is changed must be the one that counts ------------------------------------------------------------


class Standardised(nn.Conv2d):
    """A convolution that does not use its weight as it is."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride)


def parametrised(kind):
    conv = nn.Conv2d(3, 6, 4, stride=4)
    if kind == "cut off":
        conv.register_forward_pre_hook(lambda layer, args: (args[0].clamp(-5, 5),))
    elif kind == "hook":
        conv.register_forward_pre_hook(lambda layer, args: (args[0] * 2,))
    elif kind == "standardised":
        conv = Standardised(3, 6, 4, stride=4)
    elif kind == "quantised while training":
        conv = torch.ao.nn.qat.Conv2d(3, 6, 4, stride=4, qconfig=torch.ao.quantization.get_default_qat_qconfig())
    else:
        {
            "weight_norm": parametrizations.weight_norm,
            "spectral_norm": parametrizations.spectral_norm,
            "old weight_norm": nn.utils.weight_norm,
            "old spectral_norm": nn.utils.spectral_norm,
            "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
        }[kind](conv)
    return nn.Sequential(conv, nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "kind, way_out",
    [
        ("weight_norm", "remove_parametrizations"),
        ("spectral_norm", "remove_parametrizations"),
        ("old weight_norm", "remove_weight_norm"),
        ("old spectral_norm", "remove_spectral_norm"),
        ("pruning", "prune.remove"),
        ("hook", "hooks"),
        ("cut off", "hooks|does not see"),
        ("standardised", "plain one"),
        ("quantised while training", "plain one"),
    ],
)
def test_a_weight_that_is_not_the_one_that_counts_is_refused(kind, way_out):
    net = parametrised(kind).eval()
    net(images(torch.float32))
    for verb in (encrypt_model, decrypt_model):
        with pytest.raises(ValueError, match=way_out) as caught:
            verb(net, PatchCipher(KEY, 4), **UNEQUAL)
        assert "\n" not in str(caught.value)


def test_a_shared_or_frozen_weight():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 6, 4, stride=4)
            self.back = nn.ConvTranspose2d(6, 3, 4, stride=4, bias=False)
            self.back.weight = self.embed.weight

        def forward(self, x):
            return self.back(self.embed(x)).flatten(1)

    net, cipher, x = Tied().double(), PatchCipher(KEY, 4), images()
    net.embed.weight.requires_grad_(False)
    encrypted = encrypt_model(net, cipher, **UNEQUAL)
    assert (logits(encrypted, cipher.encrypt(x), **UNEQUAL) - logits(net, x, **UNEQUAL)).abs().max() < 1e-9
    assert not encrypted.embed.weight.requires_grad and encrypted.embed.bias.requires_grad
    assert torch.equal(encrypted.back.weight, net.back.weight)


# -- what the embedding sees ------------------------------------------------------------------------------------------


class InPlace(nn.Module):
    """Subtracts in place from the image, before the embedding sees it."""

    def forward(self, x):
        return x.sub_(0.5)


class Skip(nn.Module):
    """The embedding, and a second way for the image around it."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, x):
        return self.embed(x).mean((2, 3)) + x.mean()


class Uses(nn.Module):
    """An embedding, after a LayerNorm or not, and what is made of its output and its parameters."""

    def __init__(self, made, norm=False):
        super().__init__()
        self.made, self.norm = made, nn.LayerNorm(48) if norm else nn.Identity()
        self.embed = nn.Linear(48, 6) if norm else nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, x):
        normed = isinstance(self.norm, nn.LayerNorm)
        return self.made(self, self.embed(self.norm(to_blocks(x, 4) if normed else x)))


def tied(net, h):
    return nn.functional.conv_transpose2d(h, net.embed.weight, stride=4).mean((2, 3))


def net_of(*layers):
    return nn.Sequential(*layers, nn.Conv2d(3, 6, 4, stride=4), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize(
    "net, message",
    [
        (net_of(nn.Conv2d(3, 3, 3, padding=1)), "does not see the image as it is"),
        (net_of(nn.BatchNorm2d(3)), "does not see the image as it is"),
        (net_of(nn.Hardtanh(-5, 5)), "does not see the image as it is"),  # what lies beyond is seen, too
        (net_of(InPlace()), "does not see the image as it is"),
        (net_of(nn.ReflectionPad2d(2)), "does not see the image as it is"),
        (Skip(), "Another layer than 'embed' reads the image"),
        (Uses(tied), "weight or bias of 'embed' is used elsewhere in the model too"),
        (Uses(lambda net, h: h.mean() + net.embed.weight.sum()), "weight or bias of 'embed' is used elsewhere"),
        (Uses(lambda net, h: {"logits": h.mean((2, 3)), "b": (net.embed.bias,)}), "weight or bias of 'embed' is used"),
        (Uses(lambda net, h: h @ net.embed.weight, norm=True), "weight or bias of 'embed' is used elsewhere"),
        (Uses(lambda net, h: h.mean() + net.norm(torch.ones(48)), norm=True), "weight or bias of 'embed' is used"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), "Several layers"),
        (nn.Sequential(nn.Conv2d(3, 4, 7, stride=2)), "7 x 7 with stride 2 overlap"),
        (nn.Sequential(nn.Conv2d(3, 4, 2, stride=4)), "leave gaps"),
    ],
)
def test_what_the_embedding_sees_is_checked(net, message):
    net(images(torch.float32, 32))
    before = [module.training for module in net.modules()]
    with pytest.raises(ValueError, match=message):
        encrypt_model(net.train(), PatchCipher(KEY, 4), **UNEQUAL)
    assert before == [module.training for module in net.modules()]


@pytest.mark.parametrize(
    "made",
    [
        lambda net, h: (h.mean((2, 3)).to(net.embed.weight.dtype), list(net.embed.weight.shape)),
        lambda net, h: {"logits": h.mean((2, 3)), "kept": net.made, "none": None},
        lambda net, h: nn.functional.dropout(h, 0.5, training=True).mean((2, 3)),  # random in evaluation mode, too
    ],
)
def test_a_model_that_gives_several_things_or_is_random_is_encrypted_as_it_is(made):
    net, x, cipher = Uses(made).double(), images(), PatchCipher(KEY, 4)
    before = copy.deepcopy(net.state_dict())
    with warnings.catch_warnings(action="error"):
        encrypted = encrypt_model(net, cipher, **UNEQUAL)
    pairs = (run(net, normalise(x, **UNEQUAL, dtype=torch.float64)),
             run(encrypted, normalise(cipher.encrypt(x), **UNEQUAL, dtype=torch.float64)))  # fmt: skip
    assert all(torch.allclose(a, b, 1e-9, 1e-9) for a, b in zip(*map(tensors, pairs), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "net", [net_of(nn.Conv2d(3, 3, 3, padding=1)), Skip(), Uses(tied), parametrised("weight_norm")]
)
def test_the_repairs_check_the_same(net):
    net(images(torch.float32, 32))
    with pytest.raises(ValueError, match=r"does not see|Another layer|used elsewhere|remove_parametrizations"):
        bit_model(net, **UNEQUAL)
    with pytest.raises(ValueError, match=r"does not see|Another layer|used elsewhere|remove_parametrizations"):
        encrypt_model_by_position(net, PositionCipher(KEY, 4, image_size=32), **UNEQUAL)


def test_a_layer_that_changes_nothing_may_stand_in_front_and_one_that_works_in_place_behind():
    conv, cipher, x = nn.Conv2d(3, 6, 4, stride=4), PatchCipher(KEY, 4), images(size=32)
    net = nn.Sequential(nn.Identity(), nn.Dropout(0.5), conv, nn.ELU(inplace=True), nn.Flatten(), nn.Linear(384, 5))
    net = net.double().eval()
    plain = logits(net, x, **UNEQUAL)
    assert (logits(encrypt_model(net, cipher, **UNEQUAL), cipher.encrypt(x), **UNEQUAL) - plain).abs().max() < 1e-9


def test_a_model_that_no_probe_runs_is_said():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 6, 4, stride=4)

        def forward(self, image, text):
            return self.embed(image).mean((2, 3)) + text

    with pytest.warns(UserWarning, match="'embed' sees the image as it is was not checked"):
        encrypt_model(TwoInputs(), PatchCipher(KEY, 4), **UNEQUAL)


def test_a_model_whose_outputs_are_no_numbers_is_said():
    net = net_of()  # in half precision, many a network at random weights overflows
    net(images(torch.float32, 32))
    nn.init.constant_(net[-1].bias, float("nan"))
    with pytest.warns(UserWarning, match="was not checked"):
        encrypt_model(net, PatchCipher(KEY, 4), **UNEQUAL)


def test_the_check_takes_milliseconds():
    net = ConvMixer(dim=32, depth=2, kernel_size=5, patch_size=4).eval()
    cipher, best = PatchCipher(KEY, 4), 9.0
    for _ in range(5):
        start = time.perf_counter()
        with warnings.catch_warnings(action="error"):
            encrypt_model(net, cipher, **UNEQUAL)
        best = min(best, time.perf_counter() - start)
    assert best < 0.25  # measured: 0.01


# -- embeddings of other kinds ----------------------------------------------------------------------------------------


class Flat(nn.Module):
    """A patch embedding as a Linear on flat patches, in either order of entries, with a LayerNorm before it or not."""

    def __init__(self, rows_first=False, norm=False, bias=True):
        super().__init__()
        self.norm = nn.LayerNorm(48) if norm else nn.Identity()
        self.embed, self.head = nn.Linear(48, 48, bias=bias), nn.Linear(48, 5)
        self.axes = (0, 2, 4, 3, 5, 1) if rows_first else (0, 2, 4, 1, 3, 5)
        if norm:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(self.axes).reshape(n, -1, 48)
        return self.head(self.embed(self.norm(x)).tanh().mean(1))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("rows_first", [False, True])
@pytest.mark.parametrize("name", [None, "embed"])
def test_a_linear_on_flat_patches(steps, rows_first, name):
    net, cipher, x = Flat(rows_first).double(), PatchCipher(KEY, 4, steps=steps), images()
    encrypted = encrypt_model(net, cipher, **UNEQUAL, embedding=name)
    plain = logits(net, x, **UNEQUAL)
    assert (logits(encrypted, cipher.encrypt(x), **UNEQUAL) - plain).abs().max() < 1e-9
    assert (logits(decrypt_model(encrypted, cipher, **UNEQUAL), x, **UNEQUAL) - plain).abs().max() < 1e-9
    assert not steps or (logits(encrypted, x, **UNEQUAL) - plain).abs().max() > 1e-4


@pytest.mark.parametrize("rows_first", [False, True])
def test_a_normalisation_of_patches_passes_shuffles_only(rows_first):
    net, x, equal = Flat(rows_first, norm=True).double(), images(), {"mean": (0.4,) * 3, "std": (0.3,) * 3}
    cipher = PatchCipher(KEY, 4, steps=("shuffle",))
    assert locate(net, 3, None).norm == "norm"
    found = logits(encrypt_model(net, cipher, **equal), cipher.encrypt(x), **equal)
    assert (found - logits(net, x, **equal)).abs().max() < 1e-9
    for other, norm in ((PatchCipher(KEY, 4), equal), (cipher, UNEQUAL), (PatchCipher(KEY, 4, steps=STEPS[-1]), equal)):
        with pytest.raises(ValueError, match="'norm' normalises each patch"):
            encrypt_model(net, other, **norm)


# -- ciphers of one's own, wrong types, and use -----------------------------------------------------------------------


class Darker:
    """A cipher of one's own, with no more than it needs: every value is halved, and the channels change places."""

    def encrypt(self, images):
        return images.flip(-3) / 2

    def decrypt(self, images):
        return images.flip(-3) * 2

    def matrix(self, patch_size):
        return np.kron(np.eye(3)[::-1] / 2, np.eye(patch_size**2)), np.zeros(3 * patch_size**2)


def test_a_cipher_of_ones_own():
    net, cipher, x = small_net(), Darker(), images()
    encrypted = encrypt_model(net, cipher, **UNEQUAL)
    plain = logits(net, x, **UNEQUAL)
    assert (logits(encrypted, cipher.encrypt(x), **UNEQUAL) - plain).abs().max() < 1e-9
    assert (logits(decrypt_model(encrypted, cipher, **UNEQUAL), x, **UNEQUAL) - plain).abs().max() < 1e-9
    cipher.matrix = lambda patch_size: (np.ones((48, 48)), np.zeros(48))
    with pytest.raises(ValueError, match="singular"):
        encrypt_model(net, cipher, **UNEQUAL)
    cipher.matrix = lambda patch_size: (np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match="48 entries"):
        encrypt_model(net, cipher, **UNEQUAL)


@pytest.mark.parametrize(
    "dtype, most", [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.1)]
)
def test_types_of_models(dtype, most):
    net, cipher = small_net(dtype=dtype), PatchCipher(KEY, 4)
    x = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encrypted = encrypt_model(net, cipher, **UNEQUAL)
    assert encrypted[0].weight.dtype == encrypted[0].bias.dtype == dtype
    plain = logits(net, x, **UNEQUAL)
    assert (logits(encrypted, cipher.encrypt(x), **UNEQUAL) - plain).abs().max() <= most * plain.abs().max()
    exact = encrypt_model(net.double(), cipher, **UNEQUAL)[0].weight  # the fold is rounded once
    assert torch.equal(encrypted[0].weight, exact.to(dtype))


def test_the_transform_in_the_workers_of_a_loader():
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    cipher = PatchCipher(KEY, 4)
    x = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    secret = KEY._secret.value
    assert secret not in pickle.dumps(Encrypt(cipher)) and secret.hex().encode() not in pickle.dumps(Encrypt(cipher))
    pipeline = v2.Compose([v2.CenterCrop(16), Encrypt(cipher), v2.ToDtype(torch.float32, scale=True)])

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            return pipeline(tv_tensors.Image(x[i]))

    expected = cipher.encrypt(x[:, :, 2:-2, 2:-2]).float() / 255
    assert isinstance(Encrypt(cipher)(tv_tensors.Image(x)), tv_tensors.Image)
    for workers in (0, 2):
        found = torch.cat(list(torch.utils.data.DataLoader(Pictures(), batch_size=3, num_workers=workers)))
        assert torch.allclose(found, expected)


class Paired(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return x, self.net(x)


def test_the_report():
    net, cipher, x = small_net(), PatchCipher(KEY, 4), images()
    report = verify(net, encrypt_model(net, cipher, **UNEQUAL), cipher, x, **UNEQUAL)
    assert report.startswith("Equal: 0 of 3 predictions differ") and "changed: 0.weight, 0.bias;" in report
    pair = Paired(net), Paired(encrypt_model(net, cipher, **UNEQUAL))
    assert (
        verify(*pair, cipher, x, **UNEQUAL, take=lambda output: output[1]).splitlines()[:3] == report.splitlines()[:3]
    )
    with pytest.raises(ValueError, match="gives tuple: take= must say where its logits are"):
        verify(*pair, cipher, x, **UNEQUAL)
    wrong = verify(net, net, cipher, x, **UNEQUAL)
    assert (
        wrong.startswith("NOT EQUAL: ")
        and "changed: nothing" in wrong
        and float(wrong.split("largest difference of a logit ")[1].split(",")[0]) > 1e-3
    )


class _StartsWithItsData(nn.Sequential):
    """Its first run sets an offset by the images that it sees, as ActNorm does."""

    offset = None

    def forward(self, x):
        found = super().forward(x)
        self.offset = found.mean().item() if self.offset is None else self.offset
        return found - self.offset


def test_the_probe_leaves_nothing_in_a_model_that_keeps_what_it_sees():
    plain = _StartsWithItsData(nn.Conv2d(3, 8, 4, 4), nn.Flatten()).eval()
    cipher, images, norm = PatchCipher(KEY), torch.rand(3, 3, 8, 8), {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    encrypted = encrypt_model(plain, cipher, **norm)
    assert encrypted.offset is None and plain.offset is None
    expected = logits(plain, images, **norm)
    assert torch.allclose(logits(encrypted, cipher.encrypt(images), **norm), expected, atol=1e-5)
