"""The plain way of doing things, which the benchmarks measure against, in a process that never imports cmxlib.

    python -P reference.py NAME '{"dim": 256, "depth": 8, "patch_size": 4, "batch": 128}'

Standard torch modules in float32, eager, and PIL transforms in a DataLoader, as the recipe of ConvMixer's authors has
them. The process prints "ready", and then, for each line that it reads, the seconds of one turn.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
KERNEL = 5


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fn(x)


def convmixer(dim: int, depth: int, patch_size: int) -> nn.Sequential:
    """ConvMixer of torch's own modules, called one after the other."""

    def after(conv):
        return [conv, nn.GELU(), nn.BatchNorm2d(dim)]

    blocks = [
        [
            Residual(nn.Sequential(*after(nn.Conv2d(dim, dim, KERNEL, groups=dim, padding="same")))),
            nn.Conv2d(dim, dim, 1),
        ]
        for _ in range(depth)
    ]
    layers = after(nn.Conv2d(3, dim, patch_size, stride=patch_size))
    for mixed, pointwise in blocks:
        layers += [mixed, *after(pointwise)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, 10))


def random_images(n: int) -> torch.Tensor:
    return torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8)


def trainer(dim: int, depth: int, patch_size: int) -> Callable:
    """A function that does one training step on a normalised batch."""
    model = convmixer(dim, depth, patch_size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step(images, labels):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        optimizer.step()

    return step


def step(dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    """Training steps on data at hand; in a row, for the first after another's turn finds nothing in the caches."""
    train, images, labels = trainer(dim, depth, patch_size), torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    return lambda: [train(images, labels) for _ in range(in_a_row)]


class _PILImages(torch.utils.data.Dataset):
    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images[i]), i % 10


def epoch(dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    """Steps with their augmentation: a turn is a whole pass over as many images, so that no worker works ahead."""
    from torchvision import transforms

    recipe = [transforms.ToPILImage(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*recipe, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images = _PILImages(random_images(batch * in_a_row), transform)
    loader = torch.utils.data.DataLoader(images, batch, shuffle=True, num_workers=2, persistent_workers=True)
    train = trainer(dim, depth, patch_size)
    return lambda: [train(*ready) for ready in loader]


def evaluation(dim: int, depth: int, patch_size: int, n: int) -> Callable[[], object]:
    model, images = convmixer(dim, depth, patch_size).eval(), random_images(n)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))

    @torch.no_grad()
    def run():
        return torch.cat([model((batch / 255 - mean) / std) for batch in images.split(128)])

    return run


def layer(kind: str, dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    """All layers of a kind in one training step, forward and backward, in the layout (batch, dim, side, side)."""
    side = 32 // patch_size
    x = torch.randn(batch, dim, side, side, requires_grad=True)
    inputs, module = [x], nn.BatchNorm2d(dim)
    if kind == "pointwise convolution":
        module = run = nn.Conv2d(dim, dim, 1)
    elif kind == "depthwise convolution":
        module = run = nn.Conv2d(dim, dim, KERNEL, groups=dim, padding="same")
    else:
        inputs += [torch.randn_like(x, requires_grad=True)] if "residual" in kind else []

        def run(x, *residual):
            return sum(residual, module(F.gelu(x)))

    return both_passes(run, inputs, module.parameters(), depth * in_a_row)


def both_passes(run: Callable, inputs: Iterable, parameters: Iterable, times: int) -> Callable[[], object]:
    """A function that applies ``run`` and computes all gradients, so many times."""
    wanted, grad = [*inputs, *parameters], torch.randn_like(run(*inputs))
    return lambda: [torch.autograd.grad(run(*inputs), wanted, grad) for _ in range(times)]


def copy(n: int, in_a_row: int) -> Callable[[], object]:
    images = random_images(n)
    twin = torch.empty_like(images)
    return lambda: [twin.copy_(images) for _ in range(in_a_row)]


def encryption(n: int, in_a_row: int) -> Callable[[], object]:
    """Shuffle and flip by reshaping, permuting, indexing and reshaping back, in float32."""
    images, b = random_images(n).float() / 255, 4
    permutation, flipped = torch.randperm(3 * b * b), torch.randint(2, (3 * b * b,)).bool()

    def encrypt():
        n, c, h, w = images.shape
        blocks = images.reshape(n, c, h // b, b, w // b, b).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * b * b)
        blocks = blocks[..., permutation]
        blocks = torch.where(flipped, 1 - blocks, blocks)
        return blocks.reshape(n, h // b, w // b, c, b, b).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)

    return lambda: [encrypt() for _ in range(in_a_row)]


def serve(contenders: dict[str, Callable]) -> None:
    """Be one contender: make it, say so, and take a turn for each line that is read."""
    run = contenders[sys.argv[1]](**json.loads(sys.argv[2]))
    run()  # once without being counted
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    assert not any(name.split(".")[0] == "cmxlib" for name in sys.modules)
    serve({made.__name__: made for made in (step, epoch, evaluation, layer, copy, encryption)})
