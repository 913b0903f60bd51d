"""Setting up: the files that say what to install agree, and a setup is completed rather than trusted."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cmxlib import environment
from cmxlib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
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


def test_ranges_reach_back_to_torch_2_6():
    (torch,) = [requirement for requirement in DECLARED if requirement.name == "torch"]
    assert "2.6.0" in torch.specifier and "3.0" in torch.specifier and "2.5.1" not in torch.specifier


def test_conda_users_get_the_same_packages():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda[-1] == {"pip": ["-r requirements.txt", "-e .[test]"]}
    (python,) = [entry for entry in conda[:-1] if entry.startswith("python")]
    range_ = SpecifierSet(python.removeprefix("python"))
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in range_] == TESTED


def test_python_versions_agree():
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert named == TESTED == sorted(set(re.findall(r"(?<![\d.])3\.1\d\b", readme)))
    assert PROJECT["requires-python"] == f">={TESTED[0]}"
    assert ".".join(map(str, sys.version_info[:2])) >= TESTED[0]


def test_what_is_imported_is_declared():
    files = [path for folder in ("cmxlib", "tests", "benchmarks", "site") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    top = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"cmxlib", "tests", "benchmarks"}
    homes = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED}
    assert {name for name in top if not declared & set(map(canonicalize_name, homes.get(name, [])))} == set()


# -- completing a setup ------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    """A folder of packages with two in it, as an installer leaves them."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("1 + 1\n")
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: x\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,sha256=x,6\n{info.name}/METADATA,,8\n{info.name}/RECORD,,\n")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("two/__init__.py", None),
        ("two/__init__.py", "1 +"),
        ("two-1.0.dist-info/RECORD", None),
        ("two-1.0.dist-info/METADATA", None),
    ],
)
def test_a_package_that_is_not_whole_is_found(site, path, content):
    assert environment.damaged(site) == []
    if content is None:
        (site / path).unlink()
    else:
        (site / path).write_text(content)
    assert environment.damaged(site) == [site / "two-1.0.dist-info"]


@pytest.fixture
def checkout(site, tmp_path_factory, monkeypatch):
    """A checkout with a complete .venv, where commands are noted instead of run."""
    root = tmp_path_factory.mktemp("checkout")
    for name in environment.SOURCES:
        (root / name).write_text(name)
    packages = root / ".venv" / "lib" / "python3.11" / "site-packages"
    shutil.copytree(site, packages)
    (root / ".venv" / "ready").write_text(environment.fingerprint(root, "3.11.7"))
    commands = []

    def run(command, **options):
        commands.append(" ".join(map(str, command)))
        if "-r" in command and not (packages / "two-1.0.dist-info").exists():
            shutil.copytree(site, packages, dirs_exist_ok=True)

    monkeypatch.setattr(environment, "interpreter", lambda venv: "3.11.7")
    monkeypatch.setattr(environment.subprocess, "run", run)
    return root, packages, commands


def test_a_complete_setup_is_left_alone(checkout):
    root, _, commands = checkout
    assert environment.set_up(root, say=pytest.fail) is False
    assert commands == []


@pytest.mark.parametrize("what", ["requirements.txt", "pyproject.toml", "ready", "package", "interpreter"])
def test_a_setup_that_is_old_or_unfinished_is_completed(checkout, monkeypatch, what):
    root, packages, commands = checkout
    if what == "package":
        shutil.rmtree(packages / "two")
    elif what == "ready":
        (root / ".venv" / "ready").unlink()
    elif what == "interpreter":
        answers = iter([None, "3.11.7", "3.11.7"])
        monkeypatch.setattr(environment, "interpreter", lambda venv: next(answers))
        (root / ".venv" / "ready").unlink()  # as making .venv anew does
    else:
        (root / what).write_text("new")
    assert environment.set_up(root, say=lambda text: None) is True
    assert [" -m venv --clear " in command for command in commands[:-3]] == [True] * (what == "interpreter")
    assert "requirements.txt" in commands[-2] and "--no-deps -e" in commands[-1]
    assert environment.damaged(packages) == []
    assert environment.set_up(root, say=pytest.fail) is False


def test_a_setup_that_stops_midway_is_not_trusted_later(checkout, monkeypatch):
    root, _, _ = checkout
    (root / "requirements.txt").write_text("new")

    def stop(command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(environment.subprocess, "run", stop)
    with pytest.raises(subprocess.CalledProcessError):
        environment.set_up(root, say=lambda text: None)
    assert not (root / ".venv" / "ready").exists()


def test_the_interpreter_of_an_environment():
    assert environment.interpreter(ROOT / ".venv") in (None, sys.version.split()[0])
    assert environment.interpreter(ROOT / "no such folder") is None


# -- make --------------------------------------------------------------------------------------------------------


def make(*arguments, **options):
    options.setdefault("env", {name: value for name, value in os.environ.items() if not name.startswith("MAKE")})
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, **options)


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
    done = make("setup", env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stdout == "No Python 3.11 or newer was found: install one, or name it with make PYTHON=/its/path.\n"
    old.write_text("#!/bin/sh\necho PYTHON=$0 is too old >&2; exit 1\n")
    done = make("setup", f"PYTHON={old}")
    assert done.returncode == 2 and "is too old" in done.stderr


def test_make_finds_a_newer_python_beside_an_old_one(tmp_path):
    for name, status in (("python3", 1), ("python3.12", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    done = make("-n", "setup", env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert "python3.13 -m cmxlib.environment" in done.stdout or "python3.12 -m cmxlib.environment" in done.stdout
