"""What the paper, its field and the book claim, judged by the recorded rows alone.

A claim names its tables and a function of their rows that gives a verdict and the sentence that supports it. So a
verdict is never typed: where a row changes, it changes. The functions stand in `rules` and, for the three uses that
encryption of models has been studied for, in `verdicts`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from ..lock import checks
from ..study import records
from . import verdicts
from .rules import (
    conventional_lose,
    exact,
    exact_repairs,
    free_blocks,
    free_inference,
    known_pairs,
    locked,
    only_with_the_key,
    published_level,
    quick_change,
    repairs_hold,
    repairs_hold_with_model,
    same_network,
    slope,
)

UNMEASURED = "not measured"
SCALES = ("paper", "small")  # the first at which a claim's tables are recorded counts


@dataclass(frozen=True)
class Claim:
    """A sentence, who says it, and how its rows judge it.

    said_by: "paper", where the abstract of arXiv 2207.11939 says it of its method; "field", where the abstract says
    that encryption of models has been studied for it; "book". judge: takes the rows of each of ``tables`` (DataFrames)
    and gives (verdict, sentence). words: those of the abstract.
    """

    text: str
    said_by: str
    tables: tuple[str, ...]
    judge: Callable
    words: str = ""

    def __post_init__(self):
        if not isinstance(self.tables, tuple) or not self.tables:
            raise TypeError(f'tables must be a tuple of names, such as ("keys",), not {checks.shown(self.tables)}.')
        if not callable(self.judge):
            raise TypeError(f"judge must be a function of these tables' rows, not {checks.shown(self.judge)}.")


def judge(claim: Claim) -> tuple[str, str, str]:
    """(verdict, sentence, scale) of a claim, at the first of ``SCALES`` that has its rows."""
    checks.instance(claim, Claim, "claim")
    for scale in SCALES:
        try:
            tables = [records.read(scale, table) for table in claim.tables]
            if any(rows.empty for rows in tables):
                continue
            found = claim.judge(*tables)
        except (FileNotFoundError, LookupError):  # no rows, or not all of those that the rule asks for: a study stopped
            continue
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"judge must give (verdict, sentence), but it gave {checks.shown(found)}.")
        return *found, scale
    return UNMEASURED, "The rows that would tell are not recorded.", ""


def judged() -> pd.DataFrame:
    """Every claim with its verdict: columns claim, said_by, words, verdict, evidence, rows (scale/table, ...)."""
    found = []
    for claim in CLAIMS:
        verdict, sentence, scale = judge(claim)
        rows = ", ".join(f"{scale}/{table}" if scale else table for table in claim.tables)
        found.append((claim.text, claim.said_by, claim.words, verdict, sentence, rows))
    return pd.DataFrame(found, columns=["claim", "said_by", "words", "verdict", "evidence", "rows"])


def table() -> str:
    """Every claim and its verdict as a Markdown table."""
    lines = ["| Claim | Said by | Verdict | What the rows say | Rows |", "|---|---|---|---|---|"]
    for row in judged().itertuples():
        rows = ", ".join(f"`{name}`" for name in row.rows.split(", "))
        said_by = f"{row.said_by}: “{row.words}”" if row.words else row.said_by
        cells = (row.claim, said_by, f"**{row.verdict}**", row.evidence, rows)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


PATCH_SIZE = 4  # of the networks that the attacks were made on, at every scale
CLAIMS = (
    Claim(
        "With the correct key, the encrypted network performs like the plain one",
        "paper",
        ("keys",),
        exact,
        "can have the same performance as models trained with plain images",
    ),
    Claim(
        "It does so with that key only",
        "paper",
        ("keys", "anatomy"),
        only_with_the_key,
        "only when using test images encrypted with a secret key",
    ),
    Claim(
        "No prepared training data, no change of the network",
        "paper",
        ("training", "keys"),
        same_network,
        "does not require any specially prepared data for model training or network modification",
    ),
    Claim(
        "Networks trained on encrypted images lose accuracy",
        "paper",
        ("conventional",),
        conventional_lose,
        "the use of conventional encryption methods degrades the performance of models",
    ),
    Claim(
        "It protects the model",
        "paper and field",
        ("stolen_model", "stolen_heldout", "keys"),
        partial(verdicts.model_protection, patch_size=PATCH_SIZE),
        "effectiveness … is evaluated in terms of … model protection",
    ),
    Claim(
        "It keeps images private",
        "field",
        ("attack_images", "recovered", "attack_pairs"),
        partial(verdicts.privacy, patch_size=PATCH_SIZE),
        "studied to achieve … privacy-preserving image classification",
    ),
    Claim(
        "It defends against adversarial examples",
        "field",
        ("adversarial",),
        verdicts.adversarial_defence,
        "studied to achieve adversarial defense",
    ),
    Claim(
        "Wrong keys on average, and no key, leave a tenth of the accuracy above guessing at most",
        "book",
        ("keys",),
        locked,
    ),
    Claim("The key is changed without training", "book", ("training", "cost"), quick_change),
    Claim("The encrypted network takes as long as the plain one", "book", ("cost",), free_inference),
    Claim("The size of the blocks costs no accuracy, the size of the patches does", "book", ("blocks",), free_blocks),
    Claim("A nearly right key opens much of the network", "book", ("anatomy",), slope),
    Claim("A few images with their encrypted versions give the key away", "book", ("attack_pairs",), known_pairs),
    Claim("The repairs are exact", "book", ("repairs",), exact_repairs),
    Claim("The repairs keep the key from who sees encrypted images alone", "book", ("repairs",), repairs_hold),
    Claim("The repairs keep the key from who has the encrypted model", "book", ("repairs",), repairs_hold_with_model),
    Claim("ConvMixer is trained to its published accuracy", "book", ("training",), published_level),
)
