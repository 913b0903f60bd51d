"""The wheel, in an environment with nothing but what it asks for: the core works, the rest says what it needs."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cmxlib.paths import ROOT

UV = Path(sys.executable).with_name("uv")

CORE = """
import torch, cmxlib
from cmxlib import ConvMixer, PatchCipher, SecretKey, accuracy, decrypt_model, encrypt_model, logits

key = SecretKey.generate()
key.save("secret.key")
cipher = PatchCipher(SecretKey.load("secret.key"), patch_size=4)
images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
norm = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.2)}
model = ConvMixer(dim=32, depth=2, kernel_size=5, patch_size=4).double().eval()
locked = encrypt_model(model, cipher, **norm)
encrypted = cipher.encrypt(images)
assert cipher.decrypt(encrypted).equal(images) and not encrypted.equal(images)
plain, found = logits(model, images, **norm), logits(locked, encrypted, **norm)
assert torch.allclose(plain, found, rtol=0, atol=1e-9)
assert not torch.allclose(plain, logits(locked, images, **norm), rtol=0, atol=1e-3)
assert torch.allclose(plain, logits(decrypt_model(locked, cipher, **norm), images, **norm), rtol=0, atol=1e-9)
assert accuracy(locked, encrypted, plain.argmax(1), **norm) == 1
print("exact")

from cmxlib.learn.data import Dataset, channel_statistics
from cmxlib.learn.evaluate import right_key_rows, wrong_key_accuracy
from cmxlib.learn.train import TrainSettings

data = Dataset("own", images, labels := torch.arange(64) % 2, images, labels, ("a", "b"), *channel_statistics(images))
assert len(right_key_rows(model, data, {"patch_size": 2})) == 4
assert 0 <= wrong_key_accuracy(model, data, {"patch_size": 2}, 1) <= 1
for call in (  # each asks for a package that an extra brings
    lambda: cmxlib.fit(model, data, TrainSettings(1, 4)),
    lambda: cmxlib.key_trials(model, data, {"patch_size": 2}),
    lambda: cmxlib.load_dataset("fontdigits"),
    lambda: cmxlib.load_dataset("cifar10"),
    lambda: cmxlib.trained_model("quick", progress=False),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def closure(names):
    """The distributions that those of these names ask for, and they themselves."""
    found, todo = {}, list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            wanted = map(Requirement, found[name].requires or [])
            todo += [one.name for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment of the wheel's requirements, linked from this one, with the wheel: (wheel, folder)."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, since what an earlier build left would come along
    shutil.copytree(ROOT / "cmxlib", source / "cmxlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = next((folder / "env" / "lib").glob("python3*/site-packages"))
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        lines = file.read(metadata).decode().splitlines()
    wanted = [Requirement(line.removeprefix("Requires-Dist: ")) for line in lines if line.startswith("Requires-Dist")]
    for distribution in closure(one.name for one in wanted if not one.marker).values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / top).exists():  # a name that several share, such as nvidia, is one folder
                (site / top).symlink_to(distribution.locate_file(top))
    install = [UV, "pip", "install", "--no-deps", "--no-index", "--python", python, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return wheel, folder


def run(installed, *command):
    _, folder = installed
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"CMX_CACHE": str(folder / "cache"), "CMX_DATA": ""}
    program, *arguments = command
    command = [folder / "env" / "bin" / program, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_wheel_holds_the_library_its_hints_and_nothing_else(installed):
    names = zipfile.ZipFile(installed[0]).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "cmxlib").rglob("*.py")}
    assert modules | {"cmxlib/py.typed"} == {name for name in names if ".dist-info/" not in name}


def test_the_core_is_exact_with_its_three_packages(installed):
    done = run(installed, "python", "-c", CORE)
    exact, *said = done.stdout.splitlines()
    assert exact == "exact" and not done.returncode, done.stderr
    assert [line.split()[2].strip(",") for line in said] == ["pandas", "pandas", "matplotlib", "safetensors", "pandas"]
    assert all(re.fullmatch(r'This needs .* pip install "cmxlib\[(book|files)\]"\.', line) for line in said), said


def test_help_and_version(installed):
    assert "measure every recorded table" in run(installed, "cmx", "--help").stdout
    version = importlib.metadata.version("cmxlib")
    assert run(installed, "cmx", "--version").stdout == f"cmx {version}\n"


@pytest.mark.parametrize("name", ["book", "study", "save", "readme", "counts"])
def test_the_books_commands_say_that_they_need_a_checkout(installed, name):
    before = sorted((installed[1] / "env").rglob("*.csv"))
    done = run(installed, "cmx", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cmx: This needs a checkout of the book") and done.stderr.count("\n") == 1
    assert "clone the repository and run `make setup` in it" in done.stderr
    assert sorted((installed[1] / "env").rglob("*.csv")) == before


def test_rows_are_not_stamped_with_the_commit_of_somebody_elses_repository(installed):
    subprocess.run(["git", "init", "-q"], cwd=installed[1], check=True)
    code = "from cmxlib.study import records\ntry: print(records.commit())\nexcept RuntimeError as error: print(error)"
    done = run(installed, "python", "-c", code)
    assert "needs a checkout" in done.stdout, done
