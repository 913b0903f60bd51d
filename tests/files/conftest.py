"""What the tests of files share: a key on disk, and `cmx` as a function that gives the status and what was said."""

import json

import pytest

from cmxlib import SecretKey
from cmxlib import __main__ as command


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A key, saved as my.key in the folder in which the test runs."""
    monkeypatch.chdir(tmp_path)
    key = SecretKey.for_experiment(1)
    key.save("my.key")
    return key


@pytest.fixture
def cmx(capsys):
    """cmx("key", "show", file) -> (status, standard output, standard error); one sentence where the status is 1."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as stopped:  # argparse, which says how the command is used and what was wrong
            status = stopped.code
        out, err = capsys.readouterr()
        if status == 1 and not out:
            assert err.startswith("cmx: ") and err.count("\n") == 1 and len(err) > 20, err
        assert "Traceback" not in err
        return status, json.loads(out) if "--json" in arguments and out else out, err

    return run
