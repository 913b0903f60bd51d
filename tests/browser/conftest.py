"""A real browser: Chromium, driven by playwright, in which no page may reach another machine."""

import shutil

import pytest

from cmxlib.paths import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="no browser test without the Python package playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no browser test without Chromium: install the system's package chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """A function that gives a new page, and the list of what goes wrong in it: errors, requests that would leave."""
    contexts = []

    def open_page(base: str, width: int = 1280, scheme: str = "light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page, wrong = contexts[-1].new_page(), []

        page.set_default_timeout(120_000)  # a busy machine may take its time

        def route(call):
            if call.request.url.startswith((base, "data:", "blob:")):
                call.continue_()
            else:
                wrong.append(f"asks for {call.request.url}")
                call.abort()

        page.route("**/*", route)
        page.on("pageerror", lambda error: wrong.append(f"raises {error}"))
        page.on("response", lambda got: got.status >= 400 and wrong.append(f"asks for {got.url} and gets {got.status}"))
        page.on("console", lambda said: said.type == "error" and wrong.append(f"console: {said.text}"))
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def screenshots():
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
