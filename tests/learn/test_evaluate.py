import contextlib
import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from cmxlib import PatchCipher, SecretKey, accuracy, encrypt_model, fit, key_trials, logits
from cmxlib.learn.evaluate import normalise, right_key_rows, wrong_key_accuracy
from cmxlib.learn.train import TrainSettings
from cmxlib.lock.probe import evaluating

from .test_train import Wrapped, toy_data, toy_model

NORM = {"mean": (0.4,) * 3, "std": (0.2,) * 3}


@pytest.fixture(scope="module")
def model():
    net = toy_model()
    fit(net, toy_data(), TrainSettings(epochs=12, batch_size=16, flip=False, crop_padding=1), progress=False)
    return net


def test_normalise_is_as_precise_as_its_type():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    expected = (images.double() / 255 - 0.1) / 0.3
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
        found = normalise(images, (0.1,) * 3, (0.3,) * 3, dtype)
        assert found.dtype == dtype and torch.allclose(found.double(), expected, rtol=0, atol=tolerance)
    as_floats = images.double() / 255
    before = as_floats.clone()
    assert torch.allclose(normalise(as_floats, (0.1,) * 3, (0.3,) * 3, torch.float64), expected, atol=1e-14)
    assert torch.equal(as_floats, before)


def test_batches_do_not_matter(model):
    images = toy_data().test_images
    whole = logits(model, images, **NORM)
    assert whole.shape == (48, 2) and whole.dtype == torch.float32
    assert torch.allclose(logits(model, images, batch_size=7, **NORM), whole, atol=1e-5)
    assert torch.allclose(logits(model, images, autocast=True, **NORM), whole, atol=0.1)


def test_accuracy_counts(model):
    data = toy_data()
    assert accuracy(model, data.test_images, data.test_labels, **NORM) == 1.0
    assert accuracy(model, data.test_images, 1 - data.test_labels, **NORM) == 0.0


@pytest.mark.parametrize("steps", [("shuffle", "flip"), ("orthogonal",)])
def test_key_trials_agree_with_the_long_way(model, steps):
    data, settings = toy_data(), {"patch_size": 2, "steps": steps}
    table = key_trials(model, data, settings, n_wrong=3)
    assert table.case.value_counts()["wrong key"] == 3 and len(table) == 7
    of = table.set_index("case")
    assert of.accuracy["plain"] == of.accuracy["correct key"] == 1.0
    assert of.differ["correct key"] == 0 and of.max_logit_difference["correct key"] < 1e-4
    encrypted = encrypt_model(model, PatchCipher(SecretKey.for_experiment(0), **settings), **NORM)
    plain = logits(model, data.test_images, **NORM)
    for row in table[table.case == "wrong key"].itertuples():  # here, by encrypting each image with each key
        wrong = PatchCipher(SecretKey.for_experiment(row.key_seed), **settings)
        found = logits(encrypted, wrong.encrypt(data.test_images), **NORM)
        assert row.accuracy == accuracy(encrypted, wrong.encrypt(data.test_images), data.test_labels, **NORM)
        assert row.differ == (found.argmax(1) != plain.argmax(1)).sum()
        assert abs(row.max_logit_difference - (found - plain).abs().max()) < 1e-3
    found = logits(encrypted, data.test_images, **NORM)
    assert abs(of.max_logit_difference["no key"] - (found - plain).abs().max()) < 1e-4


def test_key_trials_use_the_first_images_only(model):
    table = key_trials(model, toy_data(), {"patch_size": 2}, n_wrong=1, n_images=10)
    assert (table.n_images == 10).all()


class Negative:
    """A cipher of somebody else's: each value from the other end, and nothing secret."""

    channels, block_size = 3, 1

    def encrypt(self, images):
        return 255 - images

    decrypt = encrypt

    def matrix(self, patch_size):
        n = self.channels * patch_size**2
        return -np.eye(n), np.ones(n)


def test_a_cipher_comes_as_settings_as_a_function_or_ready(model):
    data, settings = toy_data(), {"patch_size": 2, "steps": ("flip",)}
    by_settings = key_trials(model, data, settings, n_wrong=2, seed=3)
    by_function = key_trials(model, data, lambda key: PatchCipher(key, **settings), n_wrong=2, seed=3)
    assert by_settings.equals(by_function) and by_settings.key_seed.tolist() == [-1, 3, -1, 3, 4, 5]
    for ready, seed in ((PatchCipher(SecretKey.for_experiment(3), **settings), 3), (Negative(), 3)):
        table = key_trials(model, data, ready, seed=seed)
        assert table.key_seed.tolist() == [-1] * 4 and table.differ[1] == 0
        if isinstance(ready, PatchCipher):
            assert table.drop(columns="key_seed").equals(by_settings[:4].drop(columns="key_seed"))


def test_chosen_keys_can_be_measured_one_by_one(model):
    data, settings = toy_data(), {"patch_size": 2}
    table, few = (key_trials(model, data, settings, [7, 3], n_images=count) for count in (None, 40))
    wrong = few[few.case == "wrong key"]
    assert wrong.key_seed.tolist() == [7, 3]
    assert right_key_rows(model, data, settings) == table[:4].to_dict("records")
    alone = [wrong_key_accuracy(model, data, settings, key_seed, n_images=40) for key_seed in (7, 3)]
    assert alone == wrong.accuracy.tolist()


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"n_wrong": range(3)}, ValueError, "Key 0 is the correct one"),
        ({"n_wrong": [-1]}, ValueError, "a key's number must be"),
    ],
)
def test_trials_that_make_no_sense_are_refused(model, given, error, match):
    with pytest.raises(error, match=match):
        key_trials(model, toy_data(), **{"cipher": {"patch_size": 2}} | given)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


DATA = toy_data()
X, Y = DATA.test_images, DATA.test_labels


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m: accuracy(m, X.long(), Y, **NORM), TypeError, "images must be uint8"),
        (lambda m: logits(m, X.tolist(), **NORM), TypeError, "images must be a torch tensor"),
        (lambda m: normalise(X[:, 0, 0], (0.4,), (0.2,)), ValueError, "images must have the shape"),
        (lambda m: accuracy(m, X, Y + 1, **NORM), ValueError, "labels must be classes from 0 to 1.*from 1 to 2"),
        (lambda m: logits(nn.Identity(), X, **NORM), ValueError, r"must give logits.*\(48, 3, 8, 8\)"),
        (lambda m: logits(Pair(), X, **NORM), ValueError, "must give logits.*tuple"),
    ],
)
def test_what_gives_no_answer_is_refused(model, call, error, match):
    with pytest.raises(error, match=match):
        call(model)
    assert not model.training


STATISTICS = {
    "a nan mean": ((0.4, 0.4, float("nan")), (0.2,) * 3),
    "an infinite mean": ((0.4, 0.4, float("inf")), (0.2,) * 3),
    "one mean": (0.4, (0.2,) * 3),
    "two means": ((0.4,) * 2, (0.2,) * 3),
    "no std": ((0.4,) * 3, (0.2, 0.2, 0.0)),
    "a negative std": ((0.4,) * 3, (0.2, 0.2, -0.2)),
    "a tiny std": ((0.4,) * 3, (0.2, 0.2, 1e-300)),
    "a nan std": ((0.4,) * 3, (0.2, 0.2, float("nan"))),
    "text": ("grey", (0.2,) * 3),
}


@pytest.mark.parametrize(("mean", "std"), STATISTICS.values(), ids=STATISTICS)
def test_every_function_refuses_the_same_statistics(model, mean, std):
    for call in (
        lambda: normalise(X, mean, std),
        lambda: logits(model, X, mean=mean, std=std),
        lambda: accuracy(model, X, Y, mean=mean, std=std),
        lambda: dataclasses.replace(DATA, mean=mean, std=std),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^(mean|std|Every std) must"):
            call()


def test_statistics_may_be_arrays_or_tensors(model):
    expected = logits(model, X, **NORM)
    for kind in (np.array, torch.tensor, list):
        assert torch.allclose(logits(model, X, mean=kind(NORM["mean"]), std=kind(NORM["std"])), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_no_images_give_no_logits_in_the_models_type(model, dtype):
    found = logits(copy.deepcopy(model).to(dtype), X[:0], **NORM)
    assert found.shape == (0, 2) and found.dtype == dtype


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_keeps_its_mode(fails):
    net = toy_model().train()
    net[2].eval()  # a frozen BatchNorm
    if fails:
        net[6] = nn.Linear(9, 2)  # which does not fit
    modes = {name: module.training for name, module in net.named_modules()}
    statistics = net[2].running_mean.clone()
    with contextlib.suppress(RuntimeError) if fails else contextlib.nullcontext():
        logits(net, X, **NORM)
    assert {name: module.training for name, module in net.named_modules()} == modes and len(set(modes.values())) == 2
    assert torch.equal(net[2].running_mean, statistics)


def test_a_model_without_parameters_and_one_that_returns_an_object(model):
    bare = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    expected = ((X.double() / 255).mean((2, 3)) - 0.4) / 0.2
    assert torch.allclose(logits(bare, X, **NORM), expected.float(), atol=1e-5)
    wrapped = Wrapped()
    wrapped.inner = model
    assert torch.equal(logits(wrapped, X, **NORM), logits(model, X, **NORM))


class InADict(nn.Module):
    """A network that gives its logits beside something else, as detectors and multi-headed ones do."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        found = self.net(x)
        return {"other": found[:, :1], "scores": found}


def test_a_function_says_what_to_take_of_an_output(model):
    data, net = toy_data(), InADict(model)
    take = {"take": lambda output: output["scores"]}
    assert torch.equal(logits(net, data.test_images, **NORM, **take), logits(model, data.test_images, **NORM))
    assert accuracy(net, data.test_images, data.test_labels, **NORM, **take) == 1.0
    cipher = {"patch_size": 2}
    assert key_trials(net, data, cipher, 2, **take).equals(key_trials(model, data, cipher, 2))
    with pytest.raises(ValueError, match="gave dict: wrap it in a module that gives them, or say by take="):
        logits(net, data.test_images, **NORM)
    with pytest.raises(ValueError, match=r"at least 1 classes, but gave \(48, 2, 1\)"):
        logits(net, data.test_images, **NORM, take=lambda output: output["scores"][..., None])


def test_labels_of_any_whole_type_count(model):
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64):
        assert accuracy(model, X, Y.to(dtype), **NORM) == 1.0


def test_a_model_that_two_threads_ask_is_evaluated_until_both_are_done():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4))
    model[1].eval()
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training and not model[0].training
    second.__exit__(None, None, None)
    assert [module.training for module in model.modules()] == [True, True, False]
