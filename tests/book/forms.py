"""What the form of a committed notebook must be: each function gives the list of what is wrong."""

import ast
import re

from cmxlib.book.chapters import (
    code_cells,
    counts,
    exercises,
    names,
    opening,
    printed,
    run_problems,
    source,
    tagged,
    tags,
)

LEVELS = ("compute", "change", "invent", "explain")
FOLDS = {"invent": "Second hint", "explain": "Model answer"}  # what else exercises of a level have
_WIDGETS = {"Output", "interact", "interactive", "interactive_output", "interact_manual"}


def saved_problems(notebook: dict) -> list[str]:
    """What is wrong with a committed notebook, a chapter or a solution: how it was run and what it left."""
    cells = code_cells(notebook)
    problems = []
    if notebook.get("metadata", {}).get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel is not python3")
    if [cell.get("execution_count") for cell in cells] != list(range(1, len(cells) + 1)):
        problems.append("the execution counts are not 1, 2, 3, ...: run it from the top in a fresh kernel")
    if not any(cell["outputs"] for cell in cells):
        problems.append("no cell has an output, so there is nothing to compare")
    for number, cell in enumerate(cells, start=1):
        if any(out["output_type"] == "error" for out in cell["outputs"]):
            problems.append(f"code cell {number} ends in an error")
        if any(out.get("name") == "stderr" for out in cell["outputs"]):
            problems.append(f"code cell {number} writes to standard error")
        if used := sorted(_WIDGETS & (names(cell, ast.Load) | names(cell, ast.Store))):
            problems.append(f"code cell {number} uses {used[0]}, which can hang a batch: set a widget's value instead")
        if "hide-input" in tags(cell) and not cell["metadata"].get("jupyter", {}).get("source_hidden"):
            problems.append(f"code cell {number} is tagged hide-input, and open in JupyterLab: say source_hidden")
        if "raises-exception" in tags(cell):
            problems.append(f"code cell {number} is tagged raises-exception: show the error with try and except")
    return problems


def chapter_problems(notebook: dict) -> list[str]:
    """What is wrong with a committed chapter: all of the above, its opening, its study aids, and what it compares."""
    problems = run_problems(notebook) + saved_problems(notebook) + _aid_problems(notebook)
    problems += [f"the first cell gives no {name}" for name, text in opening(notebook).items() if not text]
    if not any(re.search(r"^SCALE = \"quick\"", source(cell), re.M) for cell in tagged(notebook, "parameters")):
        problems.append("the cell tagged 'parameters' must say SCALE = \"quick\"")
    for cell in tagged(notebook, "headline"):
        if len(printed(cell).strip().splitlines()) != 1:
            problems.append("the cell tagged 'headline' must print exactly one line")
    return problems


def _aid_problems(notebook: dict) -> list[str]:
    """What a chapter lacks of goals, prerequisites, summary, exercises and hints, and of cells that are compared."""
    prose = "\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    marks = ("**After this chapter you can**", "**Before.**", "## Summary", "## Exercises")
    problems = [f"it has no line that begins '{mark}'" for mark in marks if f"\n{mark}" not in f"\n{prose}"]
    numbers, levels, hints = zip(*exercises(notebook), strict=True) if exercises(notebook) else ((), (), ())
    if len(numbers) < 4 or list(numbers) != list(range(1, len(numbers) + 1)):
        problems.append(f"its exercises are numbered {list(numbers)}; it takes four or more: 1, 2, 3, 4, ...")
    if {*levels} != {*LEVELS}:
        problems.append(f"its exercises are of the levels {sorted(set(levels))}; it takes all of {', '.join(LEVELS)}")
    if not all(hints):
        problems.append(f"exercise {numbers[hints.index(False)]} has no <details><summary>Hint</summary>")
    for level, fold in FOLDS.items():
        if prose.count(f"<summary>{fold}</summary>") < levels.count(level):
            problems.append(f"an exercise of the level {level} has no <details><summary>{fold}</summary>")
    if re.search(r"</summary>(?!\n\n)", prose):
        problems.append("a <summary> is not followed by a blank line, so the site shows what is folded as it was typed")
    found = counts(notebook)
    if 3 * found["compared"] < 2 * found["printing"]:
        problems.append(f"only {found['compared']} of the {found['printing']} cells that print are compared")
    return problems
