"""The command that runs every recorded attack prints how much of the key each of them found."""

import pandas as pd
import pytest

from cmxlib.__main__ import main
from cmxlib.study import images as security_study
from cmxlib.study import records
from cmxlib.study.stolen import chosen_rate


def test_cmx_attack_prints_the_shares_of_the_recorded_rows(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(security_study, "run", asked.append)
    assert main(["attack", "--scale", "small"]) == 0
    assert asked == ["small"]
    printed = capsys.readouterr().out
    for table, by in security_study.SHARES.items():
        assert f"{table}: share of the key recovered" in printed
        rows = records.read("small", table)
        found = rows[rows.measure == "share_recovered"].groupby(by).value.mean()
        assert len(found) and not found.isna().any() and found.between(0, 1 + 1e-9).all()
    assert len(printed.splitlines()) > 100


def test_every_unit_of_the_study_runs_once(monkeypatch):
    from cmxlib.study import adversarial as adversarial_study
    from cmxlib.study import repairs as repair_study
    from cmxlib.study import stolen as stolen_study

    called = []
    units = (
        (security_study, "visibility"),
        (security_study, "pairs"),
        (security_study, "ciphertexts"),
        (security_study, "statistics"),
        (repair_study, "repairs"),
        (stolen_study, "stolen_rates"),
        (adversarial_study, "adversarial"),
        (stolen_study, "stolen_model"),
    )
    for module, name in units:
        unit = lambda scale, settings, name=name: called.append((name, scale.name))  # noqa: E731
        unit.__name__ = name
        monkeypatch.setattr(module, name, unit)
    said = []
    security_study.run("quick", said.append)
    assert [name for name, _ in called] == [name for _, name in units]
    assert {scale for _, scale in called} == {"quick"} and len(said) == len(called)


def test_the_lowest_rate_that_is_as_good_as_the_best_is_chosen():
    found = {0.01: 0.50, 0.02: 0.796, 0.04: 0.80, 0.08: 0.30}
    rows = [{"method": "embedding", "measure": "accuracy", "rate": rate, "value": v} for rate, v in found.items()]
    rows += [{"method": "everything", "measure": "accuracy", "rate": 0.01, "value": 0.9}]
    rates = pd.DataFrame(rows[::-1])
    assert chosen_rate(rates, "embedding") == 0.02 and chosen_rate(rates, "everything") == 0.01
    with pytest.raises(LookupError, match="no row of the method 'from nothing'"):
        chosen_rate(rates, "from nothing")
