"""Run the notebooks where they are and keep their outputs, so that nothing in them tells of the machine or the day."""

import base64
import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..paths import write_text
from . import chapters
from .run import LIMITS, end_family, environment

THREADS = 2  # those that the saved outputs were made with
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}  # as ipykernel installs it


def save(only: str = "", folder: Path = chapters.FOLDER) -> None:
    """Run chapters and solutions at quick scale where they are, and keep their outputs, as they are committed.

    A notebook that raises is left as it was, with a ValueError that says why. What differs between machines or runs is
    left out: times, the random names of widgets; so that saving anew what has not changed leaves no difference.
    Pictures are kept in 256 colours, which takes a third of the room. What the kernel says of itself stays, with the
    version of Python: JupyterLab would add it when it opens the notebook, and mark that as unsaved. ValueError where no
    notebook's name begins with ``only``.
    """
    before = dict(os.environ)  # a process that saves may go on to other things, and with other threads
    os.environ.update(environment(THREADS))
    try:
        for path in chapters.chapters(only, folder, solutions=True):
            _save(path)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _save(path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    chapters.load(path)  # ValueError, a sentence, where it is no notebook
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = KERNEL.copy()
    notebook.metadata.pop("widgets", None)
    client = NotebookClient(
        notebook,
        timeout=LIMITS["quick"][0],
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    with ThreadPoolExecutor(1) as pool:  # in the main thread it would answer Ctrl-C itself, and go on
        try:
            pool.submit(client.execute).result()
        except KeyboardInterrupt:
            end_family(os.getpid())
            raise
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else error
            raise ValueError(f"{path.name} did not come to its end, and is left as it was: {reason}") from error
    for cell in chapters.code_cells(notebook):
        for output in cell["outputs"]:
            _in_fewer_colours(output.get("data", {}))
    write_text(path, _named_in_order(nbformat.writes(notebook)) + "\n")
    print(f"saved {os.path.relpath(path)}")


def _named_in_order(text: str) -> str:
    """A notebook's JSON whose widgets are named by their order in it, in place of at random.

    Models stand in the order in which the widgets that are shown lead to them; one that nothing leads to is dropped.
    """
    notebook = json.loads(text)
    (state,) = notebook["metadata"].get("widgets", {}).values() or [{}]
    models = state.get("state", {})
    names = {}

    def follow(node: object) -> None:
        for name in re.findall("[0-9a-f]{32}", json.dumps(node, sort_keys=True)):
            if name in models and name not in names:
                names[name] = f"{len(names) + 1:032x}"
                follow(models[name])

    follow(notebook["cells"])
    if models:
        state["state"] = {name: models[name] for name in names}
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    return re.sub("[0-9a-f]{32}", lambda match: names.get(match[0], match[0]), text)


def _in_fewer_colours(data: dict) -> None:
    """Make a picture among the kinds of an output a PNG of 256 colours, and drop its copy as JPEG."""
    from PIL import Image

    if "image/png" in data:
        data.pop("image/jpeg", None)
        file = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            white = Image.new("RGBA", picture.size, "white")
            Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB").quantize().save(
                file, "png", optimize=True
            )
        data["image/png"] = base64.b64encode(file.getvalue()).decode()
