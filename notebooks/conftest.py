"""How `pytest --nbval notebooks/` runs the chapters: with this Python, comparing all that is the same each time."""

import os
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    os.environ["JUPYTER_PREFER_ENV_PATH"] = (
        "1"  # the kernel of the environment, not one of the user's
    )
    options = config.option
    options.nbval_current_env = not options.nbval_kernel_name
    options.nbval_cell_timeout = min(options.nbval_cell_timeout, 300)
    options.nbval_sanitize_with = options.nbval_sanitize_with or str(
        Path(__file__).with_name("nbval_sanitize.cfg")
    )
