from __future__ import annotations

import pytest

from tests.data_prep.sources.server import running


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """No proxy between us and this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def site():
    with running() as found:
        yield found
