"""Result rows: one measurement a row, with where it came from, in CSV files that are replaced as a whole.

A table is a file `results/<scale>/<table>.csv` (quick runs: `build/quick/results/`). Every row has the columns in
`REQUIRED`; `provenance` gives all of them but `measure` and `value`. Further columns say what was varied.

Reading needs neither torch nor anything that measures: summaries, claims, figures and README use `read` alone.
"""

import csv
import dataclasses
import functools
import importlib.metadata
import io
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from ..lock import checks
from ..paths import checkout, expanded, made, write_text

if TYPE_CHECKING:
    import pandas as pd
    from filelock import FileLock

SCALE_NAMES = ("quick", "small", "paper")
ORIGIN = (
    *("scale", "dataset", "n_images", "n_keys", "seeds", "settings", "device"),
    *("python", "torch", "cmxlib", "commit", "date", "seconds"),
)
REQUIRED = ("measure", "value", *ORIGIN)
_TEXT = ("seeds", "settings", "python", "torch", "cmxlib", "commit", "date")  # never read as numbers


def build_dir(scale: str) -> Path:
    """The ignored folder of what a run at this scale leaves: executed chapters, and a quick run's rows and figures."""
    check_name(scale, "scale")
    return checkout() / "build" / scale


def results_dir(scale: str) -> Path:
    """The folder of the rows of this scale: `results/<scale>`, or `build/quick/results` for quick runs."""
    build = build_dir(scale)
    return build / "results" if scale == "quick" else checkout() / "results" / scale


def figures_dir(scale: str) -> Path:
    """The folder of the figures of this scale: `figures/<scale>`, or `build/quick/figures` for quick runs."""
    build = build_dir(scale)
    return build / "figures" if scale == "quick" else checkout() / "figures" / scale


def table_path(scale: str, table: str) -> Path:
    """The file that holds `table` at this scale."""
    check_name(table, "table")
    return results_dir(scale) / f"{table}.csv"


def check_name(name: Any, kind: str) -> None:
    """ValueError where the name of a scale or a table cannot be that of a folder or file of the book."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,149}", name):
        raise ValueError(
            f"There is no {kind} {checks.shown(name)}: use one of {', '.join(SCALE_NAMES)}, or for one of your own a "
            "name of up to 150 small letters, digits, _ and -."
            if kind == "scale"
            else f"There is no table {checks.shown(name)}: its name is of up to 150 small letters, digits, _ and -."
        )


# -- where rows come from ------------------------------------------------------------------------------------------


def provenance(
    *,
    scale: str,
    dataset: str,
    settings: Any,
    seeds: Any,
    n_images: int,
    seconds: float,
    n_keys: int = 0,
    device: Any = "cpu",
) -> dict:
    """The columns that say where rows came from.

    settings: a dataclass or mapping of what the measurement depends on, kept as JSON. seeds: one or several.
    n_images, n_keys: how many were measured over. seconds: what the measurement took. device: as torch names it.
    """
    from ..learn.device import device_name  # needs torch, which reading rows does not

    build_dir(scale)  # refuses a name that cannot be a folder
    version = importlib.metadata.version
    return {
        "scale": scale,
        "dataset": dataset,
        "n_images": n_images,
        "n_keys": n_keys,
        "seeds": _text(seeds),
        "settings": _text(settings),
        "device": device_name(device),
        "python": platform.python_version(),
        "torch": version("torch"),
        "cmxlib": version("cmxlib"),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(checks.number(seconds, "seconds", 0), 3),
    }


@functools.cache  # the code that runs is the one that was there at the start
def commit() -> str:
    """The commit of the code, with "+changes" when files other than the recorded output differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD")
    if not name:
        return "unknown"
    outputs = (":(exclude)results", ":(exclude)figures", ":(exclude)README.md")
    return name + "+changes" * bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *outputs))


def _git(*command: str) -> str:
    try:
        done = subprocess.run(["git", *command], cwd=checkout(), capture_output=True, text=True, timeout=20)
        return done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def uninterrupted(seconds: Any) -> float:
    """How long a training takes, from the seconds of its epochs: as many times the median, as one may hold a pause."""
    seconds = checks.numbers(seconds, "seconds", 0)
    if not seconds:
        raise ValueError("seconds must be those of one epoch at least.")
    return float(statistics.median(seconds) * len(seconds))


# -- writing -------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike, rows: Iterable[Mapping], origin: Mapping | None = None) -> None:
    """Replace the table at `path` by `rows`, each completed by `origin`; ValueError where one lacks a column, or holds
    what could not be read back."""
    _save(expanded(path), _checked(rows, origin))


def move_into(path: Path, parts: list[Path]) -> None:
    """Add the rows of each part to the table, then delete the parts; rows that are there stay, to the letter.

    A part whose rows are there already, since a collection was killed midway, is only deleted. One that is gone was
    collected by another process.
    """
    if not parts:
        return
    with locked(path):
        rows = _load(path)
        there = {tuple(row.items()) for row in rows}
        new = [found for part in parts if (found := [_full(row, rows) for row in _load(part)])]
        rows += [row for found in new if tuple(found[0].items()) not in there for row in found]
        _save(path, rows)
        left = {name for folder in {part.parent for part in parts} for name in os.listdir(folder)}
        with ThreadPoolExecutor(64) as pool:  # a disk that waits for each file forgets many in the time of one
            list(pool.map(lambda first: _forget(parts[first::64], left), range(64)))  # raises an error of one


def _forget(parts, left):
    """Delete parts, and their locks where these are among the names ``left`` in the folder."""
    for part in parts:
        part.unlink(missing_ok=True)
        if _lock_name(part.name) in left:
            unlock_for_good(part)


def _full(row, rows):
    """A row with the columns of a table, in their order, as it would be read back from there."""
    names = [*rows[0], *(name for name in row if name not in rows[0])] if rows else row
    return {name: row.get(name, "") for name in names}


def locked(path: Path) -> "FileLock":
    """A lock for one process at a time on what stands at `path`; the system frees it when its holder dies."""
    from filelock import FileLock

    made(path.parent)
    return FileLock(_lock(path))


def unlock_for_good(part: Path) -> None:
    """Delete the lock of a part that is written: who waits for it, or makes it anew, finds the part, or its rows."""
    with suppress(FileNotFoundError, PermissionError):  # gone, or open on Windows: collecting tries again
        os.unlink(_lock(part))


def _lock(path: Path) -> Path:
    return path.with_name(_lock_name(path.name))


def _lock_name(name):
    return f".{name.lstrip('.')}.lock"


def _checked(rows: Iterable[Mapping], origin: Mapping | None) -> list[dict[str, str]]:
    if not isinstance(rows, Iterable) or not isinstance(origin, (Mapping, NoneType)):
        raise TypeError("rows must be mappings, one a row, and origin a mapping that records.provenance(...) gives.")
    rows = list(rows)
    for row in rows:
        checks.instance(row, Mapping, "a row")
    texts = [{_text(name): _text(value) for name, value in {**row, **(origin or {})}.items()} for row in rows]
    for row in texts:
        if lacking := [name for name in REQUIRED if not row.get(name)]:
            raise ValueError(f"A result row lacks {', '.join(lacking)}: complete it with records.provenance(...).")
        if not _number(row["value"]):
            raise ValueError(f"value must be a number, int or float, but in a row it is {checks.shown(row['value'])}.")
        if wrong := [text for text in (*row, *row.values()) if not _readable(text)]:
            raise ValueError(
                f"A row holds {wrong[0][:30]!r}, which could not be read back: take out half characters and \\r, and "
                f"give texts of {csv.field_size_limit():,} characters at most."
            )
    if number := _twice(tuple(row.items()) for row in texts):
        raise ValueError(f"Row {number} is the same as one before it, and would be counted twice: tell them apart.")
    return texts


def _readable(text):
    return "\r" not in text and len(text) <= csv.field_size_limit() and text == text.encode(errors="replace").decode()


def _text(value) -> str:
    """The text of a cell: the shortest that gives the same number back; settings as JSON; several values spaced."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        try:
            return json.dumps(value, sort_keys=True, default=str)
        except (TypeError, ValueError) as error:  # such as names of two kinds, which have no order
            raise TypeError(
                f"Settings must be a mapping that JSON can hold, of names that are texts ({error})."
            ) from None
    if hasattr(value, "tolist"):  # of numpy or torch
        value = checks.array(value, "a value").tolist()
    if isinstance(value, (list, tuple, range)):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)


def _save(path: Path, rows: list[dict[str, str]]) -> None:
    varied = dict.fromkeys(name for row in rows for name in row if name not in REQUIRED)
    names, file = ["measure", "value", *varied, *ORIGIN], io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    write_text(path.resolve(), file.getvalue())  # of a symbolic link, what it points to: tables may be kept elsewhere


# -- reading -------------------------------------------------------------------------------------------------------


def read(scale: str, table: str) -> "pd.DataFrame":
    """The recorded rows of a table as a DataFrame; every float comes back to the bit."""
    import pandas as pd

    path = table_path(scale, table)
    if not path.exists():
        raise FileNotFoundError(
            f"No rows of {table!r} at scale {scale!r} are recorded: run cmx study --scale {scale} --only {table}."
        )
    rows = _load(path)
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else REQUIRED)}
    return pd.DataFrame({name: texts if name in _TEXT else _parsed(texts) for name, texts in columns.items()})


class Recorded:
    """The units that a table holds: ``unit in Recorded(path)`` is whether a row has the unit's values."""

    def __init__(self, path: Path):
        self._rows, self._known = _load(path), {}

    def __contains__(self, unit: Mapping) -> bool:
        names = tuple(unit)
        if names not in self._known:
            self._known[names] = {tuple(row.get(name, "") for name in names) for row in self._rows}
        return tuple(_text(value) for value in unit.values()) in self._known[names]


def recorded(path: Path) -> Recorded:
    """The units that a table holds now. A process reads it again only when the file is another one, as each write of
    ``write`` and ``move_into`` makes it."""
    found = path.stat() if path.exists() else None
    return _recorded(path, found and (found.st_ino, found.st_mtime_ns, found.st_size))


@functools.lru_cache(maxsize=16)
def _recorded(path: Path, stamp) -> Recorded:
    return Recorded(path)


def seconds_of_runs(path: Path) -> list[float]:
    """The seconds of each run of which a table holds rows: the rows of one run name the same."""
    return [float(seconds) for seconds, _, _ in {(r["seconds"], r["date"], r["commit"]) for r in _load(path)}]


def _parsed(texts: list[str]) -> list:
    """A column as truth values, integers or floats where all of it is that, else as text; None where it is empty.

    Python reads a float to the last bit; whether pandas does depends on its version.
    """
    for kind in ({"True": True, "False": False}.__getitem__, int, float):
        try:
            return [None if text == "" else kind(text) for text in texts]
        except (KeyError, ValueError):
            continue
    return [text or None for text in texts]


def _load(path: Path) -> list[dict[str, str]]:
    """The rows of a table as texts; ValueError where the file is not whole or not such a table, so that nothing is
    built on it, and it is not written back."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    try:
        names, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        if names[:2] != ["measure", "value"] or not set(REQUIRED) <= set(names) or len(set(names)) < len(names):
            raise ValueError("its first line does not name the columns of a table of results")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut short")
        if line := next((i for i, row in enumerate(rows, 2) if len(row) != len(names) or not _number(row[1])), 0):
            raise ValueError(f"row {line} does not hold {len(names)} values with a number in the second")
        if line := _twice(map(tuple, rows)):
            raise ValueError(f"row {line + 1} is the same as one before it, as after a merge")
    except (csv.Error, ValueError) as wrong:  # csv's own of a quotation mark that never ends, or of a word without end
        raise ValueError(
            f"{path} is not a whole table of results ({wrong}): restore it from a copy, or by git checkout."
        ) from None
    return [dict(zip(names, row, strict=True)) for row in rows]


def _twice(rows: Iterable[tuple]) -> int:
    """The number, from 1, of the first row that stands before it already; 0 where there is none."""
    seen: set[tuple] = set()
    for i, row in enumerate(rows, 1):
        if row in seen:
            return i
        seen.add(row)
    return 0


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
