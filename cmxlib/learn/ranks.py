"""Training by several processes at once, each with a device and a share of every batch, as `torchrun` starts them.

Each process (a *rank*) draws the same order of images, takes its share of a batch, and computes the gradient of its
mean loss; torch's DistributedDataParallel averages the gradients, so that all ranks take the step of the whole batch.
"""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

from .device import default_device


def ranks() -> tuple[int, int]:
    """(this process's number, how many there are): (0, 1) outside ``process_group``."""
    there = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if there else (0, 1)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes of `torchrun`, by NCCL where there are GPUs, else by Gloo; alone without torchrun.

    With several machines and --max-restarts, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun.
    """
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        if not os.environ.get(name, "0").isdecimal():
            raise ValueError(f"{name} is {os.environ[name]!r}, and no number: start several processes by torchrun.")
    how: dict[str, Any] = {}
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # Processes that torchrun started again find in its store where their dead predecessors listened, and cannot
        # connect (pytorch issue 135712). Here the count of starts tells them apart; on several machines it differs.
        store, how["rank"], how["world_size"] = next(distributed.rendezvous("env://"))
        how["store"] = distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    rank, n = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE"))
    if not rank < n:
        raise ValueError(f"RANK is {rank} of WORLD_SIZE {n}, of which the last is {n - 1}: start them by torchrun.")
    if n > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        print(f"Process {rank} of {n} waits for the others; unset RANK and WORLD_SIZE to train alone.", file=sys.stderr)
    try:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", **how)
    except ValueError as error:  # of a variable that is not set
        raise ValueError(f"{error} Processes that train together are started by torchrun, which sets it.") from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_device() -> torch.device:
    """The device of this process: under `torchrun`, the GPU of its number on its machine."""
    device = default_device()
    if device.type == "cuda" and ranks()[1] > 1:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    if ranks()[1] > 1:
        distributed.barrier()


def in_parallel(model: nn.Module, device: torch.device, sync_norm: bool) -> nn.Module:
    """The model, with gradients that are averaged over the ranks. It holds the very parameters and buffers of
    ``model``, whose initial values are those of rank 0.

    sync_norm: normalise by the statistics of the whole batch, not of the rank's share.
    """
    if ranks()[1] == 1:
        return model
    if sync_norm:
        tensors = [*model.parameters(), *model.buffers()]
        model = _with_sync_norm(copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}))
    devices = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def same_buffers(model: nn.Module) -> None:
    """Give each rank the buffers of rank 0: running statistics differ where each rank has its own."""
    if ranks()[1] > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def mean_of_ranks(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the ranks, the same on each."""
    if ranks()[1] > 1:
        distributed.all_reduce(values)
        values /= ranks()[1]
    return values


def _with_sync_norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.BatchNorm2d):
        layer.__class__ = _SyncNorm
    for child in layer.children():
        _with_sync_norm(child)
    return layer


class _SyncNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all ranks, of equal size. That of torch, SyncBatchNorm, is for GPUs alone."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        wide = x if x.dtype == torch.float64 else x.float()
        n = x.numel() // x.shape[1] * ranks()[1]
        mean = all_reduce(wide.mean((0, 2, 3), keepdim=True)) / ranks()[1]
        var = all_reduce(((wide - mean) ** 2).mean((0, 2, 3), keepdim=True)) / ranks()[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var.flatten() * n / (n - 1)).to(self.running_var.dtype), self.momentum)
        scale = self.weight.view(-1, 1, 1) / (var + self.eps).sqrt()
        return ((wide - mean) * scale + self.bias.view(-1, 1, 1)).to(x.dtype)
