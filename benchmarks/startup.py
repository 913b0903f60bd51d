"""What a reader waits for before anything happens: imports and the command line's help."""

import statistics
import subprocess
import sys

from .rows import row
from .timing import seconds


def measure(quick):
    repeats = 1 if quick else 5

    def run(*arguments):
        return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout

    loads_torch = run("-c", "import cmxlib, sys; print('torch' in sys.modules)").strip() == "True"
    found = [row("modules of torch that import cmxlib loads", int(loads_torch), 0, at_most=True, unit="0 or 1")]
    for name, arguments, goal in (
        ("import cmxlib", ("-c", "import cmxlib"), None),
        ("the command line's help", ("-m", "cmxlib", "--help"), 0.5),
    ):
        value = statistics.median(seconds(lambda: run(*arguments)) for _ in range(repeats))  # noqa: B023
        found.append(row(name, value, goal, at_most=True, ours=value, repeats=repeats))
    return found
