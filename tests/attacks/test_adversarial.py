"""Adversarial examples keep within eps, fool what they are made on, and fool nothing without gradients or queries."""

import pytest
import torch
from torch import nn

from cmxlib import PatchCipher, SecretKey, accuracy, encrypt_model
from cmxlib.attacks.adversarial import Pipeline, autoattack, noise, pgd, square
from cmxlib.lock.pixels import to_bytes

NORM = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
EPS = 8 / 255


@pytest.fixture(scope="module")
def victim():
    """A linear classifier of two classes, and images that it gets right by a margin below eps."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    model = nn.Sequential(nn.Conv2d(3, 1, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(weight)
        model[0].bias.zero_()
        model[3].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model[3].bias.zero_()
    labels = torch.arange(40) % 2
    noise = torch.rand(40, 3, 16, 16, generator=generator) * 0.2 + 0.4
    offset = model[0]((noise - 0.5) / 0.25).mean((1, 2, 3)).detach() * 0.25 / 48  # what the noise alone gives
    signs = weight[0].repeat(1, 4, 4)
    images = noise + ((labels * 2 - 1) * 0.02 - offset)[:, None, None, None] * signs
    return model, images.clamp(0, 1), labels


def test_pgd_fools_the_plain_model_and_the_encrypted_pipeline_alike(victim):
    model, images, labels = victim
    assert accuracy(model, images, labels, **NORM) == 1
    changed = pgd(model, images, labels, steps=10, **NORM)
    assert (changed - images).abs().max() <= EPS + 1e-6
    assert changed.min() >= 0 and changed.max() <= 1
    assert accuracy(model, changed, labels, **NORM) == 0
    cipher = PatchCipher(SecretKey.for_experiment(0), 4)
    encrypted = encrypt_model(model, cipher, **NORM)
    assert accuracy(encrypted, cipher.encrypt(images), labels, **NORM) == 1
    assert accuracy(encrypted, cipher.encrypt(changed), labels, **NORM) == 0


def test_pgd_with_the_wrong_key_changes_little(victim):
    model, images, labels = victim
    wrong = encrypt_model(model, PatchCipher(SecretKey.for_experiment(5), 4), **NORM)
    assert accuracy(model, pgd(wrong, images, labels, steps=10, **NORM), labels, **NORM) > 0.5


def test_pgd_of_a_tiny_eps_fools_nothing(victim):
    model, images, labels = victim
    assert accuracy(model, pgd(model, images, labels, eps=0.001, steps=5, **NORM), labels, **NORM) == 1


def test_pgd_takes_bytes_and_is_reproducible(victim):
    model, images, labels = victim
    images = (images * 255).to(torch.uint8)
    changed = pgd(model, images, labels, steps=2, **NORM)
    assert torch.equal(changed, pgd(model, images, labels, steps=2, **NORM))
    assert (changed * 255 - images).abs().max() <= 8.001


def test_square_needs_outputs_only(victim):
    model, images, labels = victim
    changed = square(model, images[:10], labels[:10], queries=60, **NORM)
    assert (changed - images[:10]).abs().max() <= EPS + 1e-5
    assert accuracy(model, changed, labels[:10], **NORM) < 0.7
    assert torch.equal(changed, square(model, images[:10], labels[:10], queries=60, **NORM))


def test_square_asks_as_often_as_it_may_and_no_more(victim):
    model, images, labels = victim
    asked = []
    hook = model.register_forward_hook(lambda module, given, answers: asked.append(len(answers)))
    square(model, images[:5], labels[:5], eps=0.001, queries=30, **NORM)  # too little to fool any
    hook.remove()
    most = 1 + 5 * (2 + 30)  # the number of classes; as they are, with stripes, and 30 times; nothing is asked twice
    assert most / 2 < sum(asked) <= most


def test_autoattack_fools_and_keeps_within_eps(victim):
    model, images, labels = victim
    labels = torch.cat([labels[:5], 1 - labels[5:6]])  # the last is misread as it is
    changed = autoattack(model, images[:6], labels, starts=1, queries=10, **NORM)
    assert (changed - images[:6]).abs().max() <= EPS * (1 + 1e-4)
    assert accuracy(model, changed, labels, **NORM) == 0 and torch.equal(changed[5], images[5])


def test_values_of_an_orthogonal_cipher_may_leave_0_to_1(victim):
    model, images, labels = victim
    cipher = PatchCipher(SecretKey.for_experiment(0), 4, steps=("orthogonal",))
    encrypted, sent = encrypt_model(model, cipher, **NORM), cipher.encrypt(images)
    limits = (sent.min().item(), sent.max().item())
    assert limits[0] < 0
    changed = pgd(encrypted, sent, labels, limits=limits, steps=10, **NORM)
    assert accuracy(encrypted, changed, labels, **NORM) < 0.1
    assert (changed - sent).abs().max() <= EPS + 1e-6
    squares = (cipher.decrypt(changed) - images).square().mean()
    assert squares <= EPS**2 * (1 + 1e-4)  # such a cipher keeps the sum of squares


def test_square_needs_no_more_than_answers_of_the_encrypted_pipeline(victim):
    model, images, labels = victim
    images = (images * 255).round().to(torch.uint8)[:10]
    cipher = PatchCipher(SecretKey.for_experiment(0), 4)
    pipeline = Pipeline(encrypt_model(model, cipher, **NORM), cipher, **NORM)
    unit = {"mean": (0,) * 3, "std": (1,) * 3}
    asked = square(pipeline, images, labels[:10], queries=60, **unit)
    assert (asked - images / 255).abs().max() <= EPS + 1e-5
    assert accuracy(model, asked, labels[:10], **NORM) < 0.7


def test_changing_encrypted_images_needs_no_key(victim):
    model, images, labels = victim
    images = (images * 255).round().to(torch.uint8)
    cipher = PatchCipher(SecretKey.for_experiment(0), 4)
    encrypted = encrypt_model(model, cipher, **NORM)
    changed = to_bytes(pgd(encrypted, cipher.encrypt(images), labels, steps=10, **NORM))
    assert (changed.int() - cipher.encrypt(images).int()).abs().max() <= 8
    assert (cipher.decrypt(changed).int() - images.int()).abs().max() <= 8
    assert accuracy(encrypted, changed, labels, **NORM) < 0.1


def test_noise_is_as_large_and_fools_little(victim):
    model, images, labels = victim
    changed = noise(images)
    inside = (images > EPS) & (images < 1 - EPS)
    assert torch.allclose((changed - images).abs()[inside], torch.tensor(EPS), atol=1e-6)
    assert accuracy(model, changed, labels, **NORM) > 0.9
