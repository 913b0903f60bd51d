"""The benchmarks run, and their reference is what it says."""

import os
import time

import pytest
import torch

from benchmarks import reference, timing
from benchmarks.__main__ import main
from benchmarks.rows import row
from cmxlib import PatchCipher, SecretKey
from cmxlib.learn.convmixer import ConvMixer
from cmxlib.study import records


def test_smoke(tmp_path, capsys):
    main(["--quick", "--save", str(tmp_path / "b.csv")])
    printed = capsys.readouterr().out
    rows = records._load(tmp_path / "b.csv")
    measures = {r["measure"] for r in rows}
    for start in (
        "layer",
        "training step",
        "epoch",
        "evaluation",
        "memory",
        "encryption",
        "a wrong key",
        "the command line",
    ):
        assert any(m.startswith(start) for m in measures) and start in printed
    assert all(r["met"] == "no GPU at hand" or float(r["value"]) >= 0 for r in rows)
    assert sum("GPU" in r["measure"] or "compilation" in r["measure"] for r in rows) >= 1


def test_goals():
    assert row("speed", 5.1, 5)["met"] == "yes" and row("speed", 4.9, 5)["met"] == "no"
    assert row("time", 5.1, 5, at_most=True)["met"] == "no" and row("time", 4.9, 5, at_most=True)["met"] == "yes"
    assert row("time", 5.1)["met"] is None


def test_the_reference_is_stock_and_of_the_same_function():
    model = ConvMixer(8, 1, 3, 4).eval()
    plain = reference.stock(model)
    assert type(plain) is torch.nn.Sequential
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_plain_encryption_is_the_same_encryption():
    cipher = PatchCipher(SecretKey.for_experiment(1))
    images = torch.rand(3, 3, 32, 32)
    plain = reference.encrypt(images, cipher.permutation, cipher.flipped, cipher.block_size)
    torch.testing.assert_close(plain, cipher.encrypt(images))


def test_in_turns_counts_every_call_but_the_first():
    calls = []
    found = timing.in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4 and set(found) == {"a", "b"}


def test_in_turns_apart_counts_every_call_but_the_first():
    found = timing.in_turns_apart({"a": (_sleeper, (0.2, 0.01)), "b": (_sleeper, (0.01, 0.05))}, 3)
    assert 0.01 <= found["a"] < 0.05 <= found["b"] < 0.2


def _sleeper(first, then):
    durations = iter([first])
    return lambda: time.sleep(next(durations, then))


@pytest.mark.skipif(os.name != "posix", reason="resource is a module of Unix")
def test_peak_memory_sees_an_array():
    assert 90 < timing.peak_memory("", "b = bytearray(100 << 20)") < 120
