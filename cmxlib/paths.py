"""Where things are: the checkout of the book, the cache folder; and the one way in which the project writes a file."""

import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

_PARENT = Path(__file__).resolve().parents[1]
ROOT = _PARENT if all((_PARENT / name).exists() for name in ("notebooks", "pyproject.toml")) else None  # the checkout


class NoCheckout(RuntimeError):
    """A command of the book was given where no checkout of it is."""


def checkout() -> Path:
    """The folder of the book: notebooks, results, figures. NoCheckout where cmxlib was installed without it."""
    if ROOT is None:
        raise NoCheckout(
            "This needs a checkout of the book (its notebooks and results), and the cmxlib that runs was installed "
            "without one: clone the repository and run `make setup` in it."
        )
    return ROOT


def need(module: str, extra: str) -> ModuleType:
    """The module of that name; ImportError, with the way out, where the extra that brings it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'This needs {module}, which comes with the extra "{extra}": pip install "cmxlib[{extra}]".'
        ) from error


def cache_dir() -> Path:
    """The folder for decoded data and trained models, made if need be: the environment variable CMX_CACHE, or cmxlib
    in the user's cache folder. All in it can be had again. OSError, with the way out, where it cannot be made."""
    if chosen := os.environ.get("CMX_CACHE"):
        folder = Path(chosen)
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local") / "cmxlib"
    elif sys.platform == "darwin":
        folder = Path("~/Library/Caches/cmxlib")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cmxlib"
    try:
        folder = folder.expanduser()  # RuntimeError where nobody knows the home folder
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "there is no home folder"
        raise OSError(
            f"The cache folder {folder} cannot be made ({why}): "
            "set the environment variable CMX_CACHE to a folder that you can write to."
        ) from error
    return folder


def write_bytes(path: str | os.PathLike, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file at one stroke: a reader finds the old one or the whole new one, never a part.

    A symbolic link is followed, so that what it points to is replaced and the link stays.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """``write_bytes`` of a text in UTF-8; line ends stay as they are."""
    write_bytes(path, text.encode())
