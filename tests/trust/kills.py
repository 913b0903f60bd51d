"""Processes that are killed at work, or stopped, or may not write: `python -m tests.trust.kills N M FOLDER JOB ...`.

A job is done once, whole, for what it should give. Then N processes begin it, each in a folder of its own, and get
SIGKILL, which nothing can catch: one half at a random moment, the other at each of the calls that change a file, in
turn. M get SIGINT, as by Ctrl-C, in the same way. Then one begins it on a full disk, and one in a folder that is not
its own. After each, every file has to be whole; the job is done again, and has to give the same, with nothing left.

A server imports everything once, and each process is a fork of it: a hundred take a minute, not ten.
"""

import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from cmxlib import ConvMixer, Dataset, SecretKey, TrainSettings, fit, paths
from cmxlib import __main__ as command
from cmxlib.book import chapters
from cmxlib.book.run import run_book
from cmxlib.files.models import opened
from cmxlib.files.pictures import recorded
from cmxlib.learn import data as cache
from cmxlib.learn.checkpoint import checksum, load_checkpoint
from cmxlib.study import records
from cmxlib.study.scales import Scale
from cmxlib.study.table import Table, record

from ..conftest import GOOD, make_notebook

KEY, NOBODY = SecretKey.for_experiment(3), 65534


def toy(n=24, size=8):
    """Noise of two classes."""
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    labels = torch.arange(n) % 2
    return Dataset("toy", images, labels, images.clone(), labels.clone(), ("a", "b"), (0.5,) * 3, (0.3,) * 3)


@dataclass(frozen=True)
class Job:
    """prepare, run: do it in the folder that the process is in. check: an error where a file is not whole. result:
    what the finished job gave, as a text."""

    run: object
    check: object
    result: object
    prepare: object = lambda: None


# -- a training ----------------------------------------------------------------------------------------------------


def model():
    torch.manual_seed(0)
    return ConvMixer(8, 1, 3, 2, 2)


SETTINGS = TrainSettings(epochs=4, batch_size=8, crop_padding=1)


def train(trained=None):
    return fit(trained or model(), toy(), SETTINGS, checkpoint="here", autocast=False, progress=False)


def whole_checkpoint():
    net = model()
    state = dict.fromkeys(("settings", "data", "model", "transform", "autocast")) | {"rows": []}
    load_checkpoint(Path("here"), net, torch.optim.AdamW(net.parameters(), fused=True), state)


def trained():
    net = model()
    rows = train(net).drop(columns="seconds").to_json()  # from the checkpoint: nothing is left to do
    assert sorted(os.listdir("here")) == [".lock", "epoch-004.safetensors", "state.json"]
    return f"{checksum(net.state_dict())} {rows}"


# -- a table of the study ------------------------------------------------------------------------------------------

UNITS = [{"n": n} for n in range(5)]
TABLE = Table(
    "toys",
    lambda scale: UNITS,
    lambda scale, unit: [{"measure": "square", "value": unit["n"] ** 2}, {"measure": "cube", "value": unit["n"] ** 3}],
    lambda scale, unit: {"dataset": "toy", "settings": {}, "seeds": 0, "n_images": 1},
)
SCALE = Scale("toy", toy(), {"patch_size": 4}, SETTINGS, 1)


def study():
    paths.ROOT = Path.cwd()
    record(TABLE, SCALE, say=lambda line: None)


def whole_rows():
    paths.ROOT = Path.cwd()
    for path in (Path.cwd() / "results").rglob("*.csv"):
        records.Recorded(path)


def rows():
    paths.ROOT = Path.cwd()
    found = records.read("toy", "toys")
    assert len(found) == 2 * len(UNITS) and not list(Path("results/toy/.toys.parts").glob("*.csv"))
    return found[["measure", "value", "n"]].to_json()


# -- a papermill batch ---------------------------------------------------------------------------------------------


def chapter():
    os.mkdir("chapters")
    Path("chapters", "01_one.ipynb").write_text(json.dumps(make_notebook(GOOD)))


def batch():
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            status = run_book("quick", folder=Path.cwd() / "chapters", build=Path.cwd() / "build")
    finally:
        forkserver._forkserver._stop()  # each run starts one of its own, which ends with it, as in a shell
    if status:
        raise OSError(said.getvalue())


def executed():
    """What the copies that are there say of their run."""
    for path in sorted(Path("build/notebooks").glob("[!.]*.ipynb")):
        yield path.name, [chapters.printed(cell) for cell in chapters.code_cells(chapters.load(path))]


def whole_copies():
    assert all(texts[-1] == "done at quick\n" for _, texts in executed())


def copies():
    assert sorted(os.listdir("build/notebooks")) == ["01_one.ipynb", "01_one.log"]
    return json.dumps(list(executed()))


# -- files ---------------------------------------------------------------------------------------------------------


def cmx(*arguments):
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
        status = command.main(arguments)
    if status:
        raise OSError(said.getvalue())


def files_of(folder):
    return " ".join(f"{path} {hash(path.read_bytes())}" for path in sorted(Path(folder).rglob("*")) if path.is_file())


def photos():
    KEY.save("my.key")
    os.mkdir("in")
    for n in range(8):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (64, 64, 3), np.uint8)).save(f"in/{n}.png")


def lock_photos():
    cmx("encrypt-images", "in", "out", "--key", "my.key", "--patch", "4", "--workers", "1")


def whole_photos():
    for path in Path().glob("out/*.png"):
        assert recorded(path) and Image.open(path).convert("RGB").getpixel((63, 63))


def weights():
    KEY.save("my.key")
    save_file({"a.weight": torch.ones(64, 3, 16, 16), "a.bias": torch.ones(64)}, "a.safetensors")
    shutil.copy("a.safetensors", "b.safetensors")


def lock_weights():
    options = ("--key", "my.key", "--patch", "16", "--norm", "imagenet", "--force")
    cmx("encrypt-model", "a.safetensors", "b.safetensors", *options)


def whole_weights():
    opened(Path("b.safetensors"))  # the old one or the new one
    assert load_file("b.safetensors")["a.weight"].shape == (64, 3, 16, 16)


def save_key():
    if not os.path.exists("my.key"):
        KEY.save("my.key")


def whole_key():
    assert not os.path.exists("my.key") or SecretKey.load("my.key") == KEY


def fill_cache():
    os.environ["CMX_CACHE"] = os.getcwd()
    assert cache._cached("toy", "origin", lambda: toy(200, 32)).fingerprint() == toy(200, 32).fingerprint()


def whole_cache():
    path = Path("toy.safetensors")
    assert not path.exists() or cache._read_cache(path, "origin") is not None


JOBS = {
    "training": Job(train, whole_checkpoint, trained),
    "study table": Job(study, whole_rows, rows),
    "papermill batch": Job(batch, whole_copies, copies, chapter),
    "encrypt-images": Job(lock_photos, whole_photos, lambda: files_of("out"), photos),
    "encrypt-model": Job(lock_weights, whole_weights, lambda: files_of("."), weights),
    "saving a key": Job(save_key, whole_key, lambda: files_of(".")),
    "data cache": Job(fill_cache, whole_cache, lambda: files_of(".")),
}

# -- killing -------------------------------------------------------------------------------------------------------

STOPPED = 130
CHANGES = ("open", "os.rename", "os.remove", "os.link", "os.chmod", "os.mkdir", "os.truncate", "tempfile.mkstemp")


def at_change(number, then):
    """Have the interpreter call ``then`` before the call of that number that changes a file."""
    left = [number]

    def hook(event, arguments):
        writes = event in CHANGES and (event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes:
            left[0] -= 1
            if left[0] < 0:
                then()

    sys.addaudithook(hook)
    return left


def fork(folder, work):
    """A process that does the work in the folder; it ends with 0, with 1 after an error, which is printed, or with
    STOPPED."""
    if pid := os.fork():
        return pid
    status = STOPPED
    try:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            work()
            status = 0
        except Exception as error:
            if "Interrupted; the same command" not in str(error):
                status = 1
                traceback.print_exc()
                sys.stderr.flush()
    finally:
        os._exit(status)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def done(folder, work, name):
    if status := ended(fork(folder, work)):
        raise AssertionError(f"{name} in {folder}: exit status {status}")


class Trials:
    """A job that is done again and again, each time in a new folder."""

    def __init__(self, name: str, where: Path):
        self.job, self.name, self.where = JOBS[name], name, where
        self.start = where / "start"
        self.start.mkdir(parents=True)
        done(self.start, self.job.prepare, "preparing")
        os.chdir(shutil.copytree(self.start, where / "warm"))  # what is imported at first would cost each fork seconds
        self.job.run()
        self.job.result()
        folder, begun = self.fresh(), time.perf_counter()
        done(folder, self.job.run, "doing it once")
        self.seconds = time.perf_counter() - begun
        self.expected = self._finished(folder)

    def fresh(self) -> Path:
        """A folder in which nothing has been done."""
        folder = self.where / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.start, folder))

    def finish(self, folder: Path) -> None:
        """Look at the files, do the rest, and compare what it gives."""
        done(folder, self.job.check, "looking at the files")
        if self._finished(folder) != self.expected:
            raise AssertionError(f"{self.name}: done again, it gave something else")

    def _finished(self, folder):
        result = self.where / "result"

        def work():
            self.job.run()
            result.write_text(self.job.result())
            assert not list(Path().rglob("*.cmx-tmp")), "a temporary file is left"

        done(folder, work, "doing the rest")
        return result.read_text()


def stop(trials: Trials, n: int, seed: int, how: signal.Signals) -> int:
    """Stop a job n times by a signal; how many of its calls change a file."""
    job, rng, counted = trials.job, random.Random(seed), trials.where / "changes"

    def count():
        left = at_change(10**9, None)
        job.run()
        counted.write_text(str(10**9 - left[0]))

    done(trials.fresh(), count, "counting")
    changes, stopped = int(counted.read_text()), 0
    while stopped < n:
        folder = trials.fresh()
        if stopped % 2:
            pid = fork(folder, job.run)
            time.sleep(rng.uniform(0, trials.seconds))
            os.kill(pid, how)
        else:
            number = stopped // 2 % changes if n > changes else rng.randrange(changes)

            def work(number=number):
                at_change(number, lambda: os.kill(os.getpid(), how))
                job.run()

            pid = fork(folder, work)
        status = ended(pid)
        if status not in (0, -how if how == signal.SIGKILL else STOPPED):
            raise AssertionError(f"{trials.name}: exit status {status}")
        stopped += status != 0
        trials.finish(folder)
    return changes


def refused(trials: Trials, forbid) -> str:
    """Do the job where the system refuses to write: the error in a sentence, or what was warned of."""
    folder, told = trials.fresh(), trials.where / "told"
    file = told.open("w")
    for path in folder.rglob("*"):
        if path.is_file():
            os.chown(path, NOBODY if forbid is nobody else -1, -1)

    def work():
        forbid()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                trials.job.run()
                file.write(" ".join(str(each.message) for each in warned))
            except Exception as error:
                file.write(paths.sentence(error)[:900])
            file.flush()

    done(folder, work, "being refused")
    assert not list(folder.rglob("*.cmx-tmp")), "a temporary file is left"
    trials.finish(folder)
    return told.read_text()


def full_disk():
    """From here on no file may have more than 1,000 bytes: what a full disk does, on any system, without one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def nobody():
    """From here on, where root began it, the process is of a user who owns none of the folders."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    else:
        os.chmod(".", 0o500)


def tried(name: str, n: int, m: int) -> None:
    """All of it with one job, in the folder that the process is in; found.json says what was found."""
    trials = Trials(name, Path.cwd() / "trials")
    found = {"changes": stop(trials, n, 0, signal.SIGKILL)}
    if name != "papermill batch":  # which answers Ctrl-C itself, and its files are written by processes of their own
        stop(trials, m, 1, signal.SIGINT)
        found |= {"full": refused(trials, full_disk), "closed": refused(trials, nobody)}
    Path(trials.where, "../found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # its thread could hold a lock while this process is forked
    records.commit()
    n, m, where, *names = sys.argv[1:]
    found = {}
    for name in names:
        folder = Path(where, name)
        folder.mkdir()
        pid = fork(folder, functools.partial(tried, name, int(n), int(m)))
        found[name] = None if ended(pid) else json.loads((folder / "found.json").read_text())
    print(json.dumps(found))
