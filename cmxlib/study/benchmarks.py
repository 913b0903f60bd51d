"""Table `benchmarks`: how long cmxlib takes, beside the plain way of doing the same.

Each contender lives in a process of its own, started afresh for every start, and both take turns. The reference's
process (`reference.py`) never imports cmxlib. Rows have the columns case, contender, patch_size, layer, start, turns,
and the measure "seconds" (the median of the turns), "MB" or a rate; ratios are for `cmxlib.book.summaries` to take.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from ..learn.augment import augment
from ..learn.convmixer import ConvMixer
from ..learn.device import bf16_is_faster
from ..learn.engine import depthwise, gelu_norm, keep_freed_memory, tile_rows
from ..learn.evaluate import logits, normalise
from ..lock.keys import SecretKey
from ..lock.patch import PatchCipher
from . import reference
from .scales import Scale
from .table import Table

CPU = torch.device("cpu")
NORM = {"mean": reference.MEAN, "std": reference.STD}
KINDS = {  # layers of a block, and how many arrays their forward and backward passes have to read or write
    "pointwise convolution": 5,  # input and output, then the gradient of the output, the input, and its gradient
    "depthwise convolution": 5,
    "GELU, BatchNorm": 5,
    "GELU, BatchNorm, residual sum": 6,
}
STARTS, TURNS = 3, 3


# -- our side, as its user would run it --------------------------------------------------------------------------------


def step(dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    train, images, labels = _trainer(dim, depth, patch_size), torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    return lambda: [train(images, labels) for _ in range(in_a_row)]


def _trainer(dim, depth, patch_size):
    """The step of ``cmxlib.learn.train.fit`` on a normalised batch."""
    model = ConvMixer(dim, depth, reference.KERNEL, patch_size)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def train(images, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_faster(CPU)):
            loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return train


def epoch(dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    train, images, generator = _trainer(dim, depth, patch_size), reference.random_images(50_000), torch.Generator()
    labels = torch.arange(50_000) % 10

    def run():
        for chosen in torch.randperm(50_000, generator=generator)[: batch * in_a_row].split(batch):
            augmented = augment(images[chosen], generator, crop_padding=4, flip=True)
            train(normalise(augmented, **NORM), labels[chosen])

    return run


def evaluation(dim: int, depth: int, patch_size: int, n: int) -> Callable[[], object]:
    model, images = ConvMixer(dim, depth, reference.KERNEL, patch_size).eval(), reference.random_images(n)
    return lambda: logits(model, images, **NORM, autocast=bf16_is_faster(CPU))


def layer(kind: str, dim: int, depth: int, patch_size: int, batch: int, in_a_row: int) -> Callable[[], object]:
    """As ConvMixer computes on a CPU: activations (dim, positions), in bfloat16 where that is faster."""
    keep_freed_memory()
    side, dtype = 32 // patch_size, torch.bfloat16 if bf16_is_faster(CPU) else torch.float32

    def array(*shape):
        return torch.randn(*shape).to(dtype).requires_grad_()

    z, norm, bias = array(dim, batch * side * side), torch.nn.BatchNorm2d(dim), torch.zeros(dim, requires_grad=True)
    inputs, parameters = [z], [bias, *norm.parameters()]
    run: Callable = lambda z: gelu_norm(z, norm, bias)  # noqa: E731
    if "residual" in kind:
        inputs = [z, array(*z.shape)]
        run = lambda z, residual: residual + gelu_norm(z, norm, bias)  # noqa: E731
    elif kind == "pointwise convolution":
        parameters = [array(dim, dim)]
        run = lambda z: parameters[0] @ z  # noqa: E731
    elif kind == "depthwise convolution":
        rows = tile_rows(side, side, reference.KERNEL)
        parameters = [torch.randn(dim, 1, reference.KERNEL, reference.KERNEL, requires_grad=True)]
        inputs = [array(dim, side // rows * batch, rows * side)]
        run = lambda z: depthwise(z, parameters[0], batch, side, side)  # noqa: E731
    return reference.both_passes(run, inputs, parameters, depth * in_a_row)


def encryption(n: int, in_a_row: int) -> Callable[[], object]:
    images, cipher = reference.random_images(n), PatchCipher(SecretKey.for_experiment(0))
    return lambda: [cipher.encrypt(images) for _ in range(in_a_row)]


# -- turns ---------------------------------------------------------------------------------------------------------


class Contender:
    """A process that is one side of a case: ``turn()`` has it take one and gives the seconds."""

    def __init__(self, side: str, name: str, arguments: dict):
        program = ["-P", reference.__file__] if side == "stock" else ["-m", __name__]
        self.process = subprocess.Popen(
            [sys.executable, *program, name, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.process.stdout.readline() != "ready\n":
            raise ChildProcessError(f"The benchmark {name} ({side}) did not start: see what it printed above.")

    def turn(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def turns(contenders: dict[str, tuple[str, str, dict]], n: int) -> dict[str, float]:
    """The median seconds of each contender (side, name, arguments) over ``n`` turns, taken one after the other."""
    running = {}
    try:
        for name, contender in contenders.items():
            running[name] = Contender(*contender)
        seconds = [{name: contender.turn() for name, contender in running.items()} for _ in range(n)]
    finally:
        for process in running.values():
            process.end()
    return {name: statistics.median(turn[name] for turn in seconds) for name in contenders}


# -- the table -----------------------------------------------------------------------------------------------------


def _cases(scale: Scale) -> dict[str, dict]:
    """{case: arguments}, at quick scale so small that the numbers mean nothing."""
    quick = scale.name == "quick"
    size = {"dim": 16, "depth": 1} if quick else {"dim": scale.model["dim"], "depth": scale.model["depth"]}
    batch = {"batch": 4 if quick else 128}
    return {
        "step": {**size, **batch, "in_a_row": 1 if quick else 2},
        "epoch": {**size, **batch, "in_a_row": 2 if quick else 12},
        "evaluation": size,
        "layer": {**size, **batch, "in_a_row": 1},
        "encryption": {"n": 10 if quick else 10_000, "in_a_row": 10},
    }


def _units(scale: Scale):
    sizes, starts = scale.patch_sizes, range(1 if scale.name == "quick" else STARTS)
    yield from ({"case": case, "patch_size": 0, "layer": "", "start": 0} for case in ("rates", "start-up"))
    yield from ({"case": "layer", "patch_size": size, "layer": kind, "start": 0} for size in sizes for kind in KINDS)
    for case, at in (("step", sizes), ("evaluation", sizes), ("epoch", sizes[:1]), ("encryption", (4,))):
        yield from ({"case": case, "patch_size": size, "layer": "", "start": k} for size in at for k in starts)
    yield {"case": "memory", "patch_size": sizes[-1], "layer": "", "start": 0}


def _measure(scale: Scale, unit: dict):
    case, size, quick = unit["case"], unit["patch_size"], scale.name == "quick"
    if case in ("rates", "start-up"):
        yield from _rates(quick) if case == "rates" else _start_up(1 if quick else 5)
        return
    arguments = dict(_cases(scale)["step" if case == "memory" else case])
    if case != "encryption":
        arguments["patch_size"] = size
    if case == "evaluation":
        arguments["n"] = 40 if quick else (4_000 if size >= 4 else 1_000)
    if case == "layer":
        arguments["kind"] = unit["layer"]
    if case == "memory":
        for name in ("cmxlib", "stock"):
            yield {"contender": name, "turns": 2, "measure": "MB", "value": _peak(name, arguments | {"batch": 256})}
        return
    contenders = {name: (name, case, arguments) for name in ("cmxlib", "stock")}
    if case == "encryption":
        contenders["copy"] = ("stock", "copy", arguments)
    n = 1 if quick else TURNS
    for name, seconds in turns(contenders, n).items():
        each = seconds / arguments.get("in_a_row", 1)
        yield {"contender": name, "turns": n, "measure": "seconds", "value": each}


def _rates(quick: bool):
    """What bounds a CPU: the rate of matrix products and that of copying."""
    dtype = torch.bfloat16 if bf16_is_faster(CPU) else torch.float32
    best = 0.0
    for m, k, n in ((1024, 1024, 1024), (256, 256, 8192), (256, 256, 32768)):  # a square, and pointwise layers
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        best = max(best, 2 * m * k * n / min(_timed(lambda: a @ b) for _ in range(3 if quick else 20)))  # noqa: B023
    source = torch.empty(2**20 if quick else 2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / min(_timed(lambda: target.copy_(source)) for _ in range(5))
    yield {"contender": "matrix products", "turns": 20, "measure": "GFLOP/s", "value": best / 1e9}
    yield {"contender": "copying", "turns": 5, "measure": "GB/s read and written", "value": copied / 1e9}


def _timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _start_up(n):
    for name, command in (("import cmxlib", ["-c", "import cmxlib"]), ("cmx --help", ["-m", "cmxlib", "--help"])):
        run = [sys.executable, *command]
        seconds = [_timed(lambda: subprocess.run(run, check=True, capture_output=True)) for _ in range(n)]  # noqa: B023
        yield {"contender": name, "turns": n, "measure": "seconds", "value": statistics.median(seconds)}


def _peak(side: str, arguments: dict) -> float:
    """The peak resident memory in MB of a process after two training steps."""
    contender = Contender(side, "step", arguments | {"in_a_row": 1})
    try:
        contender.turn()
        status = Path(f"/proc/{contender.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    finally:
        contender.end()


BENCHMARKS = Table(
    "benchmarks",
    _units,
    _measure,
    lambda scale, unit: {
        "dataset": "random images",
        "settings": {"threads": torch.get_num_threads()},
        "seeds": 0,
        "n_images": 0,
    },
    timed=True,
    left_out=("small",),
)

if __name__ == "__main__":
    reference.serve({made.__name__: made for made in (step, epoch, evaluation, layer, encryption)})
