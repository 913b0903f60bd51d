"""What the tests share: a way to make small notebooks, run or not, and to run a script in this process."""

import json
import os
import runpy
import signal
import sys

import hypothesis
import pytest

# A shared machine may stall a quick example; how long one takes is no property under test.
hypothesis.settings.register_profile("cmxlib", deadline=None)
hypothesis.settings.load_profile("cmxlib")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of what is run in the background: tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)

OPENING = (
    "# 3. A chapter\n\n**Question.** What does it\nshow?\n\n**After this chapter you can**\n\n- see it\n\n"
    "**Before.** Nothing.\n\n**Time.** About 15 minutes\n"
)
HINT = "<details><summary>Hint</summary>\n\nThink.\n\n</details>"
LEVELS = ("compute", "change", "invent", "explain")
EXERCISES = "\n\n".join(f"### Exercise {n} ({level})\nDo it.\n{HINT}" for n, level in enumerate(LEVELS, start=1))
EXERCISES += "".join("\n\n" + HINT.replace("Hint", fold) for fold in ("Second hint", "Model answer"))
GOOD = [
    ("markdown", OPENING, (), ""),
    ("code", 'SCALE = "quick"', ("parameters",), ""),
    ("code", "print(len(SCALE))", (), "5\n"),
    ("markdown", f"## Summary\nIt works.\n\n## Exercises\n{EXERCISES}", (), ""),
    ("code", 'print("done at", SCALE)', ("headline",), "done at quick\n"),
]


def make_notebook(cells=GOOD) -> dict:
    """A notebook of (kind, source, tags, text on standard output), as it would be saved after a run."""
    made, count = [], 0
    for number, (kind, source, tags, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {"tags": list(tags)}, "source": source}
        if kind == "code":
            count += 1
            outputs = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
            cell |= {"execution_count": count, "outputs": outputs}
        made.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(autouse=True)
def what_other_tests_inherit():
    """No test leaves the environment changed: processes of later ones would be told so many threads, or other folders,
    and run many times slower, or elsewhere."""

    def told():
        mine = ("CMX_", "JUPYTER_", "PYTHONPATH", "PATH", "HOME")
        return {name: value for name, value in os.environ.items() if "THREADS" in name or name.startswith(mine)}

    before, answer = told(), signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, answer)  # which a command that was interrupted leaves deaf, for it ends
    assert told() == before


@pytest.fixture
def book(tmp_path):
    """A folder of chapters, with a function that puts one there: `book.add("01_name", cells)`."""
    folder = tmp_path / "chapters"
    folder.mkdir()

    class Book:
        path = folder
        build = tmp_path / "build"

        def add(self, name, cells=GOOD):
            target = folder / f"{name}.ipynb"
            target.write_text(json.dumps(make_notebook(cells)))
            return target

    return Book()


@pytest.fixture
def script(capsys, monkeypatch):
    """script(path, *arguments) -> (status, standard error) of a program, without the seconds of imports that a process
    of its own takes; an error that it does not handle is raised."""

    def run(path, *arguments):
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            runpy.run_path(str(path), run_name="__main__")
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr().err
        return (status, said) if isinstance(status, int) else (1, f"{said}{status}\n")

    return run
