"""Tables that sum up recorded rows: what chapters print, what claims are judged by, what figures are drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lock import checks
from ..study import records

if TYPE_CHECKING:  # a figure is drawn from rows that are there: those who draw need not wait for pandas
    import pandas as pd

CONVENTIONAL = ("LE", "ELE", "EtC", "PE", "SHF", "NP", "FFX", "SUB")  # in the order of tables and figures
FOUND = 0.9  # of a key: the share from which on it counts as found
GUESSING = 0.1  # the accuracy of ten classes by chance
NUMBERS = {"value", "patch_size", "epoch", "wrong", "n_encrypted", "n_plain", "budget", "seen", "eps", "n_images"}


def share_left(accuracy: Any, plain: Any) -> Any:
    """How much of the plain accuracy is left, the book's one measure of it: 1 at the plain accuracy, 0 at guessing.

    accuracy, plain: in [0, 1], numbers or Series of them. Below 0 where the network does worse than guessing.
    """
    _ask_for_numbers(accuracy=accuracy, plain=plain)
    return (accuracy - GUESSING) / (plain - GUESSING)


def _ask_for_numbers(**values):
    for name, value in values.items():
        if checks.array(value, name).dtype.kind not in "biuf":
            raise TypeError(f"{name} must be a number or several, but this is {checks.shown(value)}.")


def summary(values: Any) -> dict:
    """Mean, sample standard deviation, min, max, n, and the mean's 95 % interval (Student's t) of some values."""
    from scipy import stats

    _ask_for_numbers(values=values)
    values = checks.array(values, "values").astype(float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be one number or more in a row, but their shape is {values.shape}.")
    n, mean = len(values), values.mean()
    sd = values.std(ddof=1) if n > 1 else np.nan
    half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n) if n > 1 else np.nan
    ends = {"min": values.min(), "max": values.max(), "low": mean - half, "high": mean + half}
    return {"n": n, "mean": mean, "sd": sd, **ends}


def with_interval(shares: Any, digits: int = 0) -> str:
    """The mean of some shares in per cent, and its 95 % interval where they are several: 88% (82 to 94%)."""
    _ask_for_numbers(shares=shares)
    found = summary(100 * np.asarray(shares, float))
    mean, low, high = (f"{np.clip(found[name], 0, 100) + 1e-9:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean}% ({low} to {high}%)" if found["n"] > 1 else f"{mean}%"


def main_table(scale_name: str) -> pd.DataFrame:
    """Accuracy by steps and case from table `keys`, in per cent: n keys, mean, sd, min, max, 95 % interval."""
    import pandas as pd

    rows = of_measure(records.read(scale_name, "keys"), "accuracy")
    by = ["patch_size", "steps", "case"]
    groups = rows.groupby(by, sort=False).value
    return pd.DataFrame([{**dict(zip(by, names, strict=True)), **summary(100 * values)} for names, values in groups])


def recorded_differences(scale_name: str, patch_size: int) -> pd.DataFrame:
    """What the correct key changes, from table `keys`: a row per steps with differ, max_logit_difference, n_images."""
    rows, patch_size = records.read(scale_name, "keys"), checks.whole(patch_size, "patch_size", 1)
    rows = rows[(rows.case == "correct key") & (rows.patch_size == patch_size)]
    wide = rows.pivot_table(index="steps", columns="measure", values="value", sort=False)
    return wide.assign(n_images=rows.groupby("steps").n_images.first())


# CIFAR-10 accuracies in per cent as published, each with its own network: {(network, block, source): {method: ...}}.
# An adaptation network stands before Shake-PyramidNet-110; the source is the README of the code of Madono et al., and
# the logs of the code of arXiv 2010.00801.
_MADONO, _BLOCKWISE = "Madono 2020", "arXiv 2010.00801"
PUBLISHED = {
    ("Shake-PyramidNet-110", 4, _MADONO): {"plain": 96.70, "LE": 94.94, "EtC": 85.94, "ELE": 67.10},
    ("LE's adaptation network", 4, _MADONO): {"plain": 95.64, "LE": 94.49, "EtC": 80.16, "ELE": 48.39},
    ("ELE's adaptation network", 4, _MADONO): {"plain": 85.32, "LE": 87.28, "EtC": 89.09, "ELE": 83.06},
    ("ResNet-18", 2, _BLOCKWISE): {"plain": 95.43, "SHF": 94.77, "NP": 95.32, "FFX": 93.79},
    ("ResNet-18", 4, _BLOCKWISE): {"SHF": 92.56, "NP": 93.41, "FFX": 92.27},
    ("ResNet-18", 8, _BLOCKWISE): {"SHF": 86.40, "NP": 91.54, "FFX": 91.99},
    ("ResNet-18", 16, _BLOCKWISE): {"SHF": 77.25, "NP": 92.68, "FFX": 91.39},
}


def conventional_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum up rows of the table `conventional`: one row a method, accuracies and losses in per cent and points.

    Columns: method; seeds; correct (mean over seeds; plain images for "plain"); loss, loss_low, loss_high (points
    against the plain network of the same seed: mean, and its 95 % interval from two seeds up); wrong, wrong_max,
    n_wrong (over keys and seeds); no_key; key_change (seconds, mean); bits (of the key space). A network whose plain
    twin is not measured yet has no loss.
    """
    import pandas as pd

    check_rows(rows, "value", "case", "method", "seed")
    plain = rows[rows.case == "plain"].set_index("seed").value
    found = []
    by_method = dict(list(rows.groupby("method")))
    if "plain" not in by_method:
        raise LookupError("rows hold no plain network, against which the others could be told.")
    for method in (name for name in ("plain", "proposed", *CONVENTIONAL) if name in by_method):
        group = by_method[method]
        cases = {case: part.set_index("seed").value for case, part in group.groupby("case")}
        correct, none = cases["plain" if method == "plain" else "correct key"], pd.Series(dtype=float)
        wrong, lost = 100 * cases.get("wrong key", none), 100 * (plain - correct).dropna()
        loss = summary(lost) if len(lost) else dict.fromkeys(("mean", "low", "high"), np.nan)
        found.append(
            {
                "method": method,
                "seeds": len(correct),
                "correct": 100 * correct.mean(),
                "loss": loss["mean"],
                "loss_low": loss["low"],
                "loss_high": loss["high"],
                "wrong": wrong.mean(),
                "wrong_max": wrong.max(),
                "n_wrong": len(wrong),
                "no_key": 100 * cases.get("no key", none).mean(),
                "key_change": cases.get("key change", none).mean(),
                "bits": cases.get("key space", none).mean(),
            }
        )
    return pd.DataFrame(found)


def published_table() -> pd.DataFrame:
    """The accuracies that were published for conventional methods, each with a network of its own."""
    import pandas as pd

    rows = [
        (network, method, None if method == "plain" else block, accuracy, source)
        for (network, block, source), by_method in PUBLISHED.items()
        for method, accuracy in by_method.items()
    ]
    return pd.DataFrame(rows, columns=["network", "method", "block_size", "accuracy", "source"])


def duration(seconds: float) -> str:
    """A span of time as a reader would say it, to two or three digits: "7.2 min", "41 s", "2.4 ms", "85 µs"."""
    seconds = checks.number(seconds, "seconds", 0)
    units = {"h": 3600, "min": 60, "s": 1, "ms": 1e-3}
    unit = next((unit for unit, size in units.items() if seconds >= size), "µs")
    return f"{seconds / units.get(unit, 1e-6):.3g} {unit}"


def span(numbers: Iterable[float | str]) -> str:
    """The least and the largest of some numbers, or of their texts: "93 to 100", or the one that there is."""
    ends = sorted({str(number) for number in numbers}, key=float)
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


ATTACKERS = {  # (setting, knowledge) in rows of `adversarial`, in the order of tables and figures, and in words
    ("none", "plain model"): "no encryption: the plain network",
    ("provider", "encrypted model"): "provider encrypts: the encrypted network as it is",
    ("provider", "own model"): "provider encrypts: a network of one's own",
    ("provider", "first layer retrained"): "provider encrypts: the encrypted network, first layer retrained",
    ("provider", "answers"): "provider encrypts: answers to questions",
    ("client", "estimated key"): "client encrypts: the encrypted network, an estimated key",
    ("client", "encrypted model"): "client encrypts: the encrypted network, a place on the line",
}
NEW_KEYS = "new key for each image"
SEEN = "encrypted images alone", "with the encrypted network", "known pairs", "chosen images"
IMAGES_ALONE = "ciphertext only", "jigsaw"  # attacks that need no more than these
ATTACKS = IMAGES_ALONE, ("ciphertext and model",), ("known plaintext",), ("chosen plaintext",)  # of which SEEN speaks


def adversarial_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Robust accuracy by attacker, cipher, eps and patch size, in per cent, from rows of the table `adversarial`.

    Columns: those that the table varies, without key; keys (their number); images (of each); accuracy (of the victim,
    mean over keys), least and most (over keys), low and high (the 95 % interval over images, Wilson's); unchanged
    (accuracy on the same images as they were); and, where it was measured, the means of own_accuracy,
    share_recovered, questions, and the largest differ, max_change and rms_change.
    """
    import pandas as pd

    by = ["setting", "knowledge", "attack", "steps", "eps", "patch_size"]
    found = []
    for names, part in check_rows(rows, "measure", "value", *by, "n_images").groupby(by, sort=False):
        each = {name: group.value for name, group in part.groupby("measure")}
        right, n = each["accuracy"], int(part.n_images.iloc[0])
        low, high = wilson(right.mean(), n)
        values = {"accuracy": right.mean(), "least": right.min(), "most": right.max(), "low": low, "high": high}
        percent = {name: 100 * value for name, value in {**values, "unchanged": each["unchanged"].mean()}.items()}
        means = {name: each[name].mean() for name in ("share_recovered", "questions") if name in each}
        if "own_accuracy" in each:
            percent["own_accuracy"] = 100 * each["own_accuracy"].mean()
        largest = {name: each[name].max() for name in ("differ", "max_change", "rms_change")}
        found.append(dict(zip(by, names, strict=True)) | {"keys": len(right), "images": n} | percent | means | largest)
    if not found:
        raise LookupError("rows hold no attack on networks with these patches, with changes of this size.")
    return pd.DataFrame(found)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in n trials (Wilson, 1927): sound near 0 and 1 too."""
    checks.number(share, "share", 0, 1)
    checks.number(n, "n", 1)
    z = 1.959964
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def repairs_table(scale: str, *, patch_size: int) -> pd.DataFrame:
    """What each repair costs its owner and an attacker, from tables `repairs`, `attack_images` and `attack_pairs`.

    patch_size: of the network without repair. A row per repair, with exact (no prediction differs), memory (numbers
    in the first layer), time (inference) and encryption (of images) as multiples of the model and cipher without
    repair; then ``SEEN``: how many images it takes until nine tenths of the key are found on average over draws,
    then and with all larger numbers that were tried, by the best attack of those that need no more; inf where that was
    not reached, NaN where none was tried. ``needed`` puts these into words. A repair whose times are those of another
    has NaN for them.
    """
    import pandas as pd

    rows, patch_size = records.read(scale, "repairs"), checks.whole(patch_size, "patch_size", 1)
    pairs = of_measure(records.read(scale, "attack_pairs"), "share_recovered")
    images = from_images_alone(records.read(scale, "attack_images"))
    costs = {name: part.set_index("measure").value for name, part in rows[rows.attack.isna()].groupby("repair")}
    costs[NEW_KEYS], found, shares = None, [], of_measure(rows, "share_recovered")
    for repair in rows.repair.unique():
        own = shares[shares.repair == repair]
        attack = {name: own[own.attack == name].rename(columns={"seen": "n"}) for name in own.attack.unique()}
        if repair in set(images.steps) or repair.startswith("patch size"):
            steps, at = (
                (repair, patch_size) if repair in set(images.steps) else ("shuffle+flip", int(repair.split()[-1]))
            )
            attack["ciphertext only"] = _at(images, steps, at).rename(columns={"n_encrypted": "n"})
            for name, tried in _at(pairs, steps, at).rename(columns={"pairs": "n"}).groupby("attack"):
                attack[name] = tried
        cost = costs[repair]
        if repair == NEW_KEYS:  # the usual cipher, so that the model is encrypted anew and no key is seen twice
            cost, times = costs["shuffle+flip"], 1 + costs["shuffle+flip"]["rekey_ratio"]
            usual = _at(images, "shuffle+flip", patch_size).rename(columns={"n_encrypted": "n"})
            attack["ciphertext only"] = usual[usual.n == 1]
        found.append(
            {
                "repair": repair,
                "exact": bool(cost["differ"] == 0),
                "memory": cost["first_layer_ratio"],
                "time": times if repair == NEW_KEYS else cost.get("inference_ratio", np.nan),
                "encryption": cost.get("encryption_ratio", np.nan),
                **{
                    head: min(
                        (found_from(attack[name], "n") or np.inf for name in names if name in attack), default=np.nan
                    )
                    for head, names in zip(SEEN, ATTACKS, strict=True)
                },
            }
        )
    return pd.DataFrame(found)


def from_images_alone(images: pd.DataFrame, measure: str = "share_recovered") -> pd.DataFrame:
    """Of rows of `attack_images`, those of a measure, of the attacker with public images of the same data set."""
    rows = of_measure(images, measure, "public", "neighbours", "patch_size", "steps", "n_encrypted")
    return rows[(rows.public == "same data set") & rows.neighbours]


def needed(n: float) -> str:
    """A cell of ``repairs_table`` as text: "not found" where the attack failed, "" where it was not tried."""
    return "" if np.isnan(n) else "not found" if np.isinf(n) else f"{n:,.0f}"


def _at(rows, steps, patch_size):
    return rows[(rows.steps == steps) & (rows.patch_size == patch_size)]


def check_rows(rows: Any, *columns: str) -> pd.DataFrame:
    """``rows``, when they are a DataFrame with these columns, of numbers where they are so in every table; TypeError or
    ValueError otherwise."""
    import pandas as pd

    checks.instance(rows, pd.DataFrame, "rows")
    for name in columns:
        checks.instance(name, str, "A column")
    there = list(rows.columns)
    if lacking := [name for name in columns if there.count(name) != 1]:
        raise ValueError(
            f"rows must have one column {' and one '.join(lacking)}: records.read(scale, table) gives such."
        )
    for name in NUMBERS.intersection(columns):
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise ValueError(f"The column {name} of rows must hold numbers: pd.to_numeric makes numbers of texts.")
    return rows


def of_measure(rows: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """The rows of a measure, which must have these columns, as ``check_rows`` says. ValueError where a value is no
    number, of which no mean could be told; LookupError where there is none, by which nothing could be judged."""
    check_rows(rows, "measure", "value", *columns)
    checks.instance(name, str, "A measure")
    found = rows[rows.measure == name]
    if found.empty:
        raise LookupError(f"rows hold none of the measure {name}.")
    if found.value.isna().any():
        raise ValueError(f"A recorded {name} is no number (NaN): restore its table from a copy, or by git checkout.")
    return found


def found_from(rows: pd.DataFrame, by: str) -> int | None:
    """The smallest number from which on at least ``FOUND`` of the key is found on average, or None."""
    enough = check_rows(rows, "value", by).groupby(by).value.mean().sort_index() >= FOUND
    lasting = enough[::-1].cummin()[::-1]
    return int(lasting.idxmax()) if lasting.any() else None


def equal_budgets(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows of `stolen_model`, those of the budget that a method had with every number of images: side by side, more
    images then differ by nothing else. Without it, the longer trainings at 1,000 images stand beside shorter ones."""
    check_rows(rows, "method", "n_plain", "budget")
    largest = rows.groupby(["method", "n_plain"]).budget.max().groupby("method").min()
    return rows[rows.budget == rows.method.map(largest)]


def speed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds of cmxlib and of stock modules, from rows of the table `benchmarks`: medians over starts, and how many
    times quicker cmxlib is, the least and the largest ratio over starts. Index: case, patch_size, layer."""
    rows = of_measure(rows, "seconds", "case", "patch_size", "layer", "start", "contender")
    timed = rows[rows.contender.isin(["cmxlib", "stock"])]
    by = ["case", "patch_size", "layer"]
    wide = timed.fillna({"layer": ""}).pivot(index=[*by, "start"], columns="contender", values="value")
    starts = wide.assign(ratio=wide.stock / wide.cmxlib).groupby(by, sort=False)
    found = starts[["cmxlib", "stock"]].median()
    return found.assign(least=starts.ratio.min(), largest=starts.ratio.max(), starts=starts.size())
