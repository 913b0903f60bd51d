"""The tests of `test_fuzz` guided by coverage: `python -m tests.trust.guided TEST RUNS`, where atheris is installed.

Atheris watches which lines of cmxlib an input reaches and goes on from those that reach new ones; hypothesis makes the
files of its bytes. It prints how many files the parser was given (of some bytes hypothesis makes none), and stops with
an error at the first test that fails.
"""

import sys
from importlib import import_module

from .counts import COUNTS

atheris = import_module("atheris")  # for Linux alone

with atheris.instrument_imports(include=["cmxlib"]):
    from . import test_fuzz


def main() -> None:
    name, runs = sys.argv[1], int(sys.argv[2])
    fuzz = getattr(test_fuzz, name).hypothesis.fuzz_one_input
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        fuzz(data)
        done += 1
        if done == runs:  # the last one: libFuzzer ends the process by itself
            print(COUNTS["fuzz executions"], flush=True)

    # long inputs from the start, for of short ones hypothesis makes no file
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-verbosity=0", "-max_len=4096", "-len_control=0"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
