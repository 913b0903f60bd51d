import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxlib import PatchCipher, SecretKey
from cmxlib.lock.near import damaged, partway, scrambled_in_part
from cmxlib.lock.position import PositionCipher

KEY, RNG = SecretKey.for_experiment(7), np.random.default_rng(0)
STEPS = [(), ("shuffle",), ("flip",), ("shuffle", "flip"), ("flip", "shuffle"), ("orthogonal",)]

sizes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1000),
        "block_size": st.integers(1, 4),
        "channels": st.integers(1, 4),
        "blocks": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "n": st.integers(0, 3),
        "steps": st.sampled_from(STEPS),
    }
)


def make(case, dtype):
    cipher = PatchCipher(
        SecretKey.for_experiment(case["seed"]), case["block_size"], channels=case["channels"], steps=case["steps"]
    )
    shape = (case["n"], case["channels"], *(b * case["block_size"] for b in case["blocks"]))
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(case["seed"]))
    return cipher, images if dtype == torch.uint8 else images.to(dtype) / 255


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_uint8_comes_back_to_the_bit(case):
    cipher, images = make(case, torch.uint8)
    encrypted = cipher.encrypt(images)
    back = cipher.decrypt(encrypted)
    assert encrypted.shape == images.shape
    if case["steps"] == ("orthogonal",):
        assert encrypted.dtype == torch.float32
        back = (back * 255).round().to(torch.uint8)
    assert back.dtype == torch.uint8 and torch.equal(back, images)


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from([torch.float32, torch.float64]))
def test_floats_come_back_and_match_uint8(case, dtype):
    cipher, images = make(case, dtype)
    encrypted = cipher.encrypt(images)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert encrypted.dtype == dtype
    assert torch.allclose(cipher.decrypt(encrypted), images, rtol=0, atol=tolerance)
    _, as_bytes = make(case, torch.uint8)
    found = cipher.encrypt(as_bytes)
    found = found.to(dtype) / (255 if found.dtype == torch.uint8 else 1)
    assert torch.allclose(encrypted, found, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_matrix_says_what_happens_to_each_block(case):
    cipher, images = make({**case, "n": 2}, torch.float64)
    a, b = cipher.matrix()
    size = case["block_size"]
    encrypted = cipher.encrypt(images)
    for row in range(0, images.shape[2], size):
        for column in range(0, images.shape[3], size):
            block = images[1, :, row : row + size, column : column + size].flatten().numpy()
            found = encrypted[1, :, row : row + size, column : column + size].flatten().numpy()
            np.testing.assert_allclose(found, a @ block + b, atol=1e-12)


@given(st.sampled_from(STEPS), st.sampled_from([(2, 4), (1, 3), (2, 6), (4, 4)]))
@settings(max_examples=20, deadline=None)
def test_blocks_within_a_patch(steps, block_and_patch):
    block, patch = block_and_patch
    cipher = PatchCipher(KEY, patch, 2, steps, block_size=block)
    images = torch.rand(1, 2, patch, patch, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = cipher.matrix()
    assert a.shape == (2 * patch**2, 2 * patch**2)
    np.testing.assert_allclose(cipher.encrypt(images).flatten(), a @ images.flatten().numpy() + b, atol=1e-12)
    same = PatchCipher(KEY, block, 2, steps).matrix(patch)
    np.testing.assert_array_equal(a, same[0])
    np.testing.assert_array_equal(b, same[1])


def test_the_map_is_pinned():
    # Whoever stored encrypted images must be able to decrypt them with any later version.
    cipher = PatchCipher(KEY, 2)
    assert cipher.permutation.tolist() == [10, 5, 0, 6, 11, 2, 9, 4, 1, 3, 7, 8]
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    expected = [
        255 - v if f else v for v, f in zip(cipher.permutation.tolist(), KEY.bits(12, purpose="flip"), strict=True)
    ]
    assert cipher.encrypt(image).flatten().tolist() == expected


def test_a_flip_is_255_minus_v():
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    found = PatchCipher(KEY, 4, steps=("flip",)).encrypt(image)
    assert ((found == image) | (found == 255 - image)).all() and not torch.equal(found, image)


def test_single_images():
    cipher, images = PatchCipher(KEY, 4), torch.randint(0, 256, (5, 3, 8, 12), dtype=torch.uint8)
    assert torch.equal(cipher.encrypt(images[2]), cipher.encrypt(images)[2])


def test_the_input_is_left_as_it_was():
    for images in (torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), torch.rand(2, 3, 8, 8)):
        before = images.clone()
        for steps in STEPS:
            cipher = PatchCipher(KEY, 4, steps=steps)
            cipher.decrypt(cipher.encrypt(images))
        assert torch.equal(images, before)


def test_gradients_pass_through():
    images = torch.rand(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for steps in STEPS:
        assert torch.autograd.gradcheck(PatchCipher(KEY, 4, steps=steps).encrypt, images)


def test_from_entries_and_from_affine_are_the_same_cipher():
    cipher = PatchCipher(KEY, 2)
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    entries = PatchCipher.from_entries(cipher.permutation, cipher.flipped, 2)
    assert torch.equal(entries.encrypt(images), cipher.encrypt(images))
    affine = PatchCipher.from_affine(*cipher.matrix(), 2)
    assert torch.allclose(affine.encrypt(images), cipher.encrypt(images).float() / 255, atol=1e-6)
    assert torch.allclose(affine.decrypt(affine.encrypt(images)), images.float() / 255, atol=1e-6)


@pytest.mark.parametrize("size, shuffle, flip", [(2, 28.8, 12), (4, 202.9, 48), (8, 1186, 192)])
def test_key_space(size, shuffle, flip):  # figures for independent keys, derived apart from this code
    assert PatchCipher(KEY, size, steps=("shuffle",)).key_bits() == pytest.approx(shuffle, rel=2e-3)
    assert PatchCipher(KEY, size, steps=("flip",)).key_bits() == flip
    assert PatchCipher(KEY, size).key_bits() == pytest.approx(shuffle + flip, rel=2e-3)
    assert PatchCipher(KEY, size, steps=("orthogonal",)).key_bits() == float("inf")


def test_the_key_is_not_kept_in_sight():
    assert KEY._secret.value.hex() not in repr(PatchCipher(KEY)) + repr(vars(PatchCipher(KEY)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")
def test_on_a_gpu():
    for steps in STEPS:
        cipher = PatchCipher(KEY, 4, steps=steps)
        images = torch.rand(2, 3, 8, 8)
        assert torch.allclose(cipher.encrypt(images.cuda()).cpu(), cipher.encrypt(images), atol=1e-5)


# Further wrong calls: tests/trust/test_bad_input.py


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: PatchCipher(KEY, 4, steps=("flip", "flip")), ValueError, "steps must be"),
        (lambda: PatchCipher(KEY, 4, steps=("orthogonal", "flip")), ValueError, "stands alone"),
        (lambda: PatchCipher(KEY, 4, block_size=0), ValueError, "block_size must be a whole number from 1 up"),
        (lambda: PatchCipher.from_affine(np.eye(48), np.full(48, np.nan)), ValueError, "must be finite"),
        (lambda: PatchCipher.from_entries(np.arange(48.0), [False] * 48), ValueError, "permutation"),
        (lambda: PatchCipher(KEY, 4, steps="shuffle"), TypeError, r"must be a tuple of names, such as \('shuffle',\)"),
        (lambda: PatchCipher(KEY, 4.0), TypeError, "patch_size must be a whole number"),
        (lambda: scrambled_in_part(PatchCipher(KEY), "pixel", RNG), ValueError, 'kind must be "pixels"'),
        (lambda: damaged(PatchCipher(KEY), 1, 0, RNG), ValueError, "choose 0 or at least 2"),
        (lambda: damaged(PatchCipher(KEY), 49, 0, RNG), ValueError, "positions must be a whole number from 0 to 48"),
        (lambda: damaged(PatchCipher(KEY), 0, -1, RNG), ValueError, "signs must be a whole number from 0 to 48"),
        (lambda: partway(PatchCipher(KEY), PatchCipher(KEY), -1), ValueError, "count must be a whole number from 0"),
        (lambda: PositionCipher(KEY, 5), ValueError, "Patches of 5 pixels do not divide images of 32"),
        (lambda: PositionCipher(KEY, 4).encrypt(torch.zeros(1, 3, 30, 32)), ValueError, "images of 30 x 32"),
        (lambda: PositionCipher(KEY, 4).encrypt(torch.zeros(1, 3, 8, 8)), ValueError, "keys for 64 positions"),
    ],
)
def test_bad_input_gets_one_clear_sentence(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_numpy_whole_numbers_are_whole_numbers():
    assert PatchCipher(KEY, np.int64(4)).n == 48


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_recorded_graph_does_the_same(steps, dtype):
    cipher = PatchCipher(KEY, 4, steps=steps, block_size=2)

    class Both(torch.nn.Module):
        def forward(self, x):
            hidden = cipher.encrypt(x)
            return hidden, cipher.decrypt(hidden)

    make, scale = torch.Generator().manual_seed(3), 1 if dtype == torch.uint8 else 255
    first, second = (torch.randint(0, 256, (n, 3, 8, 12), generator=make).div(scale).to(dtype) for n in (2, 5))
    batch = {0: torch.export.Dim("batch")}
    graphs = [
        torch.export.export(Both(), (first,), dynamic_shapes=(batch,), strict=False).module(),
        torch.compile(Both(), backend="aot_eager"),
    ]
    for graph in graphs:
        for found, expected in zip(graph(second), Both()(second), strict=True):
            assert torch.allclose(found, expected)


def test_a_key_by_position_takes_single_images():
    cipher, x = PositionCipher(KEY, 4, image_size=8), torch.rand(3, 8, 8)
    assert torch.equal(cipher.encrypt(x), cipher.encrypt(x[None])[0])
