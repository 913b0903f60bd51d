"""The command line: `cmx`, or `python -m cmxlib`. What a command needs is imported when it runs."""

import argparse
import sys

from .study.records import SCALE_NAMES


def book(args) -> int:
    from .book.run import run_book

    return run_book(args.scale, args.only)


def study(args) -> int:
    from .book.figures import draw_recorded
    from .study.accuracy import run

    run(args.scale, args.only)
    draw_recorded(args.scale)
    return 0


def save(args) -> int:
    from .book.run import save

    save(args.only)
    return 0


def readme(args) -> int:
    from .book.readme import update

    if update(check=args.check) or not args.check:
        return 0
    print("The generated parts are not current: run cmx readme", file=sys.stderr)
    return 1


def attack(args) -> int:
    from .study.images import main

    return main(args)


def counts(args) -> int:
    from .book.chapters import count_table

    print(count_table())
    return 0


def main(argv=None) -> int:
    """Run one command; the exit status is 0, or 1 after one sentence on what was wrong."""
    parser = argparse.ArgumentParser(prog="cmx", description="Run and check the study book.")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("book", help="run every chapter in order, and sum up")
    command.add_argument("--scale", choices=SCALE_NAMES, default="quick", help="how much to run (default: quick)")
    command.add_argument("--only", default="", metavar="03", help="only chapters whose name begins so")
    command.set_defaults(run=book)

    command = commands.add_parser(
        "study", help="measure every recorded table, and draw its figures; goes on where it stopped"
    )
    command.add_argument("--scale", choices=SCALE_NAMES, default="small", help="how much to run (default: small)")
    command.add_argument("--only", default="", metavar="TABLE", help="one table, such as keys or conventional")
    command.set_defaults(run=study)

    command = commands.add_parser("save", help="run chapters and solutions at quick scale and keep their outputs")
    command.add_argument("--only", default="", metavar="03", help="only notebooks whose name begins so")
    command.set_defaults(run=save)

    command = commands.add_parser("readme", help="make the generated parts of README.md anew")
    command.add_argument("--check", action="store_true", help="change nothing; exit 1 when they are not current")
    command.set_defaults(run=readme)

    command = commands.add_parser("attack", help="run every recorded attack, and print the share of the key it found")
    command.add_argument("--scale", choices=SCALE_NAMES, default="small", help="how much to run (default: small)")
    command.set_defaults(run=attack)

    command = commands.add_parser("counts", help="count exercises and compared cells, chapter by chapter")
    command.set_defaults(run=counts)

    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        if type(error) is RuntimeError:  # not one of the library's own, which say what to do: a fault
            raise
        print(f"cmx: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"cmx: {stopped or 'stopped'}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
