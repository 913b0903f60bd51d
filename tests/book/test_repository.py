"""What is committed: nothing private, notebooks in their proper form, generated text that is current."""

import ast
import copy
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

import cmxlib
from cmxlib.book import attack_figures, chapters, claims, figures, readme
from cmxlib.paths import ROOT

from ..conftest import GOOD, HINT, make_notebook
from . import forms

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))

PRIVATE = {
    "a path of a machine": r"(?<![\w.$~/}-])/(?:home|root|Users|work|tmp|private|mnt|opt|var/folders)/\w|\b[A-Z]:\\+\w",
    "an e-mail address": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}\b",
    "an access token": r"\b(?:gh[pousr]_|github_pat_|glpat-|sk-|hf_|xox[abp]-|pypi-)[\w-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}|[?&]token=\w{8,}",
    "key material": r"\bsecret: ?[0-9a-f]{32,}|-----BEGIN [A-Z ]*PRIVATE KEY",
    "a package registry's address": r"https?://[^\s\"'<>)]*(?:pypi|pythonhosted|anaconda|/simple\b|/whl\b|artifactory|nexus)"
    r"|\b(?:find-links|index-url)\s*[=: ]\s*\S*:/",
}


def private(text: str) -> list[str]:
    """The kinds of private matter in a text, each with what was found."""
    return [f"{kind}: {found[0]}" for kind, pattern in PRIVATE.items() if (found := re.search(pattern, text))]


def texts(name: str, content: str):
    """The strings of a notebook, without its pictures; another file as it is."""
    if not name.endswith(".ipynb"):
        return [content]

    def strings(node, key=""):
        if isinstance(node, str):
            return [] if key.startswith("image/") else [node]
        if isinstance(node, dict):
            return [text for name, part in node.items() for text in strings(part, name)]
        return [text for part in node for text in strings(part, key)] if isinstance(node, list) else []

    return strings(json.loads(content))


def committed():
    """Every file that is or could be committed, as (name, text); pictures and other binary files are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def test_nothing_private_is_committed():
    files = dict(committed())
    del files["tests/book/test_repository.py"]  # which has to spell out what it looks for
    assert [
        (name, found) for name, content in files.items() for text in texts(name, content) for found in private(text)
    ] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("saved to /home/someone/book", "a path of a machine"),
        ('"/tmp/x"', "a path of a machine"),
        (r"C:\Users\x", "a path of a machine"),
        ("write to me@example.org", "an e-mail address"),
        ("ghp_0123456789abcdefghij", "an access token"),
        ("http://localhost:8888/lab?token=0123456789abcdef", "an access token"),
        ("secret: " + "0f" * 32, "key material"),
        ("--index-url https://pypi.example/simple", "a package registry's address"),
        ("find-links = file:///wheels", "a package registry's address"),
    ],
)
def test_private_matter_is_found(text, kind):
    assert [found.split(":")[0] for found in private(text)][:1] == [kind]
    notebook = make_notebook([("code", "1", (), text)])
    assert any(private(part) for part in texts("a.ipynb", json.dumps(notebook)))


def test_what_is_not_private():
    assert private("y = x @ w.T; build/quick/home/x; see https://example.org/home/x; a/tmp/b; uses: a/b@v4.1") == []
    picture = {"cells": [{"outputs": [{"data": {"image/png": "/home/abcdef"}}]}]}
    assert texts("a.ipynb", json.dumps(picture)) == []


def test_committed_chapters_are_in_their_proper_form():
    problems = {path.stem: forms.chapter_problems(chapters.load(path)) for path in CHAPTERS}
    assert {name: found for name, found in problems.items() if found} == {}


def test_committed_solutions_are_in_their_proper_form():
    problems = {path.stem: forms.saved_problems(chapters.load(path)) for path in SOLUTIONS}
    assert {name: found for name, found in problems.items() if found} == {}


@pytest.mark.parametrize("path", [*CHAPTERS, *SOLUTIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_notebooks_import_from_cmxlib_is_there(path):
    for cell in chapters.code_cells(chapters.load(path)):
        lines = chapters.source(cell).split("\n")
        code = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "cmxlib":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


def test_every_recorded_table_is_drawn_or_judged_or_read_by_a_chapter():
    used = {*figures.RECORDED, *attack_figures.RECORDED, *(table for claim in claims.CLAIMS for table in claim.tables)}
    text = "".join(path.read_text(encoding="utf-8") for path in CHAPTERS)
    text += inspect.getsource(readme).replace("read(", "records.read(").replace('"', r"\"")
    used |= set(re.findall(r'records\.read\(\\"\w+\\", \\"(\w+)\\"\)', text))
    assert {path.stem for path in (ROOT / "results").glob("*/*.csv")} - used == {"first_training"}  # kept as a warning


def test_what_pages_cite_by_number_is_among_the_references():
    pages = [*CHAPTERS, *SOLUTIONS, *(ROOT / "notebooks").glob("*.md"), ROOT / "README.md"]
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    cited = set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})|doi\.org/(10\.[^\s)\"]+)", text))
    references = (ROOT / "notebooks" / "references.bib").read_text(encoding="utf-8").lower()
    assert cited and {one for pair in cited for one in pair if one.lower() not in references} == set()


def test_every_chapter_that_sets_exercises_has_its_solutions():
    setting = {path.name for path in CHAPTERS if chapters.counts(chapters.load(path))["exercises"]}
    assert setting == {path.name for path in SOLUTIONS}


def test_solutions_solve_what_the_chapter_sets():
    """Their parts are headed "Solution of exercise 1 (compute)", so that no exercise is counted twice."""
    for path in SOLUTIONS:
        texts = [chapters.source(cell) for cell in chapters.load(path)["cells"] if cell["cell_type"] == "markdown"]
        solved = re.findall(r"^## Solution of exercise (\d+) \((\w+)\)$", "\n".join(texts), re.MULTILINE)
        asked = chapters.exercises(chapters.load(path.parent.parent / path.name))
        assert solved == [(str(number), level) for number, level, _ in asked], path.stem
        assert chapters.counts(chapters.load(path))["exercises"] == 0


def test_two_thirds_of_the_cells_that_print_are_compared_in_solutions_too():
    found = [chapters.counts(chapters.load(path)) for path in SOLUTIONS]
    compared, printing = (sum(counts[name] for counts in found) for name in ("compared", "printing"))
    assert 3 * compared >= 2 * printing, chapters.count_table()


def test_the_hand_made_chapter_is_good():
    assert forms.chapter_problems(make_notebook()) == []


def change(number, **changes):
    def apply(notebook):
        notebook["cells"][number].update(changes)

    return apply


def replace(number, old, new):
    def apply(notebook):
        assert old in notebook["cells"][number]["source"]
        notebook["cells"][number]["source"] = notebook["cells"][number]["source"].replace(old, new)

    return apply


def error(notebook):
    notebook["cells"][2]["outputs"] = [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]


def warn(notebook):
    notebook["cells"][2]["outputs"] = [{"output_type": "stream", "name": "stderr", "text": "Warning"}]


def kernel(notebook):
    notebook["metadata"]["kernelspec"]["name"] = "my-env"


def strip(notebook):
    for cell in chapters.code_cells(notebook):
        cell["outputs"] = []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (change(1, metadata={}), "0 cells carry the tag 'parameters'"),
        (change(2, metadata={"tags": ["parameters"]}), "2 cells carry the tag 'parameters'"),
        (change(1, source="scale = 1"), "does not set SCALE"),
        (change(1, source='SCALE = "small"'), 'must say SCALE = "quick"'),
        (change(2, source="SCALE, x = 1, 2"), "sets SCALE again"),
        (change(4, metadata={}), "must carry the tag 'headline'"),
        (change(2, metadata={"tags": ["headline"]}), "must carry the tag 'headline'"),
        (lambda notebook: notebook["cells"][4]["outputs"][0].update(text="a\nb\n"), "exactly one line"),
        (kernel, "the kernel is not python3"),
        (change(2, execution_count=7), "execution counts"),
        (change(2, execution_count=None), "execution counts"),
        (error, "code cell 2 ends in an error"),
        (warn, "code cell 2 writes to standard error"),
        (strip, "no cell has an output"),
        (change(2, source="widgets.Output()"), "code cell 2 uses Output"),
        (change(2, source="from ipywidgets import interact as f\n%matplotlib inline"), "code cell 2 uses interact"),
        (change(2, metadata={"tags": ["raises-exception"]}), "tagged raises-exception"),
        (change(0, source="# Title\n\n**Time.** 5 minutes"), "gives no question"),
        (change(0, source="Nothing"), "gives no title"),
        (replace(0, "**After this chapter you can**", ""), "begins '**After this chapter you can**'"),
        (replace(0, "**Before.**", "Before"), "begins '**Before.**'"),
        (replace(3, "## Summary", "Summary"), "begins '## Summary'"),
        (replace(3, "### Exercise 4 ", "### Task "), "numbered [1, 2, 3]"),
        (replace(3, "### Exercise 4 ", "### Exercise 5 "), "numbered [1, 2, 3, 5]"),
        (replace(3, "(invent)", ""), "levels ['', 'change', 'compute', 'explain']"),
        (replace(3, "(change)", "(compute)"), "levels ['compute', 'explain', 'invent']"),
        (replace(3, f"4 (explain)\nDo it.\n{HINT}", "4 (explain)"), "exercise 4 has no <details>"),
        (replace(3, "Second hint", "Hint"), "invent has no <details><summary>Second hint"),
        (replace(3, "Model answer", "Answer"), "explain has no <details><summary>Model answer"),
        (replace(3, "</summary>\n\n", "</summary>"), "not followed by a blank line"),
        (change(2, metadata={"tags": ["nbval-ignore-output"]}), "only 1 of the 2 cells that print"),
    ],
)
def test_a_spoiled_chapter_is_found_out(spoil, problem):
    notebook = copy.deepcopy(make_notebook())
    spoil(notebook)
    assert any(problem in found for found in forms.chapter_problems(notebook))


def test_counting_exercises_and_compared_cells():
    picture = {"output_type": "display_data", "data": {"image/png": "", "text/plain": "<Figure>"}, "metadata": {}}
    table = {"output_type": "execute_result", "data": {"text/html": "<p>", "text/plain": "1"}, "metadata": {}}
    notebook = make_notebook(
        [
            *GOOD,
            ("code", "time()", ("nbval-ignore-output",), "1 s"),
            ("code", "# NBVAL_IGNORE_OUTPUT\ntime()", (), "1 s"),
            ("code", "plot()", (), ""),
            ("code", "frame", (), ""),
            ("code", "quiet()", (), ""),
        ]
    )
    notebook["cells"][-3]["outputs"] = [picture]
    notebook["cells"][-2]["outputs"] = [table]
    counted = chapters.counts(notebook)
    assert {name: counted[name] for name in ("exercises", "hints", "printing", "compared")} == {
        "exercises": 4, "hints": 4, "printing": 5, "compared": 3
    }  # fmt: skip


def test_reading_ends_where_exercises_begin():
    shown = [("markdown", "word " * 400, (), ""), ("code", "x = 1\n\ny = 2\n" * 10, (), "")]
    hidden = [("code", "import os\n" * 90, (), ""), ("code", "z = 3\n" * 90, ("hide-input",), "")]
    after = [
        ("markdown", "word " * 200 + "\n\n## Exercises\n\n" + "word " * 400, (), ""),
        ("code", "w = 4\n" * 90, (), ""),
    ]
    notebook = make_notebook([*shown, *hidden, *after])
    assert chapters.reading(notebook) == {"words": 600, "lines": 20, "pictures": 0, "minutes": 4}


def test_minutes_are_those_of_words_and_lines():
    """To five of them; index.md says at which pace."""
    said = {path.stem: int(chapters.opening(chapters.load(path))["minutes"]) for path in CHAPTERS}
    counted = {path.stem: chapters.reading(chapters.load(path))["minutes"] for path in CHAPTERS}
    assert said == {name: max(5, 5 * round(minutes / 5)) for name, minutes in counted.items()}
    pace = f"{chapters.WORDS} words and {chapters.LINES} lines of code a minute"
    assert pace in (ROOT / "notebooks" / "index.md").read_text("utf-8").replace("\n", " ")


def test_the_table_of_counts_with_the_seconds_of_the_last_run(book, monkeypatch):
    book.add("03_three")
    ran = make_notebook() | {"metadata": {"papermill": {"duration": 7.6}}}
    (book.build / "notebooks").mkdir(parents=True)
    (book.build / "notebooks" / "03_three.ipynb").write_text(json.dumps(ran))
    book.add("04_four", [*GOOD, ("code", "time()", ("nbval-ignore-output",), "1 s")])
    (book.path / "solutions").mkdir()
    (book.path / "solutions" / "03_three.ipynb").write_text(json.dumps(make_notebook(GOOD[1:3])))
    monkeypatch.setattr(chapters, "FOLDER", book.path)
    monkeypatch.setattr(chapters, "build_dir", lambda scale: book.build)
    rows = [line.split() for line in chapters.count_table().splitlines()[1:]]
    assert [[row[0], *row[5:]] for row in rows] == [
        ["03_three", "4", "4", "2", "2", "100%", "8"],
        ["04_four", "4", "4", "3", "2", "67%", "-"],
        ["solutions/03_three", "0", "0", "1", "1", "100%", "-"],
        ["all", "8", "8", "6", "5", "83%", "8"],
    ]


def test_a_file_that_is_no_notebook(tmp_path):
    for content in (b"\xff", b"{", b"[]", b"{}"):
        (tmp_path / "a.ipynb").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.ipynb is not a notebook"):
            chapters.load(tmp_path / "a.ipynb")


def test_make_test_compares_saved_outputs(book):
    line = re.search(r"bin/pytest (tests notebooks .*)", (ROOT / "Makefile").read_text())[1]
    options = [part for part in shlex.split(line) if part not in ("tests", "notebooks")]
    address = ("code", "print(object())\nprint('took 3 s')", (), "<object object at 0x7f0123456789>\ntook 12.5 s\n")
    right = ("code", "import sys; print(sys.prefix)", (), f"{sys.prefix}\n")
    wrong = ("code", "print(0.25)", (), "0.26\n")
    path = book.add("one", [right, address, wrong])
    for name in ("conftest.py", "nbval_sanitize.cfg"):  # which hold how the chapters are compared
        shutil.copy(ROOT / "notebooks" / name, book.path)
    command = [sys.executable, "-m", "pytest", "-q", *options, "-n0", str(path)]  # one chapter needs no two processes
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "1 failed, 2 passed" in done.stdout) == (1, True), done.stdout
    assert "FAILED" in done.stdout and "::Cell 2" in done.stdout.split("FAILED")[-1]


def test_the_generated_parts_of_the_readme_are_current():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"results", "verdict", "chapters", "claims", "speed"} == set(re.findall("<!-- generated: (.*?) -->", text))
    assert "<!-- generated: chapters -->" in readme.START.read_text(encoding="utf-8")
    assert readme.update(check=True), "run cmx readme"


def test_generated_parts_are_made_anew_and_the_rest_stays(tmp_path):
    path = tmp_path / "README.md"
    text = "a\n<!-- generated: x -->\n{}<!-- end -->\nb\n<!-- generated: y -->\n2\n<!-- end -->\n"
    blocks = {"x": lambda: "1", "y": lambda: "2"}
    new = readme.render(text.format("old\n"), blocks)
    assert new == text.format("1\n") == readme.render(new, blocks)
    path.write_text(text.format(""))
    with pytest.raises(ValueError, match="asks for 'x'; what can be made is: "):
        readme.update([path])
    for spoiled in ("<!-- generated: x -->", "<!-- end -->", "<!-- generated: x --><!-- generated: y --><!-- end -->"):
        with pytest.raises(ValueError, match="takes one '<!-- end -->'"):
            readme.render(spoiled, blocks)


def test_generated_parts_of_a_notebook_link_from_its_folder(book, monkeypatch):
    path = book.add("03_three", [*GOOD, ("markdown", "<!-- generated: chapters -->\nold\n<!-- end -->\nafter", (), "")])
    monkeypatch.setattr(chapters, "FOLDER", book.path)
    assert not readme.update([path], check=True)
    assert not readme.update([path])
    texts = [chapters.source(cell) for cell in chapters.load(path)["cells"]]
    (text,) = [text for text in texts if "generated" in text]
    assert "| [3. A chapter](03_three.ipynb) | What does it show? | 15 min |" in text
    assert "old" not in text and text.endswith("<!-- end -->\nafter")
    assert readme.update([path], check=True)


def test_a_notebook_installs_the_book_where_an_address_is_known(book, monkeypatch):
    path = book.add("03_three")
    plain = json.loads(path.read_text())
    monkeypatch.setattr(readme, "urls", lambda: {"Repository": "https://github.com/someone/book"})
    assert not readme.update([path]) and readme.update([path], check=True)
    notebook = chapters.load(path)
    assert [cell["id"] for cell in notebook["cells"][:3]] == ["cell-0", "bootstrap", "cell-1"]
    assert chapters.tags(notebook["cells"][1]) == ["remove-cell"]
    notebook["cells"][1]["execution_count"] = 1  # as saved: the cell stays
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    assert readme.update([path], check=True)
    monkeypatch.setattr(readme, "urls", dict)
    assert not readme.update([path]) and chapters.load(path) == plain


def test_the_bootstrap_gets_and_installs_the_book_where_it_is_not(tmp_path):
    """In a fresh environment that has this one's packages beside it, as Colab has most, but no cmxlib; from a clone of
    this checkout as it is."""
    source, home = tmp_path / "source", tmp_path / "home"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__"))
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a commit -qm a", f"tag v{cmxlib.__version__}"):
        subprocess.run(["git", *command.split()], cwd=source, check=True)
    venv.create(tmp_path / "env", with_pip=False)  # it is beside, too, and seconds are what it takes to bring another
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    # The paths in a .pth file are not searched for .pth files, so that the editable cmxlib stays out of sight.
    (site / "beside.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    home.mkdir()
    code = readme.BOOTSTRAP.format(address=source.as_uri(), version=cmxlib.__version__)
    code += "\nimport cmxlib.paths; print(cmxlib.paths.checkout())"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # what it needs is there
    command = [tmp_path / "env" / "bin" / "python", "-c", code]
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
    assert done.stdout.strip().endswith(str(home / "book")), done.stderr
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert again.stdout == f"{home / 'book'}\n" and not (tmp_path / "book").exists(), again.stderr


def test_the_map_of_chapters(book, monkeypatch):
    book.add("03_three")
    monkeypatch.setattr(chapters, "FOLDER", book.path)
    assert readme.chapter_map().splitlines()[2:] == [
        "| [3. A chapter](notebooks/03_three.ipynb) | What does it show? | 15 min |"
    ]
