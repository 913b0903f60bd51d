"""The parts of the READMEs and of chapter 0 that are made from the repository itself, so that they cannot fall behind.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end -->`, in a README or in a Markdown cell of a
chapter; the function that `BLOCKS` has under NAME gives its Markdown.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..paths import checkout, write_text
from ..study.records import read, table_path
from . import chapters

README = checkout() / "README.md"
MODEL_CARDS = checkout() / "models" / "README.md"
START = chapters.FOLDER / "00_start_here.ipynb"


def chapter_map() -> str:
    """The table of chapters: title with link, question, minutes."""
    lines = ["| Chapter | Question | Minutes |", "|---|---|---:|"]
    for path in sorted(chapters.FOLDER.glob("*.ipynb")):
        start = chapters.opening(chapters.load(path))
        lines.append(f"| [{start['title']}](notebooks/{path.name}) | {start['question']} | {start['minutes']} |")
    return "\n".join(lines)


def main_table() -> str:
    """The main table of the book, from the recorded rows: what each key makes of each model's accuracy, in per cent."""
    from .summaries import main_table, recorded_differences  # these need torch, which the chapter map does not

    tables = []
    for scale in ("paper", "small"):
        if not table_path(scale, "keys").exists():
            continue
        rows = read(scale, "keys")
        if rows.empty:
            raise ValueError(
                f"the table {table_path(scale, 'keys').name} at scale {scale} has no rows: measure them anew"
            )
        found = main_table(scale)
        for patch_size, part in found.groupby("patch_size"):
            by = part.set_index(["case", "steps"])
            steps = list(part.steps.unique())
            seeds = rows[rows.patch_size == patch_size].seeds.nunique()
            networks = "one trained network" if seeds == 1 else f"{seeds} trained networks"
            n_keys = int(by.loc["wrong key"].n.iloc[0])
            largest = recorded_differences(scale, patch_size)
            images = f"{largest.n_images.iloc[0]:,}"
            wrong = rows[(rows.patch_size == patch_size) & (rows.case == "wrong key")]
            computed = " and ".join(sorted(wrong.precision.unique()))
            lines = [
                f"ConvMixer with patches of {patch_size} on CIFAR-10 at scale *{scale}*: accuracy in per cent of "
                f"{networks}, over {images} test images; for wrong keys (computed in {computed}, all else in "
                f"float32) the mean ± standard deviation over {n_keys} keys of that network, and the largest.",
                "",
                "| What is classified by what | " + " | ".join(name.replace("+", " + ") for name in steps) + " |",
                "|---|" + "---:|" * len(steps),
            ]
            for case, text in CASES.items():
                cells = [by.loc[(case, name)] for name in steps]
                if case == "wrong key":
                    values = [f"{c['mean']:.1f} ± {c['sd']:.1f}, largest {c['max']:.1f}" for c in cells]
                else:
                    values = [f"{c['mean']:.2f}" for c in cells]
                lines.append(f"| {text} | " + " | ".join(values) + " |")
            differ = [f"{largest.loc[name, 'differ']:.0f} of {images}" for name in steps]
            lines.append("| Predictions that the correct key changes | " + " | ".join(differ) + " |")
            tables.append("\n".join(lines))
    return "\n\n".join(tables) or "No results are recorded yet: run `make small`."


CASES = {
    "plain": "Plain images, plain model",
    "correct key": "Encrypted images, encrypted model, **correct key**",
    "wrong key": "Encrypted images, encrypted model, **wrong key**",
    "no key": "Plain images, encrypted model (no key)",
    "encrypted images into the plain model": "Encrypted images, plain model",
}


def verdict() -> str:
    """What the scheme gives and what it does not, in two sentences, from the judgements of the claims."""
    from . import claims

    by_text = {claim.text: claim for claim in claims.CLAIMS}
    exact, _, scale = claims.judge(by_text["With the correct key, the encrypted network performs like the plain one"])
    uses = {
        "privacy of images": "It keeps images private",
        "protection of the model": "It protects the model",
        "defence against adversarial examples": "It defends against adversarial examples",
    }
    found = {name: claims.judge(by_text[text])[0] for name, text in uses.items()}
    said = _list([f"{name} is **{judged}**" for name, judged in found.items()])
    return (
        "**What it gives:** that the encrypted network with the correct key performs exactly like the plain one, "
        f"without any training, is **{exact}** by the rows recorded at scale {scale}. **What it does not give:** "
        "security to rely on; of the three uses that the field has studied such encryption for, under the attacks of "
        f"chapters 7 to 9, {said}, and all of this is a study, not protection for production."
    )


def _list(parts):
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def claims_table() -> str:
    """Every claim of the paper's abstract and of the book with its verdict."""
    from .claims import table

    return table()


def model_cards() -> str:
    """The cards of the trained models."""
    from .cards import model_cards

    return model_cards()


def speed() -> str:
    """How long training takes on a CPU, ours and the plain recipe, from the rows of the benchmarks."""
    if not table_path("paper", "benchmarks").exists():
        return "No benchmark is recorded yet: run `make bench`."
    from .summaries import speed_table

    rows = read("paper", "benchmarks")
    found, (device, *_) = speed_table(rows), rows.device
    steps = found.loc["step"].sort_index(level="patch_size", ascending=False)
    ratios = [f"{row.least:.1f} times at patches of {row.Index[0]}" for row in steps.itertuples()]
    return (
        f"On a CPU ({device}) a training step of the largest network is quicker than by torch's own modules, "
        f"{_list(ratios)}: the least of {steps.starts.min()} starts, the reference in a process that never imports "
        "cmxlib. [Chapter 2](notebooks/02_training.ipynb) shows where the time goes, `make bench` measures it anew."
    )


BLOCKS = {
    "results": main_table,
    "verdict": verdict,
    "chapters": chapter_map,
    "claims": claims_table,
    "models": model_cards,
    "speed": speed,
}


def render(text: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS) -> str:
    """The text with each generated part made anew; ValueError for a part that is unknown, nested or has no end."""
    marks = re.findall(r"<!-- (generated: \w+|end) -->", text)
    if any((mark == "end") != bool(index % 2) for index, mark in enumerate(marks)) or len(marks) % 2:
        raise ValueError("each '<!-- generated: NAME -->' takes one '<!-- end -->' after it")

    def part(match: re.Match) -> str:
        if match["name"] not in blocks:
            raise ValueError(f"a generated part asks for {match['name']!r}; what can be made is: {', '.join(blocks)}")
        return f"{match['start']}\n{blocks[match['name']]()}\n<!-- end -->"

    return re.sub(r"(?P<start><!-- generated: (?P<name>\w+) -->).*?<!-- end -->", part, text, flags=re.DOTALL)


def render_notebook(text: str) -> str:
    """A notebook's JSON with the generated parts of its Markdown cells made anew; links are from its own folder."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        old = chapters.source(cell)
        if cell["cell_type"] == "markdown" and "<!-- generated" in old:
            new = render(old).replace("](notebooks/", "](")
            cell["source"] = new.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"  # as nbformat writes it


def update(paths: Iterable[Path] = (README, START, MODEL_CARDS), check: bool = False) -> bool:
    """Make the generated parts of the files anew, or with `check` only look; True when all were current."""
    current = True
    for path in paths:
        old = path.read_text(encoding="utf-8")
        new = render_notebook(old) if path.suffix == ".ipynb" else render(old)
        current &= new == old
        if new != old and not check:
            write_text(path, new)
    return current
