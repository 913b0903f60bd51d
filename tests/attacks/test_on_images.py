"""Each attack finds a planted key in its easy case, and does not where nothing could be found."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cmxlib import PatchCipher, SecretKey
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import chosen_image, chosen_plaintext, ciphertext_only, known_plaintext, patch_moments

ALL_STEPS = [("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",)]


def smooth_images(n, seed):
    """Images with what matters in photographs: neighbours and colours go together, and no direction is like another."""
    noise = np.random.default_rng(seed).standard_normal((n, 4, 24, 24))
    smooth = gaussian_filter(noise, (0, 0, 2.0, 1.2), mode="wrap") * 3
    drift = np.roll(smooth, 1, axis=2) + 0.5 * np.roll(smooth, 1, axis=3)
    shared, own = drift[:, :1], drift[:, 1:] * np.array([0.3, 0.45, 0.6])[:, None, None]
    images = 0.4 + 0.18 * (shared + own) + 0.02 * noise[:, 1:] + 0.06 * np.arange(3)[:, None, None]
    return torch.from_numpy((images.clip(0, 1) * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def public():
    return smooth_images(500, seed=1)


@pytest.fixture(scope="module")
def victim():
    return smooth_images(500, seed=2)


def noise_images(n, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, 24, 24), np.uint8))


@pytest.mark.parametrize("steps", [("shuffle",), ("flip",), ("shuffle", "flip")])
def test_ciphertext_only_finds_shuffles_and_flips(public, victim, steps):
    cipher = PatchCipher(SecretKey.for_experiment(3), 4, steps=steps)
    estimate = ciphertext_only(cipher.encrypt(victim), public, 4, steps, restarts=3)
    assert share_recovered(estimate, cipher) == 1
    assert torch.equal(estimate.decrypt(cipher.encrypt(victim)), victim)


def test_ciphertext_only_finds_most_of_an_orthogonal_map(public, victim):
    cipher = PatchCipher(SecretKey.for_experiment(3), 2, steps=("orthogonal",))
    estimate = ciphertext_only(cipher.encrypt(victim), public, 2, ("orthogonal",))
    assert share_recovered(estimate, cipher) > 0.8
    matrix, offset = estimate.matrix()
    assert np.allclose(matrix @ matrix.T, np.eye(12)) and not offset.any()


@pytest.mark.parametrize("steps", [("shuffle", "flip"), ("orthogonal",)])
def test_ciphertext_only_finds_nothing_in_noise(steps):
    """Independent pixels have no covariance to match: what is found is what chance gives."""
    cipher = PatchCipher(SecretKey.for_experiment(3), 4, steps=steps)
    estimate = ciphertext_only(cipher.encrypt(noise_images(300, 5)), noise_images(300, 6), 4, steps, restarts=2)
    assert share_recovered(estimate, cipher) < 0.2


def test_ciphertext_only_finds_nothing_without_the_right_statistics(victim):
    cipher = PatchCipher(SecretKey.for_experiment(3), 4)
    estimate = ciphertext_only(cipher.encrypt(victim), noise_images(300, 6), 4, restarts=2)
    assert share_recovered(estimate, cipher) < 0.2


@pytest.mark.parametrize("steps", ALL_STEPS)
def test_known_plaintext_needs_an_image_or_two(victim, steps):
    cipher = PatchCipher(SecretKey.for_experiment(4), 4, steps=steps)
    plain = victim[:2]  # 72 patches of 48 entries
    estimate = known_plaintext(cipher.encrypt(plain), plain, patch_size=4, steps=steps)
    assert share_recovered(estimate, cipher) == pytest.approx(1, abs=1e-6)


def test_known_plaintext_fails_on_other_images(victim, public):
    cipher = PatchCipher(SecretKey.for_experiment(4), 4)
    estimate = known_plaintext(cipher.encrypt(victim[:2]), public[:2], patch_size=4)
    assert share_recovered(estimate, cipher) < 0.2


@pytest.mark.parametrize("steps", ALL_STEPS)
@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_one_chosen_image_gives_the_key(steps, patch_size):
    cipher = PatchCipher(SecretKey.for_experiment(5), patch_size, steps=steps)
    calls = []

    def encrypt(images):
        calls.append(len(images))
        return cipher.encrypt(images)

    estimate = chosen_plaintext(encrypt, patch_size=patch_size, steps=steps)
    assert calls == [1]
    assert share_recovered(estimate, cipher) == pytest.approx(1, abs=1e-9)


def test_chosen_codes_are_no_negatives_of_one_another():
    codes = chosen_image(8, 3).view(3, 2, 8, 2, 8).permute(1, 3, 0, 2, 4).reshape(4, 192).T.int()
    assert len(torch.cat([codes, 255 - codes]).unique(dim=0)) == 2 * 192


def test_share_counts_entries_with_position_and_sign():
    cipher = PatchCipher.from_entries(np.arange(12), np.zeros(12, bool), 2)
    order, flipped = np.arange(12), np.zeros(12, bool)
    order[:3] = 1, 2, 0  # three wrong positions
    flipped[11] = True  # and a wrong sign
    assert share_recovered(PatchCipher.from_entries(order, flipped, 2), cipher) == pytest.approx(8 / 12)
    assert share_recovered(cipher, cipher) == 1


def test_share_of_orthogonal_maps_is_energy():
    cipher = PatchCipher(SecretKey.for_experiment(6), 4, steps=("orthogonal",))
    matrix, offset = cipher.matrix()
    angle = 0.3
    turn = np.eye(48)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = PatchCipher.from_affine(matrix @ turn, offset)
    assert share_recovered(turned, cipher) == pytest.approx((46 + 2 * np.cos(angle) ** 2) / 48)
    other = PatchCipher(SecretKey.for_experiment(7), 4, steps=("orthogonal",))
    assert share_recovered(other, cipher) < 0.05


def test_moments_are_those_of_a_loop(victim):
    mean, (within, right, below) = patch_moments(victim[:3], 8)
    patches = victim[:3].double().view(3, 3, 3, 8, 3, 8).permute(0, 2, 4, 1, 3, 5).reshape(3, 3, 3, -1).numpy() / 255
    assert np.allclose(mean, patches.mean((0, 1, 2)))
    patches -= mean
    expected = np.zeros((3, 192, 192))
    for image in patches:
        for row in range(3):
            for column in range(3):
                p = image[row, column]
                expected[0] += np.outer(p, p) / 27
                if column < 2:
                    expected[1] += np.outer(p, image[row, column + 1]) / 18
                if row < 2:
                    expected[2] += np.outer(p, image[row + 1, column]) / 18
    for found, wanted in zip((within, right, below), expected, strict=True):
        assert np.allclose(found, wanted, atol=1e-6)


def test_errors_name_the_way_out(victim):
    with pytest.raises(ValueError, match="steps must be"):
        ciphertext_only(victim, victim, 4, ("rotate",))
    with pytest.raises(ValueError, match="pair up"):
        known_plaintext(victim[:1], victim[:2])
    with pytest.raises(ValueError, match="no neighbouring patches"):
        ciphertext_only(victim[:, :, :8, :8], victim, 8)
