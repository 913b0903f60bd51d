import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from cmxlib import ConvMixer, PatchCipher, SecretKey, accuracy, fit, paths
from cmxlib.learn.augment import augment
from cmxlib.learn.checkpoint import CheckpointError, check_unused, checksum, load_model, save_model
from cmxlib.learn.data import Dataset, channel_statistics
from cmxlib.learn.train import TrainSettings
from cmxlib.study.scales import SCALES, new_model, trained_model

MODELS = paths.ROOT / "models"


def toy_data(n=96):
    """Two classes that a network learns at once: stripes that lie, and stripes that stand."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 2
    images[labels == 0, :, ::2] += 100
    images[labels == 1, :, :, ::2] += 100
    half = n // 2
    return Dataset(
        "toy", images[:half], labels[:half], images[half:], labels[half:], ("lying", "standing"), (0.4,) * 3, (0.2,) * 3
    )


SETTINGS = TrainSettings(epochs=4, batch_size=16, max_lr=0.01, flip=False, crop_padding=1, rand_augment=12, seed=5)


def toy_model():
    torch.manual_seed(0)
    return ConvMixer(dim=8, depth=1, kernel_size=3, patch_size=2, num_classes=2)


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns():
    model = toy_model()
    history = fit(model, toy_data(), dataclasses.replace(SETTINGS, epochs=12), progress=False)
    assert history.test_accuracy.iloc[-1] == 1.0  # stripes of 100 grey levels under noise of 100
    assert history.epoch.tolist() == list(range(1, 13))
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert not model.training


def test_the_seed_decides():
    one, two, other = toy_model(), toy_model(), toy_model()
    fit(one, toy_data(), SETTINGS, progress=False)
    fit(two, toy_data(), SETTINGS, progress=False)
    fit(other, toy_data(), dataclasses.replace(SETTINGS, seed=6), progress=False)
    assert same_state(one, two) and not same_state(one, other)


class StopAfter:
    """A transform that interrupts, as Ctrl-C does, at the given batch."""

    def __init__(self, batches):
        self.left = batches

    def __call__(self, images):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return images


@pytest.mark.parametrize("batches", [1, 3, 7, 11])  # within the first epoch, at its end, later
def test_resume_to_the_bit(tmp_path, batches):
    whole, broken, resumed = toy_model(), toy_model(), toy_model()
    expected = fit(whole, toy_data(), SETTINGS, progress=False)
    stop = StopAfter(1 + batches)  # the checkpoint looks once at what the transform does
    with pytest.raises(KeyboardInterrupt, match=f"after {batches // 3} of 4 epochs; run it again to go on from here"):
        fit(broken, toy_data(), SETTINGS, checkpoint=tmp_path / "here", transform=stop, progress=False)
    history = fit(resumed, toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    assert same_state(whole, resumed)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [".lock", "epoch-004.safetensors", "state.json"]
    last = (tmp_path / "here" / "epoch-004.safetensors").read_bytes()
    (tmp_path / "here" / "epoch-003.safetensors").write_bytes(last)  # as of a writer who was killed before deleting it
    (tmp_path / "here" / "epoch-007.safetensors").write_bytes(b"the user's own")
    again = toy_model()
    fit(again, toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)  # nothing is left to do
    assert same_state(whole, again) and not (tmp_path / "here" / "epoch-003.safetensors").exists()
    assert (tmp_path / "here" / "epoch-007.safetensors").read_bytes() == b"the user's own"


def frozen(value):
    """The toy model, its embedding as it is and set to a value."""
    model = toy_model()
    model[0].requires_grad_(False)
    model[0].weight.data.fill_(value)
    return model


def cipher(seed):
    return PatchCipher(SecretKey.for_experiment(seed), 2).encrypt


DATA = toy_data()
FIRST = {"model": toy_model, "data": DATA, "settings": SETTINGS, "transform": None, "autocast": False}
OTHERS = {
    "another seed": ({}, {"settings": dataclasses.replace(SETTINGS, seed=6)}, "settings"),
    "a transform": ({}, {"transform": cipher(0)}, "transform"),
    "another key": ({"transform": cipher(0)}, {"transform": cipher(1)}, "transform"),
    "other images": ({}, {"data": dataclasses.replace(DATA, train_images=DATA.train_images.flip(0))}, "data"),
    "other test labels": ({}, {"data": dataclasses.replace(DATA, test_labels=1 - DATA.test_labels)}, "data"),
    "other statistics": ({}, {"data": dataclasses.replace(DATA, std=(0.3,) * 3)}, "data"),
    "another size": ({}, {"model": lambda: ConvMixer(8, 2, 3, 2, 2)}, "model"),
    "a layer without weights": ({}, {"model": lambda: nn.Sequential(*toy_model(), nn.ReLU())}, "model"),
    "another type": ({}, {"model": lambda: toy_model().double()}, "model"),
    "what is trained": ({}, {"model": lambda: frozen(0)}, "model"),
    "another precision": ({}, {"autocast": True}, "autocast"),
    "frozen weights": ({"model": lambda: frozen(0)}, {"model": lambda: frozen(1)}, "model"),
}


@pytest.mark.parametrize(("first", "second", "what"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, first, second, what):
    def train(changes):
        given = FIRST | changes
        options = {name: given[name] for name in ("transform", "autocast")}
        options |= {"checkpoint": tmp_path / "here", "progress": False}
        fit(given["model"](), given["data"], given["settings"], **options)

    train(first)
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'here'} is of another training \(other {what}\): delete"):
        train(first | second)
    train(first)  # it is still there


def test_weights_do_not_make_another_training(tmp_path):
    """After Ctrl-C in a notebook, the model that is given again is half trained."""
    model, stop = toy_model(), StopAfter(8)
    for transform in (stop, None):
        with contextlib.suppress(KeyboardInterrupt):
            fit(model, DATA, SETTINGS, checkpoint=tmp_path / "here", transform=transform, progress=False)
    whole = toy_model()
    fit(whole, DATA, SETTINGS, progress=False)
    assert stop.left < 0 and same_state(model, whole)


def test_a_transform_may_draw_from_torchs_generator(tmp_path):
    def noise(images):
        return images.float() / 255 + 0.1 * torch.rand(images.shape)

    for _ in range(2):
        torch.rand(3)
        fit(toy_model(), DATA, SETTINGS, checkpoint=tmp_path / "here", transform=noise, progress=False)


@pytest.mark.parametrize("damage", ["json", "digit", "tensors", "missing"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    tensors = tmp_path / "here" / "epoch-004.safetensors"
    if damage == "json":
        (tmp_path / "here" / "state.json").write_text('{"settings": ')
    elif damage == "digit":  # in what was written of an epoch, which is no part of the tensors
        state = tmp_path / "here" / "state.json"
        loss = json.loads(state.read_text())["rows"][1]["train_loss"]
        state.write_text(state.read_text().replace(str(loss), str(loss + 1)))
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    else:
        tensors.unlink()
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'here'} is damaged: delete"):
        fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)


def forged(folder, change):
    """A checkpoint with other content, and with the right sum, which anybody can make."""
    state = json.loads((folder / "state.json").read_text())
    tensors = safetensors.torch.load_file(path := folder / state["tensors"])
    change(state, tensors)
    safetensors.torch.save_file(tensors, path, {"cmxlib": "checkpoint"})
    told = {name: value for name, value in state.items() if name != "sha256"}
    sha256 = hashlib.sha256(path.read_bytes() + json.dumps(told, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps(told | {"sha256": sha256}))


@pytest.mark.parametrize(
    "change",
    [
        lambda state, tensors: tensors.pop(next(name for name in tensors if name.startswith("model."))),
        lambda state, tensors: tensors.update({"optimizer.0.exp_avg": torch.zeros(1)}),
        lambda state, tensors: tensors.update({"optimizer.999.exp_avg": torch.zeros(1)}),
        lambda state, tensors: tensors.update({"optimizer.junk": torch.zeros(1)}),
        lambda state, tensors: tensors.update({"optimizer.0.junk": 1 * tensors["optimizer.0.exp_avg"]}),
        lambda state, tensors: tensors.pop("optimizer.0.step"),
        lambda state, tensors: state.update(autocast="yes"),
        lambda state, tensors: state["rows"][0].update(epoch="x"),
        lambda state, tensors: state["rows"][0].update(train_loss="x"),
        lambda state, tensors: state["rows"].pop(0),
        lambda state, tensors: state.update(rows={"0": 1}),
        lambda state, tensors: state.update(tensors="../here/epoch-004.safetensors"),
        lambda state, tensors: state.update(tensors=4),
    ],
)
def test_a_sum_that_is_right_makes_no_content_believed(tmp_path, change):
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    forged(tmp_path / "here", lambda state, tensors: None)
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    with contextlib.suppress(FileNotFoundError):  # where another file is named
        forged(tmp_path / "here", change)
    model = toy_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=r"here is damaged: delete its state.json and epoch"):
        fit(model, toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_that_lost_its_state_is_told(tmp_path):
    """But not the first epoch's, whose tensors are there before its state is."""
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    (tmp_path / "here" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds epoch-004.safetensors of a training, but not its state.json"):
        fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    (tmp_path / "here" / "epoch-004.safetensors").rename(tmp_path / "here" / "epoch-001.safetensors")
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_state_and_no_model(tmp_path):
    (tmp_path / "here").mkdir()
    os.mkfifo(tmp_path / "here" / "state.json")
    with pytest.raises(CheckpointError, match="is damaged"):
        fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    os.mkfifo(tmp_path / "model.json")
    with pytest.raises(CheckpointError, match="is no regular file"):
        load_model(tmp_path / "model", toy_model())


def test_a_transform_that_changes_what_it_is_given_changes_no_data(tmp_path):
    def inverted(images):
        images ^= 255
        return images

    data = toy_data()
    before = data.train_images.clone()
    fit(toy_model(), data, SETTINGS, checkpoint=tmp_path / "here", transform=inverted, progress=False)
    assert data.train_images.equal(before)


def test_gradients_that_are_switched_off_are_switched_on(tmp_path, monkeypatch):
    expected = fit(toy_model(), toy_data(), SETTINGS, progress=False).drop(columns="seconds")
    model, data = toy_model(), toy_data()
    monkeypatch.setattr(sys, "stderr", None)  # as where a program has no window: then no bar is drawn
    with torch.inference_mode():
        assert fit(model, data, SETTINGS).drop(columns="seconds").equals(expected)
        made = toy_model()
    with pytest.raises(ValueError, match=r"was made in torch.inference_mode\(\).*: make it outside"):
        fit(made, data, SETTINGS, progress=False)


def test_tied_weights_are_saved(tmp_path):
    model, again = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    for each in (model, again):
        each[1].weight = each[0].weight
    save_model(tmp_path / "tied", model, pd.DataFrame([{"epoch": 1}]), None)
    load_model(tmp_path / "tied", again)
    assert same_state(model, again) and again[1].weight is again[0].weight


def test_a_model_takes_the_place_of_none_of_another_recipe(tmp_path):
    check_unused(tmp_path / "mine", ["a", (1,)])
    save_model(tmp_path / "mine", toy_model(), pd.DataFrame([{"epoch": 1}]), ["a", (1,)])
    check_unused(tmp_path / "mine", ["a", (1,)])
    with pytest.raises(ValueError, match=r"mine.json is there, not of this training: give another name"):
        check_unused(tmp_path / "mine", ["a", (2,)])
    (tmp_path / "mine.json").unlink()
    check_unused(tmp_path / "mine", ["a", (2,)])  # as of a kill before it was written
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"mine.safetensors is there, not of this training"):
        check_unused(tmp_path / "mine", ["a", (2,)])
    (tmp_path / "package.json").write_text('{"name": "mine"}')
    with pytest.raises(ValueError, match=r"package.json is there, not of this training"):
        check_unused(tmp_path / "package", ["a", (1,)])


ONE_OF_TWO = """
import dataclasses, sys
from cmxlib import fit
from cmxlib.learn.checkpoint import checksum
from tests.learn.test_train import QUIET, toy_data, toy_model
model = toy_model()
history = fit(model, toy_data(), QUIET, checkpoint=sys.argv[1], autocast=False, progress=False)
print(len(history), checksum(model.state_dict()))
"""
QUIET = dataclasses.replace(SETTINGS, rand_augment=0)  # torchvision takes seconds to import


def test_two_trainings_in_one_folder_take_turns(tmp_path):
    command = [sys.executable, "-c", ONE_OF_TWO, str(tmp_path / "here")]
    started = []

    def start_the_other(images):
        """In the middle of a training: another process begins the same one, and must wait."""
        if not started:
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipe))
            line = started[0].stdout.readline()
            assert line.startswith(f"Another process trains in {tmp_path / 'here'}: waiting")
        return images

    model = toy_model()
    how = {"transform": start_the_other, "autocast": False, "progress": False}
    fit(model, DATA, QUIET, checkpoint=tmp_path / "here", **how)
    said, errors = started[0].communicate(timeout=120)
    assert started[0].returncode == 0, errors
    assert said == f"4 {checksum(model.state_dict())}\n"
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == [".lock", "epoch-004.safetensors", "state.json"]


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    seen = StopAfter(0)
    with pytest.raises(CheckpointError, match=r"file/here cannot be written \(a file is in its place\): .*CMX_CACHE"):
        fit(toy_model(), DATA, SETTINGS, checkpoint=tmp_path / "file" / "here", transform=seen, progress=False)
    assert seen.left == 0


@pytest.mark.parametrize(("where", "way_out"), [("the loss", "mend transform"), ("a weight", "lower max_lr")])
def test_a_lost_training_keeps_the_last_good_epoch(tmp_path, where, way_out):
    model, seen = toy_model(), []

    def spoil(images):
        """Every image of the third epoch, or what the first layer learns in that epoch's last step."""
        seen.append(1)
        if len(seen) > 7 and where == "the loss":
            return torch.full(images.shape, torch.nan)
        if len(seen) == 10 and where == "a weight":
            model[0].weight.register_hook(lambda gradient: gradient * torch.nan)
        return images

    with pytest.raises(FloatingPointError, match=rf"epoch 3, .* {way_out}, .*here keeps epoch 2"):
        fit(model, DATA, SETTINGS, checkpoint=tmp_path / "here", transform=spoil, progress=False)
    assert (tmp_path / "here" / "epoch-002.safetensors").exists() and not model.training
    assert len(json.loads((tmp_path / "here" / "state.json").read_text())["rows"]) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_trained_in_their_type(tmp_path, dtype):
    model = toy_model().to(dtype)
    history = fit(model, DATA, SETTINGS, checkpoint=tmp_path / "here", progress=False)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]


def half_in_float64():
    model = toy_model()
    model[0].double()
    return model


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: toy_model().half(), r"torch.float16: use model.float\(\)"),
        (half_in_float64, "torch.float32, torch.float64: use"),
        (lambda: nn.Sequential(nn.Flatten()), "are none"),
        (lambda: ConvMixer(8, 1, 3, 2, num_classes=1), r"at least 2 classes, but gave \(16, 1\)"),
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 2, 2)), r"gave \(16, 2, 4, 4\)"),
    ],
)
def test_models_that_cannot_be_trained_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        fit(make(), DATA, SETTINGS, autocast=False, progress=False)


@pytest.mark.parametrize(("channels", "size"), [(1, 64), (4, 12)])
def test_images_of_any_size_and_number_of_channels_are_learnt(channels, size):
    images = nn.functional.interpolate(DATA.train_images[:, :1], (size, size)).expand(-1, channels, -1, -1)
    own = Dataset(
        "own", images, DATA.train_labels.int(), images, DATA.train_labels, ("a", "b"), *channel_statistics(images)
    )
    settings = dataclasses.replace(SETTINGS, rand_augment=9 if channels == 1 else 0)
    model = ConvMixer(8, 1, 3, patch_size=2, num_classes=2, channels=channels)
    history = fit(model, own, settings, progress=False)
    found = accuracy(model, own.test_images, own.test_labels, mean=own.mean, std=own.std)
    assert found == history.test_accuracy.iloc[-1]


class Wrapped(nn.Module):
    """A model with an output as that of other libraries: an object with logits."""

    def __init__(self):
        super().__init__()
        self.inner = toy_model()

    def forward(self, x):
        return SimpleNamespace(logits=self.inner(x))


def test_models_that_return_objects_with_logits_are_trained():
    plain, wrapped = toy_model(), Wrapped()
    fit(plain, DATA, SETTINGS, progress=False)
    fit(wrapped, DATA, SETTINGS, progress=False)
    assert same_state(plain, wrapped.inner)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": True},
        {"weight_decay": float("inf")},
        {"label_smoothing": -0.1},
        {"crop_padding": -1},
        {"rand_augment": 31},
        {"seed": 2**64},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(wrong))} must be"):
        dataclasses.replace(SETTINGS, **wrong)


def test_settings_are_plain_numbers_that_a_checkpoint_can_hold():
    settings = TrainSettings(np.int64(3), max_lr=np.float32(0.5))
    assert json.loads(json.dumps(dataclasses.asdict(settings))) == dataclasses.asdict(settings)


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "m", toy_model(), fit(toy_model(), DATA, SETTINGS, progress=False), ["recipe"])
    return tmp_path


def truncate(folder):
    content = (folder / "m.safetensors").read_bytes()
    (folder / "m.safetensors").write_bytes(content[:-10])


def flip_a_bit(folder):
    content = bytearray((folder / "m.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "m.safetensors").write_bytes(content)


def without_sum(change):
    """A card as those of models that were saved before cards had a sum."""

    def damage(folder):
        card = json.loads((folder / "m.json").read_text())
        del card["sha256"]
        (folder / "m.json").write_text(json.dumps(card))
        change(folder)

    return damage


def nan(folder):
    tensors = toy_model().state_dict()
    tensors["0.bias"][0] = torch.nan
    safetensors.torch.save_file(tensors, folder / "m.safetensors")


def another_model(folder):
    safetensors.torch.save_file(ConvMixer(8, 2, 3, 2, 2).state_dict(), folder / "m.safetensors")


DAMAGES = {
    "truncated": truncate,
    "truncated, no sum": without_sum(truncate),
    "a bit": flip_a_bit,
    "nan": nan,
    "nan, no sum": without_sum(nan),
    "of another model, no sum": without_sum(another_model),
    "no weights": lambda folder: (folder / "m.safetensors").unlink(),
    "no card": lambda folder: (folder / "m.json").unlink(),
    "a digit of the card": lambda folder: (folder / "m.json").write_text(
        (folder / "m.json").read_text().replace('"epoch": 3', '"epoch": 2')
    ),
    "half a card": lambda folder: (folder / "m.json").write_text('{"recipe": '),
    "another card": lambda folder: (folder / "m.json").write_text("[]"),
    "an empty card": lambda folder: (folder / "m.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_refused_and_nothing_is_loaded(saved, damage):
    damage(saved)
    model, before = toy_model(), toy_model()
    with pytest.raises(CheckpointError, match=r"m\.safetensors cannot be used \(.*\): delete"):
        load_model(saved / "m", model)
    assert same_state(model, before)


@pytest.mark.parametrize("change", [lambda folder: None, without_sum(lambda folder: None)])
def test_a_whole_model_is_loaded(saved, change):
    change(saved)
    model = ConvMixer(8, 1, 3, 2, 2)
    card = load_model(saved / "m", model)
    assert same_state(model, toy_model()) and card["recipe"] == ["recipe"] and len(card["history"]) == 4


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.json")), ids=lambda path: path.stem)
def test_the_models_of_the_book_are_whole(path):
    recipe = json.loads(path.read_text())["recipe"]
    load_model(path.with_suffix(""), ConvMixer(**recipe[1]))


def test_too_few_images_for_a_batch():
    with pytest.raises(ValueError, match="48 training images, fewer than one batch of 64"):
        fit(toy_model(), toy_data(), dataclasses.replace(SETTINGS, batch_size=64), progress=False)


def test_the_rate_is_piecewise_linear():
    settings = TrainSettings(epochs=1, max_lr=1.0)
    rates = [settings.lr(p) for p in (0, 0.2, 0.4, 0.6, 0.8, 0.9, 1)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 0.525, 0.05, 0.025, 0])


def test_trained_model_trains_once_and_then_reads_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMX_CACHE", str(tmp_path))
    monkeypatch.setattr("cmxlib.study.scales.load_dataset", lambda name: toy_data())
    scale = dataclasses.replace(
        SCALES["quick"],
        name="toy",
        dataset=DATA,
        train=SETTINGS,
        model={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2},
        patch_sizes=(2,),
    )
    model, history = trained_model(scale, progress=False)
    monkeypatch.setattr("cmxlib.study.scales.fit", None)  # a second training would fail
    again, read = trained_model(scale, progress=False)
    assert same_state(model, again) and read.equals(history) and not again.training
    path = next((tmp_path / "models").glob("toy-p2-*-seed0.json"))
    assert json.loads(path.read_text())["recipe"][2]["epochs"] == SETTINGS.epochs
    monkeypatch.undo()
    monkeypatch.setenv("CMX_CACHE", str(tmp_path))
    monkeypatch.setattr("cmxlib.study.scales.load_dataset", lambda name: toy_data())
    path.with_suffix(".safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"cannot be used .* It is trained anew"):
        healed, _ = trained_model(scale, progress=False)
    assert same_state(model, healed)
    assert same_state(model, trained_model(scale, progress=False)[0])  # and the cache is whole again


def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone():
    scale = SCALES["quick"]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert same_state(new_model(scale, 3), new_model(scale, 3)) and not same_state(
        new_model(scale), new_model(scale, 3)
    )
    assert torch.rand(1) == expected


@pytest.mark.parametrize("options", [{}, {"rand_augment": 12}, {"crop_padding": 0, "flip": False}])
def test_augmentation_keeps_shape_and_type_and_follows_its_generator(options):
    images = toy_data().train_images
    before = images.clone()
    one, two, three = (augment(images, torch.Generator().manual_seed(seed), **options) for seed in (1, 1, 2))
    assert one.shape == images.shape and one.dtype == torch.uint8
    assert torch.equal(one, two) and torch.equal(images, before)
    assert torch.equal(one, three) == (options == {"crop_padding": 0, "flip": False})


@pytest.mark.parametrize(
    ("images", "options", "error", "match"),
    [
        (DATA.train_images.long(), {}, TypeError, "images must be uint8"),
        (DATA.train_images[0], {}, ValueError, "images must have the shape"),
        (DATA.train_images, {"rand_augment": 31}, ValueError, "rand_augment must be a whole number from 0 to 30"),
        (DATA.train_images, {"crop_padding": -1}, ValueError, "crop_padding must be"),
        (DATA.train_images[:, :2], {"rand_augment": 9}, ValueError, "1 or 3 channels, not 2: set it to 0"),
    ],
)
def test_what_cannot_be_augmented_is_refused(images, options, error, match):
    with pytest.raises(error, match=match):
        augment(images, torch.Generator(), **options)


def test_what_each_augmentation_does():
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    off = {"crop_padding": 0, "flip": False}
    flipped = augment(image, generator, **{**off, "flip": True})
    is_flipped = (flipped == image.flip(3)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) ^ is_flipped).all() and 60 < is_flipped.sum() < 140
    moved = augment(image, generator, **{**off, "crop_padding": 2})
    shifts = {tuple((m[0] == 28).nonzero()[0].tolist()) for m in moved}  # 28 stands at row 3, column 3
    assert shifts == {(row, column) for row in range(1, 6) for column in range(1, 6)}
    groups = augment(image, generator, **off, rand_augment=12).split(8)
    assert all(torch.equal(group, group[:1].expand_as(group)) for group in groups)  # a group is changed alike
    assert len({tuple(group[0].flatten().tolist()) for group in groups}) > len(groups) / 2  # and another differently


def test_rand_augment_leaves_the_global_generator_alone():
    images, generator = toy_data().train_images, torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    augment(images, generator, rand_augment=12)
    assert torch.rand(1) == expected
