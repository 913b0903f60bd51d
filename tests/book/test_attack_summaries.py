"""The tables of attacks say what their rows say, and the verdict follows them; all rows are made by hand."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cmxlib.book import attack_figures, verdicts
from cmxlib.book.summaries import ATTACKERS, SEEN, adversarial_table, needed, repairs_table, wilson
from cmxlib.study import records

LEFT = {  # (setting, knowledge, attack): accuracy of the victim on the examples
    ("none", "plain model", "none"): 0.85,
    ("none", "plain model", "noise"): 0.82,
    ("none", "plain model", "pgd"): 0.01,
    ("provider", "encrypted model", "pgd"): 0.8,
    ("provider", "own model", "pgd"): 0.5,
    ("provider", "first layer retrained", "pgd"): 0.7,
    ("provider", "answers", "square"): 0.02,
    ("client", "estimated key", "pgd"): 0.02,
    ("client", "encrypted model", "pgd"): 0.3,
    ("client", "encrypted model", "autoattack"): 0.2,
}


@pytest.fixture
def recorded(monkeypatch):
    """Tables of rows that ``records.read`` gives, by name."""
    tables = {}
    monkeypatch.setattr(records, "read", lambda scale, table: tables[table])
    return tables


def adversarial_rows(**changes):
    """The rows of ``LEFT`` under two keys, those of an attacker changed; finer patches were fooled throughout."""
    rows = []
    for (setting, knowledge, attack), value in LEFT.items():
        value = value if setting == "none" else changes.get(f"{setting} {knowledge}", value)
        steps = "none" if setting == "none" else "shuffle"
        where = {"setting": setting, "knowledge": knowledge, "attack": attack, "steps": steps, "n_images": 100}
        for size, found in ((4, value), (2, 0)):
            for key in (0, 1):
                at = {**where, "key": key, "patch_size": size, "eps": 0 if attack == "none" else 8}
                measures = {"accuracy": found + 0.01 * key, "unchanged": 0.85, "differ": 0}
                measures |= {"max_change": at["eps"], "rms_change": at["eps"]}
                rows += [{**at, "measure": name, "value": number} for name, number in measures.items()]
    return pd.DataFrame(rows).assign(settings=json.dumps({"queries": 7000, "retrain_steps": 50, "public": 3000}))


STRONG = {f"{setting} {knowledge}": 0.7 for setting, knowledge, _ in LEFT} | {"provider encrypted model": 0.8}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, verdicts.REFUTED),
        ({"client estimated key": 0.2}, verdicts.LIMITS),  # where the client encrypts, 0.2 is the least
        ({**STRONG, "client estimated key": 0.06}, verdicts.LIMITS),  # one setting falls, the other does not
        ({**STRONG, "client estimated key": 0.06, "provider answers": 0.06}, verdicts.REFUTED),
        ({**STRONG, "provider own model": 0.4}, verdicts.LIMITS),
        ({**STRONG, "provider encrypted model": 0.75}, verdicts.LIMITS),  # more than noise does
        (STRONG, verdicts.SUPPORTED),
    ],
)
def test_the_defence_is_as_good_as_against_its_best_attacker_without_the_key(changes, verdict):
    found, sentence = verdicts.adversarial_defence(adversarial_rows(**changes))
    assert found == verdict
    assert "of images of which 85 to 85% were classified rightly before" in sentence and "decrypt" not in sentence
    assert "leave 1.5%, noise 82.5%" in sentence and "(shuffle, 2 keys, 100 images attacked, 95%" in sentence
    assert "up to 7,000 questions" in sentence and "retrained, 50 steps" in sentence and "3,000 public ones" in sentence


def test_a_half_recorded_table_gives_no_verdict():
    rows = adversarial_rows()
    with pytest.raises(LookupError):
        verdicts.adversarial_defence(rows[rows.knowledge != "own model"])


def test_the_table_of_adversarial_examples():
    table = adversarial_table(adversarial_rows()).set_index(["setting", "knowledge", "attack", "patch_size"])
    row = table.loc["provider", "encrypted model", "pgd", 4]
    assert (row.accuracy, row.least, row.most) == pytest.approx((80.5, 80, 81)) and row.unchanged == pytest.approx(85)
    assert row.low < 80.5 < row.high and row.high - row.low > 14  # of 100 images, whatever the number of keys
    assert row["keys"] == 2 and row.images == 100 and row.differ == 0 and row.max_change == 8
    assert table.loc["provider", "answers", "square", 2].accuracy == pytest.approx(0.5)
    own = adversarial_rows().query("measure == 'accuracy'").assign(measure="own_accuracy", value=0.6)
    table = adversarial_table(pd.concat([adversarial_rows(), own]))
    assert (table.own_accuracy == 60).all()  # in per cent, as accuracies are


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
    tables = {"repairs": rows, "attack_images": images, "attack_pairs": pairs}
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
    assert [label.get_text() for label in axis.get_yticklabels()] == list(ATTACKERS.values())
    marked = {shown.get_label(): shown.lines[0].get_xdata() for shown in axis.containers}
    assert sorted(marked["shuffle"]) == pytest.approx([2.5, 2.5, 20.5, 50.5, 70.5, 80.5])  # the strongest of each
    plt.close(figure)
    rows = repair_tables()["repairs"]
    rows = pd.concat([rows, rows[rows.measure == "share_recovered"].assign(measure="ssim")], ignore_index=True)
    figure = attack_figures.repairs(rows)
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 1, 1]
    plt.close(figure)
