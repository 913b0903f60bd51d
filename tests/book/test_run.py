"""The batch runner: what it runs, what it reports, and what it does when a chapter misbehaves."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from PIL import Image

from cmxlib.book import chapters, saving
from cmxlib.book import run as runner
from cmxlib.paths import ROOT
from cmxlib.study.records import SCALE_NAMES

from ..conftest import GOOD, OPENING
from . import forms


def cells(*sources):
    """A chapter whose middle cells are these."""
    middle = [("code", source, (), "") for source in sources]
    return [*GOOD[:3], *middle, GOOD[-1]]


def cmx(*args, **options):
    return subprocess.run([sys.executable, "-m", "cmxlib", *args], capture_output=True, text=True, cwd=ROOT, **options)


def test_a_chapter_runs_at_the_scale_asked_for(book):
    copy = book.build / "01.ipynb"
    code = "import sys, os; print(sys.prefix, os.path.basename(os.getcwd()))"
    assert runner.run_chapter(book.add("01_one", cells(code)), copy, "small") == "done at small"
    executed = chapters.load(copy)
    assert sys.prefix + " chapters" in "".join(map(chapters.printed, chapters.code_cells(executed)))
    assert str(ROOT) not in json.dumps(executed["metadata"])


def test_a_failing_chapter_is_told_in_a_sentence_and_the_others_run(book, capsys):
    book.add("01_good")
    book.add("02_bad", cells("def f():\n    raise KeyError('left')", "f()"))
    book.add("03_good")
    assert runner.run_book("quick", folder=book.path, build=book.build) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("02_bad: cell [5] that begins 'f()': KeyError: 'left'; the copy as far as it came is ")
    assert (book.build / "notebooks" / "02_bad.ipynb").exists()
    summary = out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in summary] == ["chapter", "01_good", "02_bad", "03_good"]
    assert "done at quick" in summary[1] and "FAILED" in summary[2] and "done at quick" in summary[3]
    assert "2 of 3 chapters" in out


def test_only_some_chapters(book, capsys):
    book.add("01_one")
    book.add("02_two")
    assert runner.run_book("quick", "02", book.path, book.build) == 0
    assert sorted(os.listdir(book.build / "notebooks")) == ["02_two.ipynb", "02_two.log"]
    with pytest.raises(ValueError, match=r"begins with '07'.*01_one, 02_two"):
        runner.run_book("quick", "07", book.path, book.build)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([GOOD[0], ("code", 'SCALE = "quick"', (), ""), *GOOD[2:]], "0 cells carry the tag 'parameters'"),
        ([GOOD[0], ("code", "scale = 1", ("parameters",), ""), *GOOD[2:]], "does not set SCALE"),
        ([*GOOD[:2], ("code", "SCALE = 'small'", (), ""), *GOOD[2:]], "sets SCALE again"),
        ([*GOOD[:2], ("code", "print('done')", ("headline",), "")], "no cell uses SCALE"),
        ([*GOOD, ("code", "1", (), "")], "the last code cell"),
    ],
)
def test_a_chapter_that_would_ignore_the_scale_or_report_nothing_is_not_run(book, bad, reason):
    with pytest.raises(runner.ChapterError, match=reason):
        runner.run_chapter(book.add("01_one", bad), book.build / "01.ipynb", "quick")
    assert not book.build.exists()


def test_a_headline_of_two_lines_is_refused(book):
    bad = [*GOOD[:-1], ("code", 'print("a\\nb", SCALE)', ("headline",), "")]
    with pytest.raises(runner.ChapterError, match="headline cell printed 2 lines"):
        runner.run_chapter(book.add("01_one", bad), book.build / "01.ipynb", "quick")


def test_a_cell_that_takes_too_long(book):
    path = book.add("01_one", cells("import time\ntime.sleep(60)"))
    with pytest.raises(runner.ChapterError, match=r"begins 'import time': the cell took more than 3 s"):
        runner.run_chapter(path, book.build / "01.ipynb", "quick", limits=(3, 120))


def test_a_chapter_that_hangs_is_ended_with_its_kernel(book):
    start = time.perf_counter()
    runner.run_chapter(book.add("01_one"), book.build / "01.ipynb", "quick")
    limit = 2 + 3 * (time.perf_counter() - start)  # enough to reach the cell, on a busy machine too
    note = book.build / "pid"
    hang = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    with pytest.raises(runner.ChapterError, match=r"begins 'import os, time': the chapter took more than \d+.* s; the"):
        runner.run_chapter(book.add("02_two", cells(hang)), book.build / "02.ipynb", "quick", limits=(600, limit))
    assert not alive(int(note.read_text()))


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_kernel_that_dies(book):
    path = book.add("01_one", cells("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    with pytest.raises(runner.ChapterError, match="the kernel died"):
        runner.run_chapter(path, book.build / "01.ipynb", "quick", limits=(60, 120))


def test_ctrl_c_ends_tidily(book):
    note = book.build / "pid"
    book.add("01_one", cells(f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"))
    book.build.mkdir()
    code = f"""if __name__ == "__main__":
    from pathlib import Path
    from cmxlib.book.run import run_book
    raise SystemExit(run_book("quick", folder=Path({str(book.path)!r}), build=Path({str(book.build)!r})))"""
    script = book.build / "script.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    assert "interrupted" in out and "0 of 1 chapters" in out
    assert not alive(int(note.read_text()))


BATCH = """if __name__ == "__main__":
    import sys
    from pathlib import Path
    from cmxlib.book.run import run_book
    raise SystemExit(run_book("quick", folder=Path(sys.argv[1]), build=Path(sys.argv[2])))"""


def test_a_killed_batch_leaves_whole_copies_and_no_process_and_two_do_not_mix(book):
    """Kill -9 in the middle of a chapter whose copy is there from a run before; meanwhile another batch is refused."""
    note, script = book.build / "pid", book.build / "script.py"
    book.build.mkdir()
    script.write_text(BATCH)
    command = [sys.executable, script, book.path, book.build]
    copy = book.build / "notebooks" / "01_one.ipynb"
    book.add("01_one", cells("print('before')"))
    assert runner.run_book("quick", folder=book.path, build=book.build) == 0
    before = copy.read_bytes()
    slow = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    book.add("01_one", cells(slow))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(OSError, match=f"Another process runs chapters into {book.build}: let it end"):
        runner.run_book("quick", folder=book.path, build=book.build)
    process.kill()
    process.wait()
    assert copy.read_bytes() == before
    while alive(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(int(note.read_text()))
    book.add("01_one", cells("print('after')"))
    assert runner.run_book("quick", folder=book.path, build=book.build) == 0
    assert "after" in "".join(map(chapters.printed, chapters.code_cells(chapters.load(copy))))
    assert sorted(os.listdir(book.build / "notebooks")) == ["01_one.ipynb", "01_one.log"]


def test_saving_keeps_outputs_in_place_without_traces_of_the_machine(book, capsys):
    path = book.add("01_one", [*GOOD[:2], ("code", "print(1); print(SCALE)", (), ""), GOOD[-1]])
    saving.save(folder=book.path)
    notebook = chapters.load(path)
    assert forms.saved_problems(notebook) == []
    assert chapters.printed(chapters.code_cells(notebook)[1]) == "1\nquick\n"
    assert notebook["metadata"]["language_info"]["file_extension"] == ".py"
    assert capsys.readouterr() == (f"saved {os.path.relpath(path)}\n", "")
    before = path.read_bytes()
    saving.save(folder=book.path)
    assert path.read_bytes() == before


SAVE = """if __name__ == "__main__":
    import sys
    from pathlib import Path
    from cmxlib import __main__ as command
    from cmxlib.book import saving
    save = saving.save
    saving.save = lambda only: save(only, Path(sys.argv[1]))
    raise SystemExit(command.main(["save"]))"""


def test_ctrl_c_while_saving_leaves_the_notebook_and_no_kernel(book):
    note = book.path / "pid"
    path = book.add(
        "01_one", cells(f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    )
    before = path.read_bytes()
    command = [sys.executable, "-c", SAVE, book.path]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "cmx: Interrupted; the same command can be given again.\n"
    assert path.read_bytes() == before and not alive(int(note.read_text()))


def test_a_notebook_that_raises_is_not_saved(book):
    path = book.add("01_one", cells("1 / 0"))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"01_one\.ipynb did not come to its end, and is left as it was: ZeroDivision"):
        saving.save(folder=book.path)
    assert path.read_bytes() == before


def test_saving_widgets_and_figures_twice_leaves_no_difference(book):
    widgets = """import ipywidgets
sliders = [ipywidgets.IntSlider(value) for value in range(3)]
ipywidgets.IntSlider(9)  # shown nowhere
ipywidgets.HBox([ipywidgets.VBox(sliders), ipywidgets.Image(value=b"png")])"""
    figure = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nplt.show()"
    picture = "from PIL import Image\nImage.radial_gradient('L').convert('RGB')"  # shown as PNG and as JPEG
    path = book.add("01_one", cells(widgets, figure, picture))
    saving.save(folder=book.path)
    before = path.read_bytes()
    assert before.count(b'"_model_name": "IntSliderModel"') == 3
    saving.save(folder=book.path)
    assert path.read_bytes() == before
    (state,) = chapters.load(path)["metadata"]["widgets"].values()
    (view,) = (
        out["data"]
        for cell in chapters.code_cells(chapters.load(path))
        for out in cell["outputs"]
        if "data" in out and "application/vnd.jupyter.widget-view+json" in out["data"]
    )
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] in state["state"]
    data = [
        out["data"] for cell in chapters.code_cells(chapters.load(path)) for out in cell["outputs"] if "data" in out
    ]
    plot, picture = (one for one in data if "image/png" in one)
    assert "image/jpeg" not in picture
    for one in (plot, picture):
        assert Image.open(io.BytesIO(base64.b64decode(one["image/png"]))).mode == "P"


def test_a_broken_notebook_does_not_keep_the_others_from_the_summary(book, capsys):
    book.add("01_good")
    (book.path / "02_broken.ipynb").write_text('{"metadata": {}, "cells": [{"cell_type": "code"}]}')
    assert runner.run_book("quick", folder=book.path, build=book.build) == 1
    out, err = capsys.readouterr()
    assert "done at quick" in out and "1 of 2 chapters" in out
    assert err == "02_broken: 02_broken.ipynb is not a notebook of format 4: restore it by git checkout\n"


def test_saving_what_is_not_there_is_said(book):
    book.add("01_one")
    with pytest.raises(ValueError, match=r"no chapter's name begins with '99'.*01_one"):
        saving.save("99", book.path)


def test_the_runner_imports_where_there_is_no_forkserver():
    code = """import multiprocessing, sys
multiprocessing.get_all_start_methods = lambda: ["spawn"]
sys.modules["multiprocessing.forkserver"] = None
from cmxlib.book import run
print(run.HOW)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "spawn\n", done.stderr


def test_scale_names_are_those_of_the_scales():
    from cmxlib.study.scales import SCALES

    assert tuple(SCALES) == SCALE_NAMES


def test_a_wrong_request_gets_one_sentence():
    done = cmx("book", "--only", "no-such-chapter")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith("cmx: no chapter's name begins with 'no-such-chapter'") and done.stderr.count("\n") == 1
    )


def test_what_a_chapter_says_of_itself():
    notebook = {"cells": [{"cell_type": "markdown", "source": OPENING.splitlines(keepends=True)}]}
    assert chapters.opening(notebook) == {"title": "3. A chapter", "question": "What does it show?", "minutes": "15"}
