"""What `cmx study` does with its arguments."""

import argparse
import re
import sys

from . import records, tables
from .grid import check_data, read_grid
from .scales import named
from .sweep import Grid, cluster, share, sweep
from .table import Progress, progress


def run(args: argparse.Namespace) -> int:
    """Measure what is asked for, or say how far it is; the exit status, 1 where a unit failed."""
    failures, grid, (k, n) = [], _grid(args), _shard(args.shard or "1/1")
    if args.sweep and not args.status:
        check_data(grid)
    if args.status:
        for scale, asked in grid:
            for table in asked:
                print((f"{scale.name}: " if args.sweep else "") + line(progress(table, scale)))
    elif args.workers or args.scheduler:
        records.commit()  # of the code that runs now, not of that at the first rows
        with cluster(args.scheduler or "", args.workers or 1) as client:
            failures = sweep(grid, client)
    elif args.sweep or args.shard:
        records.commit()
        failures = share(grid, k, n)
    else:
        tables.study(args.scale, args.only, seeds=args.seeds, n_keys=args.keys)
    if failures:
        print(f"\n{len(failures)} failed:", *failures, sep="\n", file=sys.stderr)
    return int(bool(failures))


def line(found: Progress) -> str:
    """How far a table is, in a line."""
    text = f"{found.table:20} {found.recorded:5} of {found.total:5} recorded"
    if found.failed:
        text += f", {found.failed} failed"
    if found.seconds_left:
        text += f", about {found.seconds_left:.0f} s left for one process"
    return text


def _grid(args) -> Grid:
    given = [f"--{name}" for name in ("scale", "only", "seeds", "keys") if getattr(args, name) not in (None, "", (), 0)]
    if not args.sweep:
        args.scale = "small" if args.scale is None else args.scale
        scale = tables.changed(named(args.scale), args.seeds, args.keys)
        return [(scale, tuple(tables.asked(scale, args.only)))]
    if given:
        raise ValueError(f"A file of --sweep names its scale, tables, seeds and keys itself: leave out {given[0]}.")
    return read_grid(args.sweep)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(
            f"--shard is K/N with K from 1 to N, such as 2/8, N of nine digits at most, but this is {text[:40]}."
        )
    return int(found[1]), int(found[2])
