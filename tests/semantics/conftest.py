"""What tests of semantics may ask for."""

import pytest

from app.ledger import erasing, forgetting


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three rows, and one of them with a deletion."""
    monkeypatch.setattr(forgetting, "SECONDS_AT_ONCE", 0.0)
    monkeypatch.setattr(forgetting, "MEMBERSHIPS", 3)
    monkeypatch.setattr(forgetting, "CHUNK", 3)
    monkeypatch.setattr(forgetting, "USERS", 2)
    monkeypatch.setattr(erasing, "CHUNK", 3)
