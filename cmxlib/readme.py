"""The parts of README.md that are made from the repository itself, so that they cannot fall behind it.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end -->`; the function that `BLOCKS` has under
NAME gives its Markdown.
"""

import re
from pathlib import Path

from . import chapters
from .records import ROOT, write_text

README = ROOT / "README.md"


def chapter_map() -> str:
    """The table of chapters: title with link, question, minutes."""
    lines = ["| Chapter | Question | Minutes |", "|---|---|---:|"]
    for path in sorted(chapters.FOLDER.glob("*.ipynb")):
        start = chapters.opening(chapters.load(path))
        lines.append(f"| [{start['title']}](notebooks/{path.name}) | {start['question']} | {start['minutes']} |")
    return "\n".join(lines)


BLOCKS = {"chapters": chapter_map}


def render(text: str, blocks=BLOCKS) -> str:
    """The text with each generated part made anew; ValueError for a part that is unknown, nested or has no end."""
    marks = re.findall(r"<!-- (generated: \w+|end) -->", text)
    if any((mark == "end") != bool(index % 2) for index, mark in enumerate(marks)) or len(marks) % 2:
        raise ValueError("each '<!-- generated: NAME -->' in the README takes one '<!-- end -->' after it")

    def part(match: re.Match) -> str:
        if match["name"] not in blocks:
            raise ValueError(f"the README asks for {match['name']!r}; what can be made is: {', '.join(blocks)}")
        return f"{match['start']}\n{blocks[match['name']]()}\n<!-- end -->"

    return re.sub(r"(?P<start><!-- generated: (?P<name>\w+) -->).*?<!-- end -->", part, text, flags=re.DOTALL)


def update(path: Path = README, check: bool = False) -> bool:
    """Make the generated parts of the file anew, or with `check` only look; True when they were current."""
    old = path.read_text(encoding="utf-8")
    new = render(old)
    if new != old and not check:
        write_text(path, new)
    return new == old
