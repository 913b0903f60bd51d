"""One way to record: a table is declared once, and one runner measures what it lacks.

    table = Table("keys", units, measure, over)
    record(table, scale)        # measures every unit that results/<scale>/keys.csv lacks, and goes on where it stopped

Each unit's rows are written as one file, a *part*, at one stroke; when the run ends, the parts are collected into the
table in the order of the units. Rows that are there stay as they are, to the letter. `sweep` measures the same units
in many processes.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..learn.device import default_device
from ..lock import checks
from ..paths import write_text
from . import records
from .scales import Scale

MOST = 200_000  # units of a table at a scale


@dataclass(frozen=True)
class Table:
    """A table of `results/<scale>/`.

    name: of its file.
    units: scale -> the units, in the order of their rows: dicts of columns, by which a unit is known in the table.
    measure: (scale, unit) -> rows, dicts with "measure", "value" and further columns; those of the unit are added.
    over: (scale, unit) -> what the rows are measured over: n_images, and n_keys, seeds, settings where they are not
        those of ``measured_over``.
    timed: whether the values are times, so that nothing else should run beside it.
    left_out: scales of the book at which it is not measured.
    reads: tables whose rows at the same scale a unit reads; it is measured when these are complete.
    trained: (scale, unit) -> the scale and the seed of the trained model that the unit rests on. A sweep trains it
        first, once; where it is not said, the first unit that needs a model trains it, and the others wait.
    """

    name: str
    units: Callable[[Scale], Iterable[dict]]
    measure: Callable[[Scale, dict], Iterable[dict]]
    over: Callable[[Scale, dict], dict]
    timed: bool = False
    left_out: tuple[str, ...] = ()
    reads: tuple["Table", ...] = ()
    trained: Callable[[Scale, dict], tuple[Scale, int]] | None = None


def record(table: Table, scale: Scale, say: Callable[[str], None] = print) -> None:
    """Measure each unit of a table that is not recorded yet, and collect the rows. An interrupted run loses no unit.

    Where another process records the same table, each takes units that the other has not begun; a timed one waits.
    """
    ask_for_what_it_reads(table, scale)
    try:
        for wait in (True,) if table.timed else (False, True):
            left = missing(table, scale)
            if wait and left and not table.timed:
                say(f"Waiting for another process, which measures {len(left)} units of {table.name}.")
            for unit in left:
                if line := measured(table, scale, unit, wait):
                    say(line)
    finally:
        collect(table, scale)


def measured(table: Table, scale: Scale, unit: dict, wait: bool = True) -> str:
    """Measure a unit and write its rows as a part; a line that says so, or "" where it is recorded already, or where
    another process measures it and nobody wants to wait.

    It is checked, measured and written under a lock of its own, so that of several processes one measures it. What
    goes wrong is raised, and noted for ``progress`` until the unit succeeds.
    """
    from filelock import Timeout

    part = _part(table, scale, unit)
    note = part.with_suffix(".failed")
    try:
        lock = records.locked(part).acquire(timeout=-1 if wait else 0)
    except Timeout:
        return ""
    with lock:
        if part.exists() or unit in records.recorded(_path(table, scale)):  # in this order: parts become rows
            return ""
        start = time.perf_counter()
        try:
            rows = [{**unit, **row} for row in table.measure(scale, unit)]
            seconds = time.perf_counter() - start
            origin = records.provenance(scale=scale.name, seconds=seconds, **table.over(scale, unit))
            records.write(part, rows, origin)
        except Exception as error:
            write_text(note, f"{unit}: {type(error).__name__}: {error}\n")
            raise
        note.unlink(missing_ok=True)
        records.unlock_for_good(part)
    return f"{table.name}: {', '.join(map(str, unit.values()))} ({seconds:.0f} s)"


def units_of(table: Table, scale: Scale) -> list[dict]:
    """The units of a table at a scale, in order. ValueError where they are more than can be gone through in a while."""
    checks.instance(table, Table, "table")
    checks.instance(scale, Scale, "scale")
    found = list(itertools.islice(table.units(scale), MOST + 1))
    if len(found) > MOST:
        raise ValueError(
            f"The table {table.name} has over {MOST:,} units at scale {scale.name}: ask for fewer seeds or keys."
        )
    return found


def missing(table: Table, scale: Scale) -> list[dict]:
    """The units of a table that neither its rows nor its parts hold."""
    recorded, parts = records.recorded(_path(table, scale)), {part.name for part in _found(table, scale)}
    return [unit for unit in units_of(table, scale) if unit not in recorded and _part_name(unit) not in parts]


def ask_for_what_it_reads(table: Table, scale: Scale) -> None:
    """ValueError where a table whose rows this one reads lacks units, so that nothing is built on some of them."""
    for other in table.reads:
        if lacking := missing(other, scale):
            raise ValueError(
                f"The table {table.name} reads the rows of {other.name}, of which {len(lacking)} units are missing: "
                "record that table first."
            )
        collect(other, scale)  # what other processes left in parts


@dataclass(frozen=True)
class Progress:
    """How far a table is: units in all, recorded, and failed when last tried; seconds that the missing ones will take
    one after the other, by the mean of those that are recorded (None where none is)."""

    table: str
    total: int
    recorded: int
    failed: int
    seconds_left: float | None


def progress(table: Table, scale: Scale) -> Progress:
    """How far a table is at a scale."""
    total, left = len(units_of(table, scale)), missing(table, scale)
    failed = sum(_part(table, scale, unit).with_suffix(".failed").exists() for unit in left)
    rows = [_path(table, scale), *_found(table, scale)]
    taken = sum(seconds for path in rows for seconds in records.seconds_of_runs(path))
    done = total - len(left)
    return Progress(table.name, total, done, failed, taken / done * len(left) if done else None)


def collect(table: Table, scale: Scale) -> None:
    """Move the parts into the table, in the order of the units; a part that is in it already is dropped."""
    if found := _found(table, scale):
        known = {_part_name(unit): place for place, unit in enumerate(units_of(table, scale))}
        found.sort(key=lambda part: (known.get(part.name, len(known)), part.name))
        records.move_into(_path(table, scale), found)


def _path(table: Table, scale: Scale) -> Path:
    return records.table_path(scale.name, table.name)


def _parts(table: Table, scale: Scale) -> Path:
    return _path(table, scale).with_name(f".{table.name}.parts")


def _found(table: Table, scale: Scale) -> list[Path]:
    return list(_parts(table, scale).glob("*.csv"))


def _part(table: Table, scale: Scale, unit: dict) -> Path:
    return _parts(table, scale) / _part_name(unit)


def _part_name(unit: dict) -> str:
    return hashlib.sha256(json.dumps(unit, sort_keys=True, default=str).encode()).hexdigest()[:16] + ".csv"


def of_network(scale: Scale, seed: int, n_keys: int = 0, n_images: int | None = None) -> dict:
    """What rows of a scale's network are measured over; all test images unless said otherwise."""
    settings = {"model": scale.model, "threads": torch.get_num_threads(), **vars(scale.train)}
    data = scale.data()
    over = {"dataset": data.name, "settings": settings, "seeds": seed, "n_keys": n_keys, "device": default_device()}
    return {**over, "n_images": n_images or len(data.test_labels)}


def of_attack(scale: Scale, n_images: int, n_keys: int = 1) -> dict:
    """What rows of an attack are measured over."""
    over = {"dataset": scale.data().name, "settings": scale.attack, "seeds": range(scale.attack.draws)}
    return {**over, "n_images": n_images, "n_keys": n_keys}


def in_turns(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each job, ``rounds`` times in turns, so that a slow minute of the machine falls on all of them."""
    checks.instance(jobs, Mapping, "jobs")
    seconds = {name: [] for name in jobs}
    for _ in range(checks.whole(rounds, "rounds", 1)):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return seconds
