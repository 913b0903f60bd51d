"""The machine: which device computes, what it is called, and which type it multiplies quickly."""

import functools
import os
import platform
import subprocess
from pathlib import Path

import torch

from .choice import least_seconds


def default_device() -> torch.device:
    """A GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device="cpu") -> str:
    """The processor's model and its cores, or the GPU's name for a CUDA device."""
    if str(device).startswith("cuda"):
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


@functools.cache
def bf16_is_faster(device: torch.device) -> bool:
    """Whether bfloat16 matrix products beat float32 ones by half or more: measured, once per process."""

    def products(dtype):
        a = torch.ones(1024, 256, dtype=dtype, device=device)

        def run():
            for _ in range(10):
                b = a @ a[:256]
            b.sum().item()  # waits for a GPU

        return run

    bf16, float32 = least_seconds([products(torch.bfloat16), products(torch.float32)], 5)
    return bf16 * 1.5 < float32
