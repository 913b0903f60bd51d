"""Bias, GELU and batch normalisation in one pass over memory, in C where a compiler is at hand and it is quicker.

After the convolutions have become matrix products, a CPU spends nearly half of a training step on passes over memory:
the bias of each convolution, GELU, the statistics of BatchNorm, its normalisation, the residual sum, and the
gradients of each. `fused.c` does them channel by channel, each channel from the cache.
"""

import functools

import torch
from torch.nn import functional as F

from .choice import least_seconds
from .compiled import checked, library, pointers


@functools.cache
def fused_is_faster() -> bool:
    """Whether `fused.c` beats torch's own passes by a fifth or more: measured, once per process."""
    if library() is None:
        return False
    z = torch.ones(256, 8192, dtype=torch.bfloat16)  # a layer of the largest network, at patches of 4
    norm, shift = torch.nn.BatchNorm2d(256), torch.zeros(256)
    with torch.no_grad():
        in_one, one_by_one = least_seconds(
            [lambda way=way: way(z, norm, shift, z) for way in (_in_one, _one_by_one)], 8
        )
    return in_one * 1.2 < one_by_one


def gelu_norm(z, norm, shift, residual=None):
    """residual + norm(gelu(z + shift)), with gradients, as torch computes it, up to rounding.

    Args:
        z: activations (channels, positions).
        norm: a torch.nn.BatchNorm2d of so many channels; in training mode it uses the statistics of z and updates its
            own.
        shift: (channels,), the bias of the convolution that made z.
        residual: (channels, positions), or None.

    Where z is bfloat16, GELU is good to 1e-4, below the rounding of that type.
    """
    fits = z.dtype == torch.bfloat16 and norm.weight.dtype == shift.dtype == torch.float32 and norm.track_running_stats
    quick = fits and z.device.type == "cpu" and fused_is_faster()
    return (_in_one if quick else _one_by_one)(z, norm, shift, residual)


def _one_by_one(z, norm, shift, residual=None):
    out = norm(F.gelu(z + shift.to(z.dtype)[:, None]).view(1, len(z), -1, 1)).view(len(z), -1)
    return out if residual is None else residual + out


def _in_one(z, norm, shift, residual=None):
    z = z.contiguous()
    residual = residual if residual is None else residual.contiguous()
    if norm.training:
        mean, variance = torch.empty_like(norm.running_mean), torch.empty_like(norm.running_var)
    else:
        mean, variance = norm.running_mean, norm.running_var
    out = _GeluNorm.apply(z, shift, residual, norm.weight, norm.bias, mean, variance, not norm.training, norm.eps)
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
    def forward(ctx, z, shift, residual, weight, bias, mean, variance, given, eps):
        out = torch.empty_like(z)
        arrays = pointers(z, shift, residual, out, weight, bias, mean, variance)
        library().gelu_norm(*arrays, given, eps, *z.shape)
        ctx.save_for_backward(z, shift, weight, mean, variance)
        ctx.eps, ctx.given, ctx.with_residual = eps, given, residual is not None
        return out

    @staticmethod
    def backward(ctx, grad):
        z, shift, weight, mean, variance = ctx.saved_tensors
        residual_grad = grad if ctx.with_residual else None
        if ctx.given:  # the statistics do not depend on z: rare, so plainly by torch
            with torch.enable_grad():
                again = (z.detach().float() + shift.detach()[:, None]).requires_grad_()
                w, scale = weight.detach().requires_grad_(), (variance + ctx.eps).rsqrt()[:, None]
                out = w[:, None] * (F.gelu(again) - mean[:, None]) * scale
            grad_z, grad_weight = torch.autograd.grad(out, (again, w), grad.float())
            grads = grad_z.to(z.dtype), grad_z.sum(1), residual_grad, grad_weight, grad.float().sum(1)
            return *grads, *[None] * 4
        grad, grad_z = grad.contiguous(), torch.empty_like(z)
        grad_shift, grad_weight, grad_bias = (torch.empty_like(weight) for _ in range(3))
        arrays = (grad, z, shift, grad_z, weight, mean, variance, grad_shift, grad_weight, grad_bias)
        checked(library().gelu_norm_backward(*pointers(*arrays), ctx.eps, *z.shape))
        return grad_z, grad_shift, residual_grad, grad_weight, grad_bias, *[None] * 4
