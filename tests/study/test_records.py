"""Result rows: complete, exact, replaced as a whole, and safe to add to from several processes."""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxlib import paths
from cmxlib.study import records

ROOT = paths.ROOT
X = dict.fromkeys(records.ORIGIN, "x")


@dataclass(frozen=True)
class Settings:
    patch_size: int = 4
    rate: float = 0.01


def origin(**changes):
    given = {"scale": "small", "dataset": "cifar10", "settings": Settings(), "seeds": 0, "n_images": 10000}
    return records.provenance(**{**given, "seconds": 1.5, **changes})


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return records.table_path("small", "trials")


def test_rows_come_back_as_they_were(table):
    rows = [{"measure": "accuracy", "value": value, "key": "wrong"} for value in (0.1, 1 / 3, np.float64(2) ** -40)]
    records.write(table, rows, origin(seeds=[1, 2]))
    back = records.read("small", "trials")
    assert back["value"].tolist() == [row["value"] for row in rows]
    assert set(back["key"]) == {"wrong"} and set(back["seeds"]) == {"1 2"} and set(back["n_images"]) == {10000}
    assert set(back["settings"]) == {'{"patch_size": 4, "rate": 0.01}'}
    assert list(back) == ["measure", "value", "key", *records.ORIGIN]


@settings(max_examples=50)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_to_the_bit(tmp_path_factory, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", tmp_path_factory.mktemp("floats"))
        records.write(records.table_path("small", "t"), [{"measure": "m", "value": value}], X)
        back = records.read("small", "t")["value"][0]
    assert np.float64(back).tobytes() == np.float64(value).tobytes()


def test_a_commit_of_digits_stays_text(table):
    records.write(table, [{"measure": "m", "value": 1}], {**origin(), "commit": "0123456789", "seeds": "007"})
    assert records.read("small", "trials").loc[0, ["commit", "seeds"]].tolist() == ["0123456789", "007"]


def test_columns_come_back_with_their_kinds(table):
    rows = [{"measure": "m", "value": 1.0, "n": 3, "right": True, "what": "a"}, {"measure": "m", "value": 2.5}]
    records.write(table, rows, X)
    back = records.read("small", "trials")
    assert back["value"].tolist() == [1.0, 2.5] and back["n"][0] == 3 and np.isnan(back["n"][1])
    assert back["right"][0] is True and back["what"][0] == "a" and back[["right", "what"]].isna().all(axis=1)[1]


def test_appending_keeps_what_is_there_and_makes_room_for_a_new_column(table):
    records.append(table, [{"measure": "accuracy", "value": 0.1}], origin())
    first = table.read_text().splitlines()
    records.append(table, pd.DataFrame([{"measure": "accuracy", "value": 0.9, "n_wrong": 3}]), origin())
    lines = table.read_text().splitlines()
    assert len(lines) == 3 and lines[0].split(",")[:3] == ["measure", "value", "n_wrong"]
    assert lines[1] == first[1].replace("accuracy,0.1,", "accuracy,0.1,,")
    assert np.isnan(records.read("small", "trials")["n_wrong"][0])


def test_two_processes_append_to_one_table(tmp_path):
    path = tmp_path / "t.csv"
    code = """if True:
        import sys
        from cmxlib.study import records
        for number in range(25):
            row = {"measure": sys.argv[2], "value": number}
            records.append(sys.argv[1], [row], dict.fromkeys(records.ORIGIN, "x"))"""
    processes = [subprocess.Popen([sys.executable, "-c", code, path, name], cwd=ROOT) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    rows = pd.read_csv(path)
    assert rows.groupby("measure")["value"].apply(list).to_dict() == {"a": list(range(25)), "b": list(range(25))}


@pytest.mark.parametrize("lacking", ["measure", "value", "dataset", "commit"])
def test_a_row_that_lacks_a_column_is_refused_and_nothing_is_written(table, lacking):
    row = {"measure": "accuracy", "value": 0.1, **origin()}
    with pytest.raises(ValueError, match=rf"^a result row lacks {lacking}: complete it with"):
        records.append(table, [row, {**row, lacking: None}])
    assert not table.exists()


def test_one_mapping_is_not_a_list_of_rows(table):
    with pytest.raises(ValueError, match="a list of mappings or a DataFrame"):
        records.append(table, {"measure": "accuracy", "value": 0.1, **origin()})


def test_a_failed_write_leaves_the_old_table(table, monkeypatch):
    records.write(table, [{"measure": "accuracy", "value": 0.1}], origin())
    old = table.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.write(table, [{"measure": "accuracy", "value": 0.2}], origin())
    assert table.read_bytes() == old
    assert [path.name for path in table.parent.iterdir() if not path.name.endswith(".lock")] == [table.name]


def test_work_that_is_there_need_not_be_done_again(table):
    key = {"measure": "accuracy", "seeds": (1, 2), "settings": Settings()}
    assert not records.done(table, key)
    records.append(table, [{"measure": "accuracy", "value": 0.1}], origin(seeds=(1, 2)))
    assert records.done(table, key)
    assert not records.done(table, {**key, "settings": Settings(patch_size=2)})
    with pytest.raises(ValueError, match="no column 'seed' to look for"):
        records.done(table, {"seed": 1})


def test_where_results_and_figures_go(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert records.results_dir("quick") == tmp_path / "build/quick/results"
    assert records.figures_dir("quick") == tmp_path / "build/quick/figures"
    assert records.results_dir("small") == tmp_path / "results/small"
    assert records.figures_dir("paper") == tmp_path / "figures/paper"
    with pytest.raises(ValueError, match="no scale 'large': use one of quick, small, paper"):
        records.results_dir("large")
    with pytest.raises(FileNotFoundError, match="no rows of 'trials' at scale 'paper' are recorded: run make paper"):
        records.read("paper", "trials")


def test_provenance_names_the_code_the_machine_and_the_work():
    row = origin()
    assert set(row) == set(records.ORIGIN)
    assert row["device"].endswith(" cores") and row["torch"].startswith("2.") and row["seconds"] == 1.5
    assert len(row["commit"].removesuffix("+changes")) in (7, 12)
    with pytest.raises(ValueError, match="no scale 'huge'"):
        origin(scale="huge")


def test_a_commit_says_when_code_differs_from_it_but_not_when_results_do(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/t.csv"):
        (tmp_path / name).write_text("1")
    records.commit.cache_clear()
    assert records.commit() == "unknown"
    for command in (("init",), ("add", "."), ("commit", "-m", "c")):
        records._run(*git, *command)
    states = []
    for name in ("results/t.csv", "code.py"):
        (tmp_path / name).write_text("2")
        records.commit.cache_clear()
        states.append(records.commit())
    records.commit.cache_clear()
    assert len(states[0]) == 12 and states[1] == states[0] + "+changes"
