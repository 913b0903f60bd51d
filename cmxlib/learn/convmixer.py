"""The network of the book: ConvMixer (Trockman and Kolter, arXiv 2201.09792)."""

import torch
from torch import nn
from torch.nn import functional as F

from .depthwise import depthwise, layout_rows
from .fused import gelu_norm
from .memory import keep_freed_memory


class Residual(nn.Module):
    """Add a branch's output to its input: x -> x + fn(x)."""

    def __init__(self, fn: nn.Module):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return x + self.fn(x)


class ConvMixer(nn.Sequential):
    """ConvMixer with the authors' layout, so that their plain ``nn.Sequential`` state dicts load as they are.

    Input: normalised images (N, channels, H, W) with H and W divisible by ``patch_size``.
    Output: logits (N, num_classes).

    On a CPU, ``forward`` computes the same with matrix products alone (see ``depthwise``), several times quicker.
    """

    def __init__(self, dim=256, depth=8, kernel_size=5, patch_size=2, num_classes=10, channels=3):
        super().__init__(
            nn.Conv2d(channels, dim, patch_size, stride=patch_size),
            nn.GELU(),
            nn.BatchNorm2d(dim),
            *[
                nn.Sequential(
                    Residual(
                        nn.Sequential(
                            nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"),
                            nn.GELU(),
                            nn.BatchNorm2d(dim),
                        )
                    ),
                    nn.Conv2d(dim, dim, 1),
                    nn.GELU(),
                    nn.BatchNorm2d(dim),
                )
                for _ in range(depth)
            ],
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(),
            nn.Linear(dim, num_classes),
        )

    def __getitem__(self, index):
        # A slice is a plain nn.Sequential: the constructor here takes sizes, not layers.
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)

    def forward(self, x):
        # Another kind of embedding, such as one with filters of its own at each position, takes the plain path.
        quick = x.device.type == "cpu" and isinstance(self[0], nn.Conv2d)
        return self._products(x) if quick else super().forward(x)

    def _products(self, x):
        """The network on a CPU: every activation is a matrix (dim, positions), so each layer is a product on it."""
        keep_freed_memory()
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        embedding, _, norm, *blocks = list(self)[:-3]
        n, channels, _, _ = x.shape
        p = embedding.kernel_size[0]
        h, w = x.shape[2] // p, x.shape[3] // p
        rows = layout_rows(h, w, blocks[0][0].fn[0].kernel_size[0], dtype) if blocks else h

        def pointwise(conv, z):
            return conv.weight.to(dtype).flatten(1) @ z  # its bias is added by gelu_norm, which reads z anyway

        with torch.autocast("cpu", enabled=False):
            patches = x[..., : h * p, : w * p].to(dtype).reshape(n, channels, h // rows, rows, p, w, p)
            patches = patches.permute(1, 4, 6, 2, 0, 3, 5).reshape(channels * p * p, -1)
            z = gelu_norm(pointwise(embedding, patches), norm, embedding.bias)
            for residual, conv, _, norm in blocks:
                spatial, _, spatial_norm = residual.fn
                tiles = z.view(len(z), -1, rows * w)
                mixed = depthwise(tiles, spatial.weight, n, h, w).view_as(z)
                z = gelu_norm(mixed, spatial_norm, spatial.bias, residual=z)
                z = gelu_norm(pointwise(conv, z), norm, conv.bias)
            pooled = z.view(len(z), h // rows, n, rows * w).mean((1, 3), dtype=self[-1].weight.dtype)
            return F.linear(pooled.T, self[-1].weight, self[-1].bias)
