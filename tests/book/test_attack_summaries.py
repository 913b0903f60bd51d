"""The tables of attacks say what their rows say, and the verdict follows them; all rows are made by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cmxlib.book import attack_figures, verdicts
from cmxlib.book.summaries import KNOWLEDGE, SEEN, adversarial_table, needed, repairs_table, wilson
from cmxlib.study import records

LEFT = {  # accuracy of the encrypted pipeline on PGD's examples
    "plain model": 0.01,
    "encrypted model, no key": 0.8,
    "encrypted model, first layer relearnt": 0.7,
    "encrypted model, estimated key": 0.02,
    "surrogate": 0.5,
    "encrypted model and encrypted images": 0.01,
}


@pytest.fixture
def recorded(monkeypatch):
    """Tables of rows that ``records.read`` gives, by name."""
    tables = {}
    monkeypatch.setattr(records, "read", lambda scale, table: tables[table])
    return tables


def adversarial_rows(**changes):
    left = {**LEFT, **changes}
    cases = [("none", "none", 0.85, 0), ("none", "noise", 0.82, 8), ("plain model", "square", 0.3, 8)]
    cases += [(name, "pgd", value, 8) for name, value in left.items()]
    cases += [("answers of the encrypted pipeline", "square", 0.3, 8)]
    rows = [{"knowledge": "surrogate", "attack": None, "pipeline": None, "measure": "own_accuracy", "value": 0.6}]
    for knowledge, attack, value, change in cases:
        where = {"knowledge": knowledge, "attack": attack}
        rows += [{**where, "pipeline": pipeline, "measure": "accuracy", "value": value} for pipeline in PIPELINES]
        rows += [{**where, "measure": "differ", "value": 0}, {**where, "measure": "max_change", "value": change}]
    return pd.DataFrame(rows).assign(n_attacked=100)


PIPELINES = "plain", "encrypted"
STRONG = dict.fromkeys(LEFT, 0.7) | {"plain model": 0.01}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, verdicts.REFUTED),  # an estimated key does what the plain model does
        ({**STRONG, "encrypted model and encrypted images": 0.06}, verdicts.REFUTED),
        ({**STRONG, "surrogate": 0.07}, verdicts.LIMITS),
        ({**STRONG, "encrypted model, no key": 0.8}, verdicts.LIMITS),  # answers leave 0.3, less than half
    ],
)
def test_the_defence_is_as_good_as_against_its_best_attacker_without_the_key(changes, verdict):
    found, sentence = verdicts.adversarial_defence(adversarial_rows(**changes))
    assert found == verdict
    assert "85.0%" in sentence and "1.0%" in sentence


def test_a_defence_that_holds_is_supported():
    rows = adversarial_rows(**{**STRONG, "encrypted model, no key": 0.8})
    rows.loc[(rows.attack == "square") & (rows.knowledge != "plain model") & (rows.measure == "accuracy"), "value"] = (
        0.6
    )
    assert verdicts.adversarial_defence(rows)[0] == verdicts.SUPPORTED
    rows.loc[(rows.knowledge == "encrypted model, no key") & (rows.measure == "accuracy"), "value"] = 0.75
    assert verdicts.adversarial_defence(rows)[0] == verdicts.LIMITS  # more than noise does


def test_a_half_recorded_table_gives_no_verdict():
    rows = adversarial_rows(**STRONG)
    with pytest.raises(LookupError):
        verdicts.adversarial_defence(rows[rows.knowledge != "surrogate"])


def test_the_table_of_adversarial_examples(recorded):
    recorded["adversarial"] = adversarial_rows()
    table = adversarial_table("small").set_index(["knowledge", "attack"])
    assert list(dict.fromkeys(table.index.get_level_values(0))) == list(KNOWLEDGE)
    row = table.loc[("encrypted model, no key", "pgd")]
    assert row.encrypted == row.plain == pytest.approx(80) and row.differ == 0 and row.max_change == 8
    assert row.low < 80 < row.high and row.images == 100


def test_wilsons_interval():
    assert np.allclose(wilson(0.5, 100), (0.4038, 0.5962), atol=1e-4)  # a published worked value
    low, high = wilson(0, 100)
    assert low == pytest.approx(0, abs=1e-12) and 0.03 < high < 0.04


def shares(by, counts, value, **where):
    return [
        {**where, by: n, "measure": "share_recovered", "value": share} for n, share in zip(counts, value, strict=True)
    ]


def repair_tables():
    costs = {"differ": 0, "first_layer_ratio": 1, "inference_ratio": 1, "encryption_ratio": 1, "rekey_ratio": 9}
    rows = []
    for name, changes in {
        "shuffle+flip": {},
        "patch size 8": {"first_layer_ratio": 4},
        "key by position": {"differ": 1, "first_layer_ratio": 64},
    }.items():
        where = {"repair": name, "attack": None, "seen": 0}
        rows += [{**where, "measure": measure, "value": value} for measure, value in {**costs, **changes}.items()]
    rows += shares("seen", (10, 100, 1000), (0.95, 0.2, 0.95), repair="key by position", attack="ciphertext only")
    rows += shares("seen", (1, 2), (0.1, 0.2), repair="key by position", attack="known plaintext")
    rows += [{"repair": "EtC by position", "attack": None, "seen": 0, "measure": "differ", "value": 0}]
    rows += [{"repair": "EtC by position", "attack": None, "seen": 0, "measure": "first_layer_ratio", "value": 64}]
    rows += shares("seen", (10, 100), (0.2, 0.95), repair="EtC by position", attack="ciphertext only")
    rows += shares("seen", (10, 100), (0.95, 0.95), repair="EtC by position", attack="jigsaw")
    rows += shares("seen", (1, 10), (0.1, 1.0), repair="new key for each image", attack="ciphertext and model")
    same = {"public": "same data set", "neighbours": True, "steps": "shuffle+flip"}
    images = shares("n_encrypted", (1, 100), (0.3, 1), **same, patch_size=4)
    images += shares("n_encrypted", (1, 100), (0.9, 1), **same, patch_size=8)
    images += shares("n_encrypted", (1,), (1,), **{**same, "neighbours": False}, patch_size=4)
    images += shares("n_encrypted", (1,), (1,), **{**same, "public": "photos"}, patch_size=4)
    pairs = shares("pairs", (1, 2), (0.5, 1), attack="known plaintext", patch_size=4, steps="shuffle+flip")
    recovered = shares(
        "n_encrypted", (10,), (0.2,), attack="covariances", n_public=9, patch_size=4, steps="shuffle+flip"
    )
    tables = {"repairs": rows, "attack_images": images, "attack_pairs": pairs, "recovered": recovered}
    return {name: pd.DataFrame(found) for name, found in tables.items()}


def test_the_table_of_repairs(recorded):
    recorded.update(repair_tables())
    table = repairs_table("small", patch_size=4).set_index("repair")
    words = table[list(SEEN)].map(needed)
    assert list(table.exact) == [True, True, False, True, True]
    assert list(words.loc["EtC by position"]) == ["10", "", "", ""]  # by the better attack
    assert np.isnan(table.loc["EtC by position", "time"])
    assert list(words.loc["shuffle+flip"]) == ["100", "", "2", ""]
    assert list(words.loc["patch size 8"]) == ["1", "", "", ""]
    assert list(words.loc["key by position"]) == ["1,000", "", "not found", ""]
    assert list(words.loc["new key for each image"]) == ["not found", "10", "", ""]
    assert table.loc["key by position", "memory"] == 64
    assert table.loc["new key for each image", "time"] == 10  # one inference, and the model encrypted anew


def test_the_figures_show_every_attack():
    figure = attack_figures.adversarial(adversarial_rows())
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(KNOWLEDGE.values())
    assert len(axis.containers) == 3
    plt.close(figure)
    rows = repair_tables()["repairs"]
    rows = pd.concat([rows, rows[rows.measure == "share_recovered"].assign(measure="ssim")], ignore_index=True)
    figure = attack_figures.repairs(rows)
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 1, 1]
    plt.close(figure)
