"""Verdicts follow their rows: each threshold is crossed once, in hand-made rows."""

import pandas as pd
import pytest

from cmxlib.book import verdicts


def images(shares, patch_size=4, neighbours=True, public="same data set"):
    """Rows of `attack_images`: {steps: {number of images: share}}; two draws about each share, whose images are read
    as well as the key is found, but for a tenth."""
    return pd.DataFrame(
        {
            "measure": measure,
            "public": public,
            "neighbours": neighbours,
            "patch_size": patch_size,
            "steps": steps,
            "n_encrypted": count,
            "draw": draw,
            "value": share + delta - less,
            "settings": '{"public": 5000}',
        }
        for measure, less in (("share_recovered", 0), ("recovered_accuracy", 0.1))
        for steps, by_count in shares.items()
        for count, share in by_count.items()
        for draw, delta in enumerate((-0.01, 0.01))
    )


def privacy_tables(shares, paired):
    """What decides, among rows that must not: other patch sizes, other public images, no neighbours, chosen images."""
    decoys = [
        images({"shuffle": {10: 1}, "orthogonal": {10: 1}}, patch_size=2),
        images({"shuffle": {10: 0}, "orthogonal": {10: 1}}, public="photos"),
        images({"shuffle": {10: 0}}, neighbours=False),
        images({"shuffle": {100: 0.15}}, patch_size=8),
    ]
    recovered = with_more({"shuffle": {100: (0.3,)}}, patch_size=8)
    pairs = [
        {"attack": attack, "measure": "share_recovered", "patch_size": 4, "steps": steps, "pairs": 1, "value": value}
        for steps, known in paired.items()
        for attack, value in (("known plaintext", known), ("chosen plaintext", 1.0))
    ]
    found = pd.concat([*decoys, images(shares)], ignore_index=True)
    return found, recovered, pd.DataFrame(pairs)


def with_more(shares, attack="covariances", n_public=50000, patch_size=4):
    """Rows of `recovered`: {steps: {number of images: shares}}; a tenth less of what comes back is read."""
    columns = ["measure", "attack", "n_public", "patch_size", "steps", "n_encrypted", "value", "key_seed"]
    rows = [
        (measure, attack, n_public, patch_size, steps, count, value - less, 0)
        for measure, less in (("share_recovered", 0), ("recovered_accuracy", 0.1))
        for steps, by_count in shares.items()
        for count, values in by_count.items()
        for value in values
    ]
    return pd.DataFrame(rows, columns=columns)


EARLY, LATE, NEVER, ONCE = (
    {10: 0.95, 1000: 0.95},
    {1000: 0.5, 10000: 0.95},
    {10: 0.1, 10000: 0.1},
    {10: 0.95, 1000: 0.5},
)


@pytest.mark.parametrize(
    ("shuffle", "orthogonal", "known", "verdict"),
    [
        (EARLY, EARLY, 1, verdicts.REFUTED),
        (EARLY, LATE, 1, verdicts.LIMITS),
        (EARLY, NEVER, 1, verdicts.LIMITS),
        (EARLY, ONCE, 1, verdicts.LIMITS),  # found at 10 images, by luck, and not at 1,000
        (NEVER, NEVER, 1, verdicts.LIMITS),
        (NEVER, NEVER, 0.5, verdicts.SUPPORTED),
    ],
)
def test_privacy(shuffle, orthogonal, known, verdict):
    shares = {"shuffle": shuffle, "orthogonal": orthogonal}
    assert verdicts.privacy(*privacy_tables(shares, dict.fromkeys(shares, known)), patch_size=4)[0] == verdict


@pytest.mark.parametrize(("read", "verdict"), [(0.80, verdicts.REFUTED), (0.50, verdicts.LIMITS)])
def test_privacy_is_lost_when_what_comes_back_is_read_though_much_of_the_key_is_wrong(read, verdict):
    found, recovered, pairs = privacy_tables({"shuffle": EARLY, "orthogonal": LATE}, {"shuffle": 1, "orthogonal": 1})
    at = (found.patch_size == 4) & (found.steps == "orthogonal")
    found.loc[at & (found.n_encrypted == 10000) & (found.measure == "share_recovered"), "value"] = 1  # exact copies,
    found.loc[at & (found.n_encrypted == 10000) & (found.measure == "recovered_accuracy"), "value"] = 0.85  # as read
    found.loc[at & (found.n_encrypted == 1000) & (found.measure == "recovered_accuracy"), "value"] = read
    found, sentence = verdicts.privacy(found, recovered, pairs, patch_size=4)
    assert found == verdict
    read_from = "1,000" if read > 0.7 else "10,000"
    then = ", then 93% (93 to 93%)" if read > 0.7 else ""  # of that above guessing; for the key comes later
    assert f"on average over keys, from 10 (shuffle), {read_from} (orthogonal{then}) images on" in sentence
    assert "by the key alone the verdict would be: supported with limits" in sentence


def test_the_sentence_on_privacy_gives_the_numbers():
    rows = privacy_tables({"shuffle": EARLY, "orthogonal": NEVER}, {"shuffle": 1, "orthogonal": 0.2})
    assert verdicts.privacy(*rows, patch_size=4)[1] == (
        "Blocks of 4: from encrypted images alone, with 5,000 public images of the same data set, at least 90% of the "
        "key takes 10 (shuffle) images or more; never found: orthogonal (share of the key then, and its 95% interval: "
        "shuffle 95% (82 to 100%) over 2 keys, the worst from there on 94%); from known plaintext, at least 90% of the "
        "key takes 1 (shuffle) image pairs; never found: orthogonal. Blocks of 8: never found: shuffle, of which 100 "
        "images gave 30% by the best attack (mean over keys, 50,000 public images); the plain network, of patches of "
        "4, classifies up to 20% of "
        "what comes back, by the best attack for that."
    )


def stolen_rows(by_method, budget=300):
    """Rows of `stolen_model`: {method: {number of images: accuracy}}."""
    return [
        {"measure": "accuracy", "method": method, "n_plain": count, "budget": budget, "value": value, "draw": 0}
        for method, by_count in by_method.items()
        for count, value in by_count.items()
    ]


@pytest.mark.parametrize(
    ("everything", "new", "unseen", "verdict"),
    [
        ({100: 0.30, 1000: 0.40}, {100: 0.28, 1000: 0.36}, 0.44, verdicts.SUPPORTED),
        ({100: 0.30, 1000: 0.40}, {100: 0.28, 1000: 0.36}, 0.60, verdicts.LIMITS),  # with images that it never saw
        ({100: 0.40, 1000: 0.60}, {100: 0.28, 1000: 0.36}, 0.44, verdicts.LIMITS),
        ({100: 0.40, 1000: 0.85}, {100: 0.28, 1000: 0.36}, 0.83, verdicts.REFUTED),
        ({100: 0.40, 1000: 0.85}, {100: 0.28, 1000: 0.36}, 0.81, verdicts.LIMITS),  # with images of its training only
        ({1000: 0.5, 10000: 0.88}, {1000: 0.36, 10000: 0.60}, 0.83, verdicts.LIMITS),  # more images than counts
        ({100: 0.30, 1000: 0.85}, {100: 0.28, 1000: 0.84}, 0.44, verdicts.SUPPORTED),  # the images alone give as much
    ],
)
def test_model_protection(everything, new, unseen, verdict):
    methods = {"no key": {0: 0.13}, "everything": everything, "from nothing": new, "filters": {10000: 0.2}}
    rows = stolen_rows(methods) + stolen_rows({"everything": {1000: 0.99}}, budget=100)  # a smaller budget: no matter
    rows += stolen_rows({"everything": {1000: 0.99}}, budget=900)  # nor a larger one, that other numbers did not have
    keys = pd.DataFrame({"measure": "accuracy", "case": "plain", "patch_size": [4, 2], "value": [0.9, 0.96]})
    heldout = [
        *stolen_rows({"embedding anew": {1000: 0.3}, "from nothing": {1000: 0.2}}, budget=100),  # less than all of it
        *stolen_rows({"embedding anew": {1000: unseen}, "from nothing": {1000: 0.3}}),
        *stolen_rows({"embedding anew": {1000: 0.84}, "from nothing, rate chosen": {1000: 0.4}}),
        *stolen_rows({"plain network": {1000: 0.9}}, budget=0),  # on the images that judge
    ]
    heldout = pd.DataFrame(heldout).assign(steps=["shuffle", "none", "shuffle", "none", "flip", "none", "none"])
    if verdict == verdicts.SUPPORTED:
        heldout = heldout[heldout.steps != "flip"]  # which the thief opens
    found, sentence = verdicts.model_protection(pd.DataFrame(rows), heldout, keys, patch_size=4)
    assert found == verdict
    assert f"shuffle {unseen:.1%} over 1 keys" in sentence
    assert "a new network 40.0%, by the best of 2 learning rates" in sentence
    assert "13.0%" in sentence and "above guessing are 82.0%" in sentence and "images 82.0% (plain 90.0%)" in sentence


def test_privacy_takes_the_mean_over_draws_and_no_other_attack_for_the_patches_of_the_network():
    images, _, pairs = privacy_tables({"shuffle": {10: 0.82}, "orthogonal": NEVER}, {"shuffle": 1, "orthogonal": 0.2})
    more = pd.concat([with_more({"shuffle": {10: (1.0,)}}), with_more({"orthogonal": {10: (1.0,)}}, attack="other")])
    assert "never found: shuffle, orthogonal;" in verdicts.privacy(images, more, pairs, patch_size=4)[1]


def test_a_sentence_is_printed_in_lines_that_no_page_breaks(capsys):
    verdicts.say("word " * 50)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100 and printed.split() == ["word"] * 50
