"""The command line: `cmx`, or `python -m cmxlib`. What a command needs is imported when it runs."""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from . import __version__
from .files import commands as files
from .files.commands import count
from .paths import NOT_ENOUGH, checkout, need, out_of_memory, printable, told

# The commands of the book: each is told its arguments and returns the exit status.


def book(args: argparse.Namespace) -> int:
    from .book.run import run_book
    from .study.scales import named

    if not (args.workers or args.scheduler):
        return run_book(named(args.scale).name, args.only)
    from .study.sweep import cluster

    with cluster(args.scheduler or "", args.workers or 1) as client:
        return run_book(named(args.scale).name, args.only, client=client)


def study(args: argparse.Namespace) -> int:
    from .study import command

    failed = command.run(args)
    if not (args.status or args.shard or args.sweep):
        from .book.figures import draw_recorded

        draw_recorded(args.scale)
    return failed


def save(args: argparse.Namespace) -> int:
    from .book.saving import save

    save(args.only)
    return 0


def readme(args: argparse.Namespace) -> int:
    from .book.readme import update

    if update(check=args.check) or not args.check:
        return 0
    print("The generated parts are not current: run cmx readme", file=sys.stderr)
    return 1


def counts(args: argparse.Namespace) -> int:
    from .book.chapters import count_table

    print(count_table())
    return 0


def numbers(text: str) -> tuple[int, ...]:
    """The whole numbers that a text such as "0-4" or "0,2,5-7" names, each once, in order."""
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        if ends and max(len(end or "") for end in ends.groups()) > 6:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} names a number of more than six digits: give smaller ones")
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0-4 or 0,2")
        found.update(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    if len(found) > 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} names {len(found):,} numbers, over 10,000")
    return tuple(sorted(found))


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message, file=None):
        if file is sys.stdout:  # argparse itself would be silent where that is full
            file.write(message)
        else:
            super()._print_message(message, file)

    def error(self, message):
        if re.search(r"required: .*\b(OUT|file|encrypted)\b", message):
            message += " (a name that begins with a dash is given as ./-NAME)"
        if "--pass" in message:  # what follows may be the passphrase, and is not shown
            message = "--passphrase takes no value, for the passphrase is asked for"
        super().error(printable(message))


def filled(text: str) -> str:
    """The text of an option, unless it is empty, as from a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("nothing was given")
    return text


def parser() -> argparse.ArgumentParser:
    """What may be asked for, and the help on it."""
    parser = _Parser(prog="cmx", description="Encrypt images and models with a secret key; run the study book.")
    parser.add_argument("--version", action="version", version=f"cmx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    parser.set_defaults(extra="book", less="give less at once, or a smaller scale")
    files.add(commands)
    scales = "quick, small or paper"

    command = commands.add_parser("book", help="run every chapter in order, and sum up")
    command.add_argument("--scale", default="quick", help=f"how much to run: {scales} (default: quick)")
    command.add_argument("--only", default="", metavar="03", help="only chapters whose name begins so")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--workers", type=count, metavar="N", help="processes of this machine that share its cores")
    where.add_argument(
        "--scheduler", type=filled, metavar="tcp://HOST:8786", help="of a Dask cluster that shares these folders"
    )
    command.set_defaults(run=book)

    command = commands.add_parser(
        "study", help="measure every recorded table, attacks too, and draw its figures; goes on where it stopped"
    )
    command.add_argument("--scale", help=f"how much to run: {scales} (default: small)")
    command.add_argument("--only", default="", metavar="TABLE", help="one table, such as keys or conventional")
    command.add_argument("--seeds", type=numbers, default=(), metavar="0-4", help="of the networks, such as 0-4 or 0,2")
    command.add_argument("--keys", type=count, default=0, metavar="N", help="wrong keys for each cipher")
    command.add_argument("--status", action="store_true", help="measure nothing; say what is recorded and what not")
    command.add_argument(
        "--sweep", type=filled, metavar="FILE", help="tables and scales of your own: see sweeps/ for such files"
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument("--workers", type=count, metavar="N", help="processes of this machine that share its cores")
    where.add_argument(
        "--scheduler", type=filled, metavar="tcp://HOST:8786", help="of a Dask cluster that shares these folders"
    )
    where.add_argument("--shard", type=filled, metavar="K/N", help="every N-th unit, from the K-th on, in this process")
    command.set_defaults(run=study)

    command = commands.add_parser("save", help="run chapters and solutions at quick scale and keep their outputs")
    command.add_argument("--only", default="", metavar="03", help="only notebooks whose name begins so")
    command.set_defaults(run=save)

    command = commands.add_parser("readme", help="make the generated parts of README.md anew")
    command.add_argument("--check", action="store_true", help="change nothing; exit 1 when they are not current")
    command.set_defaults(run=readme)

    command = commands.add_parser("counts", help="count exercises and compared cells, chapter by chapter")
    command.set_defaults(run=counts)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. The exit status is 0; 1 after a sentence on what was wrong, or where models differ; 2 where the
    command line itself was; 130 after Ctrl-C or SIGTERM; 141 where nobody reads on, as behind `| head`."""
    if sys.stdout is None:  # and the next file that is opened would take its place
        print("cmx: The output is closed: give it a place, such as /dev/null.", file=sys.stderr)
        return 1
    with suppress(ValueError):  # not in the main thread, which alone is told of signals
        signal.signal(signal.SIGTERM, _terminated)
    return told(lambda: _run(argv))


def _terminated(*_):
    """An orderly end, as by Ctrl-C: workers end, and what was half written is deleted."""
    raise KeyboardInterrupt("Terminated; the same command can be given again.")


def _run(argv: Sequence[str] | None) -> int:
    args, unknown = (asked := parser()).parse_known_args(argv)
    if unknown:
        if getattr(args, "passphrase", False):  # which is not shown, if it is what was not recognised
            asked.error("--passphrase")
        asked.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.extra == "book":
        checkout()  # the book's commands read and write there, and nowhere else
    try:
        return args.run(args)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("cmxlib"):
            need(str(error.name), args.extra)  # raises, and says in a sentence what to install
        raise
    except Exception as error:
        if out_of_memory(error) and not str(error).startswith(NOT_ENOUGH):
            raise MemoryError(f"{NOT_ENOUGH} for this: {args.less}.") from error
        raise


if __name__ == "__main__":
    sys.exit(main())
