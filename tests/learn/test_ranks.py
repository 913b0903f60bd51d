"""Training by two processes takes the steps of one, whichever is killed and however many go on."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cmxlib import fit
from tests.learn.test_train import SETTINGS as TOY
from tests.learn.test_train import toy_data, toy_model

DATA = toy_data()
# Nothing drawn but the order: then one process sees the images that the ranks see together.
SETTINGS = dataclasses.replace(TOY, epochs=3, rand_augment=0, crop_padding=0)


def model():
    return toy_model().double()  # in which rounding is far below what a wrong gradient would change


@pytest.fixture(scope="module")
def by_ranks(tmp_path_factory):
    """The folder of a training by two, of which one was killed on the way and both were started again."""
    folder = tmp_path_factory.mktemp("ranks") / "here"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "tests.learn.by_ranks", str(folder)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exitcode: -9" in done.stderr, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a training by one process."""
    folder = tmp_path_factory.mktemp("alone") / "here"
    fit(model(), DATA, SETTINGS, checkpoint=folder, progress=False)
    return folder


def same_training(folder, alone):
    """Weights, running statistics, and the optimizer's means of the gradients and of their squares."""
    one, other = (safetensors.torch.load_file(each / "epoch-003.safetensors") for each in (alone, folder))
    assert one.keys() == other.keys() and any("exp_avg_sq" in name for name in one)
    for name, tensor in one.items():
        assert torch.allclose(tensor.double(), other[name].double(), rtol=1e-6, atol=1e-9), name
    rows, others = (json.loads((each / "state.json").read_text())["rows"] for each in (alone, folder))
    for row, other in zip(rows, others, strict=True):
        for name in ("epoch", "lr", "train_loss", "train_accuracy", "test_accuracy"):
            assert row[name] == pytest.approx(other[name], rel=1e-6), name


def test_two_ranks_take_the_steps_of_one_process_though_one_is_killed_and_started_again(by_ranks, alone):
    seen = json.loads(by_ranks.with_suffix(".killed").read_text())
    assert seen == [16, *[8] * 8]  # the transform is probed with 16
    same_training(by_ranks, alone)


def test_another_number_of_ranks_goes_on(by_ranks, alone):
    """From what the killed one left."""
    left = by_ranks.with_suffix(".left")
    assert len(json.loads((left / "state.json").read_text())["rows"]) == 2
    fit(model(), DATA, SETTINGS, checkpoint=left, progress=False)
    same_training(left, alone)
