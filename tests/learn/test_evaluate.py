import pytest
import torch

from cmxlib import PatchCipher, SecretKey, accuracy, encrypt_model, fit, key_trials, logits
from cmxlib.learn.evaluate import normalise
from cmxlib.learn.train import TrainSettings

from .test_train import toy_data, toy_model

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
