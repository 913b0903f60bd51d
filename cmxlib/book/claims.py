"""What the paper and the book claim, judged by the recorded rows alone.

A claim names its tables and a function of their rows that gives a verdict and the sentence that supports it. So a
verdict is never typed: where a row changes, it changes. The three uses that the field promises are judged by
`cmxlib.book.verdicts`, from the rows of the attacks.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from ..study import records
from ..study.records import uninterrupted
from . import verdicts
from .summaries import CONVENTIONAL, FOUND, IMAGES_ALONE, conventional_table, duration, found_from
from .verdicts import GUESSING, LIMITS, REFUTED, SUPPORTED

UNMEASURED = "not measured"
SCALES = ("paper", "small")  # the first at which a claim's tables are recorded counts
PUBLISHED_ACCURACY = 0.926  # ConvMixer-256/8, patches of 2, 25 epochs: its authors' CIFAR-10 repository


@dataclass(frozen=True)
class Claim:
    """A sentence, who says it ("paper": the abstract of arXiv 2207.11939; "book"), and how its rows judge it.

    judge: takes the rows of each of ``tables`` (DataFrames) and gives (verdict, sentence).
    """

    text: str
    said_by: str
    tables: tuple[str, ...]
    judge: Callable


def judge(claim: Claim) -> tuple[str, str, str]:
    """(verdict, sentence, scale) of a claim, at the first of ``SCALES`` that has its rows."""
    for scale in SCALES:
        try:
            tables = [records.read(scale, table) for table in claim.tables]
            if any(rows.empty for rows in tables):
                continue
            verdict, sentence = claim.judge(*tables)
        except (FileNotFoundError, LookupError):  # no rows, or not all of those that the rule asks for: a study stopped
            continue
        return verdict, sentence, scale
    return UNMEASURED, "The rows that would tell are not recorded.", ""


def judged() -> pd.DataFrame:
    """Every claim with its verdict: columns claim, said_by, verdict, evidence, rows (scale/table, ...)."""
    found = []
    for claim in CLAIMS:
        verdict, sentence, scale = judge(claim)
        rows = ", ".join(f"{scale}/{table}" if scale else table for table in claim.tables)
        found.append((claim.text, claim.said_by, verdict, sentence, rows))
    return pd.DataFrame(found, columns=["claim", "said_by", "verdict", "evidence", "rows"])


def table() -> str:
    """Every claim and its verdict as a Markdown table."""
    lines = ["| Claim | Said by | Verdict | What the rows say | Rows |", "|---|---|---|---|---|"]
    for row in judged().itertuples():
        rows = ", ".join(f"`{name}`" for name in row.rows.split(", "))
        cells = (row.claim, row.said_by, f"**{row.verdict}**", row.evidence, rows)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


# -- what the abstract says ------------------------------------------------------------------------------------------


def exact(keys: "pd.DataFrame") -> tuple[str, str]:
    """Supported: under every cipher, no prediction changes with the correct key; with limits: at most 1 in 1,000."""
    right = keys[keys.case == "correct key"].pivot_table(
        index=["patch_size", "steps"], columns="measure", values="value"
    )
    plain = keys[(keys.case == "plain") & (keys.measure == "accuracy")].groupby("patch_size").value.mean()
    encrypted = right.accuracy.groupby(level="patch_size").mean()
    n_images, differ = int(keys.n_images.min()), int(right.differ.max())
    verdict = SUPPORTED if differ == 0 else LIMITS if differ <= n_images / 1000 else REFUTED
    accuracies = "; ".join(
        f"patches of {size}: accuracy {value:.2%} plain, {encrypted[size]:.2%} encrypted"
        for size, value in plain.items()
    )
    changed = (
        f"At most {differ} of {n_images:,} predictions change" if differ else f"No prediction of {n_images:,} changes"
    )
    return verdict, (
        f"{changed}, under each of {len(right)} ciphers; {accuracies}; "
        f"the largest difference of a logit is {right.max_logit_difference.max():.0e}."
    )


def locked(keys: "pd.DataFrame") -> tuple[str, str]:
    """Of the accuracy above guessing, wrong keys leave a tenth at most on average: supported under all ciphers, with
    limits under some."""
    kept, found = [], []
    for size, rows in keys[keys.measure == "accuracy"].groupby("patch_size"):
        plain = rows[rows.case == "plain"].value.mean()
        wrong = rows[rows.case == "wrong key"].groupby("steps", sort=False).value
        none = rows[rows.case == "no key"].groupby("steps", sort=False).value.mean()
        left = (pd.concat([wrong.mean(), none]) - GUESSING) / (plain - GUESSING)
        kept.append(left.groupby(level=0, sort=False).max() <= 0.1)
        means = ", ".join(f"{steps} {value:.1%}" for steps, value in wrong.mean().items())
        found.append(
            f"Patches of {size}, mean accuracy over {wrong.size().min()} wrong keys: {means}, the highest of all "
            f"{wrong.max().max():.1%}; with no key up to {none.max():.1%}; plain {plain:.1%}, guessing {GUESSING:.0%}."
        )
    return _all_or_some(pd.concat(kept)), " ".join(found)


def same_network(training: "pd.DataFrame", keys: "pd.DataFrame") -> tuple[str, str]:
    """Supported: the encrypted network's rows are of the network and training of the plain one, and it is exact."""
    verdict, _ = exact(keys)
    found = []
    for size, encrypted in keys.groupby("patch_size"):
        plain = training[training.patch_size == size]
        recipes = {_recipe(settings) for rows in (plain, encrypted) for settings in rows.settings}
        if plain.empty or len(recipes) > 1:
            return REFUTED, f"Patches of {size}: the rows of plain and encrypted networks are not of one training."
        found.append(
            f"One network with patches of {size}, trained on plain images for {int(plain.epoch.max())} epochs, serves "
            f"under {encrypted.steps.nunique()} ciphers."
        )
    return verdict, " ".join(found)


def conventional_lose(conventional: "pd.DataFrame") -> tuple[str, str]:
    """Supported: every method loses, and the 95 % interval of its loss over seeds lies above 0; with limits: most
    lose, or too few seeds for an interval. A LookupError where fewer than half of the methods are measured; a method
    that is not is named."""
    found = conventional_table(conventional).set_index("method")
    methods = found.loc[[method for method in CONVENTIONAL if method in found.index]]
    if 2 * len(methods) < len(CONVENTIONAL):
        raise LookupError("Fewer than half of the conventional methods are measured.")
    left_out = [method for method in CONVENTIONAL if method not in found.index]
    sure, losing = methods.loss_low > 0, int((methods.loss > 0).sum())
    points = ", ".join(f"{method} {value:z.1f}" for method, value in methods.loss.items())  # z: no "-0.0"
    single = methods.index[methods.loss_low.isna()]
    doubtful = methods.index[~sure].difference(single, sort=False)
    chance = f", but not {', '.join(doubtful)}" if len(doubtful) else ""
    chance += f"; one seed, so no interval: {', '.join(single)}" if len(single) else ""
    chance += f"; not measured: {', '.join(left_out)}" if left_out else ""
    return (SUPPORTED if sure.all() else LIMITS) if losing > len(methods) / 2 else REFUTED, (
        f"{sure.sum()} of the {len(methods)} methods lose more than chance explains (95 % interval above 0)"
        f"{chance}: points against plain {points} (seeds: {_span(methods.seeds)}); "
        f"proposed {found.loss['proposed']:.2f}."
    )


# -- what the book says ----------------------------------------------------------------------------------------------


def quick_change(training: "pd.DataFrame", conventional: "pd.DataFrame") -> tuple[str, str]:
    """Supported: changing the key is at least 1,000 times quicker than training the network that trains quickest, of
    all patch sizes; with limits: 10 times."""
    epochs = training[training.measure == "seconds"].groupby("patch_size").value
    seconds = epochs.agg(uninterrupted).min()
    change = conventional.groupby(["method", "case"]).value.mean()["proposed", "key change"]
    ratio = seconds / change
    return SUPPORTED if ratio >= 1000 else LIMITS if ratio >= 10 else REFUTED, (
        f"{duration(change)} against {duration(seconds)} of training, about {float(f'{ratio:.1g}'):,.0f} times."
    )


def free_inference(cost: "pd.DataFrame") -> tuple[str, str]:
    """Supported: the encrypted network takes at most 5 % longer than the plain one (medians); with limits: 20 %."""
    median = cost[cost.measure == "seconds"].groupby("case").value.median()
    plain, encrypted = (median[f"classify 2,000 {kind} images, {kind} model"] for kind in ("plain", "encrypted"))
    ratio = encrypted / plain
    return SUPPORTED if ratio <= 1.05 else LIMITS if ratio <= 1.2 else REFUTED, (
        f"2,000 images take {duration(encrypted)} encrypted and {duration(plain)} plain, {ratio - 1:+.1%}; encrypting "
        f"one image takes {duration(median['encrypt one image'])}."
    )


def free_blocks(blocks: "pd.DataFrame") -> tuple[str, str]:
    """Supported: the correct key costs nothing at any block size, and larger patches lower the plain accuracy."""
    rows = blocks[blocks.measure == "accuracy"]
    wide = rows.groupby(["patch_size", "block_size", "case"]).value.mean().unstack()
    plain = wide.plain.groupby(level=0).mean()
    falls = plain.is_monotonic_decreasing and len(plain) > 1
    free = (wide["correct key"] == wide.plain).all()
    patches = ", ".join(f"patches of {size} {value:.1%}" for size, value in plain.items())
    bits = blocks[blocks.measure == "bits"].value
    return SUPPORTED if free and falls else LIMITS if free else REFUTED, (
        f"Correct key and plain agree to the last image at {int((wide['correct key'] == wide.plain).sum())} of "
        f"{len(wide)} pairs of patch and block; plain: {patches}; key space {bits.min():.0f} to {bits.max():.0f} bits."
    )


def slope(anatomy: "pd.DataFrame") -> tuple[str, str]:
    """Supported: with two wrong positions, and with two wrong flips, more than half of the accuracy is left."""
    kept, sentences = [], []
    for size, rows in anatomy[anatomy.measure == "accuracy"].groupby("patch_size"):
        mean = rows.groupby(["kind", "wrong"]).value.mean()
        left = {kind: mean[kind, 2] / mean[kind, 0] for kind in ("positions", "signs")}
        kept += [share > 0.5 for share in left.values()]
        sentences.append(
            f"patches of {size}: two wrong positions leave {left['positions']:.0%}, two wrong flips "
            f"{left['signs']:.0%}, all positions wrong {mean['positions'].iloc[-1] / mean['positions', 0]:.0%}"
        )
    return _all_or_some(pd.Series(kept)), "Of the accuracy, with " + "; with ".join(sentences) + "."


def known_pairs(attack_pairs: "pd.DataFrame") -> tuple[str, str]:
    """Supported: at the largest number of pairs tried, the whole key is found under every cipher and in every draw."""
    rows = attack_pairs[(attack_pairs.measure == "share_recovered") & (attack_pairs.attack == "known plaintext")]
    worst = rows.groupby(["steps", "pairs"], sort=False).value.min().unstack()
    enough = (worst > 0.999).T.apply(lambda column: column[column].index.min())  # NaN: never
    found = ", ".join(f"{steps} {count:.0f}" for steps, count in enough.dropna().items())
    return _all_or_some(enough.notna()), (
        f"Images whose encrypted versions the attacker has too, and that give the whole key in all draws and at all "
        f"patch sizes: {found or 'none of the numbers tried'}."
    )


def exact_repairs(repairs: "pd.DataFrame") -> tuple[str, str]:
    """Supported: under every repair the correct key changes no prediction; with limits: under some."""
    differ = repairs[repairs.measure == "differ"].groupby("repair").value.max()
    return _all_or_some(differ == 0), (
        f"Under {(differ == 0).sum()} of {len(differ)} repairs no prediction of {repairs.n_images.max():,} changes; "
        f"the largest difference of a logit is {repairs[repairs.measure == 'max_logit_difference'].value.max():.0e}."
    )


def repairs_hold(repairs: "pd.DataFrame") -> tuple[str, str]:
    """Supported: from encrypted images alone, no repair's key is found, from whatever number on; with limits: some.
    Of several attacks that need no more than images, the one that needs the fewest counts.

    A key counts as found from the number on from which nine tenths of it are found on average over draws, with that
    number and all larger ones that were tried.
    """
    return _repairs_hold(repairs, IMAGES_ALONE)


def repairs_hold_with_model(repairs: "pd.DataFrame") -> tuple[str, str]:
    """As ``repairs_hold``, for an attacker who holds the encrypted model (of each key, where keys change) too."""
    return _repairs_hold(repairs, ("ciphertext and model",))


def _repairs_hold(repairs, attacks):
    shares = repairs[repairs.measure == "share_recovered"]
    seen, falls = shares[shares.attack.isin(attacks)], {}
    for name, rows in seen.groupby("repair", sort=False):
        found = [n for _, of_one in rows.groupby("attack") if (n := found_from(of_one, "seen"))]
        falls[name] = min(found, default=None)
    said = [f"{name} from {n:,} images on" for name, n in falls.items() if n]
    if never := [name for name, n in falls.items() if not n]:
        said.append(f"not found up to {seen.seen.max():,} images: {', '.join(never)}")
    if unmeasured := [name for name in dict.fromkeys(shares.repair) if name not in falls]:
        said.append(f"not measured: {', '.join(unmeasured)}")
    return _all_or_some(pd.Series([n is None for n in falls.values()])), (
        f"{FOUND:.0%} of the key found on average over draws, and with every larger number too: {'; '.join(said)}."
    )


def published_level(training: "pd.DataFrame") -> tuple[str, str]:
    """Supported: the plain network reaches what ConvMixer's authors published; with limits: comes within a point."""
    final = training[training.measure == "final_test_accuracy"].sort_values("patch_size")
    gap = PUBLISHED_ACCURACY - final.value.max()
    found = "; ".join(
        f"ConvMixer-{model['dim']}/{model['depth']} with patches of {row.patch_size}: {row.value:.2%} after "
        f"{row.epoch:.0f} epochs"
        for row in final.itertuples()
        for model in [json.loads(row.settings)["model"]]
    )
    return SUPPORTED if gap <= 0 else LIMITS if gap <= 0.01 else REFUTED, (
        f"{found}; its authors published {PUBLISHED_ACCURACY:.2%} for ConvMixer-256/8 with patches of 2, 25 epochs."
    )


def _span(numbers) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _all_or_some(kept: pd.Series) -> str:
    return SUPPORTED if kept.all() else LIMITS if kept.any() else REFUTED


def _recipe(settings: str) -> str:
    """Network and training of a row, without the number of threads that it was measured with."""
    return json.dumps({name: value for name, value in json.loads(settings).items() if name != "threads"})


PATCH_SIZE = 4  # of the network that the attacks were made on, at every scale
PROTECTION = partial(verdicts.model_protection, patch_size=PATCH_SIZE)
PRIVACY = partial(verdicts.privacy, patch_size=PATCH_SIZE)
CLAIMS = (
    Claim("With the correct key, the encrypted network performs like the plain one", "paper", ("keys",), exact),
    Claim("Only images encrypted with the same key are classified well", "paper", ("keys",), locked),
    Claim("No prepared training data, no change of the network", "paper", ("training", "keys"), same_network),
    Claim("Networks trained on encrypted images lose accuracy", "paper", ("conventional",), conventional_lose),
    Claim("It defends against adversarial examples", "paper", ("adversarial",), verdicts.adversarial_defence),
    Claim("It protects the model", "paper", ("stolen_model", "keys"), PROTECTION),
    Claim("It keeps images private", "paper", ("attack_images", "recovered", "attack_pairs"), PRIVACY),
    Claim("The key is changed without training", "book", ("training", "conventional"), quick_change),
    Claim("Nothing is added at inference", "book", ("cost",), free_inference),
    Claim("The size of the blocks costs no accuracy, the size of the patches does", "book", ("blocks",), free_blocks),
    Claim("A nearly right key opens much of the network", "book", ("anatomy",), slope),
    Claim("A few images with their encrypted versions give the key away", "book", ("attack_pairs",), known_pairs),
    Claim("The repairs are exact", "book", ("repairs",), exact_repairs),
    Claim("The repairs keep the key from who sees encrypted images alone", "book", ("repairs",), repairs_hold),
    Claim("The repairs keep the key from who has the encrypted model", "book", ("repairs",), repairs_hold_with_model),
    Claim("The study reaches ConvMixer's published accuracy", "book", ("training",), published_level),
)
