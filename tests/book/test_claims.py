"""Verdicts follow the rows: on hand-made rows each claim is supported, and changing a row changes the verdict."""

import json

import pandas as pd
import pytest

from cmxlib.book import claims, rules, verdicts
from cmxlib.book.claims import UNMEASURED
from cmxlib.book.verdicts import LIMITS, REFUTED, SUPPORTED, VERDICTS
from cmxlib.lock.conventional import METHODS
from cmxlib.study import records

SETTINGS = json.dumps({"epochs": 2, "model": {"dim": 8, "depth": 1}, "threads": 1})


def frame(*rows, columns, **same):
    return pd.DataFrame([dict(zip(columns, row, strict=True)) for row in rows]).assign(**same)


def keys(shuffle=0.12, flip=0.12, differ=0, patch_size=4):
    columns = ("case", "steps", "measure", "value")
    rows = []
    for steps, wrong in (("shuffle", shuffle), ("flip", flip)):
        rows += [("plain", steps, "accuracy", 0.9), ("correct key", steps, "accuracy", 0.9)]
        rows += [("correct key", steps, "differ", differ), ("correct key", steps, "max_logit_difference", 1e-5)]
        rows += [("wrong key", steps, "accuracy", wrong), ("no key", steps, "accuracy", 0.1)]
    return frame(*rows, columns=columns, n_images=10000, patch_size=patch_size, settings=SETTINGS)


def training(final=0.93, patch_size=4):
    rows = [("seconds", 100.0, 1), ("seconds", 100.0, 2), ("final_test_accuracy", final, 2)]
    settings = json.dumps({"epochs": 2, "model": {"dim": 8, "depth": 1}, "threads": 7})  # threads: no part of a recipe
    return frame(*rows, columns=("measure", "value", "epoch"), settings=settings, patch_size=patch_size)


def published(*accuracies, epochs=25, **other):
    """A training of the published network from as many seeds; other: what its network has otherwise."""
    settings = json.dumps({"model": rules.PUBLISHED_NETWORK | other})
    rows = [(seed, value, epochs) for seed, value in enumerate(accuracies)]
    same = {"measure": "final_test_accuracy", "settings": settings, "n_images": 10000}
    return frame(*rows, columns=("seed", "value", "epoch"), **same)


def conventional(loss=0.05, methods=METHODS, seeds=(0, 1, 2), spread=0.01):
    rows = [("plain", seed, "plain", "accuracy", 0.9 + seed / 1000) for seed in seeds]
    for method in ("proposed", *methods):
        lost = 0 if method == "proposed" else loss
        rows += [(method, s, "correct key", "accuracy", 0.9 + s / 1000 - lost * (1 + s * spread)) for s in seeds]
    settings = json.dumps({"model": {"dim": 8, "depth": 1, "patch_size": 4}})
    return frame(*rows, columns=("method", "seed", "case", "measure", "value"), settings=settings)


def cost(encrypted=1.0, change=0.01):
    cases = {"classify 2,000 plain images, plain model": 1.0, "encrypt one image": 1e-4, "encrypt 2,000 images": 2e-3}
    cases |= {"classify 2,000 encrypted images, encrypted model": encrypted, "change the model's key": change}
    return frame(
        *cases.items(),
        columns=("case", "value"),
        measure="seconds",
        settings='{"threads": 2, "model": {"patch_size": 4}}',
    )


def blocks(correct=0.8, larger=0.7):
    rows = [
        (4, 2, "plain", 0.8),
        (4, 2, "correct key", correct),
        (8, 2, "plain", larger),
        (8, 2, "correct key", larger),
    ]
    found = frame(*rows, columns=("patch_size", "block_size", "case", "value"), measure="accuracy")
    bits = frame((4, 2, "key space", 40.8), columns=("patch_size", "block_size", "case", "value"), measure="bits")
    return pd.concat([found, bits])


def anatomy(positions=0.8, signs=0.6, patch_size=4):
    rows = [("positions", 0, 0.9), ("positions", 2, positions), ("positions", 48, 0.18), ("signs", 0, 0.9)]
    rows.append(("signs", 2, signs))
    columns = ("kind", "wrong", "value")
    return frame(*rows, columns=columns, measure="accuracy", patch_size=patch_size, n_images=2000)


def attack_pairs(flip=1.0):
    rows = [("shuffle", 1, 1.0), ("flip", 1, 0.5), ("flip", 2, flip)]
    return frame(
        *rows, columns=("steps", "pairs", "value"), attack="known plaintext", measure="share_recovered", draw=0
    )


def repairs(differ=0, positions=0.5, bits=0.2, with_model=1.0):
    rows = [("by position", None, 0, "differ", differ), ("single bits", None, 0, "differ", 0)]
    rows += [("shuffle", None, 0, "differ", 0), ("patch size 8", None, 0, "differ", 9)]  # which no attack was made on
    rows += [(repair, None, 0, "max_logit_difference", 1e-6) for repair in ("by position", "single bits")]
    rows += [("new key", "ciphertext and model", 100, "share_recovered", with_model)]
    rows += [("by position", "ciphertext only", 10, "share_recovered", 0.95)]  # but not with all larger numbers
    rows += [("by position", "ciphertext only", 100, "share_recovered", positions)]
    rows += [("by position", "ciphertext and model", 100, "share_recovered", with_model)]
    rows += [("single bits", "ciphertext only", 100, "share_recovered", bits)]
    rows += [("single bits", "known plaintext", 1, "share_recovered", 1.0)]  # which is not what the claim is about
    return frame(
        *rows,
        columns=("repair", "attack", "seen", "measure", "value"),
        n_images=500,
        draw=0,
        settings='{"public": 5000}',
    )


@pytest.mark.parametrize(
    "judge, rows, verdict",
    [
        (claims.exact, [keys()], SUPPORTED),
        (claims.exact, [keys(differ=3)], LIMITS),
        (claims.exact, [keys(differ=30)], REFUTED),
        (claims.only_with_the_key, [keys(), anatomy()], SUPPORTED),
        (claims.only_with_the_key, [keys(), anatomy(positions=0.895)], LIMITS),
        (claims.only_with_the_key, [keys(flip=0.895), anatomy()], REFUTED),
        (claims.only_with_the_key, [keys(flip=0.895), anatomy(signs=0.895)], REFUTED),
        (claims.locked, [keys()], SUPPORTED),
        (claims.locked, [keys(shuffle=0.3)], LIMITS),
        (claims.locked, [keys(shuffle=0.3, flip=0.3)], REFUTED),
        (claims.locked, [pd.concat([keys(), keys(shuffle=0.3, patch_size=2)])], LIMITS),
        (claims.same_network, [training(), keys()], SUPPORTED),
        (claims.same_network, [pd.concat([training(), training(patch_size=2)]), keys()], SUPPORTED),
        (claims.same_network, [training(patch_size=2), keys()], REFUTED),
        (claims.same_network, [training(), keys(differ=30)], REFUTED),
        (claims.same_network, [training(), keys().assign(settings=SETTINGS.replace("2", "3"))], REFUTED),
        (claims.conventional_lose, [conventional()], SUPPORTED),
        (claims.conventional_lose, [conventional(seeds=(0,))], LIMITS),
        (claims.conventional_lose, [conventional(methods=METHODS[:5])], LIMITS),
        (claims.conventional_lose, [conventional(spread=1.5)], LIMITS),  # losses of 5, 12.5 and 20 points
        (claims.conventional_lose, [conventional(loss=-0.01)], REFUTED),
        (claims.quick_change, [training(), cost()], SUPPORTED),
        (claims.quick_change, [training(), cost(change=2.0)], LIMITS),
        (claims.quick_change, [training(), cost(change=100.0)], REFUTED),
        (claims.free_inference, [cost()], SUPPORTED),
        (claims.free_inference, [cost(1.1)], LIMITS),
        (claims.free_inference, [cost(1.3)], REFUTED),
        (claims.free_blocks, [blocks()], SUPPORTED),
        (claims.free_blocks, [blocks(larger=0.85)], LIMITS),
        (claims.free_blocks, [blocks(correct=0.79)], REFUTED),
        (claims.slope, [pd.concat([anatomy(), anatomy(signs=0.605)])], SUPPORTED),
        (claims.slope, [pd.concat([anatomy(), anatomy(signs=0.9)])], LIMITS),  # two keys so far apart tell little
        (claims.slope, [anatomy()], LIMITS),  # one key, and so no interval
        (claims.slope, [anatomy(signs=0.48)], LIMITS),  # more than half of 0.9, but not above guessing
        (claims.slope, [pd.concat([anatomy(), anatomy(signs=0.3, patch_size=2)])], LIMITS),
        (claims.slope, [anatomy(positions=0.3, signs=0.3)], REFUTED),
        (claims.known_pairs, [attack_pairs()], SUPPORTED),
        (claims.known_pairs, [attack_pairs(flip=0.9)], LIMITS),
        (claims.exact_repairs, [repairs()], SUPPORTED),
        (claims.exact_repairs, [repairs(differ=1)], LIMITS),
        (claims.repairs_hold, [repairs()], SUPPORTED),
        (claims.repairs_hold, [repairs(positions=0.95)], LIMITS),
        (claims.repairs_hold, [repairs(positions=0.95, bits=1.0)], REFUTED),
        (claims.repairs_hold_with_model, [repairs()], REFUTED),
        (claims.repairs_hold_with_model, [repairs(with_model=0.5)], SUPPORTED),
        (claims.published_level, [published(0.93, 0.93, 0.93)], SUPPORTED),
        (claims.published_level, [published(0.93)], LIMITS),
        (claims.published_level, [published(0.93, 0.93, 0.93, epochs=30)], LIMITS),
        (claims.published_level, [pd.concat([published(0.922), published(0.85, patch_size=4)])], LIMITS),
        (claims.published_level, [published(0.92)], REFUTED),
    ],
)
def test_verdicts_follow_the_rows(judge, rows, verdict):
    found, sentence = judge(*rows)
    assert found == verdict
    assert sentence.endswith(".") and "nan" not in sentence


def test_the_sentences_name_the_figures():
    found = claims.exact(keys(differ=30))[1]
    assert "30 of 10,000 predictions change, under each of 2 ciphers with patches of 4, with one key each" in found
    assert "shuffle 30.0%, flip 12.0%" in claims.locked(keys(shuffle=0.3))[1]
    found = claims.published_level(published(0.93, epochs=30))[1]
    assert "93.00% after 30 epochs, one seed; its authors published 92.60% after 25" in found
    assert "difference of +0.40 points lies within the sampling error of 10,000 test images, 0.50." in found
    found = claims.only_with_the_key(keys(), anatomy(positions=0.895))[1]
    assert "of 2 random wrong keys 12.0%, with no key (one key for each cipher) up to 10.0%; of keys with some" in found
    assert "on 2,000 images, 1 of 1 with 2 wrong places come within a point." in found
    assert "all places wrong 10%" in claims.slope(anatomy())[1]
    assert "LE 5.1, ELE 5.1" in claims.conventional_lose(conventional())[1]
    some = pd.concat([conventional(methods=METHODS[:4]), conventional(methods=METHODS[4:5], seeds=(0,))])
    found = claims.conventional_lose(some.drop_duplicates())[1]
    said = "4 of the 5 methods lose more than chance explains (95 % interval above 0); one seed, so no interval: "
    assert found.startswith("ConvMixer-8/1 with patches of 4, blocks as large: ")
    assert f"{said}{METHODS[4]}; not measured: {', '.join(METHODS[5:7])}: points" in found
    found = claims.quick_change(training(), cost())[1]
    assert "10 ms (median of 1, 2 threads) against 3.33 min of training (7 threads): more than 10,000 times" in found
    found = claims.exact_repairs(repairs())[1]
    assert found.startswith("Under 2 of the 2 that were measured (by position, single bits) no prediction of 500")
    assert found.endswith("not measured: new key.")
    found = claims.repairs_hold(repairs(positions=0.95, bits=0.2))[1]
    assert found.startswith(
        "With 5,000 public images of the same data set (2,000 for repairs of bits), 90% of the key found on average "
        "over 1 draws"
    )
    assert (
        "by position from 10 images on; single bits not found up to 100 images, the most that was tried (20%" in found
    )
    assert found.endswith("not measured: new key.")
    found = claims.repairs_hold_with_model(repairs())[1]
    most = "at 100 images, the most that was tried"
    assert f"new key {most}; by position {most}; not measured: single bits, orthogonal." in found
    assert "shuffle 1, flip 2" in claims.known_pairs(attack_pairs())[1]


def test_a_study_that_stopped_before_the_row_asked_for_judges_nothing():
    with pytest.raises(LookupError):
        claims.conventional_lose(conventional(methods=METHODS[:3]))
    with pytest.raises(LookupError):
        claims.published_level(published(0.93, patch_size=4))
    with pytest.raises(LookupError):
        claims.only_with_the_key(keys(patch_size=2), anatomy())


@pytest.fixture
def recorded(monkeypatch):
    """Rows in place of the recorded ones: a dictionary from (scale, table) to a DataFrame."""
    rows = {}

    def read(scale, table):
        if (scale, table) not in rows:
            raise FileNotFoundError(table)
        return rows[scale, table].assign(scale=scale)

    monkeypatch.setattr(records, "read", read)
    return rows


def test_paper_scale_counts_before_small_and_what_has_no_rows_is_not_measured(recorded):
    assert set(claims.judged().verdict) == {UNMEASURED}
    recorded["small", "keys"] = keys()
    first = claims.judged().iloc[0]
    assert (first.verdict, first.rows) == (SUPPORTED, "small/keys")
    recorded["paper", "keys"] = keys(differ=30)
    first = claims.judged().iloc[0]
    assert (first.verdict, first.rows) == (REFUTED, "paper/keys")


def test_a_scale_that_has_only_some_of_the_methods_leaves_the_verdict_to_the_next(recorded):
    (claim,) = (claim for claim in claims.CLAIMS if claim.judge is claims.conventional_lose)
    for methods in ((), METHODS[:3]):
        recorded["paper", "conventional"] = conventional(methods=methods)
        assert claims.judge(claim)[0] == UNMEASURED
    recorded["small", "conventional"] = conventional()
    assert (claims.judge(claim)[0], claims.judge(claim)[2]) == (SUPPORTED, "small")


def test_the_three_uses_are_judged_where_their_attacks_are(recorded):
    (claim,) = (claim for claim in claims.CLAIMS if "stolen_model" in claim.tables)
    methods = {"no key": 0.13, "everything": 0.3, "from nothing": 0.28}
    recorded["small", "stolen_model"] = frame(
        *methods.items(), columns=("method", "value"), measure="accuracy", n_plain=1000, budget=300, draw=0
    )
    other = [("embedding anew", "shuffle", 0.3), ("from nothing", "none", 0.28)]
    recorded["small", "stolen_heldout"] = frame(
        *other, columns=("method", "steps", "value"), measure="accuracy", n_plain=1000, budget=100
    )
    assert claims.judge(claim)[0] == UNMEASURED
    recorded["small", "keys"] = pd.concat([keys(), keys(patch_size=2).assign(value=0.99)])
    verdict, sentence, scale = claims.judge(claim)
    assert (verdict, scale) == (SUPPORTED, "small") and "the plain network has 90.0%" in sentence


def test_a_table_that_is_half_measured_is_not_measured(recorded):
    recorded["small", "cost"] = cost().head(1)
    (claim,) = (claim for claim in claims.CLAIMS if claim.judge is claims.free_inference)
    assert claims.judge(claim)[0] == UNMEASURED


def test_empty_tables_are_not_measured(monkeypatch):
    monkeypatch.setattr(records, "read", lambda scale, table: keys().iloc[:0])
    assert set(claims.judged().verdict) == {UNMEASURED}


def test_the_table_has_a_line_for_every_claim(recorded):
    recorded["small", "keys"] = keys(shuffle=0.3)
    lines = claims.table().splitlines()
    assert len(lines) == 2 + len(claims.CLAIMS)
    assert all(line.count("|") == 6 for line in lines)
    assert "| paper: “can have the same performance as models" in lines[2] and lines[2].endswith("| `small/keys` |")
    assert any("| book | **supported with limits** |" in line for line in lines)


def test_who_says_a_claim_is_told_and_the_abstract_is_quoted():
    for claim in claims.CLAIMS:
        assert claim.said_by in ("paper", "field", "paper and field", "book")
        assert bool(claim.words) == (claim.said_by != "book")


def test_every_claim_of_the_book_is_judged_from_the_committed_rows():
    found = claims.judged()
    assert len(found) == len(claims.CLAIMS) and found.claim.is_unique
    assert set(found.verdict) <= {*VERDICTS, UNMEASURED}
    assert (found[found.rows.str.startswith("small/keys")].verdict != UNMEASURED).all()


def test_what_the_attackers_on_bits_have_is_what_the_table_gives_them():
    from cmxlib.study import adversarial, repairs  # with torch, which no other test of claims needs

    assert rules.BITS_PUBLIC == repairs.BITS_PUBLIC
    assert f"from {adversarial.SEEN:,} encrypted images" in verdicts.MEANS["client", "estimated key"]


def test_an_accuracy_that_is_no_number_gives_no_verdict():
    rows = keys()
    rows.loc[(rows.case == "correct key") & (rows.measure == "accuracy"), "value"] = float("nan")
    with pytest.raises(ValueError, match="is no number"):
        rules.exact(rows)
