"""No dependency is declared that nothing uses, and CONTRIBUTING.md says of each why it is there.

That nothing undeclared is imported, `tests/test_setup.py` asks.
"""

import ast
import importlib.metadata
import json
import re

from packaging.utils import canonicalize_name

from cmxlib.paths import ROOT

from ..test_setup import DECLARED

DECLARED_NAMES = {canonicalize_name(requirement.name) for requirement in DECLARED}
NOT_IMPORTED = {  # name: the file that uses it, and the word by which it does
    "bokeh": ("cmxlib/study/sweep.py", "dashboard"),
    "ipykernel": ("cmxlib/book/saving.py", '"python3"'),
    "jupyterlab": ("Makefile", "jupyter lab "),
    "mypy": ("Makefile", "/mypy"),
    "myst-nb": ("site/conf.py", '"myst_nb"'),
    "nbval": ("Makefile", "--nbval"),
    "pytest-xdist": ("Makefile", "--dist"),
    "ruff": ("Makefile", "/ruff check"),
    "setuptools": ("pyproject.toml", "setuptools.build_meta"),
    "sphinx-book-theme": ("site/conf.py", "sphinx_book_theme"),
    "sphinx-mathjax-offline": ("site/conf.py", "sphinx-mathjax-offline"),
    "sphinxcontrib-bibtex": ("site/conf.py", "sphinxcontrib.bibtex"),
}


def sources():
    """The code of all modules, and of the cells that are plain Python."""
    for folder in ("cmxlib", "tests", "examples", "site", "sweeps"):
        yield from (path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py"))
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def imported():
    """The distributions of all that is imported, also by `need` and the like, which are given a name."""
    found = set()
    for source in sources():
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:  # a cell with a command for the shell
            continue
        found |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
        found |= set(re.findall(r"""(?:need|importorskip|import_module)\(\s*["']([\w.]+)""", source))
    homes = importlib.metadata.packages_distributions()
    return {canonicalize_name(home) for name in found for home in homes.get(name.split(".")[0], [])}


def test_every_dependency_is_used():
    assert DECLARED_NAMES - imported() == set(NOT_IMPORTED)
    for file, word in NOT_IMPORTED.values():
        assert word in (ROOT / file).read_text(encoding="utf-8"), f"{word} is not in {file} any more"


def test_every_dependency_is_justified():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| dependency |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert {row[0] for row in rows} == DECLARED_NAMES and len(rows) == len(DECLARED_NAMES)
    assert all(len(row) == 4 and row[1] and row[3] for row in rows)


def test_actions_are_named_by_hash():
    """A tag may be moved to other code; a hash may not."""
    lines = [line for path in (ROOT / ".github" / "workflows").glob("*.yml") for line in path.read_text().splitlines()]
    used = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]
    assert used and all(re.fullmatch(r"uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used)
