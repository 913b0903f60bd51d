"""The chapters in JupyterLab, as a reader opens them: Run All, no error, and widgets that answer."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

from cmxlib.book import chapters

from ..conftest import make_notebook
from .conftest import ROOT

SECONDS = 240  # for one chapter on two cores: it is to take 60, and a first one trains a network
# No question about news; every cell drawn at once, so that a picture is there before it is scrolled to.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false"},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
# The first chapter and those with an interactive piece; that the others run is known without a browser.
CHAPTERS = [
    path
    for number, path in enumerate(sorted((ROOT / "notebooks").glob("*.ipynb")))
    if not number or WIDGET in path.read_text("utf-8")
]
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CELLS = "[...jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.toJSON())"
# What a reader moves in an interactive piece. Buttons come first: they may give the others something to choose from.
BUTTONS = ".jp-Notebook .jupyter-widgets.jupyter-button:not(.widget-upload)"
CONTROLS = (BUTTONS, ".jp-Notebook .noUi-handle", ".jp-Notebook .widget-dropdown select", ".jp-Notebook .widget-upload")
SOURCE = "control => control.closest('.jp-Cell').querySelector('.widget-image')?.src"


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """JupyterLab on this machine alone, on copies of the chapters: (address, folder)."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    for name, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    places = ("JUPYTER_CONFIG", "JUPYTERLAB_SETTINGS", "JUPYTERLAB_WORKSPACES", "JUPYTER_RUNTIME")
    own = {f"{place}_DIR": str(home / place.split("_")[-1].lower()) for place in places}
    own |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = "--no-browser --allow-root --ip=127.0.0.1 --IdentityProvider.token= --expose-app-in-browser".split()
    command = [sys.executable, "-m", "jupyterlab", *options, f"--port={port}", f"--ServerApp.root_dir={folder}"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}/"
    try:
        wait_for(base, process, home / "log")
        yield base, folder
    finally:
        process.terminate()
        process.wait(30)


def wait_for(base, process, log):
    for _ in range(300):
        try:
            return urllib.request.urlopen(base + "api/status", timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer:\n{log.read_text()}")


def run_all(page, base: str, name: str) -> list[str]:
    """Open a notebook in JupyterLab and run all its cells; what went wrong, in sentences."""
    page.goto(f"{base}lab/tree/{name}?reset")
    page.wait_for_function(IDLE)
    page.wait_for_function("jupyterapp.shell.currentWidget.content?.model?.cells.length > 0")
    page.set_default_timeout(SECONDS * 1000)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ran = true }) }")
    page.wait_for_function("window.ran === true", timeout=SECONDS * 1000, polling=250)
    page.wait_for_function(IDLE)
    cells = [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code" and chapters.source(cell).strip()]
    problems = []
    for number, cell in enumerate(cells, start=1):
        if cell["execution_count"] != number:
            problems.append(f"code cell {number} has the count {cell['execution_count']}")
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                problems.append(f"code cell {number} ends in {output['ename']}: {output['evalue']}")
    return problems


def move_all(page, folder, name: str, seconds: float = 10) -> list[str]:
    """Move each control of each interactive piece; those whose picture is the same as before, so many seconds later.

    Screenshots of each piece, before its first move and after its last, go to `folder`.
    """
    problems = []
    pieces = [cell for cell in page.query_selector_all(".jp-Notebook .jp-Cell") if cell.query_selector(".widget-image")]
    for number, piece in enumerate(pieces, start=1):
        piece.screenshot(path=folder / f"widget-{name}-{number}-before.png")
    for kind in CONTROLS:
        for control in page.query_selector_all(kind):
            before, seen = control.evaluate(SOURCE), picture_of(control)
            label = move(page, control, folder)
            for _ in range(round(10 * seconds)):
                if control.evaluate(SOURCE) != before and picture_of(control) != seen:
                    break
                page.wait_for_timeout(100)
            else:
                problems.append(f"{label} changes no picture")
    for number, piece in enumerate(pieces, start=1):
        piece.screenshot(path=folder / f"widget-{name}-{number}-after.png")
    return problems


def picture_of(control) -> bytes:
    """What is seen of the picture in a control's piece."""
    image = control.evaluate_handle("control => control.closest('.jp-Cell').querySelector('.widget-image')")
    return image.as_element().screenshot()


def move(page, control, folder) -> str:
    """One move of a control, as a hand would make it; returns what was moved."""
    what = control.evaluate("control => control.closest('.jupyter-widgets').innerText.trim().split('\\n')[0]")
    classes = control.get_attribute("class") or ""
    if "noUi-handle" in classes:
        value = control.get_attribute("aria-valuenow")
        control.focus()
        control.press("ArrowRight")
        if control.get_attribute("aria-valuenow") == value:  # it stood at its end
            control.press("ArrowLeft")
        return f"the slider {what!r}"
    if control.evaluate("control => control.tagName") == "SELECT":
        chosen, choices = control.evaluate("control => [control.selectedIndex, control.options.length]")
        control.select_option(index=(chosen + 1) % choices)
        return f"the choice {what!r}"
    if "widget-upload" in classes:
        mine = folder / "mine.png"
        Image.linear_gradient("L").save(mine)
        with page.expect_file_chooser() as chooser:
            control.click()
        chooser.value.set_files(mine)
        return f"the upload {what!r}"
    control.click()
    return f"the button {what!r}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_its_widgets_answer(lab, open_page, screenshots, chapter):
    page, wrong = open_page(lab[0])
    problems = run_all(page, lab[0], chapter.name)
    page.evaluate("jupyterapp.shell.currentWidget.content.scrollToItem(0)")
    page.screenshot(path=screenshots / f"lab-{chapter.stem}.png")
    problems += move_all(page, screenshots, chapter.stem)
    shown = page.locator(".jp-Notebook .widget-image").count()
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")  # a kernel holds up to a gigabyte
    cells = chapters.load(chapter)["cells"]
    pieces = sum(WIDGET in out.get("data", {}) for cell in cells for out in cell.get("outputs", []))
    if shown != pieces:
        problems.append(f"{shown} interactive pieces are shown where {pieces} were saved")
    assert problems + [text for text in wrong if text.startswith("asks")] == []


UNSAVED = "jupyterapp.shell.currentWidget.context.model.dirty"


@pytest.mark.parametrize("name", ["01_convmixer.ipynb", "03_encrypting_images.ipynb"])
def test_opening_a_chapter_leaves_it_saved(lab, open_page, name):
    """JupyterLab adds what the kernel says of itself; the saved notebook says it already, but for another Python's
    version."""
    opened = json.loads((lab[1] / name).read_text())
    opened["metadata"]["language_info"]["version"] = platform.python_version()
    renamed = json.loads(json.dumps(opened))
    renamed["metadata"]["kernelspec"]["display_name"] = "another"
    for notebook in (opened, renamed):
        (lab[1] / "opened.ipynb").write_text(json.dumps(notebook))
        page, _ = open_page(lab[0])
        page.goto(f"{lab[0]}lab/tree/opened.ipynb?reset")
        page.wait_for_function(IDLE)
        page.wait_for_timeout(3000)
        assert page.evaluate(UNSAVED) == (notebook is renamed)
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")


WORD = """() => {
    const heading = document.querySelector('.jp-MarkdownViewer [data-jupyter-id="patch-embedding"]');
    const top = heading?.getBoundingClientRect().top;
    return top > 0 && top < innerHeight;
}"""


def test_a_link_to_the_glossary_opens_its_word(lab, open_page):
    page, _ = open_page(lab[0])
    page.goto(f"{lab[0]}lab/tree/01_convmixer.ipynb?reset")
    page.wait_for_function(IDLE)
    page.locator(".jp-RenderedMarkdown a", has_text="patch embedding").first.click()
    page.wait_for_function(WORD)


PIECE = """
import io
import ipywidgets
from PIL import Image

def piece(number, answers):
    def draw(change):
        file = io.BytesIO()
        Image.new("L", (64, 64), 20 * slider.value + 50 * choice.index).save(file, "png")
        picture.value = file.getvalue()

    def pressed(button):
        slider.value -= 3

    def uploaded(change):
        picture.value = change["new"][0]["content"].tobytes()

    slider = ipywidgets.IntSlider(value=8, max=8, description=f"grey {number}")
    choice = ipywidgets.Dropdown(options=["a", "b"], description=f"shade {number}")
    button, picture = ipywidgets.Button(description=f"press {number}"), ipywidgets.Image()
    upload = ipywidgets.FileUpload(description=f"file {number}")
    draw(None)
    if answers:
        slider.observe(draw, "value")
        choice.observe(draw, "value")
        button.on_click(pressed)
        upload.observe(uploaded, "value")
    return ipywidgets.VBox([slider, choice, button, upload, picture])
"""


def test_controls_that_answer_and_ones_that_do_not(lab, open_page, tmp_path):
    sources = [f"{PIECE}\npiece(1, True)", "piece(2, False)", "1 / 0", "never run"]
    notebook = make_notebook([("code", source, (), "") for source in sources])
    (lab[1] / "spoiled.ipynb").write_text(json.dumps(notebook))
    page, _ = open_page(lab[0])
    problems = run_all(page, lab[0], "spoiled.ipynb") + move_all(page, tmp_path, "spoiled", seconds=3)
    assert problems == [
        "code cell 3 ends in ZeroDivisionError: division by zero",
        "code cell 4 has the count None",
        "the button 'press 2' changes no picture",
        "the slider 'grey 2' changes no picture",
        "the choice 'shade 2' changes no picture",
        "the upload 'file 2 (0)' changes no picture",
    ]
