"""The short form of `scripts/bench chaos`: each way to strike, on both databases.

A campaign is struck in its middle and then left alone. Whatever was killed, cut or full, it ends by itself;
each target has exactly one message or one reason; the stats are what is counted, at every moment that the
API was asked; and its events exist exactly once.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.campaigns.states import Status
from tests.chaos.campaigns import Campaign, begin
from tests.chaos.ground import Ground, PostgresGround, SqliteGround, prepared_sqlite
from tests.chaos.rounds import play
from tests.chaos.server import Postgres
from tests.chaos.strikes import KINDS
from tests.chaos.verdict import uneven

SECONDS_AWAY = 2.0
PATIENCE = 120.0


@pytest.fixture(scope="module")
def directory(short_tmp: Path) -> Path:
    """Where the grounds are. PostgreSQL may run as another user, who must get there."""
    short_tmp.chmod(0o755)
    (short_tmp / "chaos").mkdir()
    return short_tmp / "chaos"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_sqlite(directory: Path) -> AsyncIterator[Ground]:
    """One running instance for every kind of strike: what one leaves behind is there for the next."""
    template = await prepared_sqlite(directory / "template.db")
    ground = await SqliteGround(directory / "sqlite", template).start()
    yield ground
    await ground.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def on_postgresql(directory: Path) -> AsyncIterator[Ground]:
    """The same on a PostgreSQL of its own, which can be killed."""
    server = Postgres(directory)
    await server.prepare()
    ground = await PostgresGround(directory / "postgresql", server).start()
    yield ground
    await ground.close()
    server.close()


def kinds(database: str) -> list[str]:
    """Those that need no file system to be mounted."""
    return [name for name, kind in KINDS.items() if database in kind.databases and not kind.on_tanks]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", kinds("sqlite"))
async def test_sqlite_loses_and_doubles_nothing(on_sqlite: Ground, name: str) -> None:
    await struck(on_sqlite, name)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", kinds("postgresql"))
async def test_postgresql_loses_and_doubles_nothing(on_postgresql: Ground, name: str) -> None:
    await struck(on_postgresql, name)


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_is_committed_after_a_pause_or_stop_on_sqlite(on_sqlite: Ground) -> None:
    await paused_and_stopped(on_sqlite)


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_is_committed_after_a_pause_or_stop_on_postgresql(on_postgresql: Ground) -> None:
    await paused_and_stopped(on_postgresql)


async def paused_and_stopped(ground: Ground) -> None:
    """The answer says how many messages there are; another campaign, sent to its end since, shows that the
    workers have not stood still."""
    for mutation in ("pauseCampaign", "stopCampaign"):
        campaign, said = await hit(ground, mutation)
        await sent_to_its_end(ground)
        assert (await campaign.state())[1].messages_sent == await campaign.messages() == said["sent"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_pace_is_changed_while_it_is_sent_on_sqlite(on_sqlite: Ground) -> None:
    await at_another_pace(on_sqlite)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_pace_is_changed_while_it_is_sent_on_postgresql(on_postgresql: Ground) -> None:
    await at_another_pace(on_postgresql)


async def at_another_pace(ground: Ground) -> None:
    """At full speed or two a second: either can be told from the other on any machine, for at the lower pace
    it would last for hours."""
    campaign, _ = await hit(ground, "updateCampaign", maxMessagesPerSecond=2)
    async with asyncio.timeout(PATIENCE):
        while not await keeps_pace(campaign, 2):  # a batch that was in hand is sent
            assert (await campaign.state())[0] == Status.IN_PROGRESS
        await campaign.act("updateCampaign", maxMessagesPerSecond=None)
        await campaign.until(Status.COMPLETED)
    assert (await uneven(campaign)) == ()


async def keeps_pace(campaign: Campaign, pace: int) -> bool:
    """Whether it did not send more while another campaign was sent to its end."""
    began, before = time.monotonic(), await campaign.messages()
    await sent_to_its_end(campaign.ground)
    sent, seconds = await campaign.messages() - before, time.monotonic() - began
    return sent <= pace * (seconds + 0.4) + 1


async def hit(ground: Ground, mutation: str, **given: Any) -> tuple[Campaign, dict[str, int]]:
    """A campaign at full speed that this was done to before all was sent, and the stats in the answer."""
    document = (
        f"mutation ($input: {mutation[0].upper()}{mutation[1:]}Input!) {{ {mutation}(input: $input)"
        " { campaign { status stats { sent pending } } errors { message } } }"
    )
    while True:
        campaign = await begin(ground, "created", "many", None)
        await campaign.until_going()
        async with ground.carillon.client() as client:
            variables = {"input": {"campaignId": campaign.campaign_id, **given}}
            found = (await client.answer(document, variables))["data"][mutation]
        if found["campaign"] is not None and found["campaign"]["stats"]["pending"]:
            return campaign, found["campaign"]["stats"]
        await campaign.act("stopCampaign")


async def sent_to_its_end(ground: Ground) -> None:
    """Sends another campaign."""
    other = await begin(ground, "created", "few", None)
    async with asyncio.timeout(PATIENCE):
        await other.until(Status.COMPLETED)


async def struck(ground: Ground, name: str) -> None:
    """Plays until a strike has counted: a campaign may be over before its middle is seen."""
    kind, dice, counted = KINDS[name], random.Random(name), 0
    strikes = 2 if name == "sender killed" else 1
    while not counted:
        played = await play(ground, kind, dice, strikes=strikes, seconds_away=SECONDS_AWAY, patience=PATIENCE)
        assert played.problems == []
        assert (played.lost, played.doubled, played.unbalanced) == (0, 0, 0)
        counted = played.counted
