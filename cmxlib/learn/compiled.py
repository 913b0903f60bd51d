"""The parts in C (`fused.c`, `depthwise.c`): compiled once, in two seconds, and kept in the cache folder.

Without a compiler there is no library, and torch alone does the same, slower.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..paths import cache_dir
from .device import device_name

HERE = Path(__file__).parent
SOURCES = [HERE / "depthwise.c", HERE / "fused.c"]
COMPILERS = "cc", "gcc", "clang"
FLAGS = "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared".split()

_POINTER, _NUMBER, _SIZE = ctypes.c_void_p, ctypes.c_float, ctypes.c_long
FUNCTIONS = {  # name: result, arguments
    "gelu_norm": (None, [_POINTER] * 8 + [ctypes.c_int, _NUMBER, _SIZE, _SIZE]),
    "gelu_norm_backward": (ctypes.c_int, [_POINTER] * 10 + [_NUMBER, _SIZE, _SIZE]),
    "depthwise": (ctypes.c_int, [_POINTER] * 3 + [_SIZE] * 5),
    "depthwise_backward": (ctypes.c_int, [_POINTER] * 5 + [_SIZE] * 5),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled C files as one library, or None where there is no compiler that can make it."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None or os.name != "posix":
        return None
    texts = [path.read_text() for path in (*SOURCES, HERE / "bfloat16.h")]
    made_for = "\n".join([*texts, compiler, *FLAGS, device_name()])
    path = cache_dir() / f"compiled-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder, path.name)
                command = [compiler, *FLAGS, *map(str, SOURCES), "-o", str(made), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                os.replace(made, path)
        found = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    for name, (result, arguments) in FUNCTIONS.items():
        getattr(found, name).restype, getattr(found, name).argtypes = result, arguments
    return found


def pointers(*tensors) -> list:
    """The tensors' addresses, for C; None for None."""
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def checked(failed: int) -> None:
    """Raise MemoryError where a function of the library says that memory was short."""
    if failed:
        raise MemoryError("There is not enough memory for a layer: take a smaller batch.")
