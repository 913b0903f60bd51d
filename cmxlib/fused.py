"""GELU and batch normalisation in one pass over memory, in C where a compiler is at hand and it is quicker.

After the convolutions have become matrix products, a CPU spends nearly half of a training step on passes over memory:
GELU, the statistics of BatchNorm, its normalisation, the residual sum, and the gradients of each. `fused.c` does them
channel by channel, each channel from the cache. It is compiled once, in a second, and kept in the cache folder.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from .data import cache_dir
from .records import device_name

SOURCE = Path(__file__).with_suffix(".c")
COMPILERS = "cc", "gcc", "clang"
FLAGS = "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -fopenmp -fPIC -shared".split()


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled `fused.c`, or None where there is no compiler that can make it."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None or os.name != "posix":
        return None
    made_for = "\n".join([SOURCE.read_text(), compiler, *FLAGS, device_name()])
    path = cache_dir() / f"fused-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder, path.name)
                command = [compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=60)
                os.replace(made, path)
        found = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None
    pointer, number, size = ctypes.c_void_p, ctypes.c_float, ctypes.c_long
    found.gelu_norm.argtypes = [pointer] * 7 + [ctypes.c_int, number, size, size]
    found.gelu_norm.restype = None
    found.gelu_norm_backward.argtypes = [pointer] * 8 + [number, size, size]
    return found


@functools.cache
def fused_is_faster() -> bool:
    """Whether `fused.c` beats torch's own passes by a fifth or more: measured in turns, once per process."""
    if library() is None:
        return False
    z = torch.ones(256, 8192, dtype=torch.bfloat16)  # a layer of the largest network, at patches of 4
    norm = torch.nn.BatchNorm2d(256)
    times = {_in_one: [], _one_by_one: []}
    with torch.no_grad():
        for _ in range(8):
            for function, found in times.items():  # in turns: a busy moment of the machine then decides nothing
                start = time.perf_counter()
                function(z, norm, z)
                found.append(time.perf_counter() - start)
    return min(times[_in_one]) * 1.2 < min(times[_one_by_one])


def gelu_norm(z, norm, residual=None):
    """residual + norm(gelu(z)), with gradients, as torch computes it, up to rounding.

    Args:
        z: activations (channels, positions).
        norm: a torch.nn.BatchNorm2d of so many channels; in training mode it uses the statistics of z and updates its
            own.
        residual: (channels, positions), or None.

    Where z is bfloat16, GELU is good to 1e-4, below the rounding of that type.
    """
    fits = z.dtype == torch.bfloat16 and norm.weight.dtype == torch.float32 and norm.track_running_stats
    quick = fits and z.device.type == "cpu" and fused_is_faster()
    return (_in_one if quick else _one_by_one)(z, norm, residual)


def _one_by_one(z, norm, residual=None):
    out = norm(F.gelu(z).view(1, len(z), -1, 1)).view(len(z), -1)
    return out if residual is None else residual + out


def _in_one(z, norm, residual=None):
    z = z.contiguous()
    residual = residual if residual is None else residual.contiguous()
    if norm.training:
        mean, variance = torch.empty_like(norm.running_mean), torch.empty_like(norm.running_var)
    else:
        mean, variance = norm.running_mean, norm.running_var
    out = _GeluNorm.apply(z, residual, norm.weight, norm.bias, mean, variance, not norm.training, norm.eps)
    if norm.training:
        n = z.shape[1]
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * (n / max(n - 1, 1)), share)
    return out


class _GeluNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, residual, weight, bias, mean, variance, given, eps):
        out = torch.empty_like(z)
        arrays = (z, residual, out, weight, bias, mean, variance)
        pointers = [None if array is None else array.data_ptr() for array in arrays]
        library().gelu_norm(*pointers, given, eps, *z.shape)
        ctx.save_for_backward(z, weight, mean, variance)
        ctx.eps, ctx.given, ctx.with_residual = eps, given, residual is not None
        return out

    @staticmethod
    def backward(ctx, grad):
        z, weight, mean, variance = ctx.saved_tensors
        residual_grad = grad if ctx.with_residual else None
        if ctx.given:  # the statistics do not depend on z: rare, so plainly by torch
            with torch.enable_grad():
                again, w = z.detach().float().requires_grad_(), weight.detach().requires_grad_()
                scale = (variance + ctx.eps).rsqrt()[:, None]
                out = w[:, None] * (F.gelu(again) - mean[:, None]) * scale
            grad_z, grad_weight = torch.autograd.grad(out, (again, w), grad.float())
            return (
                grad_z.to(z.dtype),
                grad if ctx.with_residual else None,
                grad_weight,
                grad.float().sum(1),
                *[None] * 4,
            )
        grad, grad_z = grad.contiguous(), torch.empty_like(z)
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
        arrays = (grad, z, grad_z, weight, mean, variance, grad_weight, grad_bias)
        if library().gelu_norm_backward(*(array.data_ptr() for array in arrays), ctx.eps, *z.shape):
            raise MemoryError("There is not enough memory for the gradient of a layer: take a smaller batch.")
        return grad_z, residual_grad, grad_weight, grad_bias, *[None] * 4
