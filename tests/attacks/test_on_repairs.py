"""Each repair is exact; the attack on keys by position works on images and fails on noise."""

import numpy as np
import pytest
import torch
from torch import nn

from cmxlib import ConvMixer, PatchCipher, SecretKey, encrypt_model, logits
from cmxlib.attacks.jigsaw import jigsaw_by_position, jigsaw_of_places
from cmxlib.attacks.matching import share_recovered
from cmxlib.attacks.on_images import known_plaintext
from cmxlib.attacks.on_repairs import (
    bits_in_order,
    chained,
    chosen_image_by_position,
    chosen_image_of_bits,
    ciphertext_and_model_by_position,
    ciphertext_and_model_of_bits,
    ciphertext_only_by_position,
    known_plaintext_by_position,
    relative_cipher,
)
from cmxlib.learn.evaluate import normalise
from cmxlib.lock.bits import bit_model, from_bits, to_bits
from cmxlib.lock.blocks import BlockCipher
from cmxlib.lock.position import PositionCipher, encrypt_model_by_position, etc_variants

from .test_on_images import noise_images, smooth_images

NORM = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
BITS = {"mean": (0,) * 24, "std": (1,) * 24}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ConvMixer(dim=16, depth=1, kernel_size=3, patch_size=4).double().eval()


def mean_share(estimate, cipher):
    return np.mean([share_recovered(*both) for both in zip(estimate.ciphers, cipher.ciphers, strict=True)])


@pytest.mark.parametrize("steps", [("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",), ("EtC",)])
def test_keys_by_position_are_exact(model, steps):
    images, key = noise_images(3, 0).double() / 255, SecretKey.for_experiment(1)
    etc = steps == ("EtC",)
    cipher = PositionCipher.etc(key, image_size=24) if etc else PositionCipher(key, 4, steps=steps, image_size=24)
    encrypted = cipher.encrypt(images)
    assert torch.allclose(cipher.decrypt(encrypted), images, atol=1e-12)
    locked = encrypt_model_by_position(model, cipher, **NORM)
    plain = logits(model, images, **NORM)
    assert torch.allclose(logits(locked, encrypted, **NORM), plain, atol=1e-9)
    assert not torch.allclose(logits(locked, images, **NORM), plain, atol=1e-2)
    assert all(
        torch.equal(locked.state_dict()[name], value) for name, value in model.state_dict().items() if name[0] != "0"
    )


@pytest.mark.parametrize("steps", [("shuffle",), ("shuffle", "flip"), ("orthogonal",)])
def test_keys_by_position_are_exact_for_grey_images_and_without_a_bias(steps):
    grey = {"mean": (0.4,), "std": (0.3,)}
    after = (nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    net = nn.Sequential(nn.Conv2d(1, 6, 4, stride=4, bias=False), *after).double()
    images = noise_images(3, 0)[:, :1].double() / 255
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, 1, steps, image_size=24)
    locked, plain = encrypt_model_by_position(net, cipher, **grey), logits(net, images, **grey)
    assert torch.allclose(logits(locked, cipher.encrypt(images), **grey), plain, atol=1e-9)
    assert not torch.allclose(logits(locked, images, **grey), plain, atol=1e-2)


def test_positions_have_different_keys():
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, image_size=24)
    assert len({tuple(each.permutation) for each in cipher.ciphers}) == 36
    with pytest.raises(ValueError, match="positions"):
        cipher.encrypt(noise_images(1, 0)[:, :, :16])


def test_etc_turns_a_patch_in_96_ways_and_moves_no_patch():
    image = noise_images(1, 0)
    patch = image[:, :, :4, :4]
    found = {tuple(each.encrypt(patch).flatten().tolist()) for each in etc_variants(4)}
    assert len(found) == len(etc_variants(4)) == 96
    red = patch[0, 0]  # a colour stays together: rotated or mirrored, perhaps a negative
    ways = [turned for flat in (red, red.flip(1)) for k in range(4) for turned in [flat.rot90(k)]]
    for each in etc_variants(4):
        colours = each.encrypt(patch)[0]
        assert any(torch.equal(way, c) or torch.equal(255 - way, c) for way in ways for c in colours)
    encrypted = PositionCipher.etc(SecretKey.for_experiment(1), image_size=24).encrypt(image)
    for row, column in ((0, 0), (4, 8), (20, 20)):
        plain, secret = (x[0, :, row : row + 4, column : column + 4].flatten() for x in (image, encrypted))
        values = [torch.sort(each).values for each in (plain, 255 - plain)]
        assert any(torch.equal(torch.sort(secret).values, each) for each in values)


def test_borders_put_etc_by_position_right():
    cipher = PositionCipher.etc(SecretKey.for_experiment(1), image_size=24)
    images = smooth_images(100, seed=2)
    found = jigsaw_by_position(cipher.encrypt(images), smooth_images(300, seed=1))
    shown = found.decrypt(cipher.encrypt(images)).double()
    # These images are as often bright as dark, and have no colours of their own: all borders are right, whatever the
    # order of the colours.
    steps = (shown.diff(dim=3).abs().mean(), shown.diff(dim=2).abs().mean())
    assert max(steps) < 1.01 * images.double().diff(dim=3).abs().mean()
    noise = jigsaw_by_position(cipher.encrypt(noise_images(100, 3)), noise_images(100, 4))
    assert mean_share(noise, cipher) < 0.1


@pytest.mark.parametrize("steps", [(), ("shuffle", "flip")])
def test_borders_put_moved_patches_back(steps):
    light = 0.25 * torch.linspace(0, 1, 16)[:, None] + 0.15 * torch.linspace(0, 1, 16)  # which tells top from bottom
    images, public = (0.6 * smooth_images(300, seed)[..., :16, :16] / 255 + light for seed in (2, 1))
    cipher = BlockCipher(SecretKey.for_experiment(1), 4, 3, steps, image_size=16)
    shown = jigsaw_of_places(cipher.encrypt(images), public, 4, steps).decrypt(cipher.encrypt(images))
    for dim in (2, 3):  # where pixels inside patches are moved too, these images may come out as in a mirror
        assert shown.diff(dim=dim).abs().mean() < 1.01 * max(images.diff(dim=d).abs().mean() for d in (2, 3))
    assert steps or torch.allclose(shown, images, rtol=0, atol=1e-6)
    wide, noise = BlockCipher(SecretKey.for_experiment(1), 4, 3, steps, image_size=(8, 16)), noise_images(200, 3)
    found = jigsaw_of_places(wide.encrypt(noise[:100, :, :8, :16]), noise[100:, :, :8, :16], 4, steps)
    assert (found.places == wide.places).mean() < 0.7


def test_positions_help_one_another():
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, image_size=24)
    seen, public = cipher.encrypt(smooth_images(600, seed=2)), smooth_images(600, seed=1)

    def share(**options):
        return mean_share(ciphertext_only_by_position(seen, public, restarts=2, **options), cipher)

    alone, together = share(rounds=0), share(rounds=5)
    assert together > 0.9
    assert together > alone


def test_the_attack_by_position_finds_nothing_in_noise():
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, image_size=24)
    found = ciphertext_only_by_position(
        cipher.encrypt(noise_images(100, 3)), noise_images(100, 4), restarts=1, rounds=2
    )
    assert mean_share(found, cipher) < 0.1


def test_bits_are_exact(model):
    images = noise_images(3, 0)
    bits = to_bits(images)
    assert bits.shape == (3, 24, 24, 24) and set(bits.unique().tolist()) == {0, 1}
    assert torch.equal(bits[0, :8, 0, 0].int(), torch.tensor([int(b) for b in f"{images[0, 0, 0, 0]:08b}"]).int())
    assert torch.equal(from_bits(bits), images)
    plain, wide = logits(model, images, **NORM), bit_model(model, **NORM)
    assert torch.allclose(logits(wide, bits, **BITS), plain, atol=1e-9)
    embedded = model[0](normalise(images, **NORM, dtype=torch.float64))
    assert (wide[0](bits.double()) - embedded).abs().max() < 1e-12  # mean and std count to the last digit
    cipher = PatchCipher(SecretKey.for_experiment(1), 4, channels=24)
    encrypted = cipher.encrypt(bits.double())
    assert torch.allclose(logits(encrypt_model(wide, cipher, **BITS), encrypted, **BITS), plain, atol=1e-9)


def test_flipping_one_bit_is_no_affine_map():
    """An affine map keeps the differences of equally spaced values equal; of the XOR masks only 0 and 255 do."""
    values = torch.arange(256)
    affine = [mask for mask in range(256) if len((values ^ mask).diff().unique()) == 1]
    assert affine == [0, 255]


def test_pairs_and_one_chosen_image_show_every_position():
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, image_size=24)
    plain = smooth_images(40, seed=2)
    assert mean_share(known_plaintext_by_position(cipher.encrypt(plain), plain), cipher) == 1
    assert mean_share(known_plaintext_by_position(cipher.encrypt(plain[:1]), plain[:1]), cipher) < 0.9
    chosen = chosen_image_by_position(image_size=24)
    assert chosen.shape == (1, 3, 24, 24)
    assert mean_share(known_plaintext_by_position(cipher.encrypt(chosen), chosen), cipher) == 1


def test_a_chosen_image_shows_shuffles_and_flips_of_bits():
    cipher = PatchCipher(SecretKey.for_experiment(1), 4, channels=24)
    chosen = to_bits(chosen_image_of_bits())
    assert share_recovered(known_plaintext(cipher.encrypt(chosen), chosen), cipher) == 1
    flat = to_bits(torch.full((1, 3, 16, 16), 100, dtype=torch.uint8))  # as large, but all patches alike
    assert share_recovered(known_plaintext(cipher.encrypt(flat), flat), cipher) < 0.1


@pytest.mark.parametrize("steps", [("shuffle",), ("flip",), ("shuffle", "flip"), ("orthogonal",)])
def test_two_encryptions_of_one_model_show_the_map_between_the_keys(steps):
    torch.manual_seed(0)
    plain = ConvMixer(dim=64, depth=0, patch_size=4)
    ciphers = [PatchCipher(SecretKey.for_experiment(seed), 4, steps=steps) for seed in (1, 2)]
    weights = [encrypt_model(plain, cipher, **NORM)[0].weight for cipher in ciphers]
    between = relative_cipher(*weights, std=NORM["std"], patch_size=4, steps=steps)
    images = noise_images(3, 0).float() / 255
    moved = chained(ciphers[0], between).encrypt(images)
    assert torch.allclose(moved, ciphers[1].encrypt(images), atol=1e-5)
    assert share_recovered(between, ciphers[1]) < 0.7  # neither key itself; half of the flips agree by chance
    torch.manual_seed(1)
    unrelated = encrypt_model(ConvMixer(dim=64, depth=0, patch_size=4), ciphers[1], **NORM)[0].weight
    missed = relative_cipher(weights[0], unrelated, std=NORM["std"], patch_size=4, steps=steps)
    assert share_recovered(chained(ciphers[0], missed), ciphers[1]) < 0.9


def test_the_model_reduces_keys_by_position_to_one_key(model):
    cipher = PositionCipher(SecretKey.for_experiment(1), 4, image_size=24)
    locked = encrypt_model_by_position(model, cipher, **NORM)
    seen, public = cipher.encrypt(smooth_images(100, seed=2)), smooth_images(500, seed=1)
    found = ciphertext_and_model_by_position(seen, locked[0], public, std=NORM["std"], restarts=3)
    assert mean_share(found, cipher) == 1
    assert mean_share(ciphertext_only_by_position(seen, public, restarts=1, rounds=2), cipher) < 0.9
    noise = cipher.encrypt(noise_images(100, 3))
    missed = ciphertext_and_model_by_position(noise, locked[0], noise_images(100, 4), std=NORM["std"], restarts=1)
    assert mean_share(missed, cipher) < 0.2


def test_the_model_reduces_single_bits_to_values(model):
    cipher = PatchCipher(SecretKey.for_experiment(1), 4, channels=24)
    weight = encrypt_model(bit_model(model, **NORM), cipher, **BITS)[0].weight
    images, public = smooth_images(100, seed=2), smooth_images(500, seed=1)
    seen = cipher.encrypt(to_bits(images))
    in_order = from_bits(bits_in_order(weight).decrypt(seen))
    values = [sorted(torch.minimum(each, 255 - each)[0, :, :4, :4].flatten().tolist()) for each in (images, in_order)]
    assert values[0] == values[1]  # the first patch: the same values, in another order, some of them flipped
    found = ciphertext_and_model_of_bits(seen, weight, public, restarts=3)
    assert share_recovered(found, cipher) == 1
    assert torch.equal(from_bits(found.decrypt(seen)), images)


@pytest.mark.parametrize("steps", [("shuffle", "flip"), ("orthogonal",)])
def test_a_chain_of_ciphers_with_smaller_blocks_does_what_both_do(steps):
    key, images = SecretKey.for_experiment(0), noise_images(3, 0) / 255
    small, large = (PatchCipher(key, 4, steps=steps, block_size=size) for size in (2, 4))
    for first, second in ((small, large), (large, small)):
        found = second.decrypt(chained(first, second).encrypt(images))
        assert torch.allclose(found, first.encrypt(images), atol=1e-5)
