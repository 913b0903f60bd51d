"""One way to record: a table is declared once, and one runner measures what it lacks.

    table = Table("keys", units, measure, over)
    record(table, scale)        # measures every unit that results/<scale>/keys.csv lacks, and goes on where it stopped

Each unit's rows are written as one file, a *part*, at one stroke; when the run ends, the parts are collected into the
table in the order of the units. Rows that are there stay as they are, to the letter.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..learn.device import default_device
from . import records
from .scales import Scale


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
    """

    name: str
    units: Callable[[Scale], Iterable[dict]]
    measure: Callable[[Scale, dict], Iterable[dict]]
    over: Callable[[Scale, dict], dict]
    timed: bool = False
    left_out: tuple[str, ...] = ()


def record(table: Table, scale: Scale, say: Callable[[str], None] = print) -> None:
    """Measure each unit of a table that is not recorded yet, and collect the rows. An interrupted run loses no unit.

    A unit is checked, measured and written under a lock of its own, so that two processes measure each of them once.
    """
    try:
        for unit in missing(table, scale):
            part = _part(table, scale, unit)
            with records.locked(part):
                if part.exists() or unit in records.Recorded(_path(table, scale)):  # in this order: parts become rows
                    continue
                start = time.perf_counter()
                rows = [{**unit, **row} for row in table.measure(scale, unit)]
                seconds = time.perf_counter() - start
                origin = records.provenance(scale=scale.name, seconds=seconds, **table.over(scale, unit))
                records.write(part, rows, origin)
            say(f"{table.name}: {', '.join(map(str, unit.values()))} ({seconds:.0f} s)")
    finally:
        collect(table, scale)


def missing(table: Table, scale: Scale) -> list[dict]:
    """The units of a table that neither its rows nor its parts hold."""
    recorded = records.Recorded(_path(table, scale))
    return [unit for unit in table.units(scale) if unit not in recorded and not _part(table, scale, unit).exists()]


def collect(table: Table, scale: Scale) -> None:
    """Move the parts into the table, in the order of the units; a part that is in it already is dropped."""
    known = {_part(table, scale, unit): place for place, unit in enumerate(table.units(scale))}
    found = _parts(table, scale).glob("*.csv")
    records.move_into(_path(table, scale), sorted(found, key=lambda part: (known.get(part, len(known)), part.name)))


def _path(table: Table, scale: Scale) -> Path:
    return records.table_path(scale.name, table.name)


def _parts(table: Table, scale: Scale) -> Path:
    return _path(table, scale).with_name(f".{table.name}.parts")


def _part(table: Table, scale: Scale, unit: dict) -> Path:
    name = hashlib.sha256(json.dumps(unit, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return _parts(table, scale) / f"{name}.csv"


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
    seconds = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return seconds
