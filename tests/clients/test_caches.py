"""Apollo's normalised cache: pages and subscriptions that ask for different fields of the same things."""

import json
from typing import Any

import pytest

from tests.acceptance.instances import Carillon
from tests.clients.conftest import TypeScript

READERS = [f"user-{number:02d}" for number in range(30)]
LEDGER = ["shop", *READERS, "zoe"]


@pytest.fixture
def running(server: Carillon) -> Carillon:
    """A started instance."""
    server.start()
    return server


def test_pages_and_subscriptions_leave_each_other_whole(running: Carillon, typescript: TypeScript) -> None:
    met = json.loads(typescript.run("caches", running))

    assert met == {
        "told": {
            "status": "COMPLETED",
            "sent": len(READERS),
            "template": {"theme": "dark"},
            "channels": "messaging",
            "asked by the page alone": True,
        },
        "lost": [],
        "askedAgain": 0,
        "lostLater": [],
        "ledger": {"rows": LEDGER, "texts": len(READERS), "backward": LEDGER[-9:-1]},
        "complaints": [],
    }


def test_stats_without_an_id_would_tear_the_pages(running: Carillon, typescript: TypeScript) -> None:
    met: dict[str, Any] = json.loads(typescript.run("caches", running, "without-ids"))

    assert "CampaignPage" in met["lost"]
    assert met["askedAgain"] > 0
    assert any("Cache data may be lost" in complaint for complaint in met["complaints"])


def test_an_id_that_is_a_text_needs_the_policy_that_the_readme_gives(
    running: Carillon, typescript: TypeScript
) -> None:
    met = json.loads(typescript.run("caches", running, "by-default"))

    assert met["told"]["channels"] == "vip", "what another campaign's page wrote"
    assert (met["lost"], met["complaints"]) == ([], [])
