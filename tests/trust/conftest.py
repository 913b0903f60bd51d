"""A call that hangs is a fault too: it ends, as a failure, after half a minute."""

import signal

import pytest

from ..files.conftest import cmx, key  # noqa: F401 (fixtures)

SECONDS = 30


def _too_long(*_):
    raise AssertionError(f"took more than {SECONDS} seconds")


@pytest.fixture
def limit():
    """At most ``SECONDS``, where the system can say so."""
    if hasattr(signal, "SIGALRM"):
        before = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
    yield
    if hasattr(signal, "SIGALRM"):
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
