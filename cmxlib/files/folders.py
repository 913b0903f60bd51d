"""Many files at once: a folder with its layout, by several processes; what is done already is left as it is."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from ..paths import NOT_ENOUGH, interrupts_held, need, not_itself, out_of_memory, regular, sentence, sweep
from . import pictures
from .pictures import Job
from .record import Record

_CHUNK = 32  # files that a worker is given at once


@dataclass
class Report:
    """What became of the files: numbers, and a sentence for each that failed. left_out: files that are no images."""

    done: int = 0
    kept: int = 0
    left_out: int = 0
    failed: list[str] = field(default_factory=list)


def convert(source: Path, target: Path, job: Job) -> Iterator[bool | None]:
    """Encrypt or decrypt one file, an image or a .npy: at last, whether there was anything to do; see ``pictures``."""
    if source.suffix.lower() == ".npz":
        raise ValueError(f"{source} holds arrays by name: save each as a .npy file of its own.")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: rename {source}, or name another output.")
    if source.suffix.lower() == ".npy":
        from . import arrays  # which wants torch

        yield arrays.convert(source, target, job)
        return
    pictures.check_target(target)
    if job.cipher.permutation is None:
        raise ValueError(
            f"An orthogonal cipher gives numbers that no image file holds: encrypt {source} with shuffle and flip, or "
            "an array in a .npy file."
        )
    yield from pictures.convert(source, target, job)


def inputs(source: Path) -> list[Path]:
    """The images and arrays of a folder, or the one file."""
    return [path for path, _ in _pairs(source)[0]] if source.is_dir() else [source]


def first_record(source: Path) -> Record:
    """The record of a file, or of the first in a folder that has one. Where there is none, ValueError, or the error of
    the first file that is damaged."""
    damaged = None
    for path in inputs(source):
        try:
            if path.suffix.lower() == ".npy":
                from . import arrays

                found = arrays.recorded(path)
            else:
                found = pictures.recorded(path)
        except (ValueError, OSError) as error:  # which ``run`` tells again, of this file alone
            damaged = damaged or error
            continue
        if found:
            return found
    raise damaged or ValueError(
        f"{source} carries no record of a cipher: it is not encrypted, or was saved by another program since. "
        "Decrypt what encrypt-images wrote, as it was."
    )


def run(source: Path, target: Path, job: Job, workers: int = 1) -> Report:
    """Encrypt or decrypt a file, or all images and arrays in a folder. A file that fails stops no other."""
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(2, "No such file or folder", str(source))
        regular(source)
        if target.is_dir():
            target = target / _renamed(source.name)
        not_itself(source, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        *_, changed = convert(source, target, job)
        return Report(done=int(bool(changed)), kept=int(not changed))
    inside, outside = (Path(os.path.realpath(path)) for path in (source, target))  # of links in a circle, too
    if outside == inside:
        raise ValueError(f"{target} is the folder of the images itself: name another for the output.")
    if inside in outside.parents:
        raise ValueError(f"{target} lies in {source}: name an output folder outside of it.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file, but {source} is a folder: name an output folder.")
    if target.suffix.lower() in (*pictures.SUFFIXES, ".npy") and not target.is_dir():
        raise ValueError(f"{target} is the name of a file, but {source} is a folder: name an output folder.")
    pairs, left_out = _pairs(source, target)
    report = Report(left_out=left_out)
    for folder in {out.parent for _, out in pairs}:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    progress = need("tqdm", "files").tqdm(total=len(pairs), unit=" files", disable=None)  # None: no bar in a pipe
    with progress:
        for done, error in _results(job, pairs, workers):
            report.done, report.kept = report.done + (done is True), report.kept + (done is False)
            if error:
                report.failed.append(error)
            progress.update()
    return report


def _results(job: Job, pairs: list, workers: int, again: bool = False) -> Iterator[tuple[bool | None, str]]:
    chunks = [pairs[i : i + _CHUNK] for i in range(0, len(pairs), _CHUNK)]
    if not again and (workers < 2 or len(chunks) < 2):
        for chunk in chunks:
            yield from _told(job, None, chunk)
        return
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:  # what every worker needs is imported once
        context.set_forkserver_preload(["cmxlib.files.folders", "PIL.Image", "PIL.ImageOps", "PIL.PngImagePlugin"])
    told, stop = 0, context.RawValue("b", 0)  # an Event has a lock, which a worker that is killed may keep
    with ProcessPoolExecutor(workers, context, _start, (job, stop)) as pool:
        try:
            with interrupts_held():
                results = pool.map(_in_worker, chunks)
            for found in results:
                told += len(found)
                yield from found
            return
        except BrokenProcessPool:
            pass
        finally:
            stop.value = 1
            with interrupts_held():  # a second Ctrl-C would leave the workers waiting for ever
                pool.shutdown(cancel_futures=True)
    left = pairs[told:]
    if again:
        raise OSError(
            f"A worker process died again, at {left[0][0]} or one of the next files, perhaps for want of memory: give "
            "the same command again, which goes on where this one stopped, with fewer --workers."
        )
    print(f"cmx: A worker process died: the {len(left):,} files that are left are tried once more.", file=sys.stderr)
    for folder in {out.parent for _, out in left}:
        sweep(folder)
    yield from _results(job, left, workers, again=True)


_given: list = []  # of a worker process: the job, and what becomes true when the command ends; sent once


def _start(*given):
    _given.extend(given)
    _mask("SIG_UNBLOCK", signal.SIGTERM)
    threading.Thread(target=_end_with_the_command, daemon=True).start()


def _end_with_the_command():
    """In a worker: wait for the end of the command, and end then. One that was killed tells its workers nothing."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _in_worker(chunk):
    # Only now may Ctrl-C come through: while a worker starts, or waits, it would be told in a traceback.
    _mask("SIG_UNBLOCK", signal.SIGINT)
    try:
        return list(_told(*_given, chunk))
    finally:
        _mask("SIG_BLOCK", signal.SIGINT)


def _mask(how, number):
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), {number})


def _told(job, stop, chunk):
    """(whether there was anything to do, or None and what was wrong) of each file of a chunk, until ``stop`` is true.
    Those that pause are taken a step further in turns: what takes such a step is in the processor's caches then."""
    files = [(source, convert(source, target, job)) for source, target in chunk]
    while files:
        paused = []
        for source, file in files:
            if stop and stop.value:
                return
            try:
                if (done := next(file)) is None:
                    paused.append((source, file))
                else:
                    yield done, ""
            except (ValueError, OSError, MemoryError) as error:
                if out_of_memory(error):
                    error = MemoryError(f"{source}: {NOT_ENOUGH} for it: give a smaller --resize or fewer --workers.")
                yield None, sentence(error)
        files = paused


def _pairs(source, target=None):
    """(input, output) of every image and array in a folder, and how many other files there are."""
    pairs, left_out = {}, 0
    for here, _, names in walk(source):
        there = (target or source) / here.relative_to(source)
        for name in names:
            if os.path.splitext(name)[1].lower() not in (*pictures.SUFFIXES, ".npy"):
                left_out += not name.endswith(".npy.json")
                continue
            path, out = here / name, there / _renamed(name)
            if out in pairs:
                raise ValueError(f"{pairs[out]} and {path} would both become {out}: rename one of them.")
            pairs[out] = path
    if not pairs:
        raise ValueError(f"{source} holds no image and no .npy file.")
    return [(path, out) for out, path in pairs.items()], left_out


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder in a folder, with the names of its folders, of which the caller may take some out, and of its files,
    in order. ValueError at a link to a folder: followed, it could lead anywhere, and left out, nobody would know."""
    for where, folders, files in os.walk(folder, onerror=_raise):
        here = Path(where)
        folders.sort()
        yield here, folders, sorted(files)
        for name in folders:
            if (here / name).is_symlink():
                raise ValueError(f"{here / name} is a link to a folder: put the folder itself there, or give it alone.")


def _raise(error):
    raise error


def _renamed(name):
    stem, suffix = os.path.splitext(name)
    return name if suffix.lower() == ".npy" else f"{stem}.png"
