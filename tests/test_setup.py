"""Setting up: the files that say what to install agree, and a setup is completed rather than trusted."""

import ast
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from uv import find_uv_bin

import cmxlib
from cmxlib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
DECLARED = [requirement for requirement in DECLARED if requirement.name != "cmxlib"]  # an extra that names another
PINS = (ROOT / "requirements.txt").read_text().splitlines()
TESTED = ["3.11", "3.12", "3.13"]


def pinned():
    """Each pinned package with the versions it is pinned to, on one platform or another."""
    versions = {}
    for pin in map(Requirement, PINS):
        (only,) = pin.specifier
        assert only.operator == "=="
        versions.setdefault(canonicalize_name(pin.name), []).append(only.version)
    return versions


def test_requirements_hold_pins_and_nothing_else():
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.+]+( ; .+)?", pin) for pin in PINS)
    assert not [pin for pin in PINS if "/" in pin or "@" in pin]


def test_every_pin_has_its_hashes():
    """One for each of its files, of any system; pip in environment.yml is given the pins alone: with hashes it refuses
    what is no file, as -e."""
    text = (ROOT / "requirements.hashes.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry.splitlines()[0].removesuffix(" \\") for entry in entries] == PINS
    for entry in entries:
        assert re.fullmatch(r"[^\n]+ \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+", entry), entry


def test_a_file_whose_hash_is_another_is_not_installed(tmp_path):
    """`make setup` gives uv the hashes as constraints: so given, they are asked for."""
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("small-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1\n")
        wheel.writestr("small-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("small-1.dist-info/RECORD", "")
    found = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    options = ["--no-index", "--no-cache", "--find-links", tmp_path, "--target", tmp_path / "to"]
    for digest, status in ((found[::-1], 1), (found, 0)):
        (tmp_path / "hashes.txt").write_text(f"small==1 --hash=sha256:{digest}\n")
        command = [find_uv_bin(), "pip", "install", *options, "--constraint", tmp_path / "hashes.txt", "small"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == status and ("Hash mismatch" in done.stderr) == bool(status), done.stderr


def test_every_declared_range_contains_the_version_that_was_tested():
    pins = pinned()
    for requirement in DECLARED:
        assert canonicalize_name(requirement.name) in pins, f"run make pins: {requirement.name} has no pin"
        for version in pins[canonicalize_name(requirement.name)]:
            assert version in requirement.specifier


def test_everything_installed_for_the_book_is_pinned():
    reached, todo = set(), list(map(str, DECLARED))
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if name not in reached and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
            reached.add(name)
            todo += importlib.metadata.requires(name) or []
    assert reached - set(pinned()) == set(), "run make pins"


def test_the_core_asks_for_three_packages():
    assert sorted(Requirement(line).name for line in PROJECT["dependencies"]) == ["cryptography", "numpy", "torch"]
    assert list(EXTRAS) == ["files", "onnx", "serve", "book", "test", "sweep", "site", "browser"]
    (installed,) = re.findall(r"-e '\.\[(.*)\]'", (ROOT / "Makefile").read_text())
    assert sorted(installed.split(",")) == sorted(EXTRAS)


def test_ranges_reach_back_to_torch_2_6():
    (torch,) = [requirement for requirement in DECLARED if requirement.name == "torch"]
    assert "2.6.0" in torch.specifier and "3.0" in torch.specifier and "2.5.1" not in torch.specifier


def test_conda_users_get_the_same_packages():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda[-1] == {"pip": ["-r requirements.txt", "-e .[book,files,onnx,serve,test,sweep,site,browser]"]}
    (python,) = [entry for entry in conda[:-1] if entry.startswith("python")]
    range_ = SpecifierSet(python.removeprefix("python"))
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in range_] == TESTED


def test_python_versions_agree():
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert workflow["jobs"]["linux"]["strategy"]["matrix"]["python"] == TESTED
    assert named == TESTED == sorted(set(re.findall(r"(?<![\d.])3\.1\d\b", readme)))
    assert PROJECT["requires-python"] == f">={TESTED[0]}"
    assert ".".join(map(str, sys.version_info[:2])) >= TESTED[0]


def test_what_is_imported_is_declared():
    files = [path for folder in ("cmxlib", "tests", "examples", "site") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    top = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"cmxlib", "tests"}
    top -= {"tenseal"}  # of one example, which says how to install it
    homes = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED}
    assert {name for name in top if not declared & set(map(canonicalize_name, homes.get(name, [])))} == set()


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cmxlib.__version__


def test_commits_are_asked_for_what_make_test_asks():
    """Before a commit run the checks that take seconds; each is there, and make test runs it too."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].removeprefix(".venv/bin/").split()[:2] for hook in local["hooks"]]
    assert entries == [["ruff", "check"], ["ruff", "format"], ["mypy"], ["pytest", "-q"], ["cmx", "readme"]]
    make_test = (ROOT / "Makefile").read_text().split("\ntest: setup")[1].split("\n\n")[0]
    assert [words for words in entries[:3] if " ".join(words) not in make_test] == []


# -- make --------------------------------------------------------------------------------------------------------


def make(*arguments, **options):
    options.setdefault("cwd", ROOT)
    options.setdefault("env", {name: value for name, value in os.environ.items() if not name.startswith("MAKE")})
    return subprocess.run(["make", *arguments], capture_output=True, text=True, **options)


def test_make_alone_prints_every_target():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    printed = make().stdout.splitlines()
    assert [line.split()[0] for line in printed] == targets
    assert all(len(line.split()) > 3 and len(line) < 110 for line in printed)


def test_make_says_in_a_sentence_that_python_is_missing_or_old(tmp_path):
    for tool in ("sh", "make", "echo", "test"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.hashes.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    done = make("setup", cwd=tmp_path, env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stdout == "No Python 3.11 or newer was found: install one, or name it with make PYTHON=/its/path.\n"
    old.write_text("#!/bin/sh\necho PYTHON=$0 is too old >&2; exit 1\n")
    done = make("setup", f"PYTHON={old}", cwd=tmp_path)
    assert done.returncode == 2 and "is too old" in done.stderr


def test_make_finds_a_newer_python_beside_an_old_one(checkout):
    (checkout / "python3").write_text("#!/bin/sh\nexit 1\n")
    for name in ("python3", "python3.12"):
        (checkout / name).chmod(0o755)
    done = make("setup", cwd=checkout, env={"PATH": f"{checkout}{os.pathsep}{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    assert log(checkout)[0] == "python3.12 -m venv --clear .venv"


PYTHON = """#!/bin/sh
echo "$(basename $0) $@" >> log
case "$*" in
    "-m venv --clear .venv")
        rm -rf .venv; mkdir -p .venv/bin
        for name in python uv; do cp python3.12 .venv/bin/$name; done;;
    *requirements.hashes.txt*) test ! -e fail;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a Python that notes what it is told, and whose installer fails where a file `fail` is."""
    for name in ("Makefile", "requirements.hashes.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1e9, 1e9))
    for name in ("python3", "python3.12"):
        (tmp_path / name).write_text(PYTHON)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def log(checkout):
    """What Python was told since the last call, without questions after its version."""
    told = (checkout / "log").read_text().splitlines() if (checkout / "log").exists() else []
    (checkout / "log").unlink(missing_ok=True)
    return [line for line in told if " -c " not in line]


def test_a_complete_setup_is_left_alone_and_an_old_one_is_completed(checkout):
    def setup():
        done = make("setup", "PYTHON=./python3", cwd=checkout)
        return done.returncode, [line.split(" ")[:4] for line in log(checkout)]

    venv, uv = ["python3", "-m", "venv", "--clear"], ["python", "-m", "pip", "install"]
    install = ["uv", "pip", "install", "--compile-bytecode"]
    assert setup() == (0, [venv, uv, install])
    assert setup() == (0, [])
    for name in ("requirements.hashes.txt", "pyproject.toml"):
        os.utime(checkout / name)
        os.utime(checkout / ".venv" / "ready", (1e9, 1e9))
        assert setup() == (0, [uv, install])
        os.utime(checkout / name, (1e9 - 1, 1e9 - 1))
    (checkout / ".venv" / "bin" / "python").unlink()  # as an update of the system's Python does
    assert setup() == (0, [venv, uv, install])


def test_a_setup_that_stopped_midway_is_made_anew(checkout):
    for before in ("nothing", "a complete setup"):
        if before == "a complete setup":
            assert make("setup", "PYTHON=./python3", cwd=checkout).returncode == 0
            (checkout / "requirements.hashes.txt").touch()
            os.utime(checkout / ".venv" / "ready", (1e9, 1e9))
        (checkout / "fail").touch()
        assert make("setup", "PYTHON=./python3", cwd=checkout).returncode == 2
        assert not (checkout / ".venv" / "ready").exists()
        (checkout / "fail").unlink()
        log(checkout)
        assert make("setup", "PYTHON=./python3", cwd=checkout).returncode == 0
        assert log(checkout)[0] == "python3 -m venv --clear .venv"
        assert (checkout / ".venv" / "ready").exists()


def test_a_release_is_refused_while_rows_are_of_no_commit_or_the_citation_is_unfinished(tmp_path):
    table, citation = tmp_path / "results" / "small" / "keys.csv", tmp_path / "CITATION.cff"
    table.parent.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    citation.write_text("version: 1\ndate-released: 2030-01-01\nrepository-code: x\n")
    table.write_text("commit\nabc\nabc+changes\n")
    done = make("release", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (2, "results/small/keys.csv")
    table.write_text("commit\nabc\n")
    assert make("release", cwd=tmp_path).returncode == 0
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    assert "lacks date-released" in make("release", cwd=tmp_path).stdout
