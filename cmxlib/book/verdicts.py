"""Whether the scheme gives the three uses that the field has studied encryption for, judged from the recorded attacks.

Each function takes rows of tables (DataFrames) and the patch size of the network that it judges, and returns (verdict,
sentence) with one of ``VERDICTS``. The sentence gives the numbers that the verdict rests on. Thresholds stand in the
docstrings, with their reasons.
"""

import json
import textwrap
from typing import TYPE_CHECKING

from ..lock import checks
from .summaries import (
    FOUND,
    GUESSING,
    adversarial_table,
    check_rows,
    equal_budgets,
    found_from,
    from_images_alone,
    of_measure,
    share_left,
    with_interval,
)

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = SUPPORTED, LIMITS, REFUTED = "supported", "supported with limits", "not supported"
MANY = 1000  # encrypted images, or plain ones: what a service sees in a day, or a thief can collect by hand


def privacy(
    images: "pd.DataFrame", recovered: "pd.DataFrame", pairs: "pd.DataFrame", *, patch_size: int
) -> tuple[str, str]:
    """Whether encrypted images keep their content from somebody who sees many of them, but has no key.

    Takes rows of `attack_images`, `recovered` and `attack_pairs`. Judged for attackers with public images of the same
    kind and encrypted images alone: a service that sees its users' images is one. A choice of steps falls at N images
    when at least nine tenths of the key (of the energy, for an orthogonal one) are found on average over draws, each
    with a key of its own, with N and all larger numbers: what is then wrong are a few entries of each key, or one
    key in ten. It also falls when the plain network reads the images that come back, with N and all larger numbers,
    with nine tenths of its accuracy above guessing: what is to be kept private is the content. That clause was added
    when the first rows were known, so the sentence also gives the verdict without it.

    Not supported: every choice of steps falls at 1,000 images or fewer. With limits: some stand, or fall only to
    larger numbers or to known plaintext. Supported: none falls, to known plaintext neither.
    """
    check_rows(images, "settings", "draw")
    patch_size = checks.whole(patch_size, "patch_size", 1)
    held = f"{json.loads(images.settings.iloc[0])['public']:,} public images of the same data set"
    near, pairs = from_images_alone(images), of_measure(pairs, "share_recovered", "attack", "steps", "patch_size")
    elsewhere = _standing(images, recovered, patch_size)
    near, pairs = (rows[rows.patch_size == patch_size] for rows in (near, pairs))
    keys = {steps: found_from(rows, "n_encrypted") for steps, rows in near.groupby("steps", sort=False)}
    left = _left_of_content(images[images.patch_size == patch_size])
    read = {steps: found_from(rows, "n_encrypted") for steps, rows in left.groupby("steps", sort=False)}
    falls = {steps: min(filter(None, (n, read.get(steps))), default=None) for steps, n in keys.items()}
    known = pairs[pairs.attack == "known plaintext"]
    paired = {steps: found_from(rows, "pairs") for steps, rows in known.groupby("steps", sort=False)}
    verdict, by_keys = (_fallen(numbers, any(paired.values())) for numbers in (falls, keys))
    spread = "; ".join(
        _spread(steps, near[(near.steps == steps) & (near.n_encrypted >= n)], n) for steps, n in keys.items() if n
    )
    content = (
        f"; the plain network reads what comes back, with {FOUND:.0%} of its accuracy above guessing on average over "
        f"keys, {_listed(read, keys, left)}; by the key alone the verdict would be: {by_keys}"
        if any(read.values())
        else ""
    )
    return verdict, (
        f"Blocks of {patch_size}: from encrypted images alone, with {held}, {_found_at(keys, 'images or more')}"
        f"{spread and f' (share of the key then, and its 95% interval: {spread})'}{content}; from known plaintext, "
        f"{_found_at(paired, 'image pairs')}.{elsewhere}"
    )


def _fallen(numbers, paired) -> str:
    """The verdict by the number of images at which each choice of steps falls, or None."""
    if not numbers:
        raise LookupError("No row is of an attack on networks with these patches.")
    if all(numbers.values()) and max(numbers.values()) <= MANY:
        return REFUTED
    return LIMITS if any(numbers.values()) or paired else SUPPORTED


def _spread(steps, rows, n) -> str:
    """In words, what an attack found with ``n`` images, or more: shuffle 93% (76 to 100%) over 10 keys, the worst, with
    that number or more, 33%."""
    then = rows[rows.n_encrypted == n].value
    return f"{steps} {with_interval(then)} over {len(then)} keys, the worst from there on {rows.value.min():.0%}"


def _left_of_content(images) -> "pd.DataFrame":
    """What the plain network reads of the images that come back, of its accuracy above guessing, by steps, number of
    images and draw; what it makes of exact copies is its accuracy."""
    by = ["steps", "n_encrypted", "draw"]
    share, read = (
        from_images_alone(images, name).set_index(by).value for name in ("share_recovered", "recovered_accuracy")
    )
    return share_left(read, read[share.reindex(read.index) == 1].mean()).reset_index()


def _listed(read, keys, left) -> str:
    """In words, from which number on each choice of steps is read; with its interval, where the key is found later."""
    said = []
    for steps, n in read.items():
        if n:
            then = with_interval(left[(left.steps == steps) & (left.n_encrypted == n)].value)
            sooner = not keys[steps] or n < keys[steps]
            said.append(f"{n:,} ({steps}{f', then {then}' if sooner else ''})")
    return f"from {', '.join(said)} images on"


def never_found(images: "pd.DataFrame", recovered: "pd.DataFrame") -> dict[tuple[int, str], "pd.DataFrame"]:
    """By patch size and steps, the rows of all attacks on those keys of which no number of images gave nine tenths."""
    import pandas as pd

    check_rows(images, "settings")
    check_rows(recovered, "measure", "value", "attack", "n_public", "patch_size", "steps", "n_encrypted")
    public = json.loads(images.settings.iloc[0])["public"]
    near = pd.concat([from_images_alone(images, name) for name in ("share_recovered", "recovered_accuracy")])
    tried = pd.concat([near.assign(attack="covariances", n_public=public), recovered], ignore_index=True)
    return {
        names: rows
        for names, rows in tried.groupby(["patch_size", "steps"])
        if not found_from(of_measure(rows[rows.n_public == public], "share_recovered"), "n_encrypted")
    }


def _standing(images, recovered, own) -> str:
    """In words, what no number of images gave away at other patch sizes, and what the best attack made of it."""
    said = ""
    for (size, steps), rows in never_found(images, recovered).items():
        if size != own:
            means = rows.groupby(["measure", "attack", "n_public", "n_encrypted"]).value.mean()
            shares, read = means["share_recovered"], means["recovered_accuracy"]
            _, n_public, n = shares.idxmax()
            said += (
                f" Blocks of {size}: never found: {steps}, of which {n:,} images gave {shares.max():.0%} by the best "
                f"attack (mean over keys, {n_public:,} public images); the plain network, of patches of {own}, "
                f"classifies up to {read.max():.0%} of what comes back, by the best attack for that."
            )
    return said


def model_protection(
    stolen: "pd.DataFrame", heldout: "pd.DataFrame", keys: "pd.DataFrame", *, patch_size: int
) -> tuple[str, str]:
    """Whether the encrypted model is of use to a thief who has no key, but plain images of the same kind.

    stolen: rows of `stolen_model`, of a network with these patches, whose thief takes images that it was trained on;
    heldout: rows of `stolen_heldout`, whose thief takes images that it never saw, under several ciphers; keys: rows of
    `keys`, which tell the plain accuracy. The measure is what a method reaches of that above guessing, mean over draws,
    against training a new model on the same images with the same number of steps: that needs no theft.

    Not supported: with 1,000 images or fewer, some method reaches nine tenths, and a new model does not: the thief has
    the model, for the price of a collection made by hand; and so it is with images that the network never saw, under
    every cipher. Supported: with every number of images and of either kind, the best method is at most 5 points of
    accuracy better than a new model: the theft was for nothing. With limits: between these.
    """
    patch_size = checks.whole(patch_size, "patch_size", 1)
    rows = equal_budgets(of_measure(stolen, "accuracy", "draw"))
    means, budgets = rows.groupby(["method", "n_plain"]).value.mean(), rows.groupby("method").budget.first()
    own = of_measure(keys, "accuracy", "case", "patch_size")
    own = own[(own.patch_size == patch_size) & (own.case == "plain")]
    if own.empty:
        raise LookupError(f"The keys' rows hold no plain network with patches of {patch_size}.")
    plain = own.value.mean()
    new = means["from nothing"]
    thieves = means.drop(["from nothing", "no key"], level="method")
    best = thieves.groupby("n_plain").max()
    worth = _nine_tenths(plain)
    opened = best[(best.index <= MANY) & (best >= worth) & (new.reindex(best.index) < worth)]
    gain = (best - new).dropna()
    unseen, new_of_unseen, plain_there, said = from_heldout(heldout)
    by_training = REFUTED if len(opened) else SUPPORTED if gain.max() <= 0.05 else LIMITS
    if by_training == REFUTED and unseen.min() >= _nine_tenths(plain_there) > new_of_unseen:
        verdict = REFUTED
    else:
        vain = max(gain.max(), unseen.max() - new_of_unseen) <= 0.05
        verdict = SUPPORTED if vain else LIMITS
    n = opened.index[0] if len(opened) else gain.idxmax()
    name = thieves.xs(n, level="n_plain").idxmax()
    draws = rows[rows.method == name].groupby("n_plain").draw.nunique()[n]
    return verdict, (
        f"Patches of {patch_size}: the plain network has {plain:.1%}, and {FOUND:.0%} of it above guessing are "
        f"{worth:.1%}. With {n:,} plain images that it was trained on, and no key, a thief gets "
        f"{best[n]:.1%} out of the encrypted network (shuffle + flip; {WAYS[name]}; "
        f"{budgets[name]:,} steps; mean of {draws} draws, each with a key of its own); a new network gets "
        f"{new[n]:.1%} from the same images and {budgets['from nothing']:,} steps. "
        f"{said} By the images of its training alone the verdict would be: {by_training}. Without images the encrypted "
        f"network gives {means['no key'].iloc[0]:.1%} (mean of "
        f"{(rows.method == 'no key').sum()} keys)."
    )


def from_heldout(heldout: "pd.DataFrame") -> tuple["pd.Series", float, float, str]:
    """With the largest budget, from images that the network was not trained on: the accuracy that the best method
    reaches under each cipher, that of the better new network, that of the plain network on the same images, and all of
    it in words."""
    rows = of_measure(heldout, "accuracy", "method", "n_plain", "budget", "steps")
    (n,), budget = set(rows.n_plain), rows[rows.method == "embedding anew"].budget.max()
    plain = rows[rows.method == "plain network"].value.mean()
    bar, rows = _nine_tenths(plain), rows[rows.budget == budget]
    locked = rows[rows.method == "embedding anew"].groupby("steps", sort=False).value
    new, of = rows[rows.steps == "none"].groupby("method").value.mean(), locked.mean()
    each = "; ".join(f"{steps} {with_interval(values, 1)} over {len(values)} keys" for steps, values in locked)
    words = (
        f"With {n:,} images that it never saw and {budget:,} steps, {WAYS['embedding anew']}: {each}; "
        f"{(of >= bar).sum()} of {len(of)} means reach nine tenths, on these test images {bar:.1%} (plain "
        f"{plain:.1%}); a new network {new.max():.1%}, by the best of {len(new)} learning rates."
    )
    return of, new.max(), plain, words


def _nine_tenths(plain: float) -> float:
    """The accuracy at which nine tenths of a plain one, counted above guessing, are reached."""
    return GUESSING + FOUND * (plain - GUESSING)


def adversarial_defence(adversarial: "pd.DataFrame", *, patch_size: int = 4) -> tuple[str, str]:
    """Whether encryption keeps adversarial examples (8 grey levels) from the model, made by attackers without its key.

    adversarial: rows of the table of that name, judged for the network with these patches. The measure is the accuracy
    of the victim on the examples, for each attacker the least over attacks and ciphers, mean over keys. The bar is what
    the plain model's owner suffers when that model is known: 5 points above it count as no difference, since an
    interval over a hundred images is as wide, and no attack is made on fewer.

    Not supported: where the provider encrypts and where the client does, some attacker without the key gets as far as
    one with the plain model. Supported: none of them takes as much as half of the accuracy, and the encrypted model by
    itself serves no better than noise of the same size. With limits: between these.
    """
    check_rows(adversarial, "patch_size", "eps", "settings")
    patch_size = checks.whole(patch_size, "patch_size", 1)
    rows = adversarial[(adversarial.patch_size == patch_size) & adversarial.eps.isin([0, 8])]
    table = adversarial_table(rows)
    worst = table.loc[table.groupby(["setting", "knowledge"]).accuracy.idxmin()].set_index(["setting", "knowledge"])
    by_attack = table[table.setting == "none"].groupby("attack").accuracy.min() / 100
    clean, noise, known = by_attack["none"], by_attack["noise"], by_attack["pgd"]
    others = {names: worst.loc[names] for names in MEANS}  # a LookupError while some attacker is not measured yet
    left = {names: row.accuracy / 100 for names, row in others.items()}
    least = {place: min(left[names] for names in MEANS if names[0] == place) for place in ("provider", "client")}
    naive = left["provider", "encrypted model"]
    if all(value <= known + 0.05 for value in least.values()):
        verdict = REFUTED
    else:
        held = min(least.values()) > clean / 2 and naive >= noise - 0.05
        verdict = SUPPORTED if held else LIMITS
    had = {  # what each of them had, as its newest row was measured
        names: json.loads(of_one.settings.iloc[-1]) for names, of_one in rows.groupby(["setting", "knowledge"])
    }
    ways = {
        place: "; ".join(
            f"{MEANS[names].format(**had[names])} {row.accuracy:.1f}% ({row.steps}, {row['keys']} "
            f"key{'s' * int(row['keys'] > 1)}, {row.images:,} images attacked, 95% interval {row.low:.1f} to "
            f"{row.high:.1f}%)"
            for names, row in sorted(others.items(), key=lambda item: item[1].accuracy)
            if names[0] == place
        )
        for place in least
    }
    attacked = table[~table.attack.isin(["none", "noise"])]
    start = attacked.unchanged
    larger = attacked[attacked.max_change > attacked.eps + 0.5]  # an orthogonal map spreads a change over a patch
    names = ", ".join(dict.fromkeys(larger.steps))
    beyond = f"; {names}: decrypted up to {larger.max_change.max():.0f}" if len(larger) else ""
    return verdict, (
        f"Patches of {patch_size}, changes of up to 8 grey levels (of what the attacker has{beyond}), of images of "
        f"which {start.min():.0f} to {start.max():.0f}% were classified rightly before; accuracy that is left, by the "
        f"worst of ciphers and attacks, mean over its keys. "
        f"Attacks with the plain network at hand leave {known:.1%}, noise {noise:.1%}. Without the key, where the "
        f"provider encrypts: {ways['provider']}. Where the client encrypts: {ways['client']}."
    )


MEANS = {
    ("provider", "encrypted model"): "the encrypted network taken as it is",
    (
        "provider",
        "first layer retrained",
    ): "its first layer retrained, {retrain_steps} steps on the test images that are not attacked,",
    ("provider", "own model"): "a network of their own",
    ("provider", "answers"): "answers to up to {queries:,} questions, logits, the same under every key,",
    (
        "client",
        "estimated key",
    ): "a key estimated from 1,000 encrypted images and {public:,} public ones of the same data set",
    ("client", "encrypted model"): "changing encrypted images",
}
WAYS = {
    "statistics": "with the key estimated from the statistics that the network stores, without labels",
    "statistics, gradient": "with flips from the statistics that the network stores, and places by gradient search",
    "filters": "with the key estimated from its filters",
    "random keys": "with the best of some random keys",
    "hill climbing": "with a key found by hill climbing",
    "gradient": "with a key found by gradient search",
    "embedding": "with its first layer fine-tuned",
    "embedding anew": "with its first layer retrained at a high rate",
    "embedding, then everything": "with its first layer retrained, then all of it fine-tuned",
    "everything": "by fine-tuning all of it",
}


def say(sentence: str) -> None:
    """Print a sentence in lines of at most 100 characters, for JupyterLab breaks longer ones inside words."""
    checks.instance(sentence, str, "sentence")
    print(textwrap.fill(sentence, 100))


def _found_at(falls, what):
    """In words: at least 90% of the key takes 10 (shuffle), 100 (flip) images; never found: orthogonal."""
    parts = [f"{n:,} ({steps})" for steps, n in falls.items() if n]
    never = [steps for steps, n in falls.items() if not n]
    found = [f"at least {FOUND:.0%} of the key takes {', '.join(parts)} {what}"] if parts else []
    return "; ".join(found + ([f"never found: {', '.join(never)}"] if never else []))
