"""Times of two ways of doing the same, taken in turns, and the peak memory of a function in a process of its own."""

import multiprocessing
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch


def seconds(function) -> float:
    """How long one call takes, a GPU's work included."""
    _wait()
    start = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - start


def _wait():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(functions: dict, repeats: int) -> dict:
    """The median seconds of each function, called ``repeats`` times in turns after one call that is not counted.

    In turns, so that a machine that grows slower or busier does so for all of them.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(found) for name, found in times.items()}


def in_turns_apart(contenders: dict, repeats: int, apart: bool = True, in_a_row: int = 1) -> dict:
    """As ``in_turns``, for functions that live in processes of their own, so that neither changes how the other runs.

    A contender is (make, arguments): the process calls make(*arguments), which returns the function. ``make`` is a
    function of a module. What cmxlib sets for a whole process, such as keeping freed memory, then helps it alone.
    A turn is ``in_a_row`` calls, and their mean counts: the first after another's turn finds nothing in the caches.
    A smoke test, which has no time for processes, may keep them in this one with ``apart=False``, one call a turn.
    """
    if not apart:
        return in_turns({name: make(*arguments) for name, (make, arguments) in contenders.items()}, repeats)
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, contender in contenders.items():
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(theirs, in_a_row, *contender)))
        processes[-1].start()
        theirs.close()
    times = {name: [] for name in contenders}
    try:
        for pipe in pipes.values():
            pipe.recv()  # it is ready; what cmxlib chooses by measuring would suffer from another's start
        for _ in range(1 + repeats):
            for name, pipe in pipes.items():
                pipe.send(True)
                times[name].append(pipe.recv())
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def _serve(pipe, in_a_row, make, arguments):
    """Time one turn for each message, until the other end is closed."""
    function = make(*arguments)
    try:
        pipe.send("ready")
        while pipe.recv():
            pipe.send(seconds(lambda: [function() for _ in range(in_a_row)]) / in_a_row)
    except EOFError:
        pass


def peak_memory(setup: str, statement: str) -> float:
    """By how many MB ``statement`` raises the peak resident memory of a fresh Python process that has run ``setup``."""
    lines = ["from benchmarks.timing import resident_peak", setup, "before = resident_peak()"]
    code = "\n".join([*lines, statement, "print(resident_peak() - before)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident_peak() -> float:
    """The peak resident memory in MB of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too, from before the fork
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 2**10
    import resource  # of Unix only

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def matrix_rate(
    dtype, sizes=((1024, 1024, 1024), (256, 256, 8192), (256, 256, 32768)), repeats=10, device="cpu"
) -> float:
    """The best rate of a matrix product (m, k) @ (k, n), in floating-point operations a second, over a few sizes.

    The sizes are a square and those of the pointwise layers, for 8 x 8 and 16 x 16 positions and 128 images.
    """
    best = 0.0
    for m, k, n in sizes:
        a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
        out = torch.empty(m, n, dtype=dtype, device=device)
        torch.mm(a, b, out=out)
        best = max(best, 2 * m * k * n / min(seconds(lambda: torch.mm(a, b, out=out)) for _ in range(repeats)))  # noqa: B023
    return best
