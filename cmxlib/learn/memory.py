"""How a process keeps the memory of big arrays on a CPU: asked for anew at each step, it costs as much as computing."""

import ctypes
import functools


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library (glibc) keep freed memory for the next step, in this process from now on.

    It would give arrays of megabytes back to the system, and asking for them anew costs a CPU about a quarter of a
    training step at patch size 2. Other C libraries have no such switch and are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: arrays up to this size come from memory that is kept
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: so much of it may lie idle
