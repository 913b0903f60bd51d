"""Run every benchmark, print the table and save it: ``python -m benchmarks``, or a smoke test with ``--quick``."""

import argparse
import os
import time
from pathlib import Path

import pandas as pd
import torch

from cmxlib.study import records

from . import encryption, evaluation, layers, startup, training

PARTS = {
    "layers": layers.measure,
    "training": training.measure,
    "memory": training.measure_memory,
    "evaluation": evaluation.measure,
    "keys": evaluation.measure_keys,
    "encryption": encryption.measure,
    "startup": startup.measure,
}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test: small sizes, numbers that mean nothing")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--save", type=Path, help="the file to write (default: results/paper/benchmarks.csv)")
    args = parser.parse_args(argv)
    scale = "quick" if args.quick else "paper"
    path = args.save or records.table_path(scale, "benchmarks")
    print(f"{records.device_name()}, torch {torch.__version__}, {torch.get_num_threads()} threads, ", end="")
    print(
        f"load {os.getloadavg()[0]:.1f} before the start" if hasattr(os, "getloadavg") else "load unknown", flush=True
    )

    rows = []
    for name, measure in PARTS.items():
        if args.only not in (None, name):
            continue
        start = time.perf_counter()
        found = measure(args.quick)
        origin = records.provenance(
            scale=scale,
            dataset="random images",
            n_images=0,
            seeds=0,
            settings={"threads": torch.get_num_threads()},
            seconds=time.perf_counter() - start,
        )
        rows += [origin | row for row in found]
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if args.only is None:
        records.write(path, rows)
    columns = ["measure", "layer", "patch_size", "value", "goal", "met", "ours", "reference", "unit", "against"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    print(table.to_string(index=False, na_rep="", float_format="{:.4g}".format))


if __name__ == "__main__":
    main()
