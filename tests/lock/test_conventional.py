import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxlib import PatchCipher, SecretKey
from cmxlib.lock.conventional import METHODS, key_space_bits, make_cipher

KEY, OTHER = SecretKey.for_experiment(1), SecretKey.for_experiment(2)


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def blocks_of(image, size):
    """(3, H, W) -> (blocks, 3, size, size), by slicing: not the library's way."""
    _, h, w = image.shape
    rows, columns = range(0, h, size), range(0, w, size)
    return np.stack([np.asarray(image)[:, r : r + size, c : c + size] for r in rows for c in columns])


class ScriptedKey(SecretKey):
    """Draws that a reader can follow: permutations reverse, and one bit is set, the i-th in the i-th subkey."""

    def __init__(self, bit=0):
        super().__init__(bytes(32), "script")
        self.bit = bit

    def permutation(self, n, *, purpose):
        return np.arange(n)[::-1]

    def bits(self, n, *, purpose):
        return np.arange(n) == self.bit

    def subkey(self, label):
        return ScriptedKey(int(label.split()[-1]))


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_decrypts_to_the_bit(self, method):
        images = noise(5, 3, 32, 32)
        before = images.clone()
        cipher = make_cipher(method, KEY)
        encrypted = cipher.encrypt(images)
        assert encrypted.dtype == (torch.float32 if method == "FFX" else torch.uint8)
        assert encrypted.shape == images.shape
        assert torch.equal(cipher.decrypt(encrypted), images)
        assert torch.equal(images, before)
        assert (
            encrypted != (images / 255 if method == "FFX" else images)
        ).float().mean() > 0.45  # NP and SUB leave half of the values alone

    def test_every_image_gets_the_same(self, method):
        images = noise(3, 3, 16, 8)
        cipher = make_cipher(method, KEY, image_size=(16, 8))
        assert torch.equal(cipher.encrypt(images), torch.stack([cipher.encrypt(image) for image in images]))

    def test_a_wrong_key_does_not_decrypt(self, method):
        images = noise(5, 3, 32, 32)
        encrypted = make_cipher(method, KEY).encrypt(images)
        assert torch.equal(make_cipher(method, KEY).encrypt(images), encrypted)
        wrong = make_cipher(method, OTHER).decrypt(encrypted)
        assert (wrong == images).float().mean() < 0.6  # two halves agree at half of the places

    def test_the_same_key_encrypts_alike_everywhere(self, method):
        golden = {
            "LE": "87b4934e9dfa4f64",
            "ELE": "1b2288e000aadcbe",
            "EtC": "ccda60f4bde5f6f5",
            "PE": "355a07e6efafd4a5",
            "SHF": "ba17e5446330d055",
            "NP": "c6bbabce612d9d76",
            "FFX": "a4d948339969d1e5",
            "SUB": "6a52bf962ac60d28",
        }
        image = torch.arange(3 * 16 * 8).view(1, 3, 16, 8).to(torch.uint8)
        encrypted = make_cipher(method, KEY, image_size=(16, 8)).encrypt(image)
        assert hashlib.sha256(encrypted.numpy().tobytes()).hexdigest()[:16] == golden[method]

    @settings(max_examples=25, deadline=None)
    @given(block=st.integers(1, 5), rows=st.integers(1, 4), columns=st.integers(1, 4), n=st.integers(0, 3))
    def test_any_size_that_blocks_divide(self, method, block, rows, columns, n):
        size = (rows * block, columns * block)
        cipher = make_cipher(method, KEY, block_size=block, image_size=size)
        images = noise(n, 3, *size)
        assert torch.equal(cipher.decrypt(cipher.encrypt(images)), images)

    def test_refuses_what_is_no_such_image(self, method):
        cipher = make_cipher(method, KEY)
        with pytest.raises(TypeError, match="must be a torch tensor, but this is ndarray"):
            cipher.encrypt(noise(1, 3, 32, 32).numpy())
        with pytest.raises(TypeError, match=r"must be uint8 \(0 to 255\).*, but this is torch.int64"):
            cipher.decrypt(noise(1, 3, 32, 32).long())
        if method not in ("SHF", "NP"):  # these are patch ciphers, which take floats as well
            with pytest.raises(TypeError, match=r"must be uint8 \(0 to 255\), but this is torch.float32"):
                cipher.encrypt(noise(1, 3, 32, 32).float())
        with pytest.raises(ValueError, match="shape"):
            cipher.encrypt(noise(1, 1, 32, 32))
        with pytest.raises(ValueError, match="shape"):
            cipher.decrypt(noise(32, 32))


def test_refusals_name_the_way_out():
    with pytest.raises(ValueError, match=r"'AES'; choose one of LE, ELE"):
        make_cipher("AES", KEY)
    with pytest.raises(ValueError, match="Blocks of 5 pixels do not divide images of 32 x 32"):
        make_cipher("LE", KEY, block_size=5)
    with pytest.raises(ValueError, match="from 1 up"):
        make_cipher("LE", KEY, block_size=0)
    with pytest.raises(ValueError, match=r"image_size must be \(height, width\)"):
        key_space_bits("LE", image_size=(32,))
    with pytest.raises(TypeError, match="image_size must be a whole number"):
        make_cipher("LE", KEY, image_size=(32.0, 32))
    with pytest.raises(TypeError, match="key must be a SecretKey, but this is bytes"):
        make_cipher("LE", bytes(32))
    with pytest.raises(ValueError, match="image_size of the images"):
        make_cipher("EtC", KEY, image_size=(16, 16)).encrypt(noise(1, 3, 32, 32))


def test_le_by_hand():
    image = torch.tensor([0x12, 0x34, 0x56], dtype=torch.uint8).view(3, 1, 1)
    # The halves are 1 3 5 2 4 6; the first is reversed, 15 - 1 = 14; then their order: 6 4 2 5 3 14.
    encrypted = make_cipher("LE", ScriptedKey(), block_size=1, image_size=(1, 1)).encrypt(image)
    assert encrypted.flatten().tolist() == [0x65, 0x43, 0x2E]


def test_ele_by_hand():
    image = torch.tensor([[0x12, 0xAB], [0x34, 0xCD], [0x56, 0xEF]], dtype=torch.uint8).view(3, 1, 2)
    # The first pixel as above; of the second, the other half is reversed (A C E B D F -> A 3 E B D F -> F D B E 3 A);
    # then the two change places.
    encrypted = make_cipher("ELE", ScriptedKey(), block_size=1, image_size=(1, 2)).encrypt(image)
    assert encrypted.view(3, 2).T.tolist() == [[0xFE, 0xD3, 0xBA], [0x65, 0x43, 0x2E]]


def test_le_moves_halves_within_blocks_and_does_the_same_in_all():
    image = noise(3, 16, 16)
    encrypted = make_cipher("LE", KEY, image_size=(16, 16)).encrypt(image)

    def halves(block):  # unordered, and blind to reversal
        values = np.concatenate([block.ravel() >> 4, block.ravel() & 15])
        return np.sort(np.minimum(values, 15 - values)).tolist()

    for plain, secret in zip(blocks_of(image, 4), blocks_of(encrypted, 4), strict=True):
        assert halves(plain) == halves(secret)
    tiled = make_cipher("LE", KEY, image_size=(16, 16)).encrypt(noise(3, 4, 4).repeat(1, 4, 4))
    assert (blocks_of(tiled, 4) == blocks_of(tiled, 4)[0]).all()


def test_ele_blocks_have_keys_of_their_own_and_change_places():
    cipher = make_cipher("ELE", KEY, image_size=(16, 16))
    tiled = cipher.encrypt(noise(3, 4, 4).repeat(1, 4, 4))
    assert len({block.tobytes() for block in blocks_of(tiled, 4)}) == 16  # equal blocks no longer look alike

    image = noise(3, 16, 16)
    encrypted, went_to = blocks_of(cipher.encrypt(image), 4), []
    for i in range(16):
        changed = image.clone()
        changed[:, i // 4 * 4 :, i % 4 * 4 :][:, :4, :4] ^= 255
        (places,) = np.nonzero((blocks_of(cipher.encrypt(changed), 4) != encrypted).any((1, 2, 3)))
        went_to.extend(places)  # one place each
    assert sorted(went_to) == list(range(16))
    assert went_to != list(range(16))


def test_etc_makes_each_block_one_of_96_variants_of_one_plain_block():
    def variants(block):
        for channels in itertools.permutations(range(3)):
            for rows, columns, transposed in itertools.product((1, -1), (1, -1), (False, True)):
                turned = block[list(channels)][:, ::rows, ::columns]
                turned = turned.transpose(0, 2, 1) if transposed else turned
                yield turned.tobytes(), (channels, rows, columns, transposed, False)
                yield (255 - turned).tobytes(), (channels, rows, columns, transposed, True)

    seen, image = set(), noise(3, 32, 32)
    origin = {v: (i, how) for i, block in enumerate(blocks_of(image, 4)) for v, how in variants(block)}
    for seed in range(20):
        cipher = make_cipher("EtC", SecretKey.for_experiment(seed))
        found = [origin[block.tobytes()] for block in blocks_of(cipher.encrypt(image), 4)]
        assert sorted(i for i, _ in found) == list(range(64))
        assert [i for i, _ in found] != list(range(64))
        assert len({how for _, how in found}) > 30  # draws of their own, block by block
        seen |= {how for _, how in found}
    assert len(seen) == 96


def test_pe_works_on_each_pixel_alone():
    image = noise(3, 32, 32)
    encrypted = make_cipher("PE", KEY).encrypt(image)

    def values(image):  # of each pixel, unordered, and blind to negatives
        return torch.minimum(image, 255 - image).flatten(1).sort(0).values

    assert torch.equal(values(image), values(encrypted))
    constant = make_cipher("PE", KEY).encrypt(
        torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1).repeat(1, 32, 32)
    )
    assert len(constant.flatten(1).unique(dim=1).T) == 48  # 2^3 negatives and 6 orders: all of them occur


def test_shf_is_the_patch_cipher():
    images = noise(2, 3, 32, 32)
    assert torch.equal(
        make_cipher("SHF", KEY, block_size=8).encrypt(images), PatchCipher(KEY, 8, steps=("shuffle",)).encrypt(images)
    )


def test_half_of_every_block_is_changed_and_the_same_half():
    image = torch.full((3, 32, 32), 7, dtype=torch.uint8)
    for method in ("NP", "FFX", "SUB"):
        cipher = make_cipher(method, KEY)
        kept = 7 / cipher.largest if method == "FFX" else 7
        changed = blocks_of((cipher.encrypt(image) - kept).abs() > 1e-6, 4)
        assert (changed == changed[0]).all()
        assert changed[0].sum() == 24
    negatives = make_cipher("NP", KEY).encrypt(noise(3, 32, 32))
    assert ((negatives == noise(3, 32, 32)) | (negatives == 255 - noise(3, 32, 32))).all()


@pytest.mark.parametrize("method", ["FFX", "SUB"])
def test_bytes_are_replaced_one_to_one_by_one_table(method):
    values = torch.arange(256).to(torch.uint8).view(256, 1, 1, 1).expand(256, 3, 4, 4)
    encrypted = make_cipher(method, KEY, image_size=(4, 4)).encrypt(values).flatten(1)
    kept, replaced = sorted({tuple(column) for column in encrypted.T.tolist()}, key=lambda column: column[0])
    kept, replaced = (kept, replaced) if list(kept) == sorted(kept) else (replaced, kept)
    if method == "SUB":
        assert list(kept) == sorted(replaced) == list(range(256))
    else:  # three digits, and all values divided by the largest: those that are not encrypted become darker
        largest = round(255 / max(kept))
        numbers = [round(value * largest, 3) for value in replaced]
        assert 900 < largest <= 999
        assert max(numbers) == largest
        assert len({round(number) for number in numbers}) == 256
        assert np.allclose(np.array(kept) * largest, range(256))
        assert np.allclose(numbers, np.round(numbers))


@pytest.mark.parametrize("block, bits", [(2, 28.8), (4, 202.9), (8, 1184.4)])
def test_key_space_of_a_shuffle_is_that_of_its_orders(block, bits):
    assert key_space_bits("SHF", block_size=block) == pytest.approx(bits, abs=0.05)


def test_key_space_is_as_published():
    where = math.lgamma(65) / math.log(2)
    assert key_space_bits("LE") == pytest.approx(math.lgamma(97) / math.log(2) + 96)
    assert key_space_bits("ELE") == pytest.approx(64 * key_space_bits("LE") + where)
    assert key_space_bits("EtC") == pytest.approx(64 * (3 + 1 + math.log2(6)) + where)
    assert key_space_bits("PE") == pytest.approx(1024 * (3 + math.log2(6)))
    assert key_space_bits("SUB") == pytest.approx(math.log2(math.comb(48, 24)) + math.lgamma(257) / math.log(2))
    ways = math.lgamma(1001) - math.lgamma(745)  # to give 256 bytes different numbers below 1,000
    assert key_space_bits("FFX") == pytest.approx(math.log2(math.comb(48, 24)) + ways / math.log(2))


@pytest.mark.parametrize(
    "method, block, size", [("EtC", 2, (2, 2)), ("PE", 1, (1, 1)), ("SHF", 1, (1, 1)), ("NP", 1, (1, 1))]
)
def test_key_space_counts_the_ciphers_that_there_are(method, block, size):
    image = torch.arange(3 * math.prod(size)).view(3, *size).to(torch.uint8)  # tells all entries apart
    found = {
        make_cipher(method, SecretKey.for_experiment(seed), block_size=block, image_size=size)
        .encrypt(image)
        .numpy()
        .tobytes()
        for seed in range(1500)
    }
    assert math.log2(len(found)) == pytest.approx(key_space_bits(method, block_size=block, image_size=size))
