"""What the notebooks hold, read as plain JSON: titles, exercises, compared cells, and whether their form is right.

A chapter's first cell is Markdown and opens like this, with the question in one paragraph:

    # 3 · Encrypting images
    **Question.** What does an encrypted image still show?
    **After this chapter you can** ...
    **Before.** What a reader should know.
    **Time.** 15 minutes

Its last sections are `## Summary` and `## Exercises`, and an appendix may follow: four exercises or more, headed `###
Exercise 1 (compute)` and so on, of four levels (compute, change, invent, explain), each with a
`<details><summary>Hint</summary>`. One that is to be invented has a second hint, and one that asks for a reason a model
answer, folded in the same way.
A blank line follows a summary, or the site shows what is folded as it was typed. One code cell, tagged `parameters`,
sets `SCALE = "quick"`; the last code cell, tagged `headline`, prints the one line that a batch run reports. Of the
cells that print, two thirds or more are compared with what is saved.
"""

import ast
import json
import re
from pathlib import Path

from ..paths import checkout
from ..study.records import build_dir

FOLDER = checkout() / "notebooks"


def chapters(only: str = "", folder: Path = FOLDER, solutions: bool = False) -> list[Path]:
    """The chapters in reading order, with `solutions` followed by theirs; with `only`, those whose name begins so."""
    paths = sorted(Path(folder).glob("*.ipynb"))
    both = [*paths, *sorted(Path(folder).glob("solutions/*.ipynb"))] if solutions else paths
    chosen = [path for path in both if path.stem.startswith(only)]
    if not chosen:
        known = ", ".join(path.stem for path in paths) or "none at all"
        raise ValueError(f"no chapter's name begins with {only!r} in {folder.name}/; there are: {known}")
    return chosen


def load(path: Path) -> dict:
    """The notebook's JSON; ValueError when the file is none."""
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        notebook["metadata"]
        if not all({"cell_type", "source", "metadata"} <= set(cell) for cell in notebook["cells"]):
            raise ValueError("a cell is not whole")
        return notebook
    except (UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise ValueError(f"{Path(path).name} is not a notebook of format 4: restore it by git checkout") from None


def joined(text: str | list[str]) -> str:
    """A notebook keeps a text as a string or as a list of lines: the string."""
    return text if isinstance(text, str) else "".join(text)


def source(cell: dict) -> str:
    """What the cell says."""
    return joined(cell["source"])


def tagged(notebook: dict, tag: str) -> list[dict]:
    """The cells that carry a tag."""
    return [cell for cell in notebook["cells"] if tag in tags(cell)]


def code_cells(notebook: dict) -> list[dict]:
    """The code cells that are not empty."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and source(cell).strip()]


def printed(cell: dict) -> str:
    """The text that a cell left on standard output."""
    return "".join(joined(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")


def tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def opening(notebook: dict) -> dict[str, str]:
    """A chapter's title, question and minutes, from its first cell; a part that is not there is empty."""
    text = source(notebook["cells"][0]) if notebook["cells"] else ""
    patterns = {
        "title": r"^# +(.+?)\s*$",
        "question": r"^\*\*Question[.:]?\*\*[.:]?\s*((?:.+\n?)+)",
        "minutes": r"^\*\*Time[.:]?\*\*[^\n]*?(\d+) min",
    }
    found = {name: re.search(pattern, text, re.MULTILINE) for name, pattern in patterns.items()}
    return {name: " ".join(match[1].split()) if match else "" for name, match in found.items()}


def prints(cell: dict) -> bool:
    """Whether a code cell leaves text that a reader can rely on: pictures and widgets are not text."""
    data = [out.get("data", {}) for out in cell["outputs"]]
    shown = any("text/plain" in part and not any(_is_picture(kind) for kind in part) for part in data)
    return bool(printed(cell).strip()) or shown


def _is_picture(kind: str) -> bool:
    return kind.startswith(("image/", "application/vnd.jupyter.widget"))


def compared(cell: dict) -> bool:
    """Whether nbval holds the cell's output to what is saved."""
    marks = re.search(r"#\s*NBVAL_(IGNORE_OUTPUT|SKIP)|#\s*PYTEST_VALIDATE_IGNORE_OUTPUT", source(cell))
    return not marks and not {"nbval-ignore-output", "nbval-skip"} & set(tags(cell))


def exercises(notebook: dict) -> list[tuple[int, str, bool]]:
    """The exercises that a notebook sets: number, level ("" where none is given), and whether there is a hint."""
    prose = "\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    parts = re.split(r"^#+ Exercise +(\d+)", prose, flags=re.MULTILINE)[1:]
    level = re.compile(r" *\((\w+)\)")
    return [
        (int(number), found[1] if (found := level.match(text)) else "", "<summary>Hint" in text)
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    ]


WORDS, LINES = 200, 20  # that are read in a minute: of prose without links and formulas, and of code


def reading(notebook: dict) -> dict[str, int]:
    """Words, lines of code that are shown, pictures and minutes to read all that stands before the exercises; tables
    that a cell writes as Markdown are words like others."""
    words = lines = pictures = 0
    for cell in notebook["cells"]:
        text = source(cell)
        if cell["cell_type"] == "markdown":
            text, *after = re.split(r"^#+ Exercises?\b", text, maxsplit=1, flags=re.MULTILINE)
            words += len(re.sub(r"\]\([^)]*\)|<[^>]+>|\$[^$]*\$", " ", text).split())
            if after:
                break
        elif not {"hide-input", "parameters"} & set(tags(cell)) and not re.match(r"(import|from) ", text):
            lines += sum(bool(line.strip()) for line in text.splitlines())
        written = (output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", []))
        words += sum(len("".join(each).split()) for each in written)
        pictures += any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    return {"words": words, "lines": lines, "pictures": pictures, "minutes": round(words / WORDS + lines / LINES)}


def counts(notebook: dict) -> dict[str, int]:
    """What there is to read in a notebook, how many exercises and hints it has, how many of its cells print, and how
    many of those are compared."""
    set_here = exercises(notebook)
    printing = [cell for cell in code_cells(notebook) if prints(cell)]
    return reading(notebook) | {
        "exercises": len(set_here),
        "hints": sum(hint for _, _, hint in set_here),
        "printing": len(printing),
        "compared": sum(map(compared, printing)),
    }


def run_problems(notebook: dict) -> list[str]:
    """What keeps a chapter from being run at a scale of one's choice and from reporting its headline."""
    problems = []
    parameters = tagged(notebook, "parameters")
    if len(parameters) != 1:
        problems.append(f"{len(parameters)} cells carry the tag 'parameters'; it takes exactly one")
    elif not names(parameters[0], ast.Store) >= {"SCALE"}:
        problems.append("the cell tagged 'parameters' does not set SCALE")
    others = [cell for cell in code_cells(notebook) if cell not in parameters]
    if any("SCALE" in names(cell, ast.Store) for cell in others):
        problems.append("a cell after the one tagged 'parameters' sets SCALE again")
    if not any("SCALE" in names(cell, ast.Load) for cell in others):
        problems.append("no cell uses SCALE, so the chapter would ignore it")
    if code_cells(notebook)[-1:] != tagged(notebook, "headline"):
        problems.append("the last code cell, and only that, must carry the tag 'headline'")
    return problems


def names(cell: dict, context: type) -> set[str]:
    """Names and attributes that a code cell loads or stores; lines for IPython itself are left out."""
    if cell["cell_type"] != "code":
        return set()
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source(cell).split("\n"))
    try:
        nodes = list(ast.walk(ast.parse(plain)))
    except SyntaxError:
        return set()
    found = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
    found |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, context)}
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return found | (imported if context is ast.Store else set())


def seconds(path: Path) -> float | None:
    """How long the last `cmx book` at quick scale took for a notebook, None where there was none."""
    copy = build_dir("quick") / "notebooks" / path.name
    if path.parent != FOLDER or not copy.exists():
        return None
    return load(copy)["metadata"].get("papermill", {}).get("duration")


def count_table() -> str:
    """The counts of each chapter and of its solutions, and their sum, as a table of text.

    `seconds` are those of the last `cmx book` on this machine at quick scale.
    """
    import pandas as pd

    found = {
        path.relative_to(FOLDER).with_suffix("").as_posix(): counts(load(path)) | {"seconds": seconds(path)}
        for path in chapters(folder=FOLDER, solutions=True)
    }
    table = pd.DataFrame.from_dict(found, "index").astype(float)
    table.loc["all"] = table.sum(min_count=1)
    share = (table.compared / table.printing).map("{:.0%}".format, na_action="ignore")
    table.insert(len(table.columns) - 1, "share", share)
    table = table.rename(columns={"lines": "lines of code", "printing": "cells that print"})
    return table.to_string(float_format="{:.0f}".format, na_rep="-")


def text_table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text as lines, each column as wide as its widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
