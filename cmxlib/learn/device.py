"""The machine: which device computes, what it is called, and which type it multiplies quickly."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from ..lock.checks import shown
from ..paths import NOT_ENOUGH, out_of_memory


@contextmanager
def memory_for(what: str, batch_size: int | None = None) -> Iterator[None]:
    """MemoryError, with the way out, where memory runs out in the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or str(error).startswith(NOT_ENOUGH):  # said already
            raise
        lower = "" if batch_size is None else f"lower batch_size, which is {batch_size}, or "
        raise MemoryError(f"{NOT_ENOUGH} for {what}: {lower}choose a smaller model or scale.") from error


def default_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable(device: torch.device | str) -> torch.device:
    """The device of that name. ValueError where this machine, or its torch, has none."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).tolist()  # those of "meta" have no values
        return found
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"The device {shown(str(device))} cannot be used here: leave device out, or choose cpu."
        ) from error


def device_name(device: torch.device | str = "cpu") -> str:
    """The processor's model and its cores, or the GPU's name for a CUDA device."""
    if usable(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    elif platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        model = subprocess.run(command, capture_output=True, text=True).stdout.strip() or model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


STEPS_WORTH_COMPILING = 2000  # torch.compile takes half a minute or more, and saves milliseconds a step


def bf16_is_faster(device: torch.device | str) -> bool:
    """Whether bfloat16 matrix products are much quicker than float32 ones: where the chip has instructions for them.

    Read off the device, not measured: a busy moment would change how a training computes, and so its result.
    """
    device = usable(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def pays_to_compile(device: torch.device, n_steps: int) -> bool:
    """Whether to train with ``torch.compile``: on a GPU that it can make code for, where so many steps repay it.

    On a CPU the matrix products of ConvMixer's own way are quicker than compiled layers.
    """
    compiles = device.type == "cuda" and find_spec("triton") is not None
    return compiles and torch.cuda.get_device_capability(device) >= (7, 0) and n_steps >= STEPS_WORTH_COMPILING
