"""Table `limits`: what the recording and the scheduling of a unit cost, and how many parts a table can have.

Each case runs in a process of its own, in a temporary checkout. Its units compute nothing, so that all that is measured
is what surrounds them: the lock, the part that is written at one stroke, and with ``processes`` above 0 the task of a
Dask cluster of so many workers on this machine. With 0, one process measures one unit after the other. Those of the
case "work" keep a core busy for a tenth of a second or so, always with the same, which shows how well workers share it.
In the case "shards", so many processes take a share of these each, as by `--shard`, without a scheduler: that is all
that the cores give, for those of a virtual machine may share much.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import paths
from .scales import Scale, named
from .sweep import cluster, share, sweep
from .table import Table, collect, measured, progress

N_UNITS, N_WORK, N_PARTS = 1000, 100, 100_000


def _cases(scale: Scale):
    for case, n in (("units", N_UNITS), ("work", N_WORK)):
        yield from ({"case": case, "processes": processes, "n": n} for processes in (0, 1, 2))
    yield from ({"case": "shards", "processes": processes, "n": N_WORK} for processes in (1, 2))
    yield {"case": "parts", "processes": 0, "n": N_PARTS}


def _measure(scale: Scale, unit: dict) -> Iterator[dict]:
    """start_seconds, of the first units of Dask's workers, and seconds_a_unit of others; status_seconds, to count what
    is recorded; of parts also bytes_a_unit; collect_seconds, to make one table of all; and peak_megabytes of the
    process."""
    with tempfile.TemporaryDirectory() as folder:
        preload = Path(folder, "preload.py")  # for Dask's workers, which are processes of their own
        preload.write_text(f"import pathlib\nfrom cmxlib import paths\npaths.ROOT = pathlib.Path({folder!r})\n")
        env = os.environ | {"CMX_CACHE": folder, "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(preload)])}
        command = [sys.executable, "-c", f"from cmxlib.study.limits import main; main({folder!r}, **{unit})"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    yield from ({"measure": name, "value": value} for name, value in json.loads(done.stdout.splitlines()[-1]).items())


def main(folder: str, case: str, processes: int, n: int) -> None:
    """Measure one case in a folder that stands for the checkout, and print what was found as JSON."""
    import resource  # which not every system has, and all tables are imported with this one

    paths.ROOT = Path(folder)
    scale, measure = replace(named("quick"), name="limits"), _work if case in ("work", "shards") else _one
    table = Table("empty", functools.partial(_empty, n), measure, _nothing)
    start, found = time.perf_counter(), {}
    if case == "shards":
        shares = [
            multiprocessing.get_context("fork").Process(
                target=share, args=([(scale, (table,))], 1 + k, processes, _quiet)
            )
            for k in range(processes)
        ]
        for process in shares:
            process.start()
        for process in shares:
            process.join()
    elif processes:
        with cluster(workers=processes) as client:
            client.wait_for_workers(processes)
            first = Table("first", functools.partial(_empty, 8 * processes), _one, _nothing)
            start = time.perf_counter()  # a worker's first unit imports torch and more
            failures = sweep([(scale, (first,))], client, _quiet)
            found = {"start_seconds": time.perf_counter() - start}
            start = time.perf_counter()
            failures += sweep([(scale, (table,))], client, _quiet)
            assert not failures, failures[0]
    else:
        for unit in table.units(scale):
            measured(table, scale, unit)
    found |= {"seconds_a_unit": (time.perf_counter() - start) / n}
    parts = list(Path(folder).rglob("*.csv"))
    start = time.perf_counter()
    assert progress(table, scale).recorded == n
    found |= {"status_seconds": time.perf_counter() - start}
    if case == "parts":
        found |= {"bytes_a_unit": sum(part.stat().st_size for part in parts) / n}
        start = time.perf_counter()
        collect(table, scale)
        found |= {"collect_seconds": time.perf_counter() - start}
        found |= {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    print(json.dumps(found))


def _quiet(line):
    pass


def _empty(n, scale):
    return ({"a": a} for a in range(n))


def _one(scale, unit):
    yield {"measure": "nothing", "value": 0.0}


def _work(scale, unit):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)
    return _one(scale, unit)


def _nothing(scale, unit):
    return {"dataset": "none", "settings": {}, "seeds": 0, "n_images": 0}


LIMITS = Table("limits", _cases, _measure, _nothing, timed=True, left_out=("quick", "small"))
