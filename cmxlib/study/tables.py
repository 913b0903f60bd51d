"""Every recorded table, and the command that measures them."""

import time
from collections.abc import Callable
from dataclasses import replace

from ..lock import checks
from . import records
from .adversarial import ADVERSARIAL
from .anatomy import ANATOMY, RESTRICTED, TURNED
from .architectures import MATRIX
from .benchmarks import BENCHMARKS
from .conventional import CONVENTIONAL
from .generality import GENERALITY
from .images import IMAGES, PAIRS, VISIBILITY
from .limits import LIMITS
from .networks import BLOCKS, COST, ENGINE, KEYS, TRAINING
from .recovered import MOVED, RECOVERED
from .repairs import REPAIRS
from .sampling import MEAN_KEYS
from .scales import Scale, named
from .stolen import STOLEN_HELDOUT, STOLEN_MODEL, STOLEN_RATES
from .table import Table, record

# In this order: a table stands after those whose rows it reads, and the dearest come last.
TABLES: tuple[Table, ...] = (
    *(TRAINING, KEYS, ANATOMY, COST, VISIBILITY, PAIRS, IMAGES, RECOVERED, MOVED, REPAIRS),
    *(STOLEN_RATES, ADVERSARIAL, STOLEN_HELDOUT, STOLEN_MODEL),
    *(BENCHMARKS, LIMITS, MEAN_KEYS, TURNED, RESTRICTED, BLOCKS, ENGINE, GENERALITY, CONVENTIONAL, MATRIX),
)


def study(
    scale: str | Scale,
    only: str = "",
    *,
    seeds: tuple[int, ...] = (),
    n_keys: int = 0,
    say: Callable[[str], None] = print,
) -> None:
    """Measure what the tables lack at a scale, or one table alone.

    seeds: of the networks, in place of the scale's. n_keys: wrong keys for each cipher, in place of the scale's.
    """
    records.commit()  # the code that runs is the one that is there now, not when the first rows are written
    scale = changed(named(scale), seeds, n_keys)
    for table in asked(scale, only):
        start = time.perf_counter()
        record(table, scale, say)
        say(f"{table.name}: recorded ({time.perf_counter() - start:.0f} s)")


def changed(scale: Scale, seeds: tuple[int, ...] = (), n_keys: int = 0) -> Scale:
    """The scale with other seeds of the networks and another number of wrong keys, where these are given."""
    checks.instance(scale, Scale, "scale")
    if not (isinstance(seeds, tuple) and seeds == ()):
        seeds = checks.wholes(seeds, "seeds", 0, 2**40)
        scale = replace(scale, seeds=seeds, compared_seeds=seeds)
    if n_keys := checks.whole(n_keys, "n_keys", 0):
        finer = {size: {**changes, "n_wrong": n_keys} for size, changes in scale.finer.items()}
        scale = replace(scale, n_wrong=n_keys, finer=finer)
    return scale


def asked(scale: Scale, only: str = "") -> list[Table]:
    """The tables of a scale, or the one that is named. ValueError, with the names, where there is none."""
    by_name = {table.name: table for table in TABLES}
    if not isinstance(only, str) or (only and only not in by_name):
        raise ValueError(f"There is no table {checks.shown(only)}: choose one of {', '.join(by_name)}.")
    return [by_name[only]] if only else [table for table in TABLES if scale.name not in table.left_out]
