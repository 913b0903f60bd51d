"""The chapters in JupyterLab, as a reader opens them: Run All, no error, and widgets that answer."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from cmxlib import chapters

from ..conftest import make_notebook
from .conftest import ROOT

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 240  # for one chapter on two cores: it is to take 60, and a first one trains a network
# No question about news; every cell drawn at once, so that a picture is there before it is scrolled to.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false"},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
CELLS = "[...jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.toJSON())"
PICTURES = "handle => [...handle.closest('.jp-Cell').querySelectorAll('img')].map(image => image.src)"


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
    """Open a notebook in JupyterLab, run all its cells, move each slider; what went wrong, in sentences."""
    page.goto(f"{base}lab/tree/{name}?reset")
    page.wait_for_function(IDLE, timeout=60_000)
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


def move_sliders(page) -> list[str]:
    """Move each slider by one step; those whose cell shows the same pictures as before, two seconds later."""
    problems = []
    for number, handle in enumerate(page.query_selector_all(".jp-Notebook .noUi-handle"), start=1):
        before, value = handle.evaluate(PICTURES), handle.get_attribute("aria-valuenow")
        handle.focus()
        handle.press("ArrowRight")
        if handle.get_attribute("aria-valuenow") == value:  # it stood at its end
            handle.press("ArrowLeft")
        for _ in range(20):
            if handle.evaluate(PICTURES) != before:
                break
            page.wait_for_timeout(100)
        else:
            problems.append(f"slider {number} changes no picture")
    return problems


def whole(page, path):
    """A screenshot of the whole notebook, not only of what a window shows of it."""
    height = page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": min(height + 100, 16_000)})
    page.screenshot(path=path)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_runs_and_its_widgets_answer(lab, open_page, screenshots, chapter):
    page, wrong = open_page(lab[0])
    problems = run_all(page, lab[0], chapter.name)
    whole(page, screenshots / f"lab-{chapter.stem}.png")
    if page.query_selector(".jp-Notebook .noUi-handle"):
        problems += move_sliders(page)
        page.screenshot(path=screenshots / f"lab-{chapter.stem}-moved.png")
    assert problems + [text for text in wrong if text.startswith("asks")] == []


SLIDER = """
import io
import ipywidgets
from PIL import Image
def draw(change):
    file = io.BytesIO()
    Image.new("L", (8, 8), 20 * slider.value).save(file, "png")
    picture.value = file.getvalue()
slider, picture = ipywidgets.IntSlider(value=10, max=10), ipywidgets.Image()
draw(None)
{}
display(ipywidgets.VBox([slider, picture]))
"""


def test_a_slider_that_answers_and_one_that_does_not(lab, open_page):
    sources = [SLIDER.format("slider.observe(draw, 'value')"), SLIDER.format(""), "1 / 0", "never run"]
    notebook = make_notebook([("code", source, (), "") for source in sources])
    (lab[1] / "spoiled.ipynb").write_text(json.dumps(notebook))
    page, _ = open_page(lab[0])
    problems = run_all(page, lab[0], "spoiled.ipynb") + move_sliders(page)
    assert problems == [
        "code cell 3 ends in ZeroDivisionError: division by zero",
        "code cell 4 has the count None",
        "slider 2 changes no picture",
    ]
