"""The web edition in a browser, wide and narrow, light and dark: nothing breaks, leaves the machine or shuts out."""

import functools
import http.server
import threading

import pytest

from ..book.test_site import build, pages_of
from .conftest import ROOT

# Not preloaded: axe takes the style sheets that a style sheet imports for files beside the page.
AXE = {"resultTypes": ["violations"], "preload": False}
NO_COLOURS = AXE | {"rules": {"color-contrast": {"enabled": False}}}
VIEWS = [(1280, "light"), (1280, "dark"), (400, "light")]
# A page of each kind, and all with a piece of their own: contrasts are those of the style sheets, and to check them
# takes five times as long as all else.
COLOURED = [
    "index.html",
    "03_encrypting_images.html",
    "04_encrypting_the_model.html",
    "05_correct_wrong_missing.html",
    "07_privacy.html",
    "11_claims.html",
    "glossary.html",
    "solutions/02_training.html",
]
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
NO_ALT = "[...document.images].filter(image => !image.alt.trim()).map(image => image.src)"
CUT = "[...document.querySelectorAll('.bd-article pre')].filter(pre => pre.scrollWidth > pre.clientWidth + 1).length"
UNSET = "document.querySelectorAll('.math').length - document.querySelectorAll('.math > mjx-container').length"


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="session")
def site(browser, tmp_path_factory):
    """The folder of a new build, and the address on this machine where it is served."""
    folder = build(ROOT / "notebooks", tmp_path_factory.mktemp("site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def faults(page, options) -> list[str]:
    """What a reader would stumble over in a loaded page, as far as a machine can tell."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    found = [f"no alternative text: {src}" for src in page.evaluate(NO_ALT)]
    if page.evaluate(UNSET) or page.locator("mjx-merror").count():
        found.append("an equation is not set")
    if (wide := page.evaluate(WIDE)) > 0:
        found.append(f"{wide} pixels wider than the window")
    if cut := page.evaluate(CUT):
        found.append(f"{cut} blocks of code or output are cut")
    for violation in axe.run(page, options=options).response["violations"]:
        if violation["impact"] in ("serious", "critical"):
            nodes = [node["html"][:150] for node in violation["nodes"][:3]]
            found.append(f"{violation['id']} ({len(violation['nodes'])} times): {nodes}")
    return found


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_every_page(site, open_page, screenshots, width, scheme):
    folder, base = site
    page, wrong = open_page(base, width, scheme)
    problems = {}
    for name in COLOURED if scheme == "dark" else pages_of(folder):
        options = AXE if width == 1280 and name in COLOURED else NO_COLOURS
        page.goto(base + name, wait_until="load")
        for _ in page.query_selector_all(".playground"):
            page.wait_for_selector(".playground[data-ready]")
        problems[name] = faults(page, options) + wrong
        wrong.clear()
        path = screenshots / f"site-{width}-{scheme}-{name.replace('/', '-')}.jpg"
        page.screenshot(path=path, type="jpeg", quality=80, full_page=True)  # in half the time of a PNG
        shoot_piece(page, path.with_suffix(""))
    assert {name: found for name, found in problems.items() if found} == {}


def shoot_piece(page, path) -> None:
    """Screenshots of the page's moving piece, if it has one, before and after a move."""
    piece = page.query_selector(".playground")
    if piece:
        page.add_style_tag(content=".bd-header-article, .skip-link, #pst-back-to-top { display: none !important }")
        piece.screenshot(path=f"{path}-before.png")
        for key in ("Home", "PageUp", "PageUp", "PageUp"):
            page.press(".slider input", key)
        piece.screenshot(path=f"{path}-after.png")


def test_search_finds_a_chapter(site, open_page):
    page, wrong = open_page(site[1])
    page.goto(site[1] + "search.html?q=permutation")
    page.wait_for_selector("#search-results li a")
    assert "encrypting" in page.locator("#search-results").inner_text().lower()
    assert wrong == []


def test_spoiled_pages_are_found_out(open_page, tmp_path):
    base = tmp_path.as_uri()
    (tmp_path / "a.html").write_text(
        '<html lang="en"><title>t</title><body style="width: 900px"><img src="data:," alt="">'
        '<div class="bd-article"><pre style="width: 9px; overflow: auto">a long line</pre></div>'
        '<p class="math">x</p><a href="/"></a><script>x.y</script><script src="https://example.org/a.js"></script>'
    )
    page, wrong = open_page(base, width=400)
    page.goto(base + "/a.html")
    assert "asks for https://example.org/a.js" in wrong
    assert any("x is not defined" in text for text in wrong)
    found = " ".join(faults(page, AXE))
    for part in ("no alternative text", "equation", "pixels wider", "1 blocks of code", "link-name"):
        assert part in found
