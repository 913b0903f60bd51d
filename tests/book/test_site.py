"""The web edition: built without a warning, whole, and independent of any other machine."""

import html.parser
import json
import re
import runpy
import subprocess
import sys
import urllib.parse
from functools import cache
from pathlib import Path

import pytest

from cmxlib.book import chapters
from cmxlib.paths import ROOT

from ..conftest import GOOD, make_notebook

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))
PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<F>"}}
# What a browser fetches by itself, as opposed to a link that a reader may follow.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "author", "copyright"}


def build(source: Path, target: Path) -> Path:
    """Build the site of the notebooks in `source`, with warnings as errors; returns the folder of its pages."""
    line = re.search(r"bin/(sphinx-build .*)", (ROOT / "Makefile").read_text())[1]
    options = line.replace("notebooks build/site", "").split()[1:]
    command = [sys.executable, "-m", "sphinx", *options, "-d", f"{target}-trees", str(source), str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def pages_of(folder: Path) -> list[str]:
    """The names of the pages that hold something to read."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if "_static" not in path.parts)
    return sorted(set(names) - {"genindex.html", "search.html"})


class Page(html.parser.HTMLParser):
    """What a page has: `tags` as (name, attributes), `ids`, and the style sheets written into it."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.styles, self.within = [], set(), "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.within = tag
        self.tags.append((tag, dict(attributes)))
        self.ids.update(value for name, value in attributes if name == "id" or (tag, name) == ("a", "name"))

    def handle_data(self, data):
        self.styles += data if self.within == "style" else ""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build(ROOT / "notebooks", tmp_path_factory.mktemp("site"))


@cache
def parsed(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def outside(path: Path) -> list[str]:
    """The addresses of other machines that a page or a style sheet makes a browser fetch."""
    if path.suffix == ".css":
        styles, found = path.read_text(encoding="utf-8"), []
    else:
        page = parsed(path)
        styles = page.styles + " ".join(attributes.get("style") or "" for _, attributes in page.tags)
        found = [
            attributes.get(FETCHED[tag]) or ""
            for tag, attributes in page.tags
            if tag in FETCHED and not NOT_FETCHED & set((attributes.get("rel") or "").split())
        ]
    found += re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", styles)
    return [address for address in found if re.match(r"(?:https?:)?//", address)]


def broken(site: Path, name: str) -> list[str]:
    """The links of a page to files or anchors of the site that are not there."""
    found = []
    for tag, attributes in parsed(site / name).tags:
        link = attributes.get("href" if tag in ("a", "link") else "src")
        if tag not in ("a", "link", "img", "script") or not link or re.match(r"[a-z]+:|//", link):
            continue
        target, anchor = urllib.parse.urldefrag(link)
        path = (site / name).parent / urllib.parse.unquote(target.split("?")[0]) if target else site / name
        if not path.is_file() or (anchor and path.suffix == ".html" and anchor not in parsed(path.resolve()).ids):
            found.append(link)
    return found


def test_every_notebook_has_a_page_with_its_download(site):
    for path in NOTEBOOKS:
        name = path.relative_to(ROOT / "notebooks")
        links = [attributes.get("href", "") for tag, attributes in parsed(site / name.with_suffix(".html")).tags]
        (download,) = {link for link in links if link.endswith(f"_sources/{name.as_posix()}")}
        copy = (site / name).parent / download
        assert copy.read_bytes() == path.read_bytes()
    assert {"index.html", "glossary.html", "references.html"} <= set(pages_of(site))


def test_solutions_stand_below_their_chapter(site):
    following = {
        name: [a["href"] for tag, a in parsed(site / name).tags if tag == "link" and a.get("rel") == "next"]
        for name in ("03_encrypting_images.html", "solutions/03_encrypting_images.html")
    }
    assert list(following.values()) == [["solutions/03_encrypting_images.html"], ["../04_encrypting_the_model.html"]]


def test_no_link_within_the_site_is_broken(site):
    problems = {name: broken(site, name) for name in [*pages_of(site), "search.html", "genindex.html"]}
    assert {name: found for name, found in problems.items() if found} == {}


def test_no_page_or_style_asks_another_machine(site):
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert {path.name: found for path in files if (found := outside(path))} == {}


def test_every_picture_says_what_it_shows(site):
    pictures = {name: [a for tag, a in parsed(site / name).tags if tag == "img"] for name in pages_of(site)}
    assert [name for name, found in pictures.items() for a in found if len((a.get("alt") or "").strip()) < 5] == []
    for path in NOTEBOOKS:
        cells = chapters.code_cells(chapters.load(path))
        made = sum("image/png" in out.get("data", {}) for cell in cells for out in cell["outputs"])
        name = path.relative_to(ROOT / "notebooks").with_suffix(".html").as_posix()
        assert sum("_images" in a["src"] for a in pictures[name]) == made
        enlarged = [a["href"] for tag, a in parsed(site / name).tags if tag == "a" and a.get("class") == "enlarge"]
        assert len(enlarged) == made and {(site / name).parent.joinpath(link).is_file() for link in enlarged} <= {True}


def test_equations_are_set_by_scripts_of_the_site(site):
    page = parsed(site / "glossary.html")
    (script,) = [a["src"] for tag, a in page.tags if tag == "script" and "mathjax" in (a.get("src") or "")]
    file = site / script.split("?")[0]
    assert file.stat().st_size > 1e6
    assert len(list(file.parent.rglob("*.woff"))) > 20 and (file.parent / "input/tex/extensions/boldsymbol.js").exists()


def test_faults_of_a_page_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here"></a><a href="#gone"></a><a href="b.html"></a><a href="https://example.org"></a>'
        '<script src="//example.org/x.js"></script><p style="background: url(https://example.org/x.png)"></p>'
        '<link rel="canonical" href="https://example.org/"><style>@import "https://example.org/x.css"</style>'
    )
    assert broken(tmp_path, "a.html") == ["#gone", "b.html"]
    assert [address.rsplit("/")[-1] for address in outside(tmp_path / "a.html")] == ["x.js", "x.css", "x.png"]


# -- what conf.py does to a notebook -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conf():
    return runpy.run_path(str(ROOT / "site" / "conf.py"))


@pytest.mark.parametrize("above", [False, True])
def test_a_picture_takes_its_caption_from_beside_it(conf, above):
    text = "*Figure: the matrix $A$ of\na [cipher](a.md) ×4; more.\nAnd more.*"
    cells = [("markdown", "Before.", (), ""), ("code", "plot()", (), ""), ("markdown", f"{text}\n\nAfter.", (), "")]
    if above:
        cells = [cells[2], cells[1], cells[0]]
    notebook = make_notebook(cells)
    notebook["cells"][1]["outputs"] = [PICTURE]
    conf["captioned_figures"](notebook, "a")
    options = notebook["cells"][1]["metadata"]["mystnb"]
    assert options == {"image": {"alt": "the matrix A of a cipher ×4"}, "figure": {"caption": text.strip("*")}}
    assert notebook["cells"][0 if above else 2]["source"] == "After."


def test_a_picture_without_a_caption_stops_the_build(conf):
    notebook = make_notebook([*GOOD, ("code", "plot()", (), "")])
    notebook["cells"][-1]["outputs"] = [PICTURE]
    with pytest.raises(ValueError, match=r"03: the picture of cell 6 has no sentence"):
        conf["captioned_figures"](notebook, "03")
    notebook["cells"][-1]["metadata"]["mystnb"] = {"image": {"alt": "a cat"}}
    conf["captioned_figures"](notebook, "03")


def test_a_widget_is_shown_as_a_note(conf):
    notebook = make_notebook([("code", "slider", (), "")])
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}
    notebook["cells"][0]["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data}]
    conf["static_outputs"](notebook, "01_convmixer")
    assert "JupyterLab" in notebook["cells"][0]["outputs"][0]["data"].pop("text/html")
    assert "IntSlider" not in json.dumps(notebook)
    assert 'data-piece="turn"' in conf["piece"]("05_correct_wrong_missing")


def test_an_import_cell_is_folded_and_no_other(conf):
    notebook = make_notebook([("code", "import torch\n\nx = 1", (), ""), ("code", "x = 1\nimport torch", ("a",), "")])
    conf["collapsed_imports"](notebook)
    assert [cell["metadata"]["tags"] for cell in notebook["cells"]] == [["hide-input"], ["a"]]


def test_chapters_open_elsewhere_where_the_address_is_known(conf):
    options, sentence = conf["launched"]({"Repository": "https://github.com/someone/book"})
    assert options["repository_url"] == "https://github.com/someone/book" and "Binder or Colab" in sentence
    assert {"binderhub_url", "colab_url"} <= options["launch_buttons"].keys()
    options, sentence = conf["launched"]({"Repository": "https://gitlab.com/someone/book"})
    assert "colab_url" not in options["launch_buttons"] and "Colab" not in sentence
    options, sentence = conf["launched"]({})
    assert options == {} and "project.urls" in sentence


def test_a_table_of_sentences_is_told_from_one_of_numbers(conf):
    numbers, words = ('<table class="table"><td><p>' + text + "</p></td></table>" for text in ("0.5", "word " * 40))
    assert conf["as_sentences"](numbers) == numbers and 'class="table sentences"' in conf["as_sentences"](words)


def test_a_warning_stops_the_build(tmp_path):
    (tmp_path / "index.md").write_text("# A book\n\n[nowhere](gone.md)\n")
    with pytest.raises(AssertionError, match=r"cross-reference target not found: 'gone\.md'"):
        build(tmp_path, tmp_path / "out")
