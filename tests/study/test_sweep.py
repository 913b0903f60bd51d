"""Sweeps: the same rows as one process measures, whatever fails or is killed on the way."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("distributed")
import dask.config

from cmxlib import Dataset, TrainSettings, paths
from cmxlib.book.run import run_book
from cmxlib.study import limits, records
from cmxlib.study.limits import LIMITS
from cmxlib.study.scales import SCALES, trained_model
from cmxlib.study.sweep import SchedulerLost, cluster, share, sweep
from cmxlib.study.table import Table, missing, progress, record
from tests.conftest import GOOD
from tests.study.conftest import ATTACK, striped


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A checkout and a cache of this module's own, which each worker is told of before it begins."""
    home = tmp_path_factory.mktemp("home")
    (home / "preload.py").write_text(
        f"import pathlib\nfrom cmxlib import paths\npaths.ROOT = pathlib.Path({str(home)!r})"
    )
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.worker.preload": [str(home / "preload.py")]}),
    ):
        patch.setattr(paths, "ROOT", home)
        patch.setenv("CMX_CACHE", str(home / "cache"))
        records.commit.cache_clear()  # of the checkout: the workers know this folder alone
        yield home
    records.commit.cache_clear()


@pytest.fixture(scope="module")
def local(home):
    with cluster(workers=2) as client:
        yield client


@pytest.fixture
def scale(request):
    """A scale of the test's own name: its rows are of no other test."""
    data = Dataset("toy", *striped(80), *striped(40), tuple("0123456789"), (0.3,) * 3, (0.2,) * 3)
    name = request.node.name.removeprefix("test_").partition("[")[0][:60]
    train = TrainSettings(epochs=1, batch_size=16, flip=False, crop_padding=1)
    model = {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 4}
    return dataclasses.replace(SCALES["quick"], name=name, dataset=data, model=model, train=train, attack=ATTACK)


def test_there_are_as_many_workers_as_were_asked_for_whatever_the_cores():
    with cluster(workers=(os.cpu_count() or 1) + 1) as client:
        client.wait_for_workers((os.cpu_count() or 1) + 1, timeout=30)  # an error, where they are fewer
    with cluster(workers=1) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1


def test_workers_share_the_cores_and_leave_the_environment_of_others_alone(local):
    import torch

    threads = local.run(lambda: (os.environ["OMP_NUM_THREADS"], torch.get_num_threads()))
    cores = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    assert set(threads.values()) == {(str(n), n) for n in [min(max(1, len(os.sched_getaffinity(0)) // 2), cores)]}
    assert "MKL_NUM_THREADS" not in os.environ  # which the benchmarks' processes would inherit


def over(scale, unit):
    return {"dataset": "none", "settings": {}, "seeds": 0, "n_images": 1}


def table(measure, n=12, **options):
    return Table(options.pop("name", "toy"), lambda scale: [{"a": a} for a in range(n)], measure, over, **options)


def note(scale, text):
    """A line of what really happened, whichever process it happened in."""
    with (paths.checkout() / f"{scale.name}.log").open("a") as file:
        file.write(f"{text}\n")


def noted(scale):
    path = paths.checkout() / f"{scale.name}.log"
    return path.read_text().splitlines() if path.exists() else []


def slowly(scale, unit):
    note(scale, f"{unit['a']} {os.getpid()}")
    time.sleep(0.3)
    yield {"measure": "m", "value": unit["a"] ** 2}


def failing_at_5(scale, unit):
    note(scale, unit["a"])
    if unit["a"] == 5 and "mended" not in noted(scale):
        raise ZeroDivisionError("of unit five")
    yield {"measure": "m", "value": unit["a"] ** 2}


def values(scale, name="toy"):
    rows = records.read(scale.name, name)
    return list(zip(rows.a, rows.value, strict=True))


SQUARES = [(a, a**2) for a in range(12)]


def test_a_failing_unit_is_named_and_stops_no_other(local, scale):
    said, failing = [], table(failing_at_5)
    failures = sweep([(scale, (failing,))], local, said.append)
    assert failures == ["toy {'a': 5} failed: ZeroDivisionError: of unit five"]
    assert values(scale) == [row for row in SQUARES if row[0] != 5]
    found = progress(failing, scale)
    assert (found.total, found.recorded, found.failed) == (12, 11, 1)
    assert (
        "2 workers" in said[0] and local.dashboard_link in said[0] and any("[12/12, 0 s left]" in line for line in said)
    )
    assert sorted(map(int, noted(scale))) == list(range(12))  # each was measured once
    note(scale, "mended")
    assert sweep([(scale, (failing,))], local, said.append) == []
    assert sorted(values(scale)) == SQUARES and progress(failing, scale).failed == 0
    assert sum(line == "5" for line in noted(scale)) == 2 and sum(line == "4" for line in noted(scale)) == 1


def test_rows_are_those_of_one_process(local, scale):
    """Tables of the book, with the training that they share."""
    from cmxlib.study.networks import KEYS, TRAINING

    flip = {"flip": scale.ciphers["flip"]}
    alone = dataclasses.replace(scale, name=f"{scale.name}_alone", n_wrong=2, ciphers=flip)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each worker has, for another number adds in another order
    for one in (TRAINING, KEYS):
        record(one, alone, lambda text: None)
    torch.set_num_threads(threads)
    assert sweep([(dataclasses.replace(alone, name=scale.name), (TRAINING, KEYS))], local, lambda text: None) == []
    own = ["scale", "seconds"]
    for name in ("training", "keys"):
        expected, found = (records.read(each, name).drop(columns=own) for each in (alone.name, scale.name))
        of_time = expected.measure == "seconds"
        assert found[~of_time].equals(expected[~of_time])


def with_a_model(scale, unit):
    found = list((paths.cache_dir() / "models").glob(f"{scale.name}-*-seed{unit['a'] % 2}.json"))
    trained_model(scale, seed=unit["a"] % 2, progress=False)
    yield {"measure": "m", "value": len(found)}


def test_units_that_share_a_model_share_one_training_that_comes_first(local, scale):
    sharing = table(with_a_model, trained=lambda scale, unit: (scale, unit["a"] % 2))
    assert sweep([(scale, (sharing,))], local, lambda text: None) == []
    assert values(scale) == [(a, 1) for a in range(12)]  # each found its model trained


def test_units_whose_model_cannot_be_trained_are_named(local, scale):
    lost = dataclasses.replace(scale, train=dataclasses.replace(scale.train, batch_size=100))
    sharing = table(with_a_model, n=2, trained=lambda scale, unit: (scale, 0))
    failures = sweep([(lost, (sharing,))], local, lambda text: None)
    assert sorted(line[:33] for line in failures) == [f"toy {{'a': {a}}} failed: ValueError: " for a in (0, 1)]
    assert "fewer than one batch of 100" in failures[0]


def when(scale, unit):
    start = time.time()
    time.sleep(0.05)
    note(scale, f"{start} {time.time()}")
    yield {"measure": "m", "value": 1}


def test_timed_units_run_alone_and_a_reader_waits_for_what_it_reads(local, scale):
    first, timed = table(when, name="first"), table(when, n=3, name="timed", timed=True)
    reader = table(
        lambda scale, unit: [{"measure": "m", "value": len(records.read(scale.name, "first"))}], reads=(first,)
    )
    assert sweep([(scale, (first, timed, reader))], local, lambda text: None) == []
    times = sorted(tuple(map(float, line.split())) for line in noted(scale))
    assert len(times) == 15 and all(end <= start for (_, end), (start, _) in itertools.pairwise(times[11:]))
    assert {value for _, value in values(scale)} == {12}
    broken = table(failing_at_5, name="broken")
    reader = dataclasses.replace(reader, name="never", reads=(broken,))
    failures = sweep([(scale, (broken, reader))], local, lambda text: None)
    assert (
        len(failures) == 2 and "The table never reads the rows of broken, of which 1 units are missing" in failures[1]
    )


def test_shares_of_a_job_array_make_the_table_together(home, scale):
    failing, said = table(failing_at_5), []
    grid = [(scale, (failing, table(when, name="timed", timed=True)))]
    assert share(grid, 2, 3, said.append) == []
    assert not records.table_path(scale.name, "toy").exists()  # it is collected when it is complete, in order
    assert share(grid, 1, 3, said.append) == []
    assert share(grid, 3, 3, said.append) == ["toy {'a': 5} failed: ZeroDivisionError: of unit five"]
    note(scale, "mended")
    assert share(grid, 3, 3, said.append) == []
    assert values(scale) == SQUARES and sum("timed: left out" in line for line in said) == 4


def test_chapters_are_run_by_the_same_workers(local, book, capsys):
    book.add("01_good")
    book.add("02_bad", [*GOOD[:3], ("code", "import os; raise KeyError('left')", (), ""), GOOD[-1]])
    assert run_book("quick", folder=book.path, build=book.build, client=local) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 chapters" in out and "done at quick" in out
    assert err.startswith("02_bad: cell [4] that begins 'import os; raise KeyError('left')': KeyError: 'left'")


# -- a scheduler and workers as processes of their own -----------------------------------------------------------------


@pytest.fixture
def processes(home):
    """(address, scheduler, workers) of a cluster as a group starts it: by command, on a port of this machine."""
    command, where = [sys.executable, "-m"], {"cwd": Path(__file__).parents[2], "stderr": subprocess.DEVNULL}
    file = home / f"scheduler{time.time()}.json"
    scheduler = [*command, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = [*command, "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    worker += ["--scheduler-file", str(file), "--preload", str(home / "preload.py")]
    started = [subprocess.Popen([*scheduler, "--scheduler-file", str(file)], **where)]
    started += [subprocess.Popen(worker, **where) for _ in range(2)]
    while not file.exists() or not file.read_text().endswith("}"):
        time.sleep(0.05)
    yield json.loads(file.read_text())["address"], started[0], started[1:]
    for process in started:
        process.kill()
        process.wait()


def kill_after(scale, lines, process):
    """Kill -9 a process as soon as so many units have begun, two of which are then under way."""

    def watch():
        while len(noted(scale)) < lines:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_sweep_outlives_a_worker_and_its_rows_outlive_the_scheduler(processes, scale):
    address, scheduler, workers = processes
    slow = table(slowly)
    with cluster(address) as client:
        client.wait_for_workers(2)
        client.run(missing, slow, scale)  # so that both have imported what they need, and begin together
        killer = kill_after(scale, 5, workers[0])
        assert sweep([(scale, (slow,))], client, lambda text: None) == []
        killer.join()
        begun = [line.split() for line in noted(scale)]
        assert {pid for _, pid in begun} == {str(worker.pid) for worker in workers}
        assert len(begun) <= 13 and values(scale) == SQUARES  # only the unit that was under way was begun twice

        other = dataclasses.replace(scale, name=f"{scale.name}_2")
        killer = kill_after(other, 3, scheduler)
        with pytest.raises(SchedulerLost, match="what was measured is recorded, and the same command goes on"):
            sweep([(other, (slow,))], client, lambda text: None)
        killer.join()
    quick = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with quick, pytest.raises(OSError, match=address), cluster(address):  # as a command is told, in a sentence
        pass
    assert 0 < len(missing(slow, other)) < 12
    assert share([(other, (slow,))], 1, 1, lambda text: None) == []
    assert sorted(values(other)) == SQUARES


def test_what_a_unit_costs_is_measured():
    """In a process of its own, as each case of the table is, and those of Dask's workers."""
    rows = LIMITS.measure(SCALES["quick"], {"case": "units", "processes": 1, "n": 20})
    found = {row["measure"]: row["value"] for row in rows}
    assert 0 < found["seconds_a_unit"] < 5 and 0 < found["status_seconds"] < 5


@pytest.mark.parametrize(("case", "n"), [("work", 3), ("parts", 30)])
def test_what_a_unit_costs_one_process_is_measured(case, n, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "ROOT", paths.ROOT)  # which the case changes
    monkeypatch.setenv("CMX_CACHE", str(tmp_path))
    limits.main(str(tmp_path), case, 0, n)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < found["seconds_a_unit"] < 5 and 0 < found["status_seconds"] < 5
    if case == "parts":
        assert 100 < found["bytes_a_unit"] < 2000 and found["collect_seconds"] > 0 and found["peak_megabytes"] > 50
