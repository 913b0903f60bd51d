"""The command line of files: `cmx key`, `encrypt-images`, `decrypt-images`, `encrypt-model`, `decrypt-model`, `verify`.

Each command is told its arguments and returns the exit status. What it needs is imported when it runs.
"""

import argparse
import json
import os
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..paths import printable

if TYPE_CHECKING:
    from ..lock.keys import SecretKey

NORMS = {  # mean and std, of values in [0, 1], that training recipes of these names use
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def add(commands: Any) -> None:
    """Add the commands to the subparsers of `cmx`."""
    key = commands.add_parser("key", help="make a secret key, or say which one a file holds")
    verbs = key.add_subparsers(required=True, metavar="new|show")
    for verb, run, text in (
        ("new", _key_new, "make one, from the system's randomness"),
        ("show", _key_show, "say which"),
    ):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("file", type=path)
        if verb == "new":
            command.add_argument("--passphrase", action="store_true", help="encrypt the file by one that is asked for")
        _common(command, run)

    for verb in ("encrypt", "decrypt"):
        command = commands.add_parser(f"{verb}-images", help=f"{verb} an image, a folder of them, or an array (.npy)")
        _in_and_out(command)
        if verb == "encrypt":
            _cipher(command, patch=True)
            command.add_argument(
                "--resize", type=count, metavar="N", help="the shorter side, before, as the model wants"
            )
            command.add_argument("--crop", type=count, metavar="N", help="a square out of the middle, after resizing")
            command.add_argument("--resample", choices=("bilinear", "bicubic"), default="bilinear", help="for --resize")
            command.add_argument(
                "--pad", action="store_true", help="add rows and columns that decryption removes again"
            )
        else:
            _cipher(command, patch=False)
        command.add_argument(
            "--workers", type=count, default=_cores(), metavar="N", help="processes (default: %(default)s)"
        )
        less = "give smaller images, with --resize where they are enlarged, or fewer --workers"
        _common(command, _encrypt_images if verb == "encrypt" else _decrypt_images, less)

        command = commands.add_parser(f"{verb}-model", help=f"{verb} a model: .safetensors, .pt, .pth or .onnx")
        _in_and_out(command)
        _cipher(command, patch=False)
        _model(command)
        _common(command, _encrypt_model if verb == "encrypt" else _decrypt_model)

    command = commands.add_parser("verify", help="compare a plain model with an encrypted one")
    command.add_argument("plain", type=path)
    command.add_argument("encrypted", type=path)
    command.add_argument("--key", type=path, required=True, metavar="FILE")
    command.add_argument("--images", type=path, metavar="DIR", help="plain images to compare on (default: random ones)")
    _common(command, _verify)


def count(text: str) -> int:
    """A whole number from 1 to 999,999,999."""
    if not text.isdecimal() or not text.isascii() or not 0 < int(text[:9]) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 999,999,999")
    return int(text)


def _number(text):
    try:
        return float(text.encode("ascii").replace(b"_", b"no"))  # Python's own takes 1_0 and ٣
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; IN and OUT stand in front of it") from None


def path(text: str) -> Path:
    """A command's argument that names a file or folder."""
    if text.strip() in ("", "-"):
        hint = "" if text.strip() else " (is a variable of the shell empty?)"
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or folder{hint}")
    if "cmxlib secret key" in text:  # not repeated
        raise argparse.ArgumentTypeError("this is the text of a key's file, not its name")
    return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)  # as in --key=~/my.key


def _in_and_out(command):
    command.add_argument("input", type=path, metavar="IN")
    command.add_argument("output", type=path, metavar="OUT")
    command.add_argument("--key", type=path, required=True, metavar="FILE", help="the secret key")
    command.add_argument("--force", action="store_true", help="replace what is there; of a link, the link itself")


def _cipher(command, patch):
    said = "" if patch else "; else as the record says"
    command.add_argument("--patch", type=count, required=patch, metavar="N", help=f"size of the model's patches{said}")
    command.add_argument(
        "--steps", type=_steps, metavar="STEPS", help="shuffle,flip (the default), one of them, or orthogonal"
    )


def _model(command):
    command.add_argument(
        "--layer", action="append", metavar="NAME", help="the patch embedding, where it cannot be told"
    )
    command.add_argument("--mean", type=_number, nargs="+", metavar="X", help="of the normalisation, one a channel")
    command.add_argument("--std", type=_number, nargs="+", metavar="X")
    command.add_argument("--norm", choices=NORMS, help="in place of --mean and --std")
    command.add_argument("--order", choices=("chw", "hwc"), help="in which a Linear embedding takes a patch's entries")
    command.add_argument(
        "--image-size", type=count, nargs="+", metavar="N", help="side, or height and width, of the model's images, "
        "where the embedding has no bias and position embeddings take the offset"
    )  # fmt: skip


def _common(command, run, less="close other programs, or use a machine with more"):
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run, extra="files", less=less)


def _steps(text):
    found = tuple(part.strip() for part in text.split(","))
    known = set(found) <= {"shuffle", "flip", "orthogonal"} and len(set(found)) == len(found)
    if not known or ("orthogonal" in found and found[1:]):
        raise argparse.ArgumentTypeError(f"{text!r} is not shuffle,flip or one of shuffle, flip and orthogonal")
    return found


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- what the commands do --------------------------------------------------------------------------------------------


def _key_new(args):
    from ..lock.keyfile import Hidden
    from ..lock.keys import SecretKey

    passphrase = Hidden(_ask("Passphrase: ") if args.passphrase else None)  # from tracebacks that show variables
    if args.passphrase and _ask("The same again: ") != passphrase.value:
        raise ValueError("The two passphrases differ: no key was made.")
    key = SecretKey.generate()
    key.save(args.file, passphrase=passphrase.value)
    return _say(args, _about(key), f"{args.file} holds the new key {key.fingerprint}: keep a copy, for what it locks "
                "cannot be opened without it.")  # fmt: skip


def _key_show(args):
    key = load_key(args.file)
    return _say(args, _about(key), f"{args.file} holds the key {key.fingerprint}, {key.origin}.")


def _encrypt_images(args):
    from . import pictures, record

    key = load_key(args.key)
    cipher = record.cipher_of(key, args.patch, args.steps or ("shuffle", "flip"))
    how = {"resize": args.resize, "crop": args.crop, "resample": args.resample if args.resize else None}
    job = pictures.Job(cipher, record.of(key, cipher, **how), record.source_key(key), pad=args.pad, force=args.force)
    note = " Resized, cropped or saved as JPEG from here on, they are not exact any more, and much can be lost."
    return _images(args, job, "encrypted", note)


def _decrypt_images(args):
    from . import folders, pictures, record

    key = load_key(args.key)
    found = folders.first_record(args.input)
    asked = record.Record(key.fingerprint, args.steps or found.steps, args.patch or found.patch)
    record.check(found, asked, str(args.input))
    cipher = record.cipher_of(key, found.patch, found.steps)
    job = pictures.Job(cipher, found.settings(), record.source_key(key), decrypt=True, force=args.force)
    return _images(args, job, "decrypted", "")


def _images(args, job, verb, note):
    from . import folders

    report = folders.run(args.input, args.output, job, args.workers)
    for told in report.failed:
        print(f"cmx: {told}", file=sys.stderr)
    parts = [f"{report.done:,} {verb} in {args.output}"]
    parts += [f"{report.kept:,} done before"] * bool(report.kept)
    parts += [f"{len(report.failed):,} failed"] * bool(report.failed)
    parts += [f"{report.left_out:,} other files left out"] * bool(report.left_out)
    _say(args, {"key": job.record.key, verb: report.done, "done before": report.kept, "failed": report.failed,
                "left out": report.left_out}, f"{', '.join(parts)}.{note}")  # fmt: skip
    return 1 if report.failed else 0


def _encrypt_model(args):
    from . import models

    found = models.encrypt(args.input, args.output, load_key(args.key), _asked(args), args.force)
    layers, note = ", ".join(found.layers or ()), ""
    if args.output.suffix.lower() != ".onnx":
        note = f" {layers} must take {models.layout(found)}, which the file does not tell."
    if found.positions:
        note += f" The offset is in {found.positions}, which must be added to its patches as they are."
    return _say(args, {"key": found.key, "layers": found.layers, "patch": found.patch, "steps": found.steps},
                f"{args.output} is {args.input} encrypted with the key {found.key}: {layers}, patches of "
                f"{found.patch}, "
                f"{','.join(found.steps)}.{note}")  # fmt: skip


def _decrypt_model(args):
    from . import models

    found = models.decrypt(args.input, args.output, load_key(args.key), _asked(args), args.force)
    return _say(args, {"key": found.key, "layers": found.layers}, f"{args.output} is {args.input} decrypted.")


def _asked(args):
    from . import models

    if args.norm and (args.mean or args.std):
        raise ValueError("--norm stands for a --mean and a --std: give it, or both of them.")
    mean, std = NORMS[args.norm] if args.norm else (args.mean, args.std)
    mean, std = (None if v is None else tuple(v) for v in (mean, std))
    if mean is not None and std is not None:
        from ..lock import checks

        checks.statistics(mean, std, 3)
    size = tuple(args.image_size) if args.image_size else None
    if size and len(size) > 2:
        raise ValueError(f"--image-size takes a side, or height and width, not {len(size)} numbers.")
    size = size * 2 if size and len(size) == 1 else size
    return models.Asked(args.patch, args.steps, tuple(args.layer) if args.layer else None, mean, std, args.order, size)


def _verify(args):
    from . import compare

    found = compare.verify(args.plain, args.encrypted, load_key(args.key), args.images)
    elsewhere, changed = ", ".join(found["differs elsewhere"][:5]), ", ".join(found["changed layers"])
    changed = f"{changed} alone" if changed and not elsewhere else changed or "nothing"
    changed += f"; differs elsewhere: {elsewhere}" if elsewhere else ""
    _say(args, found, f"{'Equal' if found['equal'] else 'NOT EQUAL'}: on {found['images']} images, {found['compared']} "
         f"differ by {found['largest difference']:.2g} at most, of {found['largest']:.3g}; for images that were not "
         f"encrypted by {found['without encryption']:.2g}. Changed: {changed}. "
         f"Taken for granted: {'; '.join(found['taken for granted'])}.")  # fmt: skip
    return 0 if found["equal"] else 1


def load_key(path: Path) -> "SecretKey":
    """The key in a file; its passphrase is asked for where it is encrypted by one."""
    from ..lock.keyfile import PassphraseNeeded
    from ..lock.keys import SecretKey

    try:
        return SecretKey.load(path)
    except PassphraseNeeded:
        return SecretKey.load(path, passphrase=_ask(printable(f"Passphrase of {path}:") + " "))


def _ask(prompt):
    import getpass
    import warnings

    try:
        with warnings.catch_warnings(action="ignore", category=getpass.GetPassWarning):  # getpass prints it as well
            return getpass.getpass(prompt).removesuffix("\r")  # of a line that Windows ended
    except UnicodeDecodeError:
        raise ValueError("The passphrase that came in is no text of the encoding of this terminal: type it.") from None
    except (EOFError, AttributeError):  # no terminal, and the standard input is empty or closed
        raise ValueError("No passphrase was given: type it when it is asked for.") from None


def _about(key):
    return {"key": key.fingerprint, "origin": key.origin}


def _say(args, found, text):
    encoding = sys.stdout.encoding or "utf-8"  # which may lack a letter of a file's name
    if args.json:  # in which there is no NaN
        found = {n: None if isinstance(v, float) and not isfinite(v) else v for n, v in found.items()}
    print(json.dumps(found) if args.json else printable(text).encode(encoding, "backslashreplace").decode(encoding))
    return 0
