"""What is asked of arguments, once for each kind of thing: images, labels, statistics, whole numbers, steps.

Every public function that takes one of them calls these first, so that a wrong argument is refused with one sentence
that names it and says the way out, instead of giving a wrong number later.
"""

import itertools
import operator
import reprlib
import sys
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """``value`` as a sentence shows it: in one line, the middle of what is long left out."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except Exception:  # whatever its own code says: numbers of thousands of digits, tensors without values
        return type(value).__name__


def tensor(value: Any, name: str) -> "torch.Tensor":
    """``value``, when it is a tensor that holds its values one by one, as all that is computed here needs.

    TypeError for arrays, lists and tensors of other kinds: sparse, nested, quantised, without values.
    """
    import torch
    from torch.nn.parameter import UninitializedTensorMixin

    if not isinstance(value, torch.Tensor):
        use = "torchvision.transforms.v2.functional.pil_to_tensor" if hasattr(value, "getpixel") else "torch.as_tensor"
        raise TypeError(f"{name} must be a torch tensor, but this is {type(value).__name__}: use {use}(...).")
    for kind, found, way_out in (
        ("without values, on the meta device", value.is_meta, "give one that was loaded or computed"),
        ("without values, of a lazy layer", isinstance(value, UninitializedTensorMixin), "run the model once"),
        ("nested", value.is_nested, "use torch.nested.to_padded_tensor or torch.stack"),
        ("quantised", value.is_quantized, "use .dequantize()"),
        (str(value.layout), value.layout != torch.strided, "use .to_dense()"),
    ):
        if found:
            raise TypeError(f"{name} must be an ordinary tensor, but this one is {kind}: {way_out}.")
    return value


def default_device() -> None:
    """ValueError where tensors that are made have no values, under torch.device("meta")."""
    import torch

    if torch.empty(0).is_meta:  # get_default_device of older versions knows of no block
        raise ValueError(
            "torch's default device is meta, on which nothing is computed: choose another by torch.set_default_device, "
            "or leave the block with torch.device('meta')."
        )


def array(value: Any, name: str) -> np.ndarray:
    """``value`` as an array, when it is one, or a ``tensor``, or what NumPy takes for one."""
    torch = sys.modules.get("torch")  # without it there is no tensor, and arrays alone need not import it
    is_tensor = torch is not None and isinstance(value, torch.Tensor)
    if is_tensor:
        value = tensor(value, name).detach().cpu().resolve_conj().resolve_neg()
        if value.is_floating_point() and value.dtype.itemsize < 4:  # such as bfloat16, of which NumPy knows nothing
            value = value.float()
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of several lengths
        raise ValueError(f"{name} must be an array: {error}") from error


def images(
    value: Any,
    channels: int | None = None,
    *,
    name: str = "images",
    ndim: tuple[int, ...] = (4,),
    bytes_only: bool = False,
) -> "torch.Tensor":
    """``value``, when it is images: a tensor (N, C, H, W), uint8 (0 to 255) or floating (0 to 1).

    bytes_only: refuse floating images, too.
    ndim: (4,) for batches alone, (3, 4) where one image (C, H, W) will do too. TypeError for arrays, lists and other
    integers: a tensor of int64 would silently count as values in [0, 1]. ValueError for other shapes.
    """
    import torch

    tensor(value, name)
    floating = value.is_floating_point() and value.dtype.itemsize > 1  # nothing computes with float8
    if value.dtype != torch.uint8 and (bytes_only or not floating):
        kinds = "uint8 (0 to 255)" if bytes_only else "uint8 (0 to 255) or floating (0 to 1), of 16 bits at least"
        raise TypeError(f"{name} must be {kinds}, but this is {value.dtype}: use .to(torch.uint8) for grey levels.")
    if value.ndim not in ndim or (channels is not None and value.shape[-3] != channels):
        c = "C" if channels is None else channels
        shapes = " or ".join(f"({'N, ' * (n == 4)}{c}, H, W)" for n in sorted(ndim, reverse=True))
        raise ValueError(f"{name} must have the shape {shapes}, but this is {tuple(value.shape)}.")
    return value


ENCRYPTED = (-100.0, 100.0)  # what an orthogonal cipher makes of values in [0, 1]: never so far out as grey levels


def values(value: "torch.Tensor", name: str = "images", limits: tuple[float, float] = ENCRYPTED) -> "torch.Tensor":
    """``value``. ValueError where floats are not finite, or lie outside ``limits`` by more than rounding."""
    import torch

    if value.is_floating_point() and value.numel():
        low, high = (end.item() for end in torch.aminmax(value.detach()))
        if not (low >= limits[0] - 1e-3 and high <= limits[1] + 1e-3):  # false for NaN too
            finite = np.isfinite(low) and np.isfinite(high)
            found = f"these run from {low:g} to {high:g}" if finite else "some are NaN or infinite"
            within = "[{:g}, {:g}]".format(*((0, 1) if limits == ENCRYPTED else limits))
            raise ValueError(
                f"Float {name} must hold values in {within}, but {found}: divide grey levels by 255, normalise later."
            )
    return value


def labels(value: Any, n: int, *, name: str = "labels") -> "torch.Tensor":
    """``value`` as int64, when it is one class number an image: an integer tensor (n,)."""
    import torch

    if tensor(value, name).is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must be whole numbers, but this is {value.dtype}: use .long().")
    if tuple(value.shape) != (n,):
        raise ValueError(f"{name} must have the shape ({n},), one for each image, but this is {tuple(value.shape)}.")
    return value.long()


def statistics(mean: Any, std: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation a channel, float64 (channels,), of values in [0, 1].

    ValueError where they are not ``channels`` finite numbers each, where a std is not above 1e-6, or where they are of
    grey levels from 0 to 255.
    """
    import torch

    found = []
    for value, name in ((mean, "mean"), (std, "std")):
        if isinstance(value, torch.Tensor):
            value = array(value, name)
        try:
            given = np.asarray(value)
            if given.dtype.kind not in "biufO" or np.ma.is_masked(value):
                raise TypeError
            given = given.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{name} must be finite, but it holds a number beyond all floats.") from None
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be {channels} numbers, one a channel, but this is {shown(value)}.") from None
        if given.shape != (channels,):
            raise ValueError(
                f"{name} must hold {channels} numbers, one a channel of images (N, C, H, W), but its shape is "
                f"{given.shape}: give it, and images, of as many channels as the model takes."
            )
        if not np.isfinite(given).all():
            raise ValueError(f"{name} must be finite, but it is {given.tolist()}.")
        found.append(given)
    if (abs(np.stack(found)) > 2).any():
        raise ValueError(
            f"mean and std are of values in [0, 1], but here mean is {found[0].tolist()} and std {found[1].tolist()}: "
            "where they are of grey levels, divide both by 255."
        )
    if not (found[1] > 1e-6).all():
        raise ValueError(
            f"Every std must be above 0 (1e-6 at least), but they are {found[1].tolist()}: images whose values "
            "in a channel are all one cannot be normalised."
        )
    return found[0], found[1]


def items(value: Any, most: int) -> list[Any] | None:
    """What an iterable holds, up to one more than ``most`` of it; None of a text, and where it cannot be gone
    through."""
    if isinstance(value, (str, bytes, bytearray)):
        return None
    try:
        return list(itertools.islice(value, most + 1))
    except Exception:  # whatever its own code says: tensors of no dimension or of odd kinds
        return None


def truth(value: Any, name: str) -> bool:
    """``value`` as a bool, when it is a truth value of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, but this is {shown(value)}.")
    return bool(value)


def instance(value: Any, kind: type, name: str) -> None:
    """TypeError where an argument is of another class than ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, but this is {type(value).__name__}.")


def cipher(value: Any, *verbs: str) -> None:
    """TypeError where an argument is no object with these methods of a cipher, or a class that could make one."""
    if isinstance(value, type) or not all(callable(getattr(value, verb, None)) for verb in verbs):
        raise TypeError(
            f"cipher must be a PatchCipher, or have {', '.join(verbs)}, but this is {type(value).__name__}: use "
            "PatchCipher(key, patch_size)."
        )


def whole(value: Any, name: str, low: int, high: int | None = None) -> int:
    """``value`` as an int, when it is a whole number (of Python or NumPy, no truth value, no float) in [low, high].

    high: what torch computes with, unless it is given. Compute with the int: NumPy's small ones overflow.
    """
    try:
        number = operator.index(value)
    except Exception:  # tensors of odd kinds have errors of their own
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, but this is {shown(value)}.")
    most = 2**63 - 1 if high is None else high
    if not low <= number <= most:
        limits = f"from {low} up" if high is None and number < low else f"from {low} to {most}"
        found = number if abs(number) < 10**30 else "of over 30 digits"  # Python refuses to write thousands
        raise ValueError(f"{name} must be a whole number {limits}, but it is {found}.")
    return number


def seed(value: Any) -> int:
    """``value`` as an int, when it is a whole number that any generator takes for its seed."""
    return whole(value, "seed", 0, 2**32 - 1)


def wholes(value: Any, name: str, low: int, high: int | None = None) -> tuple[int, ...]:
    """``value`` as a tuple of different whole numbers in [low, high], one at least."""
    given = items(value, _MOST_WHOLES)
    if given is None or len(given) > _MOST_WHOLES:
        raise TypeError(f"{name} must be a tuple of whole numbers, but this is {shown(value)}.")
    found = tuple(whole(each, name, low, high) for each in given)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must be different whole numbers, one at least, but they are {shown(found)}.")
    return found


_MOST_WHOLES = 1_000_000


def sides(value: Any, name: str = "image_size") -> tuple[int, int]:
    """(height, width) in pixels, when ``value`` is that, or one whole number for both."""
    both = value if isinstance(value, (tuple, list)) else (value,) * 2
    if len(both) != 2:
        raise ValueError(f"{name} must be one whole number or (height, width), but it is {shown(value)}.")
    return whole(both[0], name, 1), whole(both[1], name, 1)


def places(value: Any, n: int, name: str = "places") -> np.ndarray:
    """``value`` as an array (n,) of int64 of its own, when it holds the number of each of n patches once."""
    found = array(value, name)
    if found.shape != (n,) or found.dtype.kind not in "iu" or not np.array_equal(np.sort(found), np.arange(n)):
        raise ValueError(f"{name} must hold the number of each of the {n} patches of an image once, in whole numbers.")
    return np.array(found, np.int64)


def numbers(value: Any, name: str, low: float = -float("inf"), high: float = float("inf")) -> list[float]:
    """``value`` as a list of floats, when it holds finite numbers in [low, high] alone."""
    if isinstance(value, (str, bytes)) or not np.iterable(value):
        raise TypeError(f"{name} must be several numbers, but this is {shown(value)}.")
    return [number(each, name, low, high) for each in value]


def number(value: Any, name: str, low: float, high: float = float("inf")) -> float:
    """``value`` as a float, when it is a finite number in [low, high]."""
    real = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if not real:
        raise TypeError(f"{name} must be a number, an int or float, but this is {shown(value)}.")
    try:
        found = float(value)
    except OverflowError:  # too long to be shown
        found = value = float("inf") if value > 0 else -float("inf")
    if not (np.isfinite(found) and low <= value <= high):
        limits = f"from {low:g} up" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a finite number {limits}, but it is {value}.")
    return found


def steps(value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """``value`` as a tuple of different names out of ``known``; a text is taken for one that lacks its comma."""
    if isinstance(value, str):
        raise TypeError(f"steps must be a tuple of names, such as ({shown(value)},), not the text alone.")
    if not isinstance(value, Sequence):  # a set has no order, and its cipher would be another in each process
        raise TypeError(f"steps must be a tuple of names, but this is {shown(value)}.")
    if not all(isinstance(step, str) and step in known for step in value) or len(set(value)) < len(value):
        raise ValueError(f"steps must be different ones of {', '.join(known)}, but they are {shown(value)}.")
    return tuple(value)
