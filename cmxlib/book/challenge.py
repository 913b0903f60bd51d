"""Six locks to break: encrypted images, an encrypted network and a *flag*, whose key nobody kept.

A flag is a sentence of six made-up words, each drawn in an image of its own. Who finds the key reads the sentence, and
`is_flag` says whether it is right: it compares a hash, for the sentence itself was thrown away with the key. Every
network was trained for its lock alone, from a seed that is gone, so that no plain network stands beside it. The images
are FontDigits of seeds that are gone, too; those of `load_dataset("fontdigits")` are public images of the same kind.

The committed files were made by `python -m cmxlib.book.challenge FOLDER`, which anybody can run for a class of theirs.
"""

import argparse
import hashlib
import os
import secrets
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while torch is imported, Ctrl-C shows no traceback

import numpy as np
import torch
from torch import nn

from ..files import commands
from ..learn.convmixer import ConvMixer
from ..learn.data import Dataset
from ..learn.fontdigits import draw_fontdigits
from ..learn.train import fit
from ..lock import checks
from ..lock.bits import bit_model, from_bits, to_bits
from ..lock.keys import SecretKey
from ..lock.model import encrypt_model
from ..lock.patch import PatchCipher
from ..lock.position import PositionCipher, PositionEmbedding, encrypt_model_by_position
from ..paths import checkout, expanded, need, out_of_memory, told, writable, write_bytes
from ..study.scales import SCALES

LOCKS = {  # number: (what its cipher is, encrypted images beside those of the flag)
    1: ("shuffle", 300),
    2: ("shuffle+flip", 60),
    3: ("orthogonal", 20),
    4: ("shuffle+flip, a key for each position", 40),
    5: ("shuffle+flip of single bits", 40),
    6: ("shuffle+flip", 0),
}
PATCH = SCALES["quick"].model["patch_size"]
_WORDS = 6
_BITS, _POSITION = (LOCKS[number][0] for number in (5, 4))


@dataclass(frozen=True)
class Lock:
    """What an attacker of a lock holds.

    cipher: what the cipher does, in words. images, flag: encrypted, (N, 3, 32, 32) and (6, 3, 32, 32), uint8 where the
    cipher maps bytes to bytes and float32 otherwise; those of single bits show the encrypted bits as bytes (see
    ``to_bits``). model: the encrypted network, in evaluation mode. digest: of the sentence.
    """

    cipher: str
    images: torch.Tensor
    flag: torch.Tensor
    model: nn.Module
    digest: str


def load_lock(number: int, folder: Path | None = None) -> Lock:
    """Lock 1 to 6 of the book, or of a folder that ``make`` filled."""
    number = _known(number)
    folder = checkout() / "notebooks" / "challenge" if folder is None else expanded(folder, "folder")
    path = folder / f"lock{number}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: give a folder that challenge.make(folder) filled.")
    safe_open = need("safetensors", "files").safe_open
    try:
        with safe_open(path, "pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}
            stored = {name: value.float() if value.dtype == torch.float16 else value for name, value in stored.items()}
            digest = bytes.fromhex(file.metadata()["digest"]).hex()
        images, flag = checks.images(stored.pop("images"), 3), checks.images(stored.pop("flag"), 3)
        model = ConvMixer(**SCALES["quick"].model)
        if stored["0.weight"].dim() == 3:  # filters of its own at each position
            model[0] = PositionEmbedding(stored["0.weight"], stored["0.bias"], PATCH)
        elif stored["0.weight"].shape[1] != 3:
            model[0] = nn.Conv2d(stored["0.weight"].shape[1], stored["0.weight"].shape[0], PATCH, PATCH)
        model.load_state_dict(stored)
    except Exception as error:  # whatever is said of a file that was cut off, or that holds something else
        if out_of_memory(error):
            raise
        raise ValueError(
            f"{path} is no lock, or is damaged: restore it from a copy, or by git checkout, or make new ones."
        ) from error
    return Lock(LOCKS[number][0], images, flag, model.eval(), digest)


def is_flag(number: int, sentence: str, folder: Path | None = None) -> bool:
    """Whether a sentence is the flag of a lock; capitals and the width of spaces do not matter."""
    checks.instance(sentence, str, "sentence")
    return secrets.compare_digest(_digest(number, sentence), load_lock(number, folder).digest)


def make(folder: Path, numbers: tuple[int, ...] = tuple(LOCKS), data: Dataset | None = None) -> None:
    """Write new locks to a folder, a file for each when all are made, and keep neither key nor sentence nor plain
    network. FileExistsError, before any is made, where the folder has one of them.

    data: what the networks are trained on; FontDigits where none is given. Takes about a minute a lock.
    """
    folder, scale, made = expanded(folder, "folder"), SCALES["quick"], {}
    paths = {_known(n): folder / f"lock{n}.safetensors" for n in checks.wholes(numbers, "numbers", 1)}
    writable(folder)
    if there := [path for path in paths.values() if os.path.lexists(path)]:
        raise FileExistsError(f"{there[0]} exists already: name another folder, or delete it first.")
    data = scale.data() if data is None else data
    for number, path in paths.items():
        sentence = " ".join(_word() for _ in range(_WORDS))
        seed = secrets.randbits(40)  # a guess of it costs a training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ConvMixer(**scale.model)
        fit(model, data, replace(scale.train, seed=seed), progress=False)
        images = torch.from_numpy(draw_fontdigits(max(LOCKS[number][1], 1), 1, secrets.randbits(63))[0])
        locked, encrypt = _lock(LOCKS[number][0], model.eval().cpu(), data)
        state = {name: value.contiguous() for name, value in locked.state_dict().items()}
        tensors = state | {"images": encrypt(images)[: LOCKS[number][1]], "flag": encrypt(_draw(sentence.split()))}
        made[path] = _content(tensors, _digest(number, sentence))
    for path, content in made.items():
        write_bytes(path, content, over=False)


def _content(tensors, digest):
    # In float16 what is large and not bytes, so that the six files stay small: images' values, filters by position.
    large = ("images", "flag", "0.weight")
    small = {
        name: value.half() if name in large and value.is_floating_point() else value for name, value in tensors.items()
    }
    return need("safetensors.torch", "files").save(small, {"digest": digest})


def _lock(kind: str, model: nn.Module, data: Dataset):
    """The encrypted network, and the function that encrypts images, under a key that is forgotten on return."""
    key, norm = SecretKey.generate(), data.norm
    if kind == _POSITION:
        by_position = PositionCipher(key, PATCH)
        return encrypt_model_by_position(model, by_position, **norm), by_position.encrypt
    if kind == _BITS:
        bits = PatchCipher(key, PATCH, channels=24)
        locked = encrypt_model(bit_model(model, **norm), bits, mean=(0,) * 24, std=(1,) * 24)
        return locked, lambda images: from_bits(bits.encrypt(to_bits(images)))
    cipher = PatchCipher(key, PATCH, steps=tuple(kind.split("+")))
    return encrypt_model(model, cipher, **norm), cipher.encrypt


def _word() -> str:
    """Two syllables, of 6,400 that are as likely: six words have 75 bits, which no list of guesses covers."""
    return "".join(secrets.choice("BDFGKLMNPRSTVWXZ") + secrets.choice("AEIOU") for _ in range(2))


def _digest(number: int, sentence: str) -> str:
    return hashlib.sha256(f"cmxlib challenge {number}: {' '.join(sentence.upper().split())}".encode()).hexdigest()


def _draw(words: list[str]) -> torch.Tensor:
    """(len(words), 3, 32, 32), uint8: each word across its image, light on the ground of a FontDigits image."""
    Image, ImageDraw, ImageFont = (need(f"PIL.{name}", "files") for name in ("Image", "ImageDraw", "ImageFont"))
    fonts = Path(need("matplotlib", "book").get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSansMono-Bold.ttf"), 12, layout_engine=ImageFont.Layout.BASIC)
    ground = draw_fontdigits(len(words), 1, secrets.randbits(63))[0]
    drawn = []
    for word, image in zip(words, ground, strict=True):
        canvas = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0) // 3))
        ImageDraw.Draw(canvas).text((16, 16), word, fill=(255, 255, 255), font=font, anchor="mm")
        drawn.append(np.asarray(canvas).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(drawn))


def _known(number: int) -> int:
    if (found := checks.whole(number, "number", 1)) not in LOCKS:
        raise ValueError(f"There is no lock number {found}: choose one of {', '.join(map(str, LOCKS))}.")
    return found


def main() -> None:
    """Make six new locks, which takes some minutes."""
    parser = argparse.ArgumentParser(prog="cmxlib.book.challenge", description=main.__doc__)
    parser.add_argument("folder", type=commands.path, help="where the locks go")
    make(parser.parse_args().folder)


if __name__ == "__main__":
    sys.exit(told(main, "cmxlib.book.challenge"))
