"""Which of several ways to compute the same is the quickest here: measured at the start, not looked up in a table."""

import time


def least_seconds(ways, repeats: int) -> list[float]:
    """The least time of each function, called so often without arguments.

    They are called in turns: a busy moment of the machine then decides nothing.
    """
    times = [[] for _ in ways]
    for _ in range(repeats):
        for way, found in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            found.append(time.perf_counter() - start)
    return [min(found) for found in times]
