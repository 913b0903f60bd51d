"""The web edition: how Sphinx makes a static book of the notebooks as they were saved, without running them.

`make site` reads `notebooks/` (its first page is `notebooks/index.md`) and writes `build/site`. Nothing in its pages
asks another machine for anything: scripts, style and fonts lie beside them, MathJax too, which the package
sphinx-mathjax-offline carries, so that no JavaScript tool chain is needed to build.
"""

import json
import re
import runpy
from importlib.util import find_spec
from pathlib import Path

from sphinx.util.fileutil import copy_asset

from cmxlib.book.readme import urls

project = "Locking a ConvMixer with a secret key"
author = copyright = "The cmxlib authors"
language = "en"

extensions = ["myst_nb", "sphinx_book_theme", "sphinxcontrib.bibtex"]
exclude_patterns = ["**.ipynb_checkpoints"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # a widget is shown as a note, see `static_outputs`
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4  # glossary.md#patch-embedding
bibtex_bibfiles = ["../notebooks/references.bib"]
suppress_warnings = ["myst.header"]  # a heading may be followed by one two levels below

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["book.css", "playground.css"]
mathjax_path = "mathjax/tex-chtml.js"
html_sourcelink_suffix = ""  # a chapter is downloaded as NAME.ipynb


GITHUB = "https://github.com/"


def launched(urls: dict[str, str]) -> tuple[dict, str]:
    """The theme's options that open a chapter in Binder and Colab, where `project.urls` names the repository, and a
    sentence. Colab takes repositories on GitHub alone."""
    if "Repository" not in urls:
        return {}, (
            "Who publishes the book names its address in pyproject.toml, as `Repository` under `[project.urls]`, and "
            "runs `cmx readme` and `cmx save`: then each chapter has links that open it in Binder and Colab, without "
            "an installation."
        )
    colab = {"colab_url": "https://colab.research.google.com"} if urls["Repository"].startswith(GITHUB) else {}
    options = {
        "repository_url": urls["Repository"],
        "repository_branch": "main",
        "path_to_docs": "notebooks",
        "launch_buttons": {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"} | colab,
    }
    places = "Binder or Colab" if colab else "Binder"
    return options, f"Each opens in {places}, without an installation, by the rocket at the top of its page."


LAUNCH, WAY_IN = launched(urls())

html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "show_navbar_depth": 1,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    **LAUNCH,
}

CAPTION = re.compile(r"^\*(Figure: .+?)\*[ \t]*$\n*", re.DOTALL | re.MULTILINE)
WIDGET = "application/vnd.jupyter.widget-view+json"
PIECES = {  # of each chapter: its piece in the page, and in what that differs from the notebook's
    "03_encrypting_images": (
        "encrypt",
        "In this page the piece has blocks of 4 and no matrix. <strong>Try here:</strong> with each cipher, move the "
        "slider from the correct key to the wrong one. At how many wrong entries can you no longer name the digit?",
    ),
    "04_encrypting_the_model": (
        "inside",
        "In this page the piece shows twelve filters at once. <strong>Try here:</strong> move the slider entry by "
        "entry. The probabilities under <em>encrypted</em> stay those under <em>plain</em>. What do those under <em>no "
        "key</em> do?",
    ),
    "05_correct_wrong_missing": (
        "turn",
        "In this page the piece shows one digit, encrypted with the turned key. <strong>Try here:</strong> from 0, "
        "find the entry at which the answer under <em>turned key</em> first changes, and read how many of 100 test "
        "digits are still right there.",
    ),
    "07_privacy": ("break", "The piece of the notebook, with keys that the attack found when this page was made."),
}
NOTE = "In JupyterLab this piece moves, when the chapter is run. The picture below shows some of its positions."


def adapt(app, docname, source):
    """Change a notebook's JSON as it is read: figures get their captions, widgets become notes."""
    source[0] = source[0].replace("<!-- way in -->", WAY_IN)
    if app.env.doc2path(docname).suffix == ".ipynb":
        notebook = json.loads(source[0])
        notebook["metadata"].pop("widgets", None)
        static_outputs(notebook, docname)
        captioned_figures(notebook, docname)
        collapsed_imports(notebook)
        with_solutions(notebook, app.srcdir, docname)
        source[0] = json.dumps(notebook)


def static_outputs(notebook: dict, docname: str) -> None:
    """Put in the place of each widget, which only a running kernel can show, a piece of the page's own, or a note."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):
                output["data"] = {"text/html": piece(docname)}


def piece(docname: str) -> str:
    """The piece that moves in a chapter's page: see `static/playground.js`."""
    if docname not in PIECES:
        return f'<p class="widget-note">{NOTE}</p>'
    name, words = PIECES[docname]
    scripts = "".join(f'<script src="_static/{script}.js"></script>' for script in ("cmx", "playground"))
    still = f'<p class="widget-note">{NOTE}</p>'
    return f'<p>{words}</p><div class="playground" data-piece="{name}">{still}</div>{scripts}'


def captioned_figures(notebook: dict, docname: str) -> None:
    """Join each picture with the `*Figure: ...*` in the next Markdown cell, else in the one before.

    The sentence becomes the caption, its first sentence the alternative text, unless the cell's metadata give
    `mystnb.image.alt`. ValueError for a picture without either.
    """
    cells = notebook["cells"]
    for number, cell in enumerate(cells):
        pictures = [out for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
        if not pictures:
            continue
        options = cell["metadata"].setdefault("mystnb", {})
        for neighbour in cells[number + 1 : number + 2] + cells[max(number - 1, 0) : number]:
            text = "".join(neighbour["source"])
            if neighbour["cell_type"] == "markdown" and (found := CAPTION.search(text)):
                neighbour["source"] = text[: found.start()] + text[found.end() :]
                options.setdefault("figure", {})["caption"] = found[1]
                options.setdefault("image", {}).setdefault("alt", plain(found[1]))
                break
        if not options.get("image", {}).get("alt"):
            raise ValueError(f"{docname}: the picture of cell {number + 1} has no sentence '*Figure: ...*' beside it")


def collapsed_imports(notebook: dict) -> None:
    """Fold the cells that begin with imports: what they bring is named where it is used."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and re.match(r"(import|from) ", "".join(cell["source"])):
            cell["metadata"].setdefault("tags", []).append("hide-input")


def with_solutions(notebook: dict, folder: Path, docname: str) -> None:
    """Put a chapter's solutions below it in the list of pages."""
    if Path(folder, "solutions", f"{docname}.ipynb").exists():
        text = f"```{{toctree}}\n:hidden:\n\nsolutions/{docname}\n```"
        notebook["cells"].append({"cell_type": "markdown", "id": "solutions", "metadata": {}, "source": text})


def plain(caption: str) -> str:
    """The first sentence of a caption, without the marks of Markdown and TeX."""
    sentence = re.split(r"(?<=[.;])\s", " ".join(caption.removeprefix("Figure: ").split()))[0]
    return re.sub(r"\[([^]]*)\]\([^)]*\)|[$`*\\{}]", r"\1", sentence).rstrip(";")


def copy_mathjax(app, error):
    """Lay MathJax, with its fonts and the extensions of TeX that it loads on demand, beside the pages."""
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir, "_static", "mathjax")
    copy_asset(source / "tex-chtml.js", target)
    for folder in ("output/chtml/fonts/woff-v2", "input/tex/extensions"):
        copy_asset(source / folder, target / folder)


def make_playground(app, error):
    """Lay what the playground computes with beside its script."""
    made = runpy.run_path(str(Path(app.confdir, "playground.py")))
    made["write"](Path(app.outdir, "_static", "playground"))


TABLE = re.compile(r'<table class="table">.*?</table>', re.DOTALL)
SENTENCE = re.compile(r"<td>(?:<p>)?[^<]{120}")
FIGURE = re.compile(r'(<figure[^>]*>\s*)(<img[^>]* src="([^"]+)"[^>]*>)')


def finish(app, pagename, templatename, context, doctree):
    """Make each figure a link to its picture, to be enlarged on a small screen, and the references no ARIA list.

    docutils gives the references the role of a list, but its entries are no list items.
    """
    body = context.get("body", "").replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    # Where a cell holds sentences, the columns of a table are too narrow for them on a telephone: see book.css.
    body = TABLE.sub(lambda found: as_sentences(found[0]), body)
    context["body"] = FIGURE.sub(r'\1<a class="enlarge" href="\3">\2</a>', body)


def as_sentences(table: str) -> str:
    return table.replace('class="table"', 'class="table sentences"', 1) if SENTENCE.search(table) else table


def named_folds(app, pagename, templatename, context, doctree):
    """Say what the arrows beside the chapters unfold, which the theme leaves to be guessed."""
    tree = context.get("generate_toctree_html")
    if tree:
        context["generate_toctree_html"] = lambda *arguments, **options: str(tree(*arguments, **options)).replace(
            "<summary>", '<summary aria-label="Solutions">'
        )


def setup(app):
    app.connect("html-page-context", finish)
    app.connect("html-page-context", named_folds, priority=900)  # after the theme's own
    app.connect("source-read", adapt)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", make_playground)
