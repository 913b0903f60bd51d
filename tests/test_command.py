"""The command line: what it takes, and that it answers in a sentence."""

import argparse
import os
import subprocess
import sys

import pytest

import cmxlib
from cmxlib import __main__ as command
from cmxlib.study import tables
from cmxlib.study.table import Progress

FILES = ("key", "encrypt-images", "decrypt-images", "encrypt-model", "decrypt-model", "verify")


def cmx(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "cmxlib", *arguments], capture_output=True, text=True, **options)


def test_help_comes_at_once_and_names_each_command():
    before, done, after = os.times(), cmx("--help"), os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.5  # seconds of a processor, so that a busy machine is no failure
    commands = *FILES, "book", "study", "save", "readme", "counts"
    assert [name for name in commands if f"\n    {name}" not in done.stdout] == []


def test_the_version():
    assert cmx("--version").stdout == f"cmx {cmxlib.__version__}\n"


@pytest.mark.parametrize(
    ("text", "found"), [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0,2", (0, 2)), ("5-6, 2,5", (2, 5, 6))]
)
def test_numbers(text, found):
    assert command.numbers(text) == found


@pytest.mark.parametrize("text", ["", "a", "-1", "4-2", "1.5", "0,,1", "0-"])
def test_what_names_no_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no list of numbers such as 0-4 or 0,2"):
        command.numbers(text)


@pytest.mark.parametrize("text", ["0", "-3", "many", "1.5"])
def test_what_counts_nothing(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from 1 to 999,999,999"):
        command.count(text)


@pytest.mark.parametrize("name", ["book", "study"])
def test_an_unknown_scale_gets_a_sentence_that_lists_the_scales(name, capsys):
    assert command.main([name, "--scale", "huge"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("cmx: ") and said.count("\n") == 1
    assert [word for word in ("huge", "quick", "small", "paper") if word not in said] == []


def test_study_is_told_what_was_asked(monkeypatch):
    told = []
    monkeypatch.setattr(tables, "study", lambda *args, **options: told.append((args, options)))
    monkeypatch.setattr("cmxlib.book.figures.draw_recorded", told.append)
    assert command.main(["study", "--only", "keys", "--seeds", "0-1", "--keys", "500"]) == 0
    assert command.main(["study", "--scale", "quick"]) == 0
    given = (("small", "keys"), {"seeds": (0, 1), "n_keys": 500})
    assert told == [given, "small", (("quick", ""), {"seeds": (), "n_keys": 0}), "quick"]


def test_the_status_measures_nothing(monkeypatch, capsys):
    monkeypatch.setattr(tables, "study", pytest.fail)
    monkeypatch.setattr("cmxlib.study.command.progress", lambda table, scale: Progress(table.name, 4, 3, 1, 7.6))
    assert command.main(["study", "--status", "--only", "keys"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == "keys 3 of 4 recorded, 1 failed, about 8 s left for one process"


@pytest.mark.parametrize("stopped", ["", "Training stopped after 3 of 8 epochs; it goes on."])
def test_ctrl_c_gets_a_sentence(monkeypatch, capsys, stopped):
    def stop(*args, **options):
        raise KeyboardInterrupt(*[stopped] * bool(stopped))

    monkeypatch.setattr(tables, "study", stop)
    assert command.main(["study"]) == 130
    said = capsys.readouterr().err
    assert said == f"cmx: {stopped or 'Interrupted; the same command can be given again.'}\n"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)  # as where it is not installed
    monkeypatch.setattr(
        "cmxlib.book.chapters.count_table", lambda: (_ for _ in ()).throw(ModuleNotFoundError(name="papermill"))
    )
    assert command.main(["counts"]) == 1
    said = capsys.readouterr().err
    assert said == 'cmx: This needs papermill, which is not installed: pip install "cmxlib[book]".\n'


def test_public_names_are_imported_on_first_use_and_are_what_type_checkers_are_told():
    assert {name: getattr(cmxlib, name).__name__ for name in cmxlib.__all__} == {name: name for name in cmxlib.__all__}
    told = open(cmxlib.__file__).read().split("if TYPE_CHECKING")[1].split("__version__")[0]
    assert all(f"from .{home} import {name} as {name}\n" in told for name, home in cmxlib._HOME.items())
    code = "import sys, cmxlib; print('torch' in sys.modules); cmxlib.SecretKey; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cmxlib.nothing
