"""Kills, full disks, folders that nobody may write to, Ctrl-C: files stay old or become new, what was done is kept, and
whoever asked gets one sentence."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cmxlib import paths
from cmxlib.paths import ROOT
from cmxlib.study import records

from . import kills
from .counts import COUNTS, FULL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, limits and signals as Linux has them")
KILLS, STOPS = (17, 10) if FULL else (2, 2)


# Each kernel takes seconds: in make test one batch is killed, by tests/book/test_run.py.
JOBS = [job for job in kills.JOBS if FULL or job != "papermill batch"]


@functools.cache
def all_trials():
    """What `tests.trust.kills` says, in a folder that everybody may enter; and what it printed of errors."""
    folder = tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o755)
    try:
        command = [sys.executable, "-m", "tests.trust.kills", str(KILLS), str(STOPS), folder, *JOBS]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stderr
    finally:
        shutil.rmtree(folder)


def trials(job):
    found, said = all_trials()
    assert found[job], said[-3000:]
    return found[job]


@pytest.mark.parametrize("job", JOBS)
def test_a_killed_job_goes_on_and_gives_the_same(job):
    found = trials(job)
    assert found["changes"] > 2
    COUNTS["kills"] += KILLS
    COUNTS[f"kills: {job}"] = KILLS
    COUNTS["interrupts"] += STOPS * ("full" in found)


FULL_DISK = {
    "training": "epoch-001.safetensors: File too large: raise the limit",
    "study table": "toys.csv: File too large: raise the limit",
    "encrypt-images": "out/0.png: File too large: raise the limit",
    "encrypt-model": "b.safetensors: File too large: raise the limit",
    "data cache": "could not be kept in",
}


@pytest.mark.parametrize("job", FULL_DISK)
def test_a_full_disk_loses_nothing(job):
    said = trials(job)["full"]
    assert FULL_DISK[job] in said and "File too large" in said, said
    COUNTS["full disks"] += 1


CLOSED = {
    "training": "here cannot be written (Permission denied): choose another one",
    "study table": "results: Permission denied: ask its owner",
    "encrypt-images": "cmx: out: Permission denied: ask its owner",
    "encrypt-model": "Permission denied: ask its owner",
    "saving a key": "my.key cannot be written: Permission denied; name a file",
    "data cache": "could not be kept in",
}


@pytest.mark.parametrize("job", CLOSED)
def test_a_closed_folder_is_told(job):
    said = trials(job)["closed"]
    assert CLOSED[job] in said and "Permission denied" in said, said
    COUNTS["closed folders"] += 1


@pytest.fixture
def photos(key):
    """A folder of images that takes a command seconds."""
    os.mkdir("in")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    for n in range(200):
        Image.fromarray(noise).save(f"in/{n:03}.png", compress_level=0)


def started(*command, **how):
    """A program in a process of its own, whose standard error is kept, and in a group of its own, as a shell makes."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *command]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True, **how)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_in_the_shell_gets_a_sentence_and_the_rest_is_done_next_time(workers, photos, cmx):
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", str(workers))
    process = started("cmxlib", *command, stdout=subprocess.PIPE)
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


@pytest.mark.skipif(os.name != "posix", reason="groups of processes are POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", [0, 0.1, 0.25, 0.5])
def test_a_command_that_is_told_twice_to_stop_while_its_workers_start_says_it_once(wait, how, photos):
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", "2")
    with started("cmxlib", *command) as process:
        while not os.path.isdir("out"):  # which is made just before
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(wait)
        for _ in range(2):
            os.killpg(process.pid, how)
        said = process.communicate(timeout=30)[1]  # which ends with the last process that holds it
    word = "Interrupted" if how == signal.SIGINT else "Terminated"
    stopped = (130, f"cmx: {word}; the same command can be given again.\n")
    done = (0, "") if len(os.listdir("out")) == 200 else stopped  # on a quick machine
    assert (process.returncode, said) in (stopped, done)
    # SIGTERM ends a worker where it stands: the next run sweeps what it leaves.
    assert how == signal.SIGTERM or not any(name.endswith("cmx-tmp") for name in os.listdir("out"))
    COUNTS["interrupts"] += 1


@pytest.mark.skipif(os.name != "posix", reason="groups of processes are POSIX")
@pytest.mark.parametrize("wait", [1, 4])
def test_ctrl_c_twice_in_a_training_shows_no_traceback(wait, tmp_path):
    """Where torch is still being imported, nothing is said."""
    asked = "--dataset fontdigits --epochs 500 --dim 64 --depth 2 --out m".split()
    with started("cmxlib.learn.train", *asked, cwd=tmp_path) as process:
        time.sleep(wait)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    assert process.returncode < 0 or said.splitlines()[-1].startswith("cmxlib.learn.train: ")
    COUNTS["interrupts"] += 1


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no such kill")
def test_ctrl_c_after_the_sentence_shows_no_traceback():
    """While a program that was interrupted ends, which takes torch a moment."""
    code = "import os, signal; from cmxlib.paths import told\ndef stop(): raise KeyboardInterrupt\n"
    code += "told(stop); os.kill(os.getpid(), signal.SIGINT); print('ended')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("ended\n", "cmx: Interrupted; the same command can be given again.\n")


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


# -- memory that runs out ------------------------------------------------------------------------------------------

SHORT = """
import resource, sys
import torch
from cmxlib import ConvMixer, TrainSettings, fit, logits
from cmxlib import __main__ as command
from cmxlib.files import folders, models
from tests.trust.kills import toy

torch.set_num_threads(1)
fit(ConvMixer(8, 1, 3, 1, 2), toy(4), TrainSettings(1, 2, crop_padding=0), progress=False)  # imports what it needs
model, data = ConvMixer(256, 1, 3, 1, 2), toy(256, 32)
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 64 * 2**20,) * 2)
for work in (
    lambda: fit(model, data, TrainSettings(2, 256, crop_padding=0), checkpoint="here", progress=False),
    lambda: logits(model, data.train_images, **data.norm),
):
    try:
        work()
    except MemoryError as error:
        print(error)
for arguments in sys.argv[1:]:
    print(command.main(arguments.split()), flush=True)
"""


def test_where_memory_runs_out_a_sentence_says_what_to_do(key):
    """In a process that may not have 64 MiB more; and nothing is taken for damaged, which could be deleted then."""
    Image.fromarray(np.zeros((4096, 4096, 3), np.uint8)).save("a.png")
    np.save("a.npy", np.zeros((1, 3, 4096, 4096), np.float32))
    state = {"a.weight": torch.zeros(64, 3, 16, 16), "a.bias": torch.zeros(64), "rest": torch.zeros(2**25)}
    torch.save(state, "a.pt")
    save_file(state, "a.safetensors")
    files = [f"encrypt-images {name} b.{name[2:]} --key my.key --patch 4" for name in ("a.png", "a.npy")]
    models = [
        f"encrypt-model {name} b.{name[2:]} --key my.key --norm imagenet --patch 16"
        for name in ("a.pt", "a.safetensors")
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SHORT, *files, *models]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    rest = "or choose a smaller model or scale."
    assert done.stdout.splitlines() == [
        f"There is not enough memory for training: lower batch_size, which is 256, {rest}",
        f"There is not enough memory for the logits: lower batch_size, which is 500, {rest}",
        *["1"] * 4,
    ], done.stderr
    images, model = "give smaller images, with --resize where", "close other programs, or use a machine with more"
    for said, way_out in zip(done.stderr.splitlines(), (images, images, model, model), strict=True):
        assert said.startswith(f"cmx: There is not enough memory for this: {way_out}")
    assert not [name for name in os.listdir() if name.startswith("b.")]
    COUNTS["out of memory"] += 6


# -- an output that nobody reads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["key show my.key", "counts"])
def test_a_closed_output_ends_a_command_in_silence(command, key):
    process = subprocess.Popen(
        [sys.executable, "-m", "cmxlib", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


UNSAID = (
    "{}: What it says could not be written ({}); the files that it wrote are there. Give its standard output another "
    "place.\n"
)


def test_a_full_or_closed_output_is_told(key):
    command = [sys.executable, "-m", "cmxlib", "key", "show", "my.key"]
    for unbuffered, asked in (("", command), ("1", command), ("1", [*command, "--help"])):
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with open("/dev/full", "w") as full:
            process = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
        assert process.returncode == 1
        assert process.stderr == UNSAID.format("cmx", "No space left on device")
    with open("/dev/full", "w") as full:  # as a training does at its end
        other = [sys.executable, "-c", "from cmxlib.paths import told; told(lambda: print(1), 'other')"]
        process = subprocess.run(other, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.stderr == UNSAID.format("other", "No space left on device")
    with open(os.devnull) as read_only:
        process = subprocess.run(command, stdout=read_only, stderr=subprocess.PIPE, text=True)
    assert process.stderr == UNSAID.format("cmx", "Bad file descriptor")
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    process = subprocess.run(closed, stderr=subprocess.PIPE, text=True)
    assert process.returncode == 1 and process.stderr.startswith("cmx: The output is closed")


# -- a worker that dies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("always", [False, True])
def test_a_worker_that_dies_is_told_and_its_files_are_tried_once_more(always, key, cmx, monkeypatch):
    """A worker reads a file that kills it, as by the system for want of memory: once, or each time."""
    os.mkdir("in")
    for n in range(100):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(f"in/{n:03}.png")
    with open("sitecustomize.py", "w") as file:
        file.write(DEADLY.format(always=always))
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", "2")
    path = os.pathsep.join((os.getcwd(), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "cmxlib", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=200,
    )
    first, *rest = done.stderr.splitlines()
    assert re.fullmatch(r"cmx: A worker process died: the \d+ files that are left are tried once more\.", first), done
    if always:
        assert done.returncode == 1 and len(rest) == 1 and "died again, at in/" in rest[0] and "--workers" in rest[0]
        os.unlink("sitecustomize.py")
        assert cmx(*command)[0] == 0
    else:
        assert done.returncode == 0 and not rest
    assert sorted(os.listdir("out")) == sorted(os.listdir("in"))
    COUNTS["workers"] += 1


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_process_of_a_command_that_is_stopped_lives_on(how, key):
    """Its workers, the server that forks them and the tracker of resources share its output, which closes last."""
    os.mkdir("in")
    for n in range(200):
        Image.fromarray(np.full((600, 600, 3), n, np.uint8)).save(f"in/{n:03}.png")
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", "2")
    with started("cmxlib", *command) as process:
        while not os.path.exists("out") or not any(name.endswith(".png") for name in os.listdir("out")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(getattr(signal, how))
        said = process.communicate(timeout=20)[1]
    assert process.returncode == (-signal.SIGKILL if how == "SIGKILL" else 130)
    assert how == "SIGKILL" or (said.endswith("; the same command can be given again.\n") and said.count("\n") == 1)
    assert len(os.listdir("out")) < 200


DEADLY = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("in/050.png"):
        if {always} or not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""


# -- clocks that jump, and locks of the dead -----------------------------------------------------------------------

TIMES = [0.0, 4e9]  # 1970 and 2096: what a file says that was written while the clock stood so


@pytest.mark.parametrize("time", TIMES)
def test_a_sweep_asks_who_is_alive_and_not_the_clock(time, tmp_path):
    with paths.replacing(tmp_path / "a") as file:
        file.write(b"half")
        (living,) = tmp_path.iterdir()
        dead = tmp_path / ".b.0123.cmx-tmp"
        dead.touch()
        for each in (living, dead, tmp_path):
            os.utime(each, (time, time))
        paths.sweep(tmp_path)
        assert living.exists() and not dead.exists()
    assert (tmp_path / "a").read_bytes() == b"half"
    COUNTS["clocks"] += 1


HOLDS = """
import sys, time
from pathlib import Path
from cmxlib.study.records import locked
lock = locked(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("time", TIMES)
def test_a_lock_is_of_a_living_process_whatever_the_clock_says(time, tmp_path):
    """The lock of a batch and of a unit: held while its process lives, and free at once when that was killed."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "unit.csv")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"held\n"
        (lock,) = tmp_path.iterdir()
        os.utime(lock, (time, time))
        with pytest.raises(TimeoutError):
            records.locked(tmp_path / "unit.csv").acquire(timeout=0.2)
        process.kill()
    with records.locked(tmp_path / "unit.csv").acquire(timeout=1):
        COUNTS["clocks"] += 1


@pytest.mark.parametrize("time", TIMES)
def test_what_is_done_is_known_whatever_the_clock_says(time, key, cmx):
    """Images of the future are encrypted once; one that took the place of another is not taken for it, old as it is."""
    os.mkdir("in")
    for name in "ab":
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(f"in/{name}.png")
        os.utime(f"in/{name}.png", (time, time))
    np.save("in/c.npy", np.zeros((1, 3, 8, 8), np.uint8))
    os.utime("in/c.npy", (time, time))
    command = ("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--json")
    assert cmx(*command)[1]["encrypted"] == 3
    assert cmx(*command)[1]["done before"] == 3
    Image.fromarray(np.full((8, 8, 3), 5, np.uint8)).save("new.png")
    shutil.copy("new.png", "in/a.png")
    os.utime("in/a.png", (time + 1, time + 1))
    status, found, said = cmx(*command)
    assert status == 1 and found["done before"] == 2 and "out/a.png was not made of in/a.png as it is now" in said
    COUNTS["clocks"] += 1
