"""A sweep of one's own, from a file in TOML: which tables, at which scales.

base = "small"                      # the scale that it begins with
name = "depths"                     # of the folder of its rows, results/<name>
tables = ["training", "keys"]

[scale]                             # fields of `Scale` that differ from those of base
seeds = [0, 1]
ciphers = ["shuffle+flip"]
train.epochs = 8
# Images of one's own: dataset = {name = "folder", root = "photos", size = 64, channels = 1}
# and model.num_classes, model.channels, where they are not 10 and 3.

[axes]                              # fields with several values: each combination is a scale of its own
"model.depth" = [4, 8]              # rows in results/depths-depth4 and results/depths-depth8
"""

import itertools
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..learn.data import load_dataset
from ..learn.evaluate import logits_of
from ..lock.checks import shown
from ..paths import regular
from .records import SCALE_NAMES, check_name
from .scales import CIPHERS, Scale, ciphers, named, new_model
from .sweep import Grid
from .tables import asked

MOST = 1000  # scales of a file


def read_grid(path: str | Path) -> Grid:
    """The scales of a file, and the tables to record at each. ValueError, naming the entry, where one is wrong."""
    file = regular(Path(path))
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no TOML file, for it is not in UTF-8: save it in that encoding.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML file: {error}; sweeps/ has such files.") from error
    except ValueError as error:  # of Python, which reads no whole number of over 4,300 digits
        raise ValueError(f"{path} holds a whole number of thousands of digits: give a smaller one.") from error
    if lacking := {"base", "name", "tables"} - set(found):
        raise ValueError(f"{path} lacks {', '.join(sorted(lacking))}.")
    kinds = {"base": str, "name": str, "tables": list, "scale": dict, "axes": dict}
    if other := set(found) - set(kinds):
        raise ValueError(
            f"{path} has {', '.join(sorted(other))}, but only base, name, tables, scale and axes are read."
        )
    for name, kind in kinds.items():
        if not isinstance(found.get(name, kind()), kind):
            what = {str: "a text", list: "a list", dict: "a table"}[kind]
            raise ValueError(f"{path} must have {what} as {name}, but it is {shown(found[name])}.")
    if found["name"] in SCALE_NAMES:
        raise ValueError(f"{path} is named {found['name']}, as a scale of the book, whose rows it would go among.")
    for name, values in {"tables": found["tables"], **found.get("axes", {})}.items():
        if isinstance(values, list) and (not values or any(value in values[:i] for i, value in enumerate(values))):
            raise ValueError(
                f"{path} must have different values in {name}, one at least, but they are {shown(values)}."
            )
    try:
        check_name(found["name"], "scale")
        return _grid(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def check_data(grid: Grid) -> None:
    """ValueError where a network of a grid cannot be trained on its data, which are read for that: images of another
    size or other colours, more classes, fewer images than a batch."""
    for scale, _ in grid:
        data = scale.data()
        shape = tuple(data.train_images.shape[1:])
        if shape[0] != scale.channels:
            raise ValueError(
                f"{scale.name}: {data.name} has {shape[0]} channels, but model.channels is {scale.channels}."
            )
        for each in _networks(scale):
            size = each.model.get("patch_size", 1)
            if shape[1] % size or shape[2] % size:
                raise ValueError(
                    f"{scale.name}: patches of {size} do not divide images {shape}: change model.patch_size."
                )
            if len(data.train_images) < (batch := each.train.batch_size):
                raise ValueError(
                    f"{scale.name}: {data.name} has fewer images than a batch: lower train.batch_size, {batch}."
                )
            try:
                with torch.device("meta"):
                    logits_of(new_model(each).eval()(torch.zeros(1, *shape)), len(data.classes))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{scale.name}: the network cannot be trained on {data.name}: {error}") from error


def _networks(scale: Scale) -> list[Scale]:
    """The scale for each of its networks."""
    sizes = dict.fromkeys((*scale.patch_sizes, *scale.finer))
    return [*map(scale.at, sizes), *map(scale.of, scale.others)]


def _grid(found) -> Grid:
    base = _changed(named(found["base"]), found.get("scale", {}), "scale")
    axes = found.get("axes", {})
    if wrong := [axis for axis, values in axes.items() if not isinstance(values, list)]:
        raise ValueError(f"The axis {wrong[0]!r} needs a list of values, and a name in quotes where it has a point.")
    if (count := math.prod(map(len, axes.values()))) > MOST:
        raise ValueError(f"the axes make {count:,} scales, over {MOST:,}: give them fewer values.")
    grid: Grid = []
    for values in itertools.product(*axes.values()):
        scale, name = base, found["name"]
        for axis, value in zip(axes, values, strict=True):
            scale = _changed(scale, _nested(axis, value), "axes")
            name += f"-{axis.rpartition('.')[2]}{value}"
        if scale.channels != 3:
            scale = replace(scale, ciphers={cipher: ciphers(scale.channels)[cipher] for cipher in scale.ciphers})
        scale = replace(scale, name=re.sub(r"[^a-z0-9_-]+", "_", name.lower()))
        if any(scale.name == other.name for other, _ in grid):
            raise ValueError(f"two settings of the axes would share the folder {scale.name}: put one in another file.")
        try:
            with torch.device("meta"):  # a network of sizes that cannot be is told before anything is measured
                for each in _networks(scale):
                    new_model(each)
        except (RuntimeError, MemoryError) as error:
            raise ValueError(f"scale.model makes no network: {error}") from error
        grid.append((scale, tuple(table for name in found["tables"] for table in asked(scale, name))))
    return grid


def _nested(axis: str, value) -> dict:
    """{"model": {"depth": 4}} for "model.depth" and 4."""
    for name in reversed(axis.split(".")):
        value = {name: value}
    return value


def _changed(old: Any, changes: Mapping, where: str) -> Any:
    """A dataclass or a dict with other values, each in the form of the old one."""
    own = [field.name for field in fields(old) if field.name != "name"] if is_dataclass(old) else []  # that of the file
    values = {name: getattr(old, name) for name in own} if is_dataclass(old) else dict(old)
    new: dict[str, Any] = {}
    for name, value in changes.items():
        here = f"{where}.{name}"
        if name not in values and not here.endswith((".model.num_classes", ".model.channels")):
            raise ValueError(f"There is no {here}: there are {', '.join(map(str, values)) or 'none'}.")
        if name == "finer":
            if not isinstance(value, dict) or not all(
                size.isdecimal() and isinstance(differs, dict) for size, differs in value.items()
            ):
                raise ValueError(f"{here} must say what differs at a patch size, as in {here}.2.epochs = 30.")
            new[name] = {int(size): differs for size, differs in value.items()}
        elif name == "ciphers":
            known = isinstance(value, list) and all(cipher in list(CIPHERS) for cipher in value)
            if not known or not 0 < len(value) == len(set(value)):
                raise ValueError(f"{here} must be a list of some of {', '.join(CIPHERS)}, each once.")
            new[name] = {cipher: CIPHERS[cipher] for cipher in value}
        elif name == "dataset" and isinstance(value, dict):
            try:
                new[name] = load_dataset(**value)
            except TypeError as error:
                raise ValueError(f"{here} must be the arguments of load_dataset: {error}") from error
        elif is_dataclass(values.get(name)) or isinstance(values.get(name), dict):
            if not isinstance(value, dict):
                raise ValueError(f"{here} must name what differs, as in {here}.x = 1.")
            new[name] = _changed(values[name], value, here)
        elif isinstance(values.get(name), tuple) != isinstance(value, list):
            each = "each value of " if where.partition(".")[0] == "axes" else ""
            raise ValueError(f"{each}{here} must be {'a list' if isinstance(values[name], tuple) else 'one value'}.")
        else:
            new[name] = tuple(value) if isinstance(value, list) else value
    return replace(old, **new) if is_dataclass(old) else values | new  # type: ignore[type-var]
