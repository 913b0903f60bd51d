"""Result rows: one measurement a row, with where it came from, in CSV files that are replaced as a whole.

A table is a file `results/<scale>/<table>.csv` (quick runs: `build/quick/results/`). Every row has the columns in
`REQUIRED`; `provenance` gives all of them but `measure` and `value`. Further columns say what was varied.
"""

import csv
import dataclasses
import functools
import importlib.metadata
import io
import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from ..paths import checkout, write_text

SCALE_NAMES = ("quick", "small", "paper")
ORIGIN = (
    *("scale", "dataset", "n_images", "n_keys", "seeds", "settings", "device"),
    *("python", "torch", "cmxlib", "commit", "date", "seconds"),
)
REQUIRED = ("measure", "value", *ORIGIN)
_TEXT = ("seeds", "settings", "python", "torch", "cmxlib", "commit", "date")  # never read as numbers


def build_dir(scale: str) -> Path:
    """The ignored folder of what a run at this scale leaves: executed chapters, and a quick run's rows and figures."""
    if scale not in SCALE_NAMES:
        raise ValueError(f"there is no scale {scale!r}: use one of {', '.join(SCALE_NAMES)}")
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
    return results_dir(scale) / f"{table}.csv"


def provenance(*, scale, dataset, settings, seeds, n_images, seconds, n_keys=0, device="cpu") -> dict:
    """The columns that say where rows came from.

    settings: a dataclass or mapping of what the measurement depends on, kept as JSON. seeds: one or several.
    n_images, n_keys: how many were measured over. seconds: what the measurement took. device: as torch names it.
    """
    from ..learn.device import device_name  # needs torch, which reading rows does not

    build_dir(scale)  # refuses an unknown scale
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
        "seconds": round(float(seconds), 3),
    }


@functools.cache  # the code that runs is the one that was there at the start
def commit() -> str:
    """The commit of the code, with "+changes" when files other than the recorded output differ from it."""
    name = _run("git", "rev-parse", "--short=12", "HEAD")
    if not name:
        return "unknown"
    outputs = (":(exclude)results", ":(exclude)figures", ":(exclude)README.md")
    changed = _run("git", "status", "--porcelain", "--untracked-files=no", "--", ".", *outputs)
    return name + "+changes" * bool(changed)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=checkout(), capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def write(path, rows, origin: Mapping | None = None) -> None:
    """Replace the table at `path` by `rows` (mappings, or a DataFrame), each completed by `origin`."""
    path = Path(path)
    with _locked(path):
        _save(path, _checked(rows, origin))


def append(path, rows, origin: Mapping | None = None) -> None:
    """Add `rows` to the table at `path`; the rows that are there stay as they are, to the letter.

    Safe when several processes append to one table. A row that lacks a required column raises ValueError, and
    nothing is written.
    """
    path, new = Path(path), _checked(rows, origin)
    with _locked(path):
        _save(path, _load(path) + new)


def done(path, key: Mapping) -> bool:
    """Whether the table at `path` has a row with these values: a long run skips what it has already measured."""
    rows = _load(Path(path))
    if rows and (unknown := [name for name in key if name not in rows[0]]):
        raise ValueError(f"the rows of {Path(path).name} have no column {unknown[0]!r} to look for")
    wanted = {name: _text(value) for name, value in key.items()}
    return any(wanted.items() <= row.items() for row in rows)


def read(scale: str, table: str):
    """The recorded rows of a table as a DataFrame; every float comes back to the bit."""
    import pandas as pd

    path = table_path(scale, table)
    if not path.exists():
        raise FileNotFoundError(f"no rows of {table!r} at scale {scale!r} are recorded: run make {scale} first")
    rows = _load(path)
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else REQUIRED)}
    return pd.DataFrame({name: texts if name in _TEXT else _parsed(texts) for name, texts in columns.items()})


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


def _locked(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _checked(rows, origin: Mapping | None) -> list[dict[str, str]]:
    rows = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise ValueError("rows must be a list of mappings or a DataFrame, one row a measurement")
    texts = [{name: _text(value) for name, value in {**row, **(origin or {})}.items()} for row in rows]
    for row in texts:
        if lacking := [name for name in REQUIRED if not row.get(name)]:
            raise ValueError(f"a result row lacks {', '.join(lacking)}: complete it with records.provenance(...)")
    return texts


def _text(value) -> str:
    """The text of a cell: the shortest that gives the same number back; settings as JSON; several values spaced."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, (list, tuple, range)):
        return " ".join(map(_text, value))
    if hasattr(value, "item"):  # a scalar of numpy or torch
        value = value.item()
    return "" if value is None else str(value)


def _load(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _save(path: Path, rows: list[dict[str, str]]) -> None:
    varied = dict.fromkeys(name for row in rows for name in row if name not in REQUIRED)
    file = io.StringIO()
    writer = csv.DictWriter(file, ["measure", "value", *varied, *ORIGIN], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, file.getvalue())


def uninterrupted(seconds) -> float:
    """How long a training takes, from the seconds of its epochs: as many times the median, as one may hold a pause."""
    return float(statistics.median(seconds) * len(seconds))
