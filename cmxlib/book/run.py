"""Run every chapter with papermill, each in a process of its own that can be ended."""

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..paths import checkout, write_bytes
from ..study.records import build_dir, locked
from . import chapters

if TYPE_CHECKING:
    from distributed import Client

MINUTE, HOUR = 60, 3600
# Seconds that one cell and one chapter may take: far above what they need, so that only a hang meets them.
LIMITS = {"quick": (2 * MINUTE, 5 * MINUTE), "small": (4 * HOUR, 6 * HOUR), "paper": (100 * HOUR, 150 * HOUR)}
# A server of processes imports papermill once for all chapters, which takes seconds; where there is none, each does.
HOW = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES: Any = multiprocessing.get_context(HOW)


class ChapterError(Exception):
    """A chapter did not come to its end; the message is one sentence that says where and why."""


def run_book(
    scale: str,
    only: str = "",
    folder: Path = chapters.FOLDER,
    build: Path | None = None,
    client: "Client | None" = None,
) -> int:
    """Run the chapters, with a line for each as it ends and a table at the last.

    At quick scale, where starting Python takes as long as the work, two chapters run at a time with one thread each.
    At other scales they run one after the other. With a client of a Dask cluster (`study.sweep.cluster`), each of its
    workers runs one at a time.
    The executed copies go to `build/<scale>/notebooks`, each at one stroke when its chapter ends. A chapter that fails
    does not keep the others from running. Returns the exit status: 0, 1 when a chapter failed, 130 when interrupted.
    OSError where another process runs chapters into the same folder.
    """
    paths = chapters.chapters(only, folder)
    build = build or build_dir(scale)
    width = max(len(path.stem) for path in paths)
    quick = scale == "quick"
    ends = iter(range(1, len(paths) + 1))

    def run(path: Path) -> tuple[tuple[str, str, str, str], str]:
        copy, start, failure = build / "notebooks" / path.name, time.perf_counter(), ""
        try:
            if client:
                headline = client.submit(run_chapter, path, copy, scale, pure=False).result()
            else:
                headline = run_chapter(path, copy, scale, threads=1 if quick else None)
        except (ChapterError, ValueError, OSError) as error:  # ValueError: no notebook; OSError: a full disk, say
            headline, failure = "FAILED", f"{path.stem}: {error}"
        seconds = time.perf_counter() - start
        if not interrupted.is_set():
            print(f"[{next(ends)}/{len(paths)}] {path.stem:{width}} {seconds:7.1f} s  {headline}", flush=True)
        return (path.stem, f"{seconds:.1f}", headline, os.path.relpath(copy)), failure

    start, interrupted = time.perf_counter(), threading.Event()
    answers = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for this process to answer
    if HOW == "forkserver":
        from multiprocessing import forkserver  # no such thing on Windows

        PROCESSES.set_forkserver_preload(["papermill"])
        forkserver.ensure_running()
    signal.signal(signal.SIGINT, answers)
    at_a_time = len(client.scheduler_info(n_workers=-1)["workers"]) if client else 2 if quick else 1
    with _alone(build), ThreadPoolExecutor(at_a_time) as pool:
        runs = [pool.submit(run, path) for path in paths]
        try:
            wait(runs)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would keep chapters from being ended
            print("interrupted")
            interrupted.set()
            ended = [one for one in runs if one.done()]
            pool.shutdown(wait=False, cancel_futures=True)
            if client:
                client.close()
            while not all(one.done() for one in runs):  # again and again: a chapter may be starting just now
                for process in multiprocessing.active_children():
                    _end(process)
                time.sleep(0.1)
            runs = ended
            signal.signal(signal.SIGINT, answers)
    rows, failures = [one.result()[0] for one in runs], [one.result()[1] for one in runs if one.result()[1]]
    print(f"\n{chapters.text_table([('chapter', 'seconds', 'headline', 'executed copy'), *rows])}")
    print(
        f"\n{len(rows) - len(failures)} of {len(paths)} chapters came to their end, "
        f"in {time.perf_counter() - start:.0f} s at scale {scale}."
    )
    for failure in failures:
        print(failure, file=sys.stderr)
    return 130 if interrupted.is_set() else int(bool(failures))


@contextlib.contextmanager
def _alone(build: Path) -> Iterator[None]:
    """The folder of a batch, for one process at a time; the system frees the lock of one that was killed."""
    from filelock import Timeout

    try:
        lock = locked(build / "notebooks").acquire(timeout=0)
    except Timeout:
        raise OSError(f"Another process runs chapters into {build}: let it end, or stop it, first.") from None
    with lock:
        yield


def run_chapter(
    path: Path, copy: Path, scale: str, limits: tuple[float, float] | None = None, threads: int | None = None
) -> str:
    """Run one chapter at a scale, leave the executed copy at `copy`, and return the line of its headline cell.

    limits: the seconds that a cell and the chapter may take, by default those of the scale. threads: those that torch
    may use, by default its own choice. ChapterError says what went wrong: a chapter that would ignore SCALE, a cell
    that raised or took too long, a kernel that died.
    """
    cell_limit, chapter_limit = limits or LIMITS[scale]
    if problems := chapters.run_problems(chapters.load(path)):
        raise ChapterError(f"not run, since {problems[0]}.")
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f".{copy.name}")  # as papermill writes it, cell by cell
    part.unlink(missing_ok=True)

    answer, says = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_execute, args=(says, path, part, scale, cell_limit, environment(threads)))
    process.start()
    says.close()
    try:
        reason = answer.recv() if answer.poll(chapter_limit) else f"the chapter took more than {chapter_limit:g} s"
    except EOFError:
        reason = "its process died"
    finally:
        _end(process)
        kept = _keep(part, copy)
    if reason and kept:
        reason = f"{_where(copy)}{reason}; the copy as far as it came is {os.path.relpath(copy)}"
    if reason or not kept:
        raise ChapterError(f"{reason or 'its process left no copy'}.")
    lines = chapters.printed(chapters.tagged(chapters.load(copy), "headline")[0]).strip().splitlines()
    if len(lines) != 1:
        raise ChapterError(
            f"its headline cell printed {len(lines)} lines where one is due; see {os.path.relpath(copy)}."
        )
    return lines[0]


def _keep(part: Path, copy: Path) -> bool:
    """Put what papermill wrote in the place of ``copy``; whether it was a whole notebook, else what was there stays."""
    try:
        chapters.load(part)
        write_bytes(copy, part.read_bytes())
        return True
    except (FileNotFoundError, ValueError):  # none was written, or a part of one
        return False
    finally:
        part.unlink(missing_ok=True)


def _execute(says, path: Path, part: Path, scale: str, cell_limit: float, environment: dict[str, str]) -> None:
    """In the chapter's own process: run papermill, then say what went wrong, or an empty text."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    os.environ.update(environment)
    threading.Thread(target=_end_with_the_batch, daemon=True).start()
    reason = ""
    try:
        with part.with_name(f"{path.stem}.log").open("w") as log:  # what the kernel itself has to say
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(checkout())
        papermill.execute_notebook(
            os.path.relpath(path),  # the copy's metadata then holds no path of this machine
            os.path.relpath(part),
            parameters={"SCALE": scale},
            kernel_name="python3",
            cwd=os.path.relpath(path.parent),
            progress_bar=False,
            execution_timeout=cell_limit,
        )
    except papermill.PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        reason = f"the cell took more than {cell_limit:g} s"
    except DeadKernelError:
        reason = "the kernel died, perhaps for want of memory"
    except Exception as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = "the disk is full" if full else f"{type(error).__name__}: {error}"
    says.send(" ".join(reason.split()))


def environment(threads: int | None) -> dict[str, str]:
    """What a chapter's kernel is told: to be this Python's, and how many threads to use where that is given."""
    environment = {"JUPYTER_PATH": os.path.join(sys.prefix, "share", "jupyter"), "JUPYTER_PREFER_ENV_PATH": "1"}
    return environment | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


def _end(process) -> None:
    """End the chapter's process and a kernel that it left, which no signal to its group would reach."""
    end_family(process.pid, process.kill)
    process.join()


def _end_with_the_batch() -> None:
    """In the chapter's own process: wait for the end of the one that started it, and end with the kernel then."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    end_family(os.getpid())
    os._exit(1)


def end_family(pid: int, first: Callable[[], object] = lambda: None) -> None:
    """End the processes that one has started, and those of theirs; ``first`` is done before, when they are known."""
    import psutil

    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(pid).children(recursive=True)
    first()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=5)


def _where(copy: Path) -> str:
    """The cell at which an executed copy stopped, as a reader of it finds the cell."""
    cells = chapters.code_cells(chapters.load(copy))
    if begun := [cell for cell in cells if cell["metadata"].get("papermill", {}).get("start_time")]:
        first = chapters.source(begun[-1]).strip().splitlines()[0]
        return f"cell [{begun[-1]['execution_count'] or '*'}] that begins '{first}': "
    return ""
