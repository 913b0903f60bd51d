"""Make or complete `.venv`: what every target of the Makefile does first.

Standard library only, since it runs before anything is installed: `python -m cmxlib.environment` in the
repository's folder. A setup is trusted only when the file `.venv/ready` names today's requirements and every
installed file that a package lists is there with the size it lists; whatever is missing is then installed.
"""

import csv
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = ("requirements.txt", "pyproject.toml")


def fingerprint(root: Path, version: str) -> str:
    """A hash of the files that say what to install, with the interpreter's version."""
    digest = hashlib.sha256(version.encode())
    for name in SOURCES:
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def damaged(site: Path) -> list[Path]:
    """The `.dist-info` folders in `site` whose package lacks a file of its RECORD, or has one of another size."""
    return [info for info in sorted(site.glob("*.dist-info")) if not _intact(info)]


def _intact(info: Path) -> bool:
    record = info / "RECORD"
    if not record.is_file() or not (info / "METADATA").is_file():
        return False
    with record.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3 and row[2]]
    try:
        return all(os.stat(os.path.join(info.parent, name)).st_size == int(size) for name, _, size in rows)
    except OSError:
        return False


def interpreter(venv: Path) -> str | None:
    """The version of the environment's Python, or None when there is none that works, with pip, from 3.11 on."""
    code = "import sys, pip; assert sys.version_info >= (3, 11); print(sys.version.split()[0])"
    try:
        done = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def set_up(root: Path = Path(), say=print) -> bool:
    """Bring `root/.venv` to what `requirements.txt` names; True when anything had to be done."""
    venv = root / ".venv"
    ready = venv / "ready"
    version = interpreter(venv)
    if version is None:
        say(f"Making {venv} with Python {sys.version.split()[0]}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        version = interpreter(venv)
    python = venv / "bin/python"
    site = next((venv / "lib").glob("python3*/site-packages"))
    broken = damaged(site)
    wanted = fingerprint(root, version)
    if not broken and ready.is_file() and ready.read_text() == wanted:
        return False

    say(f"Installing what requirements.txt names into {venv} (the first time: a few minutes, several GB)")
    ready.unlink(missing_ok=True)
    for info in broken:  # forgotten, so that it is installed again
        shutil.rmtree(info)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv>=0.5"], check=True)
    install = [venv / "bin/uv", "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*install, "-r", root / "requirements.txt"], check=True)
    subprocess.run([*install, "--no-deps", "-e", root], check=True)
    if left := damaged(site):
        sys.exit(f"After installing, files of {left[0].name} are still missing: remove {venv} and try again.")
    ready.write_text(wanted)
    return True


if __name__ == "__main__":
    try:
        set_up()
    except subprocess.CalledProcessError as error:
        command = " ".join(str(part) for part in error.cmd)
        sys.exit(f"Setup stopped at '{command}'; the same make command tries again from there.")
    except KeyboardInterrupt:
        sys.exit("Setup was interrupted; the same make command goes on from there.")
