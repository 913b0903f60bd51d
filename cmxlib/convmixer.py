"""The network of the book: ConvMixer (Trockman and Kolter, arXiv 2201.09792)."""

from torch import nn


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
