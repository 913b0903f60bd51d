"""Result rows: complete, exact, replaced as a whole, and safe to add to from several processes."""

import os
import subprocess
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxlib import paths
from cmxlib.study import records

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


@pytest.mark.parametrize("lacking", ["measure", "value", "dataset", "commit"])
def test_a_row_that_lacks_a_column_is_refused_and_nothing_is_written(table, lacking):
    row = {"measure": "accuracy", "value": 0.1, **origin()}
    with pytest.raises(ValueError, match=rf"^A result row lacks {lacking}: complete it with"):
        records.write(table, [row, {**row, lacking: None}])
    assert not table.exists()


def test_a_failed_write_leaves_the_old_table(table, monkeypatch):
    records.write(table, [{"measure": "accuracy", "value": 0.1}], origin())
    old = table.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.write(table, [{"measure": "accuracy", "value": 0.2}], origin())
    assert table.read_bytes() == old
    assert [path.name for path in table.parent.iterdir() if not path.name.endswith(".lock")] == [table.name]


def test_where_results_and_figures_go(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert records.results_dir("quick") == tmp_path / "build/quick/results"
    assert records.figures_dir("quick") == tmp_path / "build/quick/figures"
    assert records.results_dir("small") == tmp_path / "results/small"
    assert records.figures_dir("paper") == tmp_path / "figures/paper"
    assert records.results_dir("my-own") == tmp_path / "results/my-own"
    with pytest.raises(ValueError, match=r"no scale '\.\./x': use one of quick, small, paper"):
        records.results_dir("../x")
    with pytest.raises(FileNotFoundError, match="No rows of 'trials' at scale 'paper' are recorded: run cmx study"):
        records.read("paper", "trials")


def test_provenance_names_the_code_the_machine_and_the_work():
    row = origin()
    assert set(row) == set(records.ORIGIN)
    assert row["device"].endswith(" cores") and row["torch"].startswith("2.") and row["seconds"] == 1.5
    assert len(row["commit"].removesuffix("+changes")) in (7, 12)
    with pytest.raises(ValueError, match="no scale 'a/b'"):
        origin(scale="a/b")


def test_a_commit_says_when_code_differs_from_it_but_not_when_results_do(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/t.csv"):
        (tmp_path / name).write_text("1")
    records.commit.cache_clear()
    assert records.commit() == "unknown"
    for command in (("init",), ("add", "."), ("commit", "-m", "c")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True, capture_output=True)
    states = []
    for name in ("results/t.csv", "code.py"):
        (tmp_path / name).write_text("2")
        records.commit.cache_clear()
        states.append(records.commit())
    records.commit.cache_clear()
    assert len(states[0]) == 12 and states[1] == states[0] + "+changes"


def test_parts_move_in_and_the_rows_that_are_there_stay_to_the_letter(table):
    records.write(table, [{"measure": "accuracy", "value": 0.1}], origin())
    first = table.read_text().splitlines()
    part = table.with_name("part.csv")
    records.write(part, [{"measure": "accuracy", "value": 0.9, "n_wrong": 3}], origin())
    records.move_into(table, [part])
    lines = table.read_text().splitlines()
    assert len(lines) == 3 and lines[0].split(",")[:3] == ["measure", "value", "n_wrong"] and not part.exists()
    assert lines[1] == first[1].replace("accuracy,0.1,", "accuracy,0.1,,")
    assert np.isnan(records.read("small", "trials")["n_wrong"][0])


def test_a_part_that_was_moved_in_before_its_deletion_is_not_moved_in_twice(table):
    part, row = table.with_name("part.csv"), {"measure": "accuracy", "value": 0.9, "n_wrong": 3}
    records.write(table, [{"measure": "accuracy", "value": 0.1}], X)
    records.write(part, [row], X)
    kept = part.read_bytes()
    records.move_into(table, [part])
    part.write_bytes(kept)  # as a process leaves it that is killed between writing the table and deleting the part
    records.move_into(table, [part])
    assert records.read("small", "trials")["value"].tolist() == [0.1, 0.9] and not part.exists()


def test_work_that_is_there_need_not_be_done_again(table):
    unit = {"measure": "accuracy", "seeds": (1, 2), "settings": Settings()}
    assert unit not in records.Recorded(table)
    records.write(table, [{"measure": "accuracy", "value": 0.1}], origin(seeds=(1, 2)))
    recorded = records.Recorded(table)
    assert unit in recorded and {**unit, "settings": Settings(patch_size=2)} not in recorded
    assert {"a column of another day": 1} not in recorded


ROW = ",".join(["accuracy", "0.5", *["x"] * len(records.ORIGIN)])
HEAD = ",".join(records.REQUIRED)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"\ufeff{HEAD}\n{ROW}\n", "first line"),
        (f"{HEAD}\n<<<<<<< ours\n{ROW}\n=======\n{ROW}\n>>>>>>> theirs\n", "row 2"),
        (f"{HEAD}\n{ROW}\n".replace(",", ";"), "first line"),
        (f"{HEAD}\n{ROW},more\n", "row 2"),
        (f"{HEAD}\n{ROW}\naccuracy,0.5\n", "row 3"),
        (f"{HEAD}\n{ROW}", "last line"),
        (f"{HEAD}\n{ROW.replace('0.5', 'half')}\n", "row 2"),
        ("", "first line"),
        (f'{HEAD}\n"{ROW}\n' + f"{ROW}\n" * 9999, "field larger"),
        (f"{HEAD}\n{ROW}\n{'x' * 200_000}\n", "field larger"),
        (HEAD.replace("commit", "date") + "\n", "first line"),
        (f"{HEAD}\n{ROW}\n{ROW.replace('0.5', '0.6')}\n{ROW}\n", "row 4 is the same as one before it"),
    ],
)
def test_a_table_that_is_not_whole_is_refused_and_not_written_back(table, text, what):
    table.parent.mkdir(parents=True)
    table.write_text(text, encoding="utf-8")
    part = table.with_name("part.csv")
    records.write(part, [{"measure": "accuracy", "value": 0.9}], X)
    for ask in (lambda: records.read("small", "trials"), lambda: records.move_into(table, [part])):
        with pytest.raises(ValueError, match=rf"trials\.csv is not a whole table of results.*{what}"):
            ask()
    assert table.read_text(encoding="utf-8") == text and part.exists()


def test_rows_that_could_not_be_told_apart_are_not_written(table):
    row = {"measure": "accuracy", "value": 0.9}
    with pytest.raises(ValueError, match="Row 2 is the same as one before it"):
        records.write(table, [row, row], X)
    assert not table.exists()


def test_a_table_that_is_a_symbolic_link_stays_one(table, tmp_path):
    table.parent.mkdir(parents=True)
    (tmp_path / "elsewhere.csv").touch()
    table.symlink_to(tmp_path / "elsewhere.csv")
    records.write(table, [{"measure": "accuracy", "value": 0.1}], X)
    assert table.is_symlink() and "accuracy,0.1" in (tmp_path / "elsewhere.csv").read_text()
