"""The runner: every unit is measured once, whatever stops it, and every recorded unit counts as done."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmxlib import paths
from cmxlib.study import records, scales
from cmxlib.study.records import Recorded
from cmxlib.study.table import Table, collect, measured, missing, progress, record
from cmxlib.study.tables import TABLES, asked, changed, study


def toy_table(measure):
    def over(scale, unit):
        return {"dataset": "none", "settings": {}, "seeds": 0, "n_images": 1}

    return Table("toy", lambda scale: [{"a": a, "b": b} for a in (1, 2) for b in "xyz"], measure, over)


def one_row(scale, unit):
    yield {"measure": "m", "value": unit["a"]}


def rows_of(scale):
    rows = records.read(scale.name, "toy")
    return list(zip(rows.a, rows.b, strict=True))


EVERY = [(a, b) for a in (1, 2) for b in "xyz"]


def test_a_table_that_is_stopped_in_the_middle_goes_on_and_has_every_row_once(toy):
    measured = []

    def measure(scale, unit):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(unit)
        yield from one_row(scale, unit)

    with pytest.raises(KeyboardInterrupt):
        record(toy_table(measure), toy, lambda text: None)
    assert rows_of(toy) == EVERY[:3]
    before = records.table_path("toy", "toy").read_text().splitlines()
    record(toy_table(one_row), toy, lambda text: None)
    assert rows_of(toy) == EVERY
    assert records.table_path("toy", "toy").read_text().splitlines()[:4] == before
    record(toy_table(lambda scale, unit: pytest.fail("measured twice")), toy, lambda text: None)


def test_rows_stand_in_the_order_of_the_units_whatever_was_measured_first(toy):
    last = dataclasses.replace(toy_table(one_row), units=lambda scale: [{"a": 2, "b": "z"}])
    record(last, toy, lambda text: None)
    record(toy_table(one_row), toy, lambda text: None)
    assert rows_of(toy) == [(2, "z"), *EVERY[:-1]]  # the row that was there stays where it was


def test_a_unit_that_fails_keeps_what_was_measured_before_it(toy):
    def measure(scale, unit):
        yield {"measure": "m", "value": 1 / (2 - unit["a"])}

    with pytest.raises(ZeroDivisionError):
        record(toy_table(measure), toy, lambda text: None)
    assert rows_of(toy) == EVERY[:3] and len(missing(toy_table(measure), toy)) == 3
    found = progress(toy_table(measure), toy)
    assert (found.total, found.recorded, found.failed) == (6, 3, 1) and found.seconds_left is not None
    record(toy_table(one_row), toy, lambda text: None)
    assert progress(toy_table(one_row), toy).failed == 0


def test_seconds_left_are_those_of_the_units_that_are_recorded(toy):
    """A run whose rows are of several units names its seconds in each row; they count once."""
    rows = [{"measure": "m", "value": 1, "a": a, "b": b} for a, b in EVERY[:4]]
    origin = records.provenance(scale="toy", dataset="none", settings={}, seeds=0, n_images=1, seconds=12)
    records.write(records.table_path("toy", "toy"), rows, origin)
    assert progress(toy_table(one_row), toy).seconds_left == 12 / 4 * 2


def test_a_table_is_not_read_before_it_is_complete(toy):
    reader = dataclasses.replace(toy_table(one_row), name="reader", reads=(toy_table(one_row),))
    with pytest.raises(ValueError, match="table reader reads the rows of toy, of which 6 units are missing"):
        record(reader, toy)
    for unit in toy_table(one_row).units(toy):
        measured(toy_table(one_row), toy, unit)  # as a share of a sweep leaves them, in parts
    record(reader, toy, lambda text: None)
    assert rows_of(toy) == EVERY  # the parts became the table before it was read


def test_a_process_reads_a_table_again_only_when_another_wrote_it(toy, monkeypatch):
    table, loads = toy_table(one_row), []
    monkeypatch.setattr(records, "Recorded", lambda path: loads.append(path) or Recorded(path))
    record(table, toy, lambda text: None)
    assert len(loads) == 1  # not for each unit
    wider = dataclasses.replace(table, units=lambda scale: [{"a": 3, "b": b} for b in "xy"])
    assert len(missing(wider, toy)) == 2
    records.move_into(records.table_path("toy", "toy"), [part_of_another_process(toy)])
    assert missing(wider, toy) == [{"a": 3, "b": "y"}]


def part_of_another_process(toy):
    part = records.table_path("toy", "other")
    origin = records.provenance(scale="toy", dataset="none", settings={}, seeds=0, n_images=1, seconds=1)
    records.write(part, [{"measure": "m", "value": 1, "a": 3, "b": "x"}], origin)
    return part


def test_no_lock_of_a_unit_is_left_when_its_rows_are_in_the_table(toy):
    record(toy_table(one_row), toy, lambda text: None)
    assert list((records.results_dir("toy") / ".toy.parts").iterdir()) == []


def slowly(scale, unit):
    time.sleep(0.05)
    yield {"measure": "m", "value": 1}


def twelve():
    return dataclasses.replace(toy_table(slowly), units=lambda scale: [{"a": a} for a in range(12)])


PROCESS = """
import dataclasses, pathlib, sys
from cmxlib import paths
from cmxlib.study.scales import SCALES
from cmxlib.study.table import record
from tests.study.test_table import twelve
paths.ROOT = pathlib.Path(sys.argv[1])
record(twelve(), dataclasses.replace(SCALES["quick"], name="toy"))
"""


def test_two_processes_at_once_measure_each_unit_once(toy):
    """This one, and another that has begun."""
    command, said = [sys.executable, "-u", "-c", PROCESS, str(paths.ROOT)], []
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as other:
        said.append(other.stdout.readline())
        record(twelve(), toy, said.append)
        said.append(other.communicate()[0])
    assert other.returncode == 0
    assert sorted(records.read("toy", "toy").a) == list(range(12))
    assert "".join(said).count("toy: ") == 12  # what the one measured, the other did not


def test_a_part_of_a_unit_that_is_no_longer_asked_for_is_collected_too(toy):
    table = toy_table(one_row)
    record(table, toy, lambda text: None)
    wider = dataclasses.replace(table, units=lambda scale: [{"a": 3, "b": "x"}])
    monkey = dataclasses.replace(wider, measure=one_row)
    record(monkey, toy, lambda text: None)
    collect(table, toy)
    assert rows_of(toy) == [*EVERY, (3, "x")]


# -- the tables of the book --------------------------------------------------------------------------------------------


def test_every_table_is_measured_for_real_at_a_scale_of_ones_own(toy):
    """Attacks and benchmarks included; nothing stands in for anything. A second run finds every unit done."""
    said = []
    # Which have tests of their own: they train more networks, or make many.
    left_out = {"blocks", "benchmarks", "conventional", "architectures", "generality", "mean_keys", "limits"}
    for table in (table for table in TABLES if table.name not in left_out):
        record(table, toy, said.append)
        rows = records.read("toy", table.name)
        assert len(rows) and rows.value.notna().all() and set(rows.scale) == {"toy"}, table.name
        assert not missing(table, toy)
    kinds = set(records.read("toy", "stolen_model").method)
    assert len(kinds) == 12 and "embedding, then everything" in kinds
    before, n_said = {p.name: p.read_bytes() for p in records.results_dir("toy").glob("*.csv")}, len(said)
    for table in (table for table in TABLES if table.name not in left_out):
        record(table, toy, said.append)
    assert before == {p.name: p.read_bytes() for p in records.results_dir("toy").glob("*.csv")}
    assert len(said) == n_said


def test_more_keys_and_seeds_add_what_is_missing_and_no_more(toy, monkeypatch):
    monkeypatch.setitem(scales.SCALES, "toy", dataclasses.replace(toy, ciphers={"flip": toy.ciphers["flip"]}))
    said = []
    study("toy", "keys", say=lambda text: None)
    study("toy", "keys", n_keys=3, say=said.append)
    assert len(said) == 2  # one unit, and that the table is recorded
    study("toy", "keys", n_keys=3, seeds=(0, 1), say=said.append)
    rows = records.read("toy", "keys")
    wrong = rows[rows.case == "wrong key"].groupby("seeds").key_seed.apply(list).to_dict()
    assert wrong == {"0": [1, 2, 3], "1": [1, 2, 3]}
    (keys,) = asked(toy, "keys")
    found = progress(keys, changed(scales.named("toy"), (0, 1), 3))
    assert (found.table, found.total, found.recorded, found.failed, found.seconds_left) == ("keys", 8, 8, 0, 0)


COMPLETE = {
    "small": {table.name for table in TABLES} - {"benchmarks"},
    "paper": {"training", "keys", "anatomy", "cost", "architectures"},
}


@pytest.mark.parametrize("scale", COMPLETE)
def test_every_recorded_unit_counts_as_done(scale, monkeypatch):
    """The declarations name the rows that were recorded before there were declarations."""
    monkeypatch.setenv("CMX_DATA", "/nowhere")  # units are counted without the data
    for table in TABLES:
        path = records.table_path(scale, table.name)
        if path.exists():
            units, recorded = list(table.units(scales.SCALES[scale])), records.Recorded(path)
            assert any(unit in recorded for unit in units), table.name
            if table.name in COMPLETE[scale]:
                assert all(unit in recorded for unit in units), table.name


def test_a_scale_whose_attacks_would_meet_another_network_is_refused(toy):
    """Tables of attacks lock the scale's network with a cipher of patch_sizes[0]."""
    with pytest.raises(ValueError, match=r"begin with the model's patch_size, 4, but it is \(8, 4\): change either"):
        dataclasses.replace(toy, patch_sizes=(8, 4))
    assert dataclasses.replace(toy, patch_sizes=(4, 8)).at(8).patch_sizes == (8, 4)


def test_an_unknown_table_or_scale_is_named():
    with pytest.raises(ValueError, match=r"no table 'kyes': choose one of training, keys, .*conventional"):
        study("small", "kyes")
    with pytest.raises(ValueError, match="no scale 'smal': SCALE is one of quick, small, paper"):
        study("smal")
    with pytest.raises(ValueError, match="no scale 'smal': SCALE is one of quick, small, paper"):
        scales.SCALES["smal"]  # as the first cell of a chapter asks
