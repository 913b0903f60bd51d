import os
import pickle
import stat
from collections import Counter

import numpy as np
import pytest

from cmxlib import SecretKey


@pytest.fixture
def key():
    return SecretKey.for_experiment(7)


# Golden vectors: whoever saved a key must be able to decrypt with any later version, on any machine.
def test_golden_stream(key):
    assert key.stream(16, purpose="test").hex() == "4a6a18a83a2e5548242160316cc4e344"


def test_golden_permutation(key):
    assert key.permutation(12, purpose="shuffle").tolist() == [10, 5, 0, 6, 11, 2, 9, 4, 1, 3, 7, 8]


def test_golden_bits(key):
    assert key.bits(12, purpose="flip").astype(int).tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 1]


def test_golden_half(key):
    assert key.half(12, purpose="NP").astype(int).tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1]


def test_golden_subkey(key):
    assert key.subkey("a").permutation(6, purpose="shuffle").tolist() == [3, 4, 0, 1, 5, 2]


def test_golden_orthogonal(key):
    expected = [
        [0.9379715744342827, -0.1783443258448068, 0.2973257926790643],
        [-0.332348175131794, -0.7067708929318359, 0.6245154885116152],
        [-0.098762422205204, 0.6845934606343361, 0.7222034184472299],
    ]
    np.testing.assert_allclose(key.orthogonal(3, purpose="orthogonal"), expected, rtol=0, atol=1e-12)


def test_golden_passphrase():
    key = SecretKey.from_passphrase("correct horse", salt="battery staple")
    assert key.permutation(12, purpose="shuffle").tolist() == [5, 2, 1, 6, 8, 4, 7, 11, 0, 3, 10, 9]
    assert key == SecretKey.from_passphrase("correct horse", salt=b"battery staple")
    assert key != SecretKey.from_passphrase("correct horse", salt=b"battery stable")


def test_draws_are_separated_by_purpose_size_and_key(key):
    assert key.stream(32, purpose="a") != key.stream(32, purpose="b")
    assert key.permutation(48, purpose="a").tolist() != key.permutation(48, purpose="b").tolist()
    assert key.permutation(48, purpose="a")[:12].tolist() != key.permutation(12, purpose="a").tolist()
    assert (
        key.permutation(48, purpose="a").tolist() != SecretKey.for_experiment(8).permutation(48, purpose="a").tolist()
    )
    assert key.subkey("a") != key.subkey("b")


def test_permutations_are_uniform():
    # 6,000 permutations of three things: each of the six is expected 1,000 times. The chi-squared statistic with 5
    # degrees of freedom passes 20.5 in 1 of 1,000 honest generators; the keys are fixed, so this never flickers.
    seen = Counter(
        tuple(SecretKey.for_experiment(seed).permutation(3, purpose="uniform").tolist()) for seed in range(6000)
    )
    assert len(seen) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in seen.values()) < 20.5


def test_bits_are_fair_and_half_is_exact(key):
    assert abs(key.bits(100_000, purpose="x").mean() - 0.5) < 0.005  # three standard deviations
    assert key.half(101, purpose="x").sum() == 50


def test_orthogonal_is_orthogonal_with_both_signs_of_determinant():
    matrices = [SecretKey.for_experiment(seed).orthogonal(5, purpose="x") for seed in range(20)]
    for q in matrices:
        np.testing.assert_allclose(q @ q.T, np.eye(5), atol=1e-13)
    assert {round(np.linalg.det(q)) for q in matrices} == {-1, 1}


def test_generated_keys_differ():
    assert SecretKey.generate() != SecretKey.generate()


def test_repr_says_what_it_is_and_no_more(key):
    assert "experiments only" in repr(key)
    fresh = SecretKey.generate()
    assert fresh._secret.hex() not in repr(fresh) and repr(fresh._secret) not in repr(fresh)


@pytest.mark.parametrize("key", [SecretKey.for_experiment(1), SecretKey.generate()])
def test_save_and_load(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    assert SecretKey.load(path) == key
    assert repr(SecretKey.load(path)) == repr(key)
    assert os.listdir(tmp_path) == ["my.key"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_save_never_replaces_a_key(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    with pytest.raises(FileExistsError, match="exists already"):
        SecretKey.generate().save(path)
    assert SecretKey.load(path) == key
    assert os.listdir(tmp_path) == ["my.key"]


def test_load_refuses_every_truncation(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"my\.key is not a complete cmxlib key file"):
            SecretKey.load(path)


def test_load_refuses_alteration_and_shows_no_secret(key, tmp_path):
    path = tmp_path / "my.key"
    key.save(path)
    secret = key._secret.hex()
    altered = ("0" if secret[0] != "0" else "1") + secret[1:]
    path.write_text(path.read_text().replace(secret, altered))
    with pytest.raises(ValueError, match="damaged") as caught:
        SecretKey.load(path)
    assert altered not in str(caught.value)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="not a complete"):
        SecretKey.load(path)


def test_load_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        SecretKey.load(tmp_path / "none.key")


def test_a_copy_is_the_same_key(key):
    assert pickle.loads(pickle.dumps(key)) == key and hash(key) == hash(SecretKey.for_experiment(7))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SecretKey(b"short", "generated"),
        lambda: SecretKey.from_passphrase("", salt=b"12345678"),
        lambda: SecretKey.from_passphrase("words", salt=b"1234567"),
        lambda: SecretKey.for_experiment(-1),
    ],
)
def test_bad_input_is_refused(make):
    with pytest.raises(ValueError):
        make()
