"""The parts of README, SCALING and the notebooks that are made from the repository itself, so that they cannot fall
behind.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end -->`, in a README or in a Markdown cell of a
chapter; the function that `BLOCKS` has under NAME gives its Markdown. Where `project.urls` names the repository, each
notebook has a code cell as well, `bootstrap`, which gets and installs the book where it is not, as in Colab.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..paths import checkout, write_text
from ..study.records import read, table_path, uninterrupted
from . import cards, chapters, claims, verdicts
from .summaries import duration, of_measure, recorded_differences, speed_table
from .summaries import main_table as accuracies

if TYPE_CHECKING:
    import pandas as pd

README = checkout() / "README.md"
MODEL_CARDS = checkout() / "models" / "README.md"
SCALING = checkout() / "SCALING.md"
START = chapters.FOLDER / "00_start_here.ipynb"


def chapter_map() -> str:
    """The table of chapters: title with link, question, time to read."""
    lines = ["| Chapter | Question | To read |", "|---|---|---:|"]
    for path in sorted(chapters.FOLDER.glob("*.ipynb")):
        start = chapters.opening(chapters.load(path))
        lines.append(f"| [{start['title']}](notebooks/{path.name}) | {start['question']} | {start['minutes']} min |")
    return "\n".join(lines)


def main_table() -> str:
    """What each kind of key makes of the accuracy, in per cent: a row for each network and cipher of the largest scale
    that is recorded."""
    recorded = [scale for scale in ("paper", "small") if table_path(scale, "keys").exists()]
    if not recorded:
        return "No results are recorded yet: run `make small`."
    scale, rows = recorded[0], read(recorded[0], "keys")
    if rows.empty:
        raise ValueError(f"the table {table_path(scale, 'keys').name} at scale {scale} has no rows: measure them anew")
    wrong, n_images = rows[rows.case == "wrong key"], rows.n_images.min()
    n_networks = rows.groupby("patch_size").seeds.nunique().max()
    networks = "one trained network" if n_networks == 1 else f"{n_networks} trained networks"
    keys = [f"{part.key_seed.nunique()} with patches of {size}" for size, part in wrong.groupby("patch_size")]
    changed = [recorded_differences(scale, size) for size in sorted(rows.patch_size.unique())]
    differ, compared = (sum(part[name].sum() for part in changed) for name in ("differ", "n_images"))
    lines = [
        f"ConvMixer on CIFAR-10, {networks} a patch size, by the rows of scale *{scale}*: accuracy in per cent over "
        f"{n_images:,} test images. Wrong keys ({_list(keys)}; computed in {_list(sorted(wrong.precision.unique()))}, "
        "all else in float32): mean ± standard deviation over keys, and the largest. Correct and no key: one key each; "
        f"under the correct keys {differ:.0f} of {compared:,} predictions differ from the plain network's.",
        "",
        "| Patches | Cipher | Plain | Correct key | Wrong keys | No key |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for size, part in accuracies(scale).groupby("patch_size"):
        for steps, cases in part.groupby("steps", sort=False):
            of = cases.set_index("case").to_dict("index")
            plain, right, none = (f"{of[case]['mean']:.2f}" for case in ("plain", "correct key", "no key"))
            tried = "{mean:.1f}\u00a0±\u00a0{sd:.1f}<br>largest\u00a0{max:.1f}".format(**of["wrong key"])
            lines.append(f"| {size} | {steps} | {plain} | **{right}** | {tried} | {none} |")
    lines += ["", "[Chapter 5](notebooks/05_correct_wrong_missing.ipynb) has all cases and what each of them means."]
    return "\n".join(lines)


def verdict() -> str:
    """What the scheme gives and what it does not, in two sentences, from the judgements of the claims."""
    by_text = {claim.text: claim for claim in claims.CLAIMS}
    exact, _, scale = claims.judge(by_text["With the correct key, the encrypted network performs like the plain one"])
    uses = {
        "privacy of images": "It keeps images private",
        "protection of the model": "It protects the model",
        "defence against adversarial examples": "It defends against adversarial examples",
    }
    found = {name: claims.judge(by_text[text]) for name, text in uses.items()}
    said = _list([f"{name} (scale {at or 'none'}) is **{judged}**" for name, (judged, _, at) in found.items()])
    *_, at = found["privacy of images"]
    held = _never_found(read(at, "attack_images"), read(at, "recovered")) if at else ""
    theft = _theft(found["protection of the model"][2])
    return (
        "**What it gives:** that the encrypted network with the correct key performs exactly like the plain one, "
        f"without any training, is **{exact}** by the rows recorded at scale {scale}. **What it does not give:** "
        "security to rely on; of the three uses that the field has studied such encryption for, under the attacks of "
        f"chapters 7 to 9, on networks with patches of {claims.PATCH_SIZE}, {said}. "
        f"{held}{theft}All of this is a study, not protection for production."
    )


def _never_found(images: "pd.DataFrame", recovered: "pd.DataFrame") -> str:
    """In words, which keys no attack found from images alone, and how far it was tried; or "" where all were found."""
    stand = verdicts.never_found(images, recovered)
    if not stand:
        return ""
    of, said = ["attack", "n_public", "n_encrypted"], []
    for (size, steps), rows in stand.items():
        means = of_measure(rows, "share_recovered").groupby(of).value.mean()
        _, n_public, _ = means.idxmax()
        most = f"the most was {means.max():.0%} of it, with {n_public:,} public images"
        said.append(f"{steps} with blocks of {size} ({most})")
    public = json.loads(images.settings.iloc[0])["public"]
    sizes = _list([str(size) for size in sorted(images.patch_size.unique())])
    return (
        f"From images alone (at most {images.n_encrypted.max():,} encrypted ones, and {public:,} public ones of the "
        f"same data set) the keys of {images.steps.nunique()} ciphers with blocks of {sizes} were found, by the rule "
        f"of chapter 7, but for these: {_list(said)}. "
    )


def _theft(scale: str) -> str:
    """In words, what a thief gets of a network, from the rows of a scale, or "" where there are none."""
    if not scale:
        return ""
    rows = read(scale, "stolen_heldout")
    by_cipher, new, plain, _ = verdicts.from_heldout(rows)
    locked = rows[rows.method == "embedding anew"]
    return (
        f"Of a network of scale {scale}, which reads {plain:.0%} of the {rows.n_images.max():,} test images that judge "
        f"the thief, a thief got {min(by_cipher):.0%} to {max(by_cipher):.0%}, by cipher ({locked.draw.nunique()} keys "
        f"each), by retraining its first layer for {locked.budget.max():,} steps on {rows.n_plain.max():,} images that "
        f"the network never saw; a new network, trained on the same images without a theft, gave {new:.0%}. "
    )


def _list(parts):
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def claims_table() -> str:
    """Every claim of the paper's abstract and of the book with its verdict; chapter 11 has the rest."""
    lines = ["| Claim | Said by | Verdict |", "|---|---|---|"]
    lines += [f"| {row.claim} | {row.said_by} | **{row.verdict}** |" for row in claims.judged().itertuples()]
    return "\n".join(lines)


def speed() -> str:
    """How long training takes on a CPU, ours and the plain recipe, from the rows of the benchmarks."""
    if not table_path("paper", "benchmarks").exists():
        return "No benchmark is recorded yet: run `make bench`."
    rows = read("paper", "benchmarks")
    found, (device, *_) = speed_table(rows), rows.device
    steps = found.loc["step"].sort_index(level="patch_size", ascending=False)
    ratios = [f"{row.least:.1f} times at patches of {row.Index[0]}" for row in steps.itertuples()]
    return (
        f"On a CPU ({device}) a training step of the largest network is quicker than by torch's own modules, "
        f"{_list(ratios)}: the least of {steps.starts.min()} starts, the reference in a process that never imports "
        "cmxlib. What processors without instructions for bfloat16 gain, no row tells. "
        "[Chapter 2](notebooks/02_training.ipynb) shows where the time goes, `make bench` measures it anew."
    )


def limits() -> str:
    """What a sweep costs besides what it measures, and what that means past one machine, from table `limits`."""
    if not table_path("paper", "limits").exists():
        return "Not recorded yet: `cmx study --scale paper --only limits` does it."
    rows = read("paper", "limits")
    timed = of_measure(rows, "seconds_a_unit", "case").set_index("processes")
    units, work, shards = (timed[timed.case == case].value for case in ("units", "work", "shards"))
    parts = rows[rows.case == "parts"].set_index("measure").value
    count = rows.groupby("case").n.first()
    n_units, n_parts, n_work = (int(count.get(case, 0)) for case in ("units", "parts", "work"))
    lines = [
        f"| {n_units:,} units that compute nothing | time of each |",
        "|---|---:|",
        *(f"| {f'Dask, workers: {n}' if n else 'one process, no Dask'} | {duration(t)} |" for n, t in units.items()),
    ]
    starts = of_measure(rows, "start_seconds").value
    efficiency = []
    if len(shards):
        gains = [f"{times[1] / times[2]:.2f} times" for times in (work, shards)]
        efficiency = [
            f"{n_work:,} units that compute for {duration(work[0])} each, run once, are done {gains[0]} as quickly by "
            f"two of Dask's workers as by one; two processes without a scheduler, by `--shard`, do them {gains[1]} as "
            f"quickly as one. So two workers have {shards[2] / work[2]:.0%} of the speed of two such processes, once "
            f"they have begun: the first units of both take {duration(starts.max())}.",
            "",
        ]
    training = of_measure(read("small", "training"), "seconds")
    seconds = training[training.seed == training.seed.min()].groupby("patch_size").value.agg(uninterrupted).min()
    by_dask = units[units.index > 0]
    slowest = by_dask.max()
    handed = _list([f"{1 / t:.0f} (workers: {n})" for n, t in by_dask.items()])
    grid = "; ".join(f"{n}: {10_000 / n * (seconds + slowest) / 3600:,.0f} h" for n in (1, 10, 100))
    return "\n".join(
        [
            *lines,
            "",
            *efficiency,
            f"{n_parts:,} parts of one table ({parts.bytes_a_unit:.0f} bytes each): to count them takes "
            f"{duration(parts.status_seconds)}, to make one table of them {duration(parts.collect_seconds)}, and the "
            f"process needs at most {parts.peak_megabytes:,.0f} MB.",
            "",
            f"So the scheduler hands out {handed} units a second, in one run each. If each of 10,000 units is a "
            f"training of the small network ({duration(seconds)} on one core of the machine that recorded it), they "
            f"take, by workers: {grid}. By the same arithmetic the scheduler would be the limit from about "
            f"{float(f'{seconds / slowest:.1g}'):,.0f} workers on; then `--shard`, which needs none, or units that do "
            "more. That is computed from one machine, not measured: how many workers a scheduler can connect to "
            "was not tried.",
        ]
    )


BLOCKS = {
    "results": main_table,
    "verdict": verdict,
    "chapters": chapter_map,
    "claims": claims_table,
    "models": cards.model_cards,
    "speed": speed,
    "limits": limits,
}


def render(text: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS) -> str:
    """The text with each generated part made anew; ValueError for a part that is unknown, nested or has no end."""
    before = "the beginning"
    for mark in [*re.findall(r"<!-- (generated: \w+|end) -->", text), "the end of the text"]:
        if before.startswith("generated") != (mark == "end"):
            raise ValueError(
                f"each '<!-- generated: NAME -->' takes one '<!-- end -->' after it, but {before} is followed by {mark}"
            )
        before = mark

    def part(match: re.Match) -> str:
        if match["name"] not in blocks:
            raise ValueError(f"a generated part asks for {match['name']!r}; what can be made is: {', '.join(blocks)}")
        return f"{match['start']}\n{blocks[match['name']]()}\n<!-- end -->"

    return re.sub(r"(?P<start><!-- generated: (?P<name>\w+) -->).*?<!-- end -->", part, text, flags=re.DOTALL)


def urls() -> dict[str, str]:
    """What `project.urls` in pyproject.toml names, `Repository` for one; nothing where it is not there."""
    return tomllib.loads((checkout() / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})


BOOTSTRAP = """\
# Only where the book is not installed, as in Colab: get it as it was released, and install it.
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("cmxlib") is None:
    address, version = "{address}", "v{version}"
    get = ["git", "clone", "--quiet", "--depth=1", f"--branch={{version}}", address, "book"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "-e", "book[book]"]
    for command in (get, install):
        subprocess.run(command, check=True)
    sys.path.insert(0, str(pathlib.Path("book").resolve()))"""


def with_bootstrap(notebook: dict, address: str) -> dict:
    """The notebook with the cell that installs the book from this address behind its first one; without an address,
    with none. The site does not show it."""
    cells = [cell for cell in notebook["cells"] if cell["id"] != "bootstrap"]
    code = BOOTSTRAP.format(address=address, version=__version__).splitlines(keepends=True)
    cell = {"cell_type": "code", "execution_count": None, "id": "bootstrap", "metadata": {"tags": ["remove-cell"]}}
    there = [each for each in notebook["cells"] if each["id"] == "bootstrap" and each["source"] == code]
    cells[1:1] = (there or [cell | {"outputs": [], "source": code}]) if address else []
    return notebook | {"cells": cells}


def render_notebook(text: str, address: str = "") -> str:
    """A notebook's JSON with the generated parts of its Markdown cells made anew; links are from its own folder.

    address: of the repository, "" where none is known.
    """
    notebook = with_bootstrap(json.loads(text), address)
    for cell in notebook["cells"]:
        old = chapters.source(cell)
        if cell["cell_type"] == "markdown" and "<!-- generated" in old:
            new = render(old).replace("](notebooks/", "](")
            cell["source"] = new.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"  # as nbformat writes it


def update(paths: Iterable[Path] = (), check: bool = False) -> bool:
    """Make the generated parts of the files anew, of all where none is named, or with `check` only look; True when all
    were current."""
    current, address = True, urls().get("Repository", "")
    for path in paths or (README, MODEL_CARDS, SCALING, *chapters.chapters(solutions=True)):
        old = path.read_text(encoding="utf-8")
        try:
            new = render_notebook(old, address) if path.suffix == ".ipynb" else render(old)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        current &= new == old
        if new != old and not check:
            write_text(path, new)
    return current
