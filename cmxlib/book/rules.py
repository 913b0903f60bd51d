"""The rules by which claims on keys, costs and repairs are judged; `verdicts` has those of the three uses.

Each function takes the rows of tables and returns (verdict, sentence), as there. Its docstring is the rule, and the
sentence gives the numbers that the verdict rests on. It raises a LookupError where rows that it asks for are lacking.
"""

import json

import numpy as np
import pandas as pd

from ..study.records import uninterrupted
from .summaries import (
    CONVENTIONAL,
    FOUND,
    GUESSING,
    IMAGES_ALONE,
    check_rows,
    conventional_table,
    duration,
    found_from,
    of_measure,
    share_left,
    span,
    summary,
    with_interval,
)
from .verdicts import LIMITS, REFUTED, SUPPORTED

POINT = 0.01  # of accuracy: above the sampling error of 10,000 images; on fewer, the same images are compared
DAMAGED = {"positions": "places", "signs": "flips", "both": "places and flips"}  # kinds of the table `anatomy`
BITS_PUBLIC = 2000  # public images that table `repairs` gives to who has images of shuffled or flipped bits alone
# The network of ConvMixer's authors on CIFAR-10, its accuracy and its epochs: README of their CIFAR-10 repository.
PUBLISHED_NETWORK = {"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 2}
PUBLISHED_ACCURACY, PUBLISHED_EPOCHS = 0.926, 25


# -- what the abstract says ------------------------------------------------------------------------------------------


def exact(keys: pd.DataFrame) -> tuple[str, str]:
    """Supported: under every cipher, no prediction changes with the correct key; with limits: at most 1 in 1,000."""
    check_rows(keys, "measure", "value", "case", "patch_size", "steps", "n_images")
    if (right := keys[keys.case == "correct key"]).empty:
        raise LookupError("No row of the correct key is there.")
    right = right.pivot_table(index=["patch_size", "steps"], columns="measure", values="value")
    plain = of_measure(keys, "accuracy")
    plain = plain[plain.case == "plain"].groupby("patch_size").value.mean()
    encrypted = right.accuracy.groupby(level="patch_size").mean()
    n_images, differ = int(keys.n_images.min()), int(right.differ.max())
    sizes, steps = right.index.levels[0], right.index.get_level_values("steps")
    verdict = SUPPORTED if differ == 0 else LIMITS if differ <= n_images / 1000 else REFUTED
    accuracies = "; ".join(
        f"patches of {size}: accuracy {value:.2%} plain, {encrypted[size]:.2%} encrypted"
        for size, value in plain.items()
    )
    changed = (
        f"At most {differ} of {n_images:,} predictions change" if differ else f"No prediction of {n_images:,} changes"
    )
    return verdict, (
        f"{changed}, under each of {steps.nunique()} ciphers with patches of {' and of '.join(map(str, sizes))}, with "
        f"one key each; {accuracies}; the largest difference of a logit is {right.max_logit_difference.max():.0e}."
    )


def only_with_the_key(keys: pd.DataFrame, anatomy: pd.DataFrame) -> tuple[str, str]:
    """Supported: every wrong key that was tried, and no key, cost more than a point of accuracy; with limits: every
    random one, but not every one of those that differ from the correct key in some entries."""
    found, far, near = [], [], []
    check_rows(anatomy, "patch_size", "kind", "wrong", "n_images")
    for size, plain, wrong, none in _without_key(keys):
        damaged = of_measure(anatomy, "accuracy")
        damaged = damaged[damaged.patch_size == size]
        if damaged.empty:
            raise LookupError(f"No damaged key is measured for patches of {size}.")
        lost = (damaged[damaged.wrong == 0].value.max() - damaged.value).round(6)  # a point is a point, not 0.0100001
        by_damage = (lost <= POINT)[damaged.wrong > 0].groupby([damaged.kind, damaged.wrong]).agg(["sum", "size"])
        close = by_damage[by_damage["sum"] > 0]
        far.append(max(wrong.value.max(), none.value.max()) < plain - POINT)
        near.append(len(close))
        which = ", ".join(
            f"{row['sum']} of {row['size']} with {n} wrong {DAMAGED.get(kind, kind)}"
            for (kind, n), row in close.iterrows()
        )
        found.append(
            f"Patches of {size}: plain {plain:.1%}, the highest of {len(wrong)} random wrong keys "
            f"{wrong.value.max():.1%}, with no key {_each(none)}up to {none.value.max():.1%}; of keys with some "
            f"wrong entries, on {damaged.n_images.min():,} images, {which or 'none'} come within a point."
        )
    return SUPPORTED if all(far) and not any(near) else LIMITS if all(far) else REFUTED, " ".join(found)


def same_network(training: pd.DataFrame, keys: pd.DataFrame) -> tuple[str, str]:
    """Supported: the encrypted network's rows are of the network and training of the plain one, and it is exact."""
    check_rows(training, "patch_size", "epoch", "settings")
    check_rows(keys, "settings")
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


def conventional_lose(conventional: pd.DataFrame) -> tuple[str, str]:
    """Supported: every published method loses, and the 95 % interval of its loss over seeds lies above 0; with limits:
    most of those that are measured lose, and half of all are measured at least."""
    check_rows(conventional, "settings")
    found, published = conventional_table(conventional).set_index("method"), CONVENTIONAL[:-1]  # SUB is the book's own
    methods = found.loc[[name for name in published if name in found.index]]
    if 2 * len(methods) < len(published):
        raise LookupError("Fewer than half of the published methods are measured.")
    sure, losing = methods.loss_low > 0, int((methods.loss > 0).sum())
    model = json.loads(conventional.settings.iloc[0])["model"]
    points = ", ".join(f"{method} {value:z.1f}" for method, value in methods.loss.items())  # z: no "-0.0"
    others = {
        ", but not": methods.index[methods.loss_low <= 0],
        "; one seed, so no interval:": methods.index[methods.loss_low.isna()],
        "; not measured:": [name for name in published if name not in found.index],
    }
    rest = "".join(f"{words} {', '.join(names)}" for words, names in others.items() if len(names))
    certain = sure.all() and len(methods) == len(published)
    return SUPPORTED if certain else LIMITS if losing > len(methods) / 2 else REFUTED, (
        f"ConvMixer-{model['dim']}/{model['depth']} with patches of {model['patch_size']}, blocks as large: "
        f"{sure.sum()} of the {len(methods)} methods lose more than chance explains (95 % interval above 0){rest}: "
        f"points against plain {points} (seeds: {span(methods.seeds)}); proposed {found.loss['proposed']:.2f}."
    )


# -- what the book says ----------------------------------------------------------------------------------------------


def locked(keys: pd.DataFrame) -> tuple[str, str]:
    """Of the accuracy above guessing, wrong keys leave a tenth at most on average: supported under all ciphers, with
    limits under some."""
    kept, found = [], []
    for size, plain, *cases in _without_key(keys):
        wrong, none = (rows.groupby("steps", sort=False).value for rows in cases)
        left = share_left(pd.concat([wrong.mean(), none.mean()]), plain)
        kept.append(left.groupby(level=0, sort=False).max() <= 0.1)
        means = ", ".join(f"{steps} {value:.1%}" for steps, value in wrong.mean().items())
        found.append(
            f"Patches of {size}, mean accuracy over {wrong.size().min()} wrong keys: {means}, the highest of all "
            f"{wrong.max().max():.1%}; with no key {_each(cases[1])}up to {none.max().max():.1%}; plain {plain:.1%}, "
            f"guessing {GUESSING:.0%}."
        )
    each = pd.concat(kept)
    holds = f"It holds in {each.sum()} of {len(each)} (size of patches and cipher)."
    return _all_or_some(each), " ".join([holds, *found])


def quick_change(training: pd.DataFrame, cost: pd.DataFrame) -> tuple[str, str]:
    """Supported: changing the key is at least 1,000 times quicker than training the network that trains quickest, of
    all patch sizes; with limits: 10 times. The ratio is said to the power of ten below it, for the two were timed on
    machines and with threads of their own."""
    check_rows(cost, "value", "case", "settings")
    epochs = of_measure(training, "seconds", "patch_size", "settings").groupby("patch_size").value
    seconds = epochs.agg(uninterrupted).min()
    change = cost[cost.case == "change the model's key"].value
    ratio = seconds / change.median()
    return SUPPORTED if ratio >= 1000 else LIMITS if ratio >= 10 else REFUTED, (
        f"{_of(cost)}: {duration(change.median())} (median of {len(change)}, {_threads(cost)}) against "
        f"{duration(seconds)} of training ({_threads(training)}): more than {10 ** int(np.log10(ratio)):,} times."
    )


def _of(rows):
    return f"Patches of {json.loads(rows.settings.iloc[0])['model']['patch_size']}"


def free_inference(cost: pd.DataFrame) -> tuple[str, str]:
    """Supported: the encrypted network takes at most 5 % longer than the plain one (medians); with limits: 20 %."""
    seconds = {case: rows.value for case, rows in of_measure(cost, "seconds", "case", "settings").groupby("case")}
    plain, encrypted = (seconds[f"classify 2,000 {kind} images, {kind} model"] for kind in ("plain", "encrypted"))
    ratio = encrypted.median() / plain.median()
    ranges = [f"{duration(times.min())} to {duration(times.max())}" for times in (encrypted, plain)]
    return SUPPORTED if ratio <= 1.05 else LIMITS if ratio <= 1.2 else REFUTED, (
        f"{_of(cost)}: the arithmetic is the same, with other numbers in one layer; 2,000 images take {ranges[0]} "
        f"encrypted and {ranges[1]} plain ({len(plain)} runs; medians {ratio - 1:+.1%}, where single runs differ by "
        f"{plain.max() / plain.min() - 1:.0%}); "
        f"who sends them has to encrypt them: {duration(seconds['encrypt 2,000 images'].median())} for all, "
        f"{duration(seconds['encrypt one image'].median())} for one alone."
    )


def free_blocks(blocks: pd.DataFrame) -> tuple[str, str]:
    """Supported: the correct key costs nothing at any block size, and larger patches lower the plain accuracy."""
    by = ["patch_size", "block_size", "case"]
    wide = of_measure(blocks, "accuracy", *by).groupby(by).value.mean().unstack()
    plain = wide.plain.groupby(level=0).mean()
    falls = plain.is_monotonic_decreasing and len(plain) > 1
    free = wide["correct key"] == wide.plain
    patches = ", ".join(f"patches of {size} {value:.1%}" for size, value in plain.items())
    bits = of_measure(blocks, "bits").value
    return SUPPORTED if free.all() and falls else LIMITS if free.all() else REFUTED, (
        f"Under shuffle+flip, with one correct key, accuracy is the plain one at {free.sum()} of {len(wide)} pairs of "
        "patch and block; plain, "
        f"one network each: {patches}; there are {2 ** bits.min():.0f} to 2^{bits.max():,.0f} maps, of which a secret "
        "of 256 bits draws one."
    )


def slope(anatomy: pd.DataFrame) -> tuple[str, str]:
    """Supported: with two wrong positions, and with two wrong flips, more than half of the accuracy above guessing is
    left on average, and the 95 % interval over keys lies above a half; with limits: on average only, or not of all."""
    kept, sure, sentences = [], [], []
    for size, rows in of_measure(anatomy, "accuracy", "patch_size", "kind", "wrong", "n_images").groupby("patch_size"):
        of = rows.groupby(["kind", "wrong"]).value
        whole = of.mean()["positions", 0]
        left = share_left(of.mean(), whole)
        two = [share_left(of.get_group((kind, 2)), whole) for kind in ("positions", "signs")]
        kept += [shares.mean() > 0.5 for shares in two]
        sure += [summary(shares)["low"] > 0.5 for shares in two]
        places, flips = map(with_interval, two)
        sentences.append(
            f"patches of {size}: two wrong places leave {places}, two wrong flips {flips}, all places "
            f"wrong {left['positions'].iloc[-1]:.0%}"
        )
    keys = of_measure(anatomy, "accuracy").groupby(["patch_size", "kind", "wrong"]).size().max()
    return SUPPORTED if all(sure) else LIMITS if any(kept) else REFUTED, (
        f"Of the accuracy above guessing, on {anatomy.n_images.min():,} images, mean of {keys} damaged keys (95% "
        f"interval): with {'; with '.join(sentences)}."
    )


def known_pairs(attack_pairs: pd.DataFrame) -> tuple[str, str]:
    """Supported: at the largest number of pairs tried, the whole key is found under every cipher and in every draw."""
    rows = of_measure(attack_pairs, "share_recovered", "attack", "steps", "pairs", "draw")
    rows = rows[rows.attack == "known plaintext"]
    worst = rows.groupby(["steps", "pairs"], sort=False).value.min().unstack()
    enough = (worst > 0.999).T.apply(lambda column: column[column].index.min())  # NaN: never
    found = ", ".join(f"{steps} {count:.0f}" for steps, count in enough.dropna().items())
    return _all_or_some(enough.notna()), (
        "Images whose encrypted versions the attacker has too, and that give the whole key in all "
        f"{rows.draw.nunique()} draws, each with a key of its own, and at all patch sizes: "
        f"{found or 'none of the numbers tried'}."
    )


def exact_repairs(repairs: pd.DataFrame) -> tuple[str, str]:
    """Supported: under every repair that a trained network was measured with, the correct key changes no prediction;
    with limits: under some. Those are the repairs that attacks were made on; the other rows are of ciphers without a
    repair, and of other patch sizes, whose networks are untrained."""
    check_rows(repairs, "repair", "attack", "n_images")
    rows = repairs[repairs.repair.isin(repairs[repairs.attack.notna()].repair)]
    differ = of_measure(rows, "differ").groupby("repair", sort=False).value.max()
    unmeasured = [name for name in dict.fromkeys(rows.repair) if name not in differ]
    rest = f"; not measured: {', '.join(unmeasured)}" if unmeasured else ""
    n_images, largest = of_measure(rows, "differ").n_images.min(), of_measure(rows, "max_logit_difference").value.max()
    return _all_or_some(differ == 0), (
        f"Under {(differ == 0).sum()} of the {len(differ)} that were measured ({', '.join(differ.index)}) no "
        f"prediction of {n_images:,} changes, with one network and one key; the largest difference of a logit is "
        f"{largest:.0e}{rest}."
    )


def repairs_hold(repairs: pd.DataFrame) -> tuple[str, str]:
    """Supported: from encrypted images alone, no repair's key is found, from whatever number on; with limits: some.
    Of several attacks that need no more than images, the one that needs the fewest counts.

    A key counts as found from the number on from which nine tenths of it are found on average over draws, with that
    number and all larger ones that were tried. What comes back is not judged here, as it is by `verdicts.privacy`.
    """
    return _repairs_hold(repairs, IMAGES_ALONE)


def repairs_hold_with_model(repairs: pd.DataFrame) -> tuple[str, str]:
    """As ``repairs_hold``, for an attacker who holds the encrypted model (of each key, where keys change) too."""
    return _repairs_hold(repairs, ("ciphertext and model",))


def _repairs_hold(repairs, attacks):
    shares = of_measure(repairs, "share_recovered", "repair", "attack", "seen", "draw", "settings")
    seen, falls = shares[shares.attack.isin(attacks)], {}
    for name, rows in seen.groupby("repair", sort=False):
        found = [n for _, of_one in rows.groupby("attack") if (n := found_from(of_one, "seen"))]
        falls[name] = min(found, default=None)
    most = seen.groupby("repair").seen.max()
    said = [
        f"{name} from {n:,} images on" if n < most[name] else f"{name} at {n:,} images, the most that was tried"
        for name, n in falls.items()
        if n
    ]
    for name in (name for name, n in falls.items() if not n):
        tried = seen[(seen.repair == name) & (seen.seen == most[name])]
        best = tried.groupby("attack").value.mean().max()
        said.append(f"{name} not found up to {tried.seen.max():,} images, the most that was tried ({best:.0%} then)")
    if "orthogonal" in set(repairs.repair) and attacks == IMAGES_ALONE:
        said.append("an orthogonal key is judged as to privacy")
    repaired = [*dict.fromkeys(shares.repair), *["orthogonal"] * (attacks != IMAGES_ALONE)]
    if unmeasured := [name for name in repaired if name not in falls]:
        said.append(f"not measured: {', '.join(unmeasured)}")
    public = json.loads(seen.settings.iloc[0])["public"]
    few = f" ({BITS_PUBLIC:,} for repairs of bits)" if attacks == IMAGES_ALONE else ""
    return _all_or_some(pd.Series([n is None for n in falls.values()])), (
        f"With {public:,} public images of the same data set{few}, {FOUND:.0%} of the key found on average over "
        f"{span(seen.groupby('repair').draw.nunique())} draws, each with a key of its own, and with every larger "
        f"number that was tried: {'; '.join(said)}."
    )


def published_level(training: pd.DataFrame) -> tuple[str, str]:
    """Supported: the authors' network reaches the accuracy that they published on average over three seeds or more, in
    no more epochs; with limits: it comes as near as chance allows, the sampling of the test images."""
    final = of_measure(training, "final_test_accuracy", "epoch", "n_images", "settings")
    final = final[[json.loads(settings)["model"] == PUBLISHED_NETWORK for settings in final.settings]]
    mean, epochs, n_images = final.value.mean(), final.epoch.max(), final.n_images.iloc[0]
    gap, chance = mean - PUBLISHED_ACCURACY, 1.96 * (mean * (1 - mean) / n_images) ** 0.5
    reached = gap >= 0 and len(final) >= 3 and epochs <= PUBLISHED_EPOCHS
    seeds = "one seed" if len(final) == 1 else f"{len(final)} seeds"
    return SUPPORTED if reached else LIMITS if gap >= -chance else REFUTED, (
        f"ConvMixer-256/8 with patches of 2: {mean:.2%} after {epochs} epochs, {seeds}; its authors published "
        f"{PUBLISHED_ACCURACY:.2%} after {PUBLISHED_EPOCHS}. The difference of {100 * gap:+.2f} points "
        f"{'lies within' if abs(gap) <= chance else 'exceeds'} the sampling error of {n_images:,} test images, "
        f"{100 * chance:.2f}."
    )


def _without_key(keys):
    """(patch size, plain accuracy, rows of wrong keys, rows of no key) for each patch size."""
    for size, rows in of_measure(keys, "accuracy", "case", "steps", "patch_size").groupby("patch_size"):
        cases = dict(list(rows.groupby("case")))
        yield size, cases["plain"].value.mean(), cases["wrong key"], cases["no key"]


def _each(none: pd.DataFrame) -> str:
    """In words, how many encrypted networks stand behind the rows of no key."""
    n = none.groupby("steps").size().max()
    return "(one key for each cipher) " if n == 1 else f"({n} keys for each cipher) "


def _all_or_some(kept: pd.Series) -> str:
    if kept.empty:
        raise LookupError("No row tells of it.")
    return SUPPORTED if kept.all() else LIMITS if kept.any() else REFUTED


def _threads(rows: pd.DataFrame) -> str:
    counts = {json.loads(settings).get("threads") for settings in rows.settings} - {None}
    return f"{span(counts)} thread{'s' * (counts != {1})}" if counts else "threads not recorded"


def _recipe(settings: str) -> str:
    """Network and training of a row, without the number of threads that it was measured with."""
    return json.dumps({name: value for name, value in json.loads(settings).items() if name != "threads"})
