import dataclasses
import json

import numpy as np
import pytest
import torch

from cmxlib import ConvMixer, fit, logits
from cmxlib.learn.augment import augment
from cmxlib.learn.checkpoint import CheckpointError
from cmxlib.learn.data import Dataset
from cmxlib.learn.train import TrainSettings
from cmxlib.study.scales import SCALES, new_model, trained_model


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
    with pytest.raises(KeyboardInterrupt, match=f"after {batches // 3} of 4 epochs; run it again to go on from here"):
        fit(broken, toy_data(), SETTINGS, checkpoint=tmp_path / "here", transform=StopAfter(batches), progress=False)
    history = fit(resumed, toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    assert same_state(whole, resumed)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["epoch-004.safetensors", "state.json"]
    again = toy_model()
    fit(again, toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)  # nothing is left to do
    assert same_state(whole, again)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    with pytest.raises(CheckpointError, match="another training; delete the folder here"):
        fit(toy_model(), toy_data(), dataclasses.replace(SETTINGS, seed=6), checkpoint=tmp_path / "here")


@pytest.mark.parametrize("damage", ["json", "tensors", "missing"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)
    tensors = tmp_path / "here" / "epoch-004.safetensors"
    if damage == "json":
        (tmp_path / "here" / "state.json").write_text('{"settings": ')
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    else:
        tensors.unlink()
    with pytest.raises(CheckpointError, match="damaged; delete the folder here"):
        fit(toy_model(), toy_data(), SETTINGS, checkpoint=tmp_path / "here", progress=False)


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
        SCALES["quick"], name="toy", train=SETTINGS, model={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 2}
    )
    model, history = trained_model(scale, progress=False)
    monkeypatch.setattr("cmxlib.study.scales.fit", None)  # a second training would fail
    again, read = trained_model(scale, progress=False)
    assert same_state(model, again) and read.equals(history) and not again.training
    card = json.loads(next((tmp_path / "models").glob("toy-p2-*-seed0.json")).read_text())
    assert card["recipe"][2]["epochs"] == SETTINGS.epochs


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


def test_logits_leave_the_mode_alone():
    model = toy_model().train()
    logits(model, toy_data().test_images, mean=(0.4,) * 3, std=(0.2,) * 3)
    assert model.training
