"""Tables of the attacks on the two pipelines and on the repairs, summed up from recorded rows."""

import numpy as np
import pandas as pd

from . import records
from .verdicts import _falls, _measure, _model_patch_size

KNOWLEDGE = {  # rows of `adversarial`, in the order of tables and figures, and in words
    "none": "nothing",
    "surrogate": "data of the same kind: a model of one's own",
    "encrypted model, no key": "the encrypted model, as if it took plain images",
    "encrypted model, first layer relearnt": "the encrypted model, its first layer learnt anew",
    "answers of the encrypted pipeline": "answers of the encrypted pipeline",
    "encrypted model, estimated key": "the encrypted model and encrypted images: a key estimated from them",
    "encrypted model and encrypted images": "the encrypted model, and a way to change encrypted images",
    "plain model": "the plain model",
}
NEW_KEYS = "new key for each image"
SEEN = "encrypted images alone", "with the encrypted model", "known pairs", "chosen images"
ATTACKS = "ciphertext only", "ciphertext and model", "known plaintext", "chosen plaintext"  # of which SEEN speaks


def adversarial_table(scale: str) -> pd.DataFrame:
    """Robust accuracy by knowledge and attack, in per cent, from table `adversarial`.

    Columns: knowledge, attack, images, encrypted and plain (the two pipelines), low and high (the 95 % interval of
    encrypted over images, Wilson's), differ (examples that the pipelines classify differently), max_change (grey
    levels).
    """
    rows = records.read(scale, "adversarial")
    rows = rows[rows.attack.notna()]  # without attack: rows about the attacker's own model
    found = []
    for knowledge in KNOWLEDGE:
        part = rows[rows.knowledge == knowledge]
        for attack, group in part.groupby("attack", sort=False):
            right = _measure(group, "accuracy").set_index("pipeline").value
            n = int(group.n_attacked.iloc[0])
            low, high = wilson(right["encrypted"], n)
            counts = {name: int(_measure(group, name).value.iloc[0]) for name in ("differ", "max_change")}
            values = {"encrypted": right["encrypted"], "low": low, "high": high, "plain": right["plain"]}
            percent = {name: 100 * value for name, value in values.items()}
            found.append({"knowledge": knowledge, "attack": attack, "images": n, **percent, **counts})
    return pd.DataFrame(found)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in n trials (Wilson, 1927): sound near 0 and 1 too."""
    z = 1.959964
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def repairs_table(scale: str) -> pd.DataFrame:
    """What each repair costs its owner and an attacker, from tables `repairs`, `attack_images` and `attack_pairs`.

    A row per repair, with exact (no prediction differs), memory (numbers in the first layer), time (inference) and
    encryption (of images) as multiples of the model and cipher without repair; then ``SEEN``: how many images it takes
    until nine tenths of the key are found on average over draws, then and with all larger numbers that were tried;
    inf where that was not reached, NaN where an attack was not tried. ``needed`` puts these into words.
    """
    rows = records.read(scale, "repairs")
    images, pairs = (
        _measure(records.read(scale, name), "share_recovered") for name in ("attack_images", "attack_pairs")
    )
    size = _model_patch_size(images)
    images = images[(images.public == "same data set") & images.neighbours]
    costs = {name: part.set_index("measure").value for name, part in rows[rows.attack.isna()].groupby("repair")}
    costs[NEW_KEYS], found = None, []
    for repair, part in rows.groupby("repair", sort=False):
        own = _measure(part, "share_recovered")
        attack = {name: own[own.attack == name].rename(columns={"seen": "n"}) for name in own.attack.unique()}
        if repair in set(images.steps) or repair.startswith("patch size"):
            steps, at = (repair, size) if repair in set(images.steps) else ("shuffle+flip", int(repair.split()[-1]))
            attack["ciphertext only"] = _at(images, steps, at).rename(columns={"n_encrypted": "n"})
            for name, tried in _at(pairs, steps, at).rename(columns={"pairs": "n"}).groupby("attack"):
                attack[name] = tried
        cost, each_time = costs[repair], 0
        if repair == NEW_KEYS:  # the usual cipher, so that the model is encrypted anew and no key is seen twice
            cost, each_time = costs["shuffle+flip"], costs["shuffle+flip"]["rekey_ratio"]
            alone = _at(images, "shuffle+flip", size).rename(columns={"n_encrypted": "n"})
            attack["ciphertext only"] = alone[alone.n == 1]
        found.append(
            {
                "repair": repair,
                "exact": bool(cost["differ"] == 0),
                "memory": cost["first_layer_ratio"],
                "time": cost["inference_ratio"] + each_time,
                "encryption": cost["encryption_ratio"],
                **{
                    head: (_falls(attack[name], "n") or np.inf) if name in attack else np.nan
                    for head, name in zip(SEEN, ATTACKS, strict=True)
                },
            }
        )
    return pd.DataFrame(found)


def needed(n) -> str:
    """A cell of ``repairs_table`` as text: "not found" where the attack failed, "" where it was not tried."""
    return "" if np.isnan(n) else "not found" if np.isinf(n) else f"{n:,.0f}"


def _at(rows, steps, patch_size):
    return rows[(rows.steps == steps) & (rows.patch_size == patch_size)]
