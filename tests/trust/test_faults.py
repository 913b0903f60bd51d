"""Kills, full disks, folders that nobody may write to, Ctrl-C: files stay old or become new, what was done is kept, and
whoever asked gets one sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from PIL import Image

from cmxlib.paths import ROOT

from . import kills
from .counts import COUNTS, FULL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, limits and signals as Linux has them")
KILLS = 17 if FULL else 2


@pytest.fixture(scope="module")
def trials():
    """What `tests.trust.kills` says of each job, in a folder that everybody may enter."""
    folder = tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o755)
    try:
        command = [sys.executable, "-m", "tests.trust.kills", str(KILLS), folder, *kills.JOBS]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=5400)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("job", kills.JOBS)
def test_a_killed_job_goes_on_and_gives_the_same(job, trials):
    found = trials[job]
    assert found["killed"] == KILLS and found["changes"] > 2
    COUNTS["kills"] += KILLS
    COUNTS[f"kills: {job}"] = KILLS


FULL_DISK = {
    "training": "epoch-001.safetensors: File too large.",
    "study table": "toys.csv: File too large.",
    "encrypt-images": "out/0.png: File too large.",
    "encrypt-model": "b.safetensors: File too large.",
    "data cache": "could not be kept in",
}


@pytest.mark.parametrize("job", FULL_DISK)
def test_a_full_disk_loses_nothing(job, trials):
    said = trials[job]["full"]
    assert FULL_DISK[job] in said and "File too large" in said, said
    COUNTS["full disks"] += 1


CLOSED = {
    "training": "here cannot be written (Permission denied): choose another one",
    "study table": "results: Permission denied.",
    "encrypt-images": "cmx: out: Permission denied.",
    "encrypt-model": "Permission denied.",
    "saving a key": "my.key: Permission denied.",
    "data cache": "could not be kept in",
}


@pytest.mark.parametrize("job", CLOSED)
def test_a_closed_folder_is_told(job, trials):
    said = trials[job]["closed"]
    assert CLOSED[job] in said and "Permission denied" in said, said
    COUNTS["closed folders"] += 1


@pytest.fixture
def photos(key):
    """A folder of images that takes a command seconds."""
    os.mkdir("in")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    for n in range(200):
        Image.fromarray(noise).save(f"in/{n:03}.png", compress_level=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_the_shell_gets_a_sentence_and_the_rest_is_done_next_time(workers, photos, cmx):
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", str(workers))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-m", "cmxlib", *command], **pipes)
    while not os.path.isdir("out") or len(os.listdir("out")) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the command
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130 and not out
    assert said == "cmx: Interrupted; the same command can be given again.\n"
    before = {name: os.stat(f"out/{name}").st_mtime_ns for name in os.listdir("out") if name.endswith(".png")}
    assert 5 < len(before) < 200
    status, found, _ = cmx(*command, "--json")
    assert status == 0 and found["done before"] == len(before) and found["encrypted"] == 200 - len(before)
    assert all(os.stat(f"out/{name}").st_mtime_ns == made for name, made in before.items())
    assert sorted(os.listdir("out")) == sorted(os.listdir("in"))
    COUNTS["interrupts"] += 1


def test_without_a_home_folder_files_can_be_encrypted(photos):
    environment = {
        name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
    }
    command = [
        sys.executable,
        "-m",
        "cmxlib",
        "encrypt-images",
        "in/000.png",
        "a.png",
        "--key",
        "my.key",
        "--patch",
        "4",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and os.path.exists("a.png"), done.stderr
