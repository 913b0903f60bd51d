"""Searches on a stolen model find the key where that is easy, and not where labels or filters say nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from cmxlib import PatchCipher, SecretKey, accuracy, encrypt_model
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_models import (
    from_filters,
    from_statistics,
    gradient_search,
    hill_climb,
    key_loss,
    random_keys,
    retrain,
)
from cmxlib.learn.evaluate import normalise

from ..learn.test_train import SETTINGS, toy_data, toy_model

NORM = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
ENTRIES = 12  # of a patch of 2 x 2 pixels in 3 colours


def easy_case():
    """Images of class k have entry k of every patch bright, and the model's logit k is the mean of entry k."""
    labels = torch.arange(ENTRIES).repeat(2)
    patches = torch.eye(ENTRIES)[labels].view(-1, 3, 2, 2) * 200 + 20
    images = patches.repeat(1, 1, 3, 3).to(torch.uint8)
    model = nn.Sequential(nn.Conv2d(3, ENTRIES, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(ENTRIES).view(ENTRIES, 3, 2, 2))
        model[0].bias.zero_()
    return model, images, labels


def planted(steps):
    model, images, labels = easy_case()
    cipher = PatchCipher(SecretKey.for_experiment(1), 2, steps=steps)
    return encrypt_model(model, cipher, **NORM), cipher, images, labels


@pytest.mark.parametrize("steps", [("shuffle",), ("flip",)])
def test_hill_climbing_finds_a_planted_key(steps):
    locked, cipher, images, labels = planted(steps)
    start = PatchCipher.from_entries(np.arange(ENTRIES), np.zeros(ENTRIES, bool), 2)
    estimate, losses = hill_climb(locked, images, labels, trials=120, steps=steps, start=start, **NORM)
    assert share_recovered(estimate, cipher) == 1
    assert losses[-1] < losses[0]


def test_gradient_search_finds_the_places_once_the_flips_are_known():
    locked, cipher, images, labels = planted(("shuffle", "flip"))
    estimate, losses = gradient_search(locked, images, labels, iterations=100, flipped=cipher.flipped, **NORM)
    assert share_recovered(estimate, cipher) == 1
    assert losses[-1] < losses[0]


def test_gradient_search_learns_flips_too():
    locked, cipher, images, labels = planted(("shuffle", "flip"))
    estimate, losses = gradient_search(locked, images, labels, iterations=100, **NORM)
    assert share_recovered(estimate, cipher) >= 0.4  # 1 / 24 by chance; the rest it settles wrongly
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("search", [hill_climb, gradient_search])
def test_searches_find_nothing_from_meaningless_labels(search):
    locked, cipher, images, labels = planted(("shuffle", "flip"))
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    budget = {"trials": 120} if search is hill_climb else {"iterations": 100, "flipped": cipher.flipped}
    assert share_recovered(search(locked, images, mixed, **NORM, **budget)[0], cipher) < 0.4


def smooth_images(n, seed):
    """Images whose four pixels of a patch, and three colours, all differ in how much they vary."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.05, 0.4, ENTRIES).view(3, 2, 2).repeat(1, 3, 3)
    shared = torch.randn(n, 1, 1, 1, generator=generator)
    own = torch.randn(n, 3, 6, 6, generator=generator)
    return (0.55 + spread * (0.6 * shared + 0.3 * own)).clamp(0, 1)


def remembering_model(images):
    """An embedding with random filters, and a batch normalisation that has seen its outputs for the images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 100, 2, stride=2), nn.GELU(), nn.BatchNorm2d(100, momentum=None))
    with torch.no_grad():
        model[0].weight *= 3
        model(normalise(images, **NORM))
    return model.eval()


def test_what_a_model_remembers_betrays_the_key():
    cipher = PatchCipher(SecretKey.for_experiment(4), 2)
    locked = encrypt_model(remembering_model(smooth_images(2000, 1)), cipher, **NORM)
    found = [from_statistics(locked, smooth_images(500, 2), trials=2000, seed=seed, **NORM) for seed in range(2)]
    estimate, mismatch = min(found, key=lambda pair: pair[1])
    assert (estimate.flipped == cipher.flipped).all() and mismatch < 0.02
    assert share_recovered(estimate, cipher) >= 0.6


def test_a_model_that_remembers_other_images_betrays_nothing():
    cipher = PatchCipher(SecretKey.for_experiment(4), 2)
    noise = torch.rand(500, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    locked = encrypt_model(remembering_model(noise), cipher, **NORM)
    assert share_recovered(from_statistics(locked, noise.flip(0), trials=1000, **NORM)[0], cipher) < 0.5
    with pytest.raises(ValueError, match="batch normalisation"):
        from_statistics(nn.Sequential(locked[0], nn.ReLU(), nn.Flatten()), noise, trials=1, **NORM)


def test_random_keys_keeps_the_best():
    model, images, labels = easy_case()
    locked = encrypt_model(model, PatchCipher(SecretKey.for_experiment(1), 2), **NORM)
    options = {**NORM, "seed": 50}
    one, twenty = (random_keys(locked, images, labels, trials=n, **options) for n in (1, 20))
    assert key_loss(locked, twenty, images, labels, **NORM) < key_loss(locked, one, images, labels, **NORM)
    lucky = random_keys(locked, images, labels, trials=1, seed=1, **NORM)  # the right key itself
    assert key_loss(locked, lucky, images, labels, **NORM) == pytest.approx(
        key_loss(model, _nothing(), images, labels, **NORM)
    )


def _nothing():
    return PatchCipher.from_entries(np.arange(ENTRIES), np.zeros(ENTRIES, bool), 2)


@pytest.mark.parametrize("steps", [("shuffle",), ("shuffle", "flip")])
def test_filters_betray_the_key_to_a_model_that_is_alike(steps):
    def model(alike, seed):
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(ENTRIES, ENTRIES, generator=torch.Generator().manual_seed(0))
        mixing = mixing + 5 * torch.diag(torch.linspace(1, 8, ENTRIES))  # some entries count for more
        filters = torch.randn(4000, ENTRIES, generator=generator) @ (mixing if alike else torch.eye(ENTRIES))
        conv = nn.Conv2d(3, 4000, 2, stride=2)
        with torch.no_grad():
            conv.weight.copy_(filters.view_as(conv.weight))
        return nn.Sequential(conv)

    cipher = PatchCipher(SecretKey.for_experiment(2), 2, steps=steps)
    locked = encrypt_model(model(True, 1), cipher, **NORM)
    found = from_filters(locked, model(True, 2), std=NORM["std"], steps=steps)
    upside_down = PatchCipher.from_entries(found.permutation, ~found.flipped, 2)  # all or none flipped: no telling
    assert max(share_recovered(found, cipher), share_recovered(upside_down, cipher)) >= 0.7
    assert share_recovered(from_filters(locked, model(False, 2), std=NORM["std"], steps=steps), cipher) < 0.6


def test_retraining_opens_a_model_and_keeps_what_it_should():
    data, model = toy_data(), toy_model()
    retrain(model, data, 48, SETTINGS, n_steps=60)
    norm = {"mean": data.mean, "std": data.std}
    test = data.test_images, data.test_labels
    assert accuracy(model, *test, **norm) == 1
    locked = encrypt_model(model, PatchCipher(SecretKey.for_experiment(3), 2), **norm)
    assert accuracy(locked, *test, **norm) < 0.9
    before = {name: parameter.clone() for name, parameter in locked.named_parameters()}
    retrain(locked, data, 48, SETTINGS, n_steps=60, train="embedding")
    assert accuracy(locked, *test, **norm) > 0.9
    changed = {name for name, parameter in locked.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"0.weight", "0.bias"}
    assert all(parameter.requires_grad for parameter in locked.parameters())


def test_retraining_sees_no_more_images_than_it_may():
    data, model = toy_data(), toy_model()
    data.train_images[10:] = 255 - data.train_images[10:]
    data.train_labels[10:] = 1 - data.train_labels[10:]
    same = toy_model()
    retrain(model, data, 10, SETTINGS, n_steps=3)
    retrain(same, toy_data(), 10, SETTINGS, n_steps=3)
    assert torch.equal(model[0].weight, same[0].weight)
    with pytest.raises(ValueError, match="embedding"):
        retrain(model, data, 10, SETTINGS, n_steps=1, train="half")


def test_frozen_batch_normalisations_keep_what_they_remember():
    data = toy_data()
    for frozen in (False, True):
        model = toy_model()
        before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
        retrain(model, data, 48, SETTINGS, n_steps=3, train="embedding", frozen=frozen)
        after = model.state_dict()
        assert len(before) and all(torch.equal(after[name], value) == frozen for name, value in before.items())
        assert "train" not in vars(model)
        assert all(module.training for module in model.train().modules())
