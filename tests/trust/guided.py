"""The tests of `test_fuzz` guided by coverage: `python -m tests.trust.guided TEST RUNS`, where atheris is installed.

Atheris watches which lines of cmxlib an input reaches and goes on from those that reach new ones; hypothesis makes the
files of its bytes. It prints what it ran, and stops with an error at the first test that fails.
"""

import sys
from importlib import import_module

atheris = import_module("atheris")  # no dependency: whoever wants it installs it

with atheris.instrument_imports(include=["cmxlib"]):
    from . import test_fuzz


def main() -> None:
    name, runs = sys.argv[1:]
    test = getattr(test_fuzz, name)
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-verbosity=0", "-max_len=4096"], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
