"""Many units at once: on the cores of a machine, on a cluster, or in the shares of a job array.

    with cluster(workers=2) as client:      # or cluster("tcp://node1:8786")
        failures = sweep(grid, client)

Dask's `distributed` schedules; what is recorded, skipped and locked is as in `table`. All processes share the folder of
the checkout and that of the cache: a worker writes a unit's part itself, and reads data and models from files there, so
that a task holds no more than a unit.
"""

import functools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..paths import cache_dir, need
from .scales import Scale, trained_model
from .table import Table, ask_for_what_it_reads, collect, measured, missing, units_of

if TYPE_CHECKING:
    from distributed import Client

Grid = list[tuple[Scale, tuple[Table, ...]]]  # scales, and the tables to record at each


WAIT = 30  # seconds, for a first worker
SPEAKS = 10  # seconds, for a scheduler to begin to speak


class SchedulerLost(RuntimeError):
    """The scheduler of a sweep went away. What was measured is recorded."""


def _check_answers(scheduler):
    """OSError where nothing at an address begins to speak, as a scheduler does: a client would wait for ever."""
    kind, _, place = scheduler.rpartition("://")
    host, _, port = place.rpartition(":")
    if kind in ("", "tcp"):
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SPEAKS) as connection:
            if not connection.recv(1):
                raise ConnectionError("it was closed")


@contextmanager
def cluster(scheduler: str = "", workers: int = 1) -> Iterator["Client"]:
    """A client of the scheduler at an address such as tcp://node1:8786, or of so many worker processes of this machine,
    which share its cores. OSError where no scheduler answers there, or one without workers."""
    distributed, config = need("distributed", "sweep"), need("dask.config", "sweep")
    if scheduler:
        if not re.fullmatch(r"([a-z]+://)?[^/\s]+:\d{1,5}", scheduler):
            raise ValueError(f"A scheduler's address is one such as tcp://node1:8786, but this is {scheduler!r}.")
        try:
            _check_answers(scheduler)
            client = distributed.Client(scheduler, timeout=10)
        except OSError as error:
            raise OSError(
                f"No scheduler answers at {scheduler}: start one there, by `dask scheduler`, or use --workers instead."
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=WAIT)
            except TimeoutError:
                raise OSError(
                    f"The scheduler at {scheduler} has no workers: start some, each by `dask worker {scheduler} "
                    "--nthreads 1` in the checkout."
                ) from None
            yield client
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = re.match("[1-9][0-9]{0,3}", os.environ.get("OMP_NUM_THREADS", ""))  # OpenMP takes "4,2", and more
    threads = min(max(1, cores // workers), int(asked[0]) if asked else cores)
    settings = {
        "distributed.nanny.pre-spawn-environ": {},  # which would change the environment of this process
        "distributed.worker.daemon": False,  # a unit may start processes, as a chapter does
        "distributed.scheduler.allowed-failures": 10,  # workers that may die over a unit before it counts as failed
    }
    env = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    how: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "memory_limit": None, "env": env}
    with config.set(settings):
        with _ctrl_c_for_this_process():
            made = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **how)
        with made, distributed.Client(made) as client:
            yield client


@contextmanager
def _ctrl_c_for_this_process():
    """Processes that are started here take no notice of Ctrl-C, which this one answers for all."""
    if threading.current_thread() is not threading.main_thread():  # where no answer can be changed
        yield
        return
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)


def sweep(grid: Grid, client: "Client", say: Callable[[str], None] = print) -> list[str]:
    """Measure the units that the tables of a grid lack, each as a task of its own, and collect the rows.

    A unit that fails is said, with its settings, and does not keep the others from being measured; one whose worker is
    lost is given to another. Timed units are measured while nothing else of the sweep runs. Returns what failed, one
    line each. SchedulerLost where the scheduler goes away.
    """
    run, here = _Run(client, say), isinstance(client.cluster, need("distributed", "sweep").LocalCluster)
    say(f"{len(client.scheduler_info(n_workers=-1)['workers'])} workers; to watch them: {client.dashboard_link}")
    try:
        for scale, tables in grid:
            for table in tables:
                if table.timed or table.reads:
                    run.wait()
                if table.reads and not run.may_begin(table, scale):
                    continue
                if not table.timed:
                    run.submit(table, scale, missing(table, scale))
                    continue
                for unit in missing(table, scale):  # in this process, with all cores, if this machine is the cluster
                    if here:
                        run.report(*attempt(unit, (table, scale)))
                    else:
                        run.submit(table, scale, [unit])
                        run.wait()
        run.wait()
    finally:
        for scale, tables in grid:
            for table in tables:
                collect(table, scale)
    return run.failures


def share(grid: Grid, k: int, n: int, say: Callable[[str], None] = print) -> list[str]:
    """The k-th of n shares of a sweep, k from 1 to n, in this process: every n-th unit of each table. Returns what
    failed, one line each.

    A table is collected by the share that completes it. Where n is above 1, timed tables are left out: other shares may
    run on the same machine.
    """
    run = _Run(None, say)
    for scale, tables in grid:
        for table in tables:
            if table.timed and n > 1:
                say(f"{table.name}: left out, for its times are measured alone: record it without --shard")
            elif run.may_begin(table, scale):
                for unit in units_of(table, scale)[k - 1 :: n]:
                    run.report(*attempt(unit, (table, scale)))
                if not missing(table, scale):
                    collect(table, scale)
    return run.failures


class _Run:
    """The tasks of a sweep that are on their way, and what has failed."""

    def __init__(self, client, say):
        self.client, self.say, self.failures = client, say, []
        self.pending, self.submitted, self.done, self.start = {}, 0, 0, time.perf_counter()

    def may_begin(self, table, scale):
        """Whether what a table reads is complete; else that is a failure."""
        try:
            ask_for_what_it_reads(table, scale)
        except ValueError as error:
            self.report(True, str(error))
            return False
        return True

    def submit(self, table, scale, units):
        """Make a task of each unit. Table and scale, and the training that units share, are tasks on which these
        depend: so they reach a worker once, and outlive its death."""
        if not units:
            return
        given = self.client.submit(_given, table, scale, pure=False)
        models = [table.trained(scale, unit) if table.trained else None for unit in units]
        trainings = {
            model: self.client.submit(_train, *model, pure=False) if model else None for model in dict.fromkeys(models)
        }
        trained = [trainings[model] for model in models]
        futures = self.client.map(attempt, units, [given] * len(units), trained, key=table.name, pure=False)
        self.pending |= {future: f"{table.name} {unit}" for future, unit in zip(futures, units, strict=True)}
        self.submitted += len(units)

    def wait(self):
        """Report each task as it ends, until none is left."""
        distributed = need("distributed", "sweep")
        try:
            for future in distributed.as_completed(list(self.pending)):
                what = self.pending.pop(future)
                if future.status == "error":  # what no unit raised: its model's training failed, or each worker died
                    error = future.exception()
                    self.report(True, f"{what} failed: {type(error).__name__}: {error}")
                else:
                    self.report(*future.result())
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            raise SchedulerLost(
                "The scheduler of the sweep went away; what was measured is recorded, and the same command goes on."
            ) from error

    def report(self, failed, line):
        self.done += 1
        if failed:
            self.failures.append(line)
        left = (time.perf_counter() - self.start) / self.done * (self.submitted - self.done)
        count = f"[{self.done}/{self.submitted}, {left:.0f} s left] " if self.submitted else ""
        if line:
            self.say(count + line)


# -- what a worker does --------------------------------------------------------------------------------------------

_ONE_AT_A_TIME = threading.Lock()  # a worker with several threads would mix up what units draw, and their times


def attempt(unit: dict, given: tuple[Table, Scale], trained: object = None) -> tuple[bool, str]:
    """Measure a unit: (whether it failed, a line on it; "" where it was recorded already)."""
    table, scale = given
    with _ONE_AT_A_TIME:
        _take_a_gpu()
        try:
            return False, measured(table, scale, unit)
        except Exception as error:
            return True, f"{table.name} {unit} failed: {type(error).__name__}: {error}"


def _given(table, scale):
    return table, scale


def _train(scale, seed):
    with _ONE_AT_A_TIME:
        _take_a_gpu()
        trained_model(scale, seed=seed, progress=False)


@functools.cache  # once in a process, which keeps the lock as long as it lives
def _take_a_gpu():
    """Compute on the first GPU of this machine that no other worker took, where there are several to choose from."""
    from filelock import FileLock, Timeout

    count = torch.cuda.device_count()
    for number in range(count if count > 1 else 0):
        lock = FileLock(cache_dir() / f".{socket.gethostname()}-gpu{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        torch.cuda.set_device(number)
        return lock
    return None
