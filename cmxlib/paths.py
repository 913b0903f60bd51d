"""Where things are: the checkout of the book, the cache folder, packages that an extra brings; and the one way in which
the project writes a file."""

import errno
import functools
import importlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted: that alone tells which are in use
    fcntl = None  # type: ignore[assignment]

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
        folder = expanded(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "there is no home folder"
        raise OSError(
            f"The cache folder {folder} cannot be made ({why}): "
            "set the environment variable CMX_CACHE to a folder that you can write to."
        ) from error
    return folder


def as_path(path: str | os.PathLike, name: str = "path") -> Path:
    """``path``, an argument of that name, as a Path. TypeError where it is none, ValueError where no file can be called
    so."""
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a text or a pathlib.Path, but this is {type(path).__name__}.")
    text = os.fspath(path)
    try:
        if b"\0" not in os.fsencode(text):
            return Path(path)
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} holds half a character, as no path does: give another {name}.") from None
    raise ValueError(f"{text!r} holds a null character, as no path does: give another {name}.")


def expanded(path: str | os.PathLike, name: str = "path") -> Path:
    """The path with ~ written out. The errors of ``as_path``, and ValueError where it names somebody whose home folder
    nobody knows."""
    try:
        return as_path(path, name).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names a home folder that is not known: write the whole path.") from error


def need(module: str, extra: str) -> ModuleType:
    """The module, imported. ImportError naming the extra of cmxlib that brings it, where it is not installed."""
    if found := sys.modules.get(module):
        return found
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # the package is there, and lacks something itself
        raise ImportError(f'This needs {package}, which is not installed: pip install "cmxlib[{extra}]".') from None
    except ValueError as error:
        raise ValueError(f"{error}{_blamed(error)}") from error
    return importlib.import_module(module)


_WAYS_OUT = {  # of what the system says
    errno.ENOENT: "name one that is there",
    errno.ENOTDIR: "name a place in a folder",
    errno.EISDIR: "name a file",
    errno.EEXIST: "name another",
    errno.EACCES: "ask its owner for the right, or name another",
    errno.EPERM: "ask its owner for the right, or name another",
    errno.EROFS: "name a place that can be written to",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "name a file, not links in a circle",
    errno.ENXIO: "name a file",
    errno.ENOSPC: "make room, or name a place on another disk",
    errno.EFBIG: "raise the limit of `ulimit -f`, or give less",
    errno.EMFILE: "raise the limit of `ulimit -n`",
    errno.EIO: "name one on a device that can be read and written",
}


def sentence(error: BaseException) -> str:
    """What an error says, in one line; of the system's own, the file, the reason and the way out."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.errno:
        of = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        way_out = _WAYS_OUT.get(error.errno, "")
        text = f"{of}{error.strerror}{': ' * bool(way_out)}{way_out}."
    return printable(text)


def printable(text: str) -> str:
    """``text`` in one line, for a terminal: names may hold line ends, escape sequences or no characters at all."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


NOT_ENOUGH = "There is not enough memory"  # how the library's own sentences on it begin


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, as Python, NumPy, torch and decoders do; so it tells of no damage."""
    said = (
        "Cannot allocate memory",
        "failed to map segment",
        "DefaultCPUAllocator",
        "std::bad_alloc",
        "out of memory",
        "Storage size",
    )
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)


def told(run: Callable[[], int | None], program: str = "cmx") -> int:
    """The exit status of what a program does; errors that the library raises are said in a sentence. 141 where nobody
    reads on, as behind `| head`."""
    for number in range(3):  # of a closed one the next file would get the number, and with it what C code prints
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or open(os.devnull, "w")
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # as of a program whose imports take seconds
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            return _told(run, program)
        finally:
            sys.stdout.flush()  # what cannot be printed is an error of the command, not of the interpreter's end
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again, and complain
        if isinstance(error, BrokenPipeError):
            return 141
        print(
            f"{program}: What it says could not be written ({error.strerror}); the files that it wrote are there. Give "
            "its standard output another place.",
            file=sys.stderr,
        )
        return 1


def _told(run, program):
    def say(text: str, status: int = 1) -> int:
        print(f"{program}: {text}", file=sys.stderr)
        return status

    try:
        _check_here()
        return run() or 0
    except KeyboardInterrupt as stopped:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would be told in a traceback of the exit
        return say(str(stopped) or "Interrupted; the same command can be given again.", 130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if out_of_memory(error):
            said = str(error).startswith(NOT_ENOUGH)
            return say(sentence(error) if said else f"{NOT_ENOUGH} for this: give less at once, or a smaller scale.")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EBADF) and error.filename is None:
            raise  # of the output: files are named
        told = isinstance(error, (FloatingPointError, ValueError, OSError, RuntimeError, ImportError))
        if not told or type(error) in (RuntimeError, ModuleNotFoundError):  # not said by the library
            raise
        return say(sentence(error) + _blamed(error))


def _check_here():
    """FileNotFoundError where the current folder was deleted: without one, torch's own libraries end the process."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("The current folder is not there any more: go to another, by cd.") from None


def _blamed(error):
    """Which variables of the environment hold what a package below the library refuses, as matplotlib a MPLBACKEND."""
    frame = error.__traceback__
    while frame.tb_next:
        frame = frame.tb_next
    ours = frame.tb_frame.f_globals.get("__name__", "").startswith("cmxlib")
    names = [] if ours else [name for name, value in os.environ.items() if value and repr(value) in str(error)]
    return f" Unset or change the environment variable {' or '.join(names)}." if names else ""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """While processes start or end: Ctrl-C and SIGTERM have their effect on this one when the block has ended, and
    those that are started in it take no notice of them, until they unblock them: else each would tell them in a
    traceback."""
    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield
        return
    came: list[int] = []
    answers = {n: signal.signal(n, lambda n, _: came.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, answers) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, answer in answers.items():
            signal.signal(number, answer)
    if came:
        signal.raise_signal(came[0])


def regular(path: Path) -> Path:
    """``path``. ValueError where something stands there that is no file, for no pipe may be waited for, and no device
    read without end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file: name one.")
    return path


_SUFFIX = ".cmx-tmp"  # of files that are being written


def sweep(folder: Path) -> None:
    """Delete what killed writers left in a folder, so that it does not keep a full disk full."""
    for left in folder.glob(f".*{_SUFFIX}"):
        _delete_unless_in_use(left)


@functools.cache  # of a folder with a hundred thousand files, each write would else list all
def _sweep_once(folder: Path) -> None:
    sweep(folder)


@contextmanager
def replacing(path: str | os.PathLike, *, one_of_many: bool = False, over: bool = True) -> Iterator[BinaryIO]:
    """A file open for writing bytes, and for reading them again, which takes the place of ``path`` at one stroke when
    the block ends without an error: a reader finds the old one or the whole new one, never a part.

    A symbolic link is replaced itself, and what it points to stays: nobody who puts a link there can have another file
    written. What a killed writer left in the folder is swept before a process first writes there. one_of_many: the
    caller has made the folder and swept it, and can make the files again that a power cut may take; they are not forced
    to the disk one by one. over: whether it may take the place of what is there; else FileExistsError, also where
    another process wrote it meanwhile.
    """
    path = Path(path)
    place = os.replace if over else _link
    if not one_of_many:
        made(path.parent)
        _sweep_once(path.parent.absolute())
    handle, temporary = _open_temporary(path)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            if not one_of_many:
                os.fsync(file.fileno())
            if fcntl:  # before the lock is let go of, or another writer could take this for a dead one's
                place(temporary, path)
        if not fcntl:
            place(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            error.filename = str(path)  # a full disk names no file
        raise


def made(folder: Path) -> Path:
    """A folder, made with those above it where they are not there. FileExistsError or NotADirectoryError where a file
    stands in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise type(error)(f"{folder} cannot be a folder, for a file is in the way: move it, or name another.") from None
    return folder


def writable(folder: Path) -> Path:
    """A folder, ``made``, in which a file can be written; OSError otherwise: before hours of training, not after."""
    import tempfile  # which most commands need not load

    tempfile.TemporaryFile(dir=made(folder)).close()
    return folder


def free(path: Path) -> None:
    """FileExistsError where something stands at ``path``, be it a link to nowhere."""
    if os.path.lexists(path):
        raise exists(path)


def exists(path: Path, how: str = "") -> FileExistsError:
    """What is said of an output that stands there already; how: what is known of it."""
    return FileExistsError(f"{path} exists already{how}: give --force to replace it, or name another output.")


def not_itself(source: Path, target: Path) -> None:
    """ValueError where an output would take the place of its input; in place of a link, only the link is lost."""
    if source.exists() and os.path.lexists(target) and os.path.samestat(os.stat(source), os.lstat(target)):
        raise ValueError(f"{target} is the input itself: name another output.")


def _link(temporary, path):
    """Give a file its name, unless that is taken."""
    free(path)
    try:
        os.link(temporary, path)
    except OSError:
        free(path)  # since
        os.replace(temporary, path)  # a file system without links, on which another writer may be as quick
    else:
        os.unlink(temporary)


def write_bytes(path: str | os.PathLike, data: bytes, over: bool = True) -> None:
    """Write a file at one stroke; see ``replacing``."""
    with replacing(path, over=over) as file:
        file.write(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """``write_bytes`` of a text in UTF-8; line ends stay as they are."""
    write_bytes(path, text.encode())


def _open_temporary(path: Path) -> tuple[int, str]:
    """A new file beside ``path``, open and locked for as long as it is: the system frees the lock of a dead process."""
    while True:
        # Of a long name a part, for no name may be longer than 255 bytes.
        name = f"{path.parent}{os.sep}.{path.name[:40]}.{secrets.token_hex(8)}{_SUFFIX}"
        try:
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        if fcntl:
            with suppress(OSError):  # a file system without locks: there, nothing is ever swept
                fcntl.flock(handle, fcntl.LOCK_EX)
        if not fcntl or os.fstat(handle).st_nlink:  # else another writer swept it before it was locked
            return handle, name
        os.close(handle)


def _delete_unless_in_use(path: Path) -> None:
    with suppress(OSError):  # in use, gone already, or not ours to delete
        with path.open("rb") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        if not fcntl:
            path.unlink()
