"""What is made ready ahead of its transaction, on SQLite: it is used only as long as it is true."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.models import Campaign
from app.database import Database
from app.ledger.models import Batch
from app.sending import ahead, blueprint, planning
from app.sending import engine as sending
from app.sending.ahead import Ready
from app.sending.blueprint import Blueprints
from app.sending.engine import Engine
from app.users.models import User
from tests.integration.campaigning import (
    TO_RECEIVER,
    add_channel,
    add_users,
    books,
    create,
    engine,
    messages,
    outcomes,
    start,
    work,
)

FIRST = [f"a{n:02d}" for n in range(10)]
SECOND = ["absent", "gone", *(f"u{n:02d}" for n in range(8))]
LATER = datetime(2026, 1, 1, tzinfo=UTC)

looks_ahead = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database as workers have it."""
    opened = Database(database_url, durable=False, inline=True)
    yield opened
    await opened.close()


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """The database as other processes have it."""
    opened = Database(database_url, durable=False)
    yield opened
    await opened.close()


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every slice that was made ready, whether it was used."""
    found, holds = list[bool](), Ready.holds

    async def told(ready: Ready, *given: Any) -> bool:
        found.append(await holds(ready, *given))
        return found[-1]

    monkeypatch.setattr(Ready, "holds", told)
    return found


async def half_sent(database: Database, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Engine:
    """The engine after the first of two batches, the second made ready; it does not become old by itself."""
    monkeypatch.setattr(planning, "BATCH", 10)
    monkeypatch.setattr(ahead, "SECONDS_READY", 600.0)
    await add_users(database, ["sender", "agent", *FIRST, *SECOND[2:]])
    await add_users(database, ["gone"], deactivated_at=LATER)
    await create(database, user_ids=[*FIRST, *SECOND], **given)
    await start(database)
    worker = engine(database)
    await worker.turn()
    assert [held.picked.pending for held in worker._hands._ahead.values()] == [10]
    assert [held.ready is not None for held in worker._hands._ahead.values()] == [True]
    return worker


async def changes(database: Database, user_id: str, **values: Any) -> None:
    """Somebody writes this user's row."""
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id) == user_id).values(**values))


async def renamed(database: Database) -> str:
    """u03 has another name."""
    await changes(database, "u03", name="Nadia")
    return "SENT Hello Nadia"


async def recreated(database: Database) -> str:
    """u03 is erased and then somebody else."""
    async with database.transaction() as session:
        await session.execute(delete(User).where(col(User.id) == "u03"))
    await add_users(database, ["u03"], name="Nobody")
    return "SENT Hello Nobody"


async def erased_and_back(database: Database) -> str:
    """u03 is a tombstone for a moment."""
    await changes(database, "u03", deleted_at=LATER, name=None)
    await changes(database, "u03", deleted_at=None, name="New")
    return "SENT Hello New"


async def deactivated_and_back(database: Database) -> str:
    """All that is left of it is another version of the row."""
    await changes(database, "u03", deactivated_at=LATER)
    await changes(database, "u03", deactivated_at=None)
    return "SENT Hello U03"


async def deactivated(database: Database) -> str:
    """u03 gets nothing."""
    await changes(database, "u03", deactivated_at=LATER)
    return "SKIPPED USER_DEACTIVATED"


async def sender_renamed(database: Database) -> str:
    """The sender is one of the rows, whether or not the text names it."""
    await changes(database, "sender", name="Boss")
    return "SENT Hello U03"


CHANGES = [renamed, recreated, erased_and_back, deactivated_and_back, deactivated, sender_renamed]


@looks_ahead
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("text", ["Hello {{ receiver.name }}", "Hello {{ receiver.name|trim }}"])
async def test_nobody_gets_what_was_read_before_a_change(
    database: Database,
    elsewhere: Database,
    monkeypatch: pytest.MonkeyPatch,
    used: list[bool],
    change: Callable[[Database], Any],
    text: str,
) -> None:
    worker = await half_sent(database, monkeypatch, message_template={"text": text})
    expected = await change(elsewhere)
    await worker.turn()
    assert used == [False]
    campaign = await work(database)
    outcome = (await outcomes(database, campaign))["u03"]
    texts = {message.target_id: message.text for message in await messages(database)}
    assert f"{outcome} {texts.get('u03', '')}".strip() == expected
    await books(database, campaign)


@looks_ahead
@pytest.mark.parametrize("user_id", ["absent", "gone"])
async def test_who_was_to_be_skipped_and_came_back_gets_a_message(
    database: Database,
    elsewhere: Database,
    monkeypatch: pytest.MonkeyPatch,
    used: list[bool],
    user_id: str,
) -> None:
    worker = await half_sent(database, monkeypatch)
    if user_id == "absent":
        await add_users(elsewhere, ["absent"])
    else:
        await changes(elsewhere, "gone", deactivated_at=None)
    await worker.turn()
    assert used == [False]
    assert (await outcomes(database, await work(database)))[user_id] == "SENT"


@looks_ahead
async def test_a_channel_that_came_later_is_written_into(
    database: Database, elsewhere: Database, monkeypatch: pytest.MonkeyPatch, used: list[bool]
) -> None:
    worker = await half_sent(database, monkeypatch, create_channels=False)
    await add_channel(elsewhere, "messaging:u03-news", ["u03"])
    await worker.turn()
    assert used == [False]
    campaign = await work(database)
    found = await outcomes(database, campaign)
    assert (found["u03"], found["u04"]) == ("SENT", "SKIPPED NO_CHANNEL")


@looks_ahead
async def test_a_member_of_the_template_who_was_deleted_joins_nothing(
    database: Database, elsewhere: Database, monkeypatch: pytest.MonkeyPatch, used: list[bool]
) -> None:
    worker = await half_sent(database, monkeypatch, channel_template={**TO_RECEIVER, "members": ["agent"]})
    await changes(elsewhere, "agent", deleted_at=LATER)
    await worker.turn()
    assert used == [False]


@looks_ahead
@pytest.mark.parametrize("create_channels", [True, False])
async def test_what_is_unchanged_is_used(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    used: list[bool],
    create_channels: bool,
) -> None:
    for user_id in [] if create_channels else SECOND:
        await add_channel(database, f"messaging:{user_id}-news", [user_id])
    worker = await half_sent(database, monkeypatch, create_channels=create_channels)
    await worker.turn()
    assert used == [True]
    counted = await books(database, await work(database))
    assert (counted.sent, counted.skipped) == (18 if create_channels else 8, 2 if create_channels else 12)


@looks_ahead
async def test_a_second_after_it_was_read_it_is_read_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, used: list[bool]
) -> None:
    """The clock begins before the reading, not when the batch before it was committed."""
    assert ahead.SECONDS_READY == 1
    began = ahead.monotonic()
    worker = await half_sent(database, monkeypatch)
    (held,) = worker._hands._ahead.values()
    assert held.ready is not None and held.ready.seen is not None
    assert began <= held.ready.seen.at
    monkeypatch.setattr(ahead, "monotonic", lambda: held.ready.seen.at + ahead.SECONDS_READY + 0.001)
    await worker.turn()
    assert used == [False]


async def tries(database: Database) -> int:
    """Tries that are counted of batches that are still open."""
    async with database.read() as session:
        found = await session.execute(select(col(Batch.attempts)).where(col(Batch.pending) > 0))
        return sum(found.scalars())


@looks_ahead
async def test_beside_other_campaigns_nothing_is_held(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await half_sent(database, monkeypatch)
    assert await tries(database) == 1
    for number in range(5):
        await create(database, f"other-{number}", user_ids=[*FIRST, *SECOND])
        await start(database, f"other-{number}")
    held, turn = [], worker._campaign

    async def watched(campaign: Any) -> float:
        held.append((len(worker._hands._ahead), len(worker._hands._owed)))
        wait = await turn(campaign)
        held.append((len(worker._hands._ahead), len(worker._hands._owed)))
        if await working(database) > 1:
            assert await tries(database) == 0
        return wait

    monkeypatch.setattr(worker, "_campaign", watched)
    while await working(database):
        await worker.turn()
    assert len(held) >= 2 * 6
    assert set(held) == {(0, 0)}


async def working(database: Database) -> int:
    """How many campaigns run."""
    async with database.read() as session:
        return len(await queries.working(session))


async def test_a_small_campaign_takes_one_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned, sent and completed: nobody comes back to find out that nothing is left."""
    for name in ("SECONDS_BETWEEN_LOOKS", "LONG_PLANNING_SECONDS"):  # a turn takes as long as it takes
        monkeypatch.setattr(sending, name, 60.0)
    await add_users(database, ["sender", *FIRST])
    for number in range(3):
        await create(database, f"small-{number}", user_ids=FIRST)
        await start(database, f"small-{number}")
    await engine(database).turn()
    assert await working(database) == 0
    assert len(await messages(database)) == 30


async def compiled(database: Database, numbers: range) -> list[Campaign]:
    """Campaigns, as they are created."""
    await add_users(database, ["sender"])
    return [await create(database, f"many-{number}", user_ids=["sender"]) for number in numbers]


async def test_as_many_campaigns_stay_compiled_as_run(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaigns = await compiled(database, range(80))
    kept = Blueprints()
    made = [kept.of(campaign) for campaign in campaigns]
    assert [kept.of(campaign) for campaign in campaigns] == made
    assert all(kept.of(campaign) is before for campaign, before in zip(campaigns, made, strict=True))
    kept.keep({campaigns[3].campaign_no})
    assert [kept.kept(each.campaign_no, each.updated_at) is None for each in campaigns].count(False) == 1


@pytest.mark.parametrize("bound", ["MOST_KEPT", "MOST_CHARACTERS"])
async def test_what_is_kept_compiled_is_bounded(
    database: Database, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    campaigns = await compiled(database, range(5))
    one = Blueprints().of(campaigns[0]).characters
    monkeypatch.setattr(blueprint, bound, 3 if bound == "MOST_KEPT" else 3 * one)
    kept = Blueprints()
    for campaign in campaigns:
        kept.of(campaign)
    found = [kept.kept(each.campaign_no, each.updated_at) is not None for each in campaigns]
    assert found == [False, False, True, True, True]
