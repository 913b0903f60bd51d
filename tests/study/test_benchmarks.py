"""The benchmarks run, and their reference is what it says: torch's own modules, in a process without cmxlib."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from cmxlib import ConvMixer, PatchCipher, SecretKey
from cmxlib.study import records, reference
from cmxlib.study.benchmarks import BENCHMARKS, turns
from cmxlib.study.scales import SCALES
from cmxlib.study.table import record


def test_every_case_is_measured(toy):
    scale = SCALES["quick"]
    cases = {unit["case"]: unit for unit in BENCHMARKS.units(scale)}  # one unit of each
    table = dataclasses.replace(BENCHMARKS, units=lambda scale: list(cases.values()))
    record(table, scale, lambda text: None)
    rows = records.read("quick", "benchmarks")
    assert set(rows.case) == {"rates", "start-up", "layer", "step", "evaluation", "epoch", "encryption", "memory"}
    assert (rows.value > 0).all() and (rows[rows.measure == "seconds"].value < 30).all()
    sides = rows[~rows.case.isin(["rates", "start-up"])].groupby("case").contender.apply(set)
    assert all({"cmxlib", "stock"} <= found for found in sides)


def test_the_reference_never_imports_cmxlib():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print([n for n in sys.modules if n.startswith('cmxlib')])"
    done = subprocess.run([sys.executable, "-P", "-c", code, reference.__file__], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_reference_is_of_the_same_function():
    model = ConvMixer(8, 2, reference.KERNEL, 4).eval()
    plain = reference.convmixer(8, 2, 4).eval()
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in model.parameters())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert ours.shape == theirs.shape
        theirs.data.copy_(ours)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_plain_encryption_shuffles_and_flips_each_block():
    torch.manual_seed(0)
    images = reference.random_images(2)
    torch.manual_seed(0)
    (found,) = reference.encryption(2, 1)()
    back, cipher = found.sort(), PatchCipher(SecretKey.for_experiment(0))
    assert found.shape == images.shape and back is not None
    values = torch.minimum(found, 1 - found).sort(dim=-1).values.sum()
    ours = cipher.encrypt(images.float() / 255)
    assert torch.isclose(values, torch.minimum(ours, 1 - ours).sum(), rtol=1e-4)


def test_a_contender_that_does_not_start_is_named(capfd):
    with pytest.raises(ChildProcessError, match="benchmark no such case"):
        turns({"stock": ("stock", "no such case", {})}, 1)
