"""SEMANTICS: "When the infrastructure keeps failing under a campaign it is PAUSED with INTERNAL_FAULT or
STORAGE_FULL, and resumed by itself with backoff; other campaigns go on."
"""

import shutil
import sqlite3
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from app.campaigns import lifecycle
from app.campaigns.models import Campaign
from app.campaigns.states import Status, StatusReason
from app.database import Database
from app.sending import batches, faults, planning
from app.sending.engine import Engine
from app.sending.opening import BatchTaken
from tests.integration import campaigning
from tests.integration.campaigning import add_list, add_users, books, create, outcomes, start, work
from tests.semantics.acting import LONG_AGO, act, come_due, events, resume, set_columns

PEOPLE = [f"u{number:03}" for number in range(60)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two tries."""
    monkeypatch.setattr(faults, "FIRST_BACKOFF_SECONDS", 0.0)


async def started(database: Database, *names: str, **given: Any) -> None:
    """Campaigns that run."""
    await add_users(database, ["sender", *PEOPLE])
    audience = await add_list(database, 1, PEOPLE)
    for name in names:
        await create(database, name, segment_ids=[audience], **given)
        await start(database, name)


async def turned_until_paused(database: Database, worker: Engine, name: str = "news") -> Campaign:
    """The campaign, once the server has paused it."""
    for _ in range(30):
        await worker.turn()
        campaign = await campaigning.read(database, name)
        if campaign.status == Status.PAUSED:
            return campaign
    raise AssertionError("it was not paused")


def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Every batch of this campaign fails with a fault of the database."""
    send = batches.send_slice

    async def fail(session: Any, campaign_no: int, *given: Any) -> Any:
        campaign = await session.get(Campaign, campaign_no)
        if campaign.campaign_id == name:
            raise error
        return await send(session, campaign_no, *given)

    monkeypatch.setattr(batches, "send_slice", fail)


async def test_it_is_paused_with_internal_fault_and_other_campaigns_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(database, "broken", "healthy")
    failing(monkeypatch, "broken", OperationalError("", {}, psycopg.OperationalError("it is odd")))
    worker = campaigning.engine(database)
    campaign = await turned_until_paused(database, worker, "broken")
    assert campaign.status_reason == StatusReason.INTERNAL_FAULT
    assert campaign.status_message is not None
    assert "incident" in campaign.status_message
    assert (await work(database, "healthy")).status == Status.COMPLETED
    counted = await books(database, await campaigning.read(database, "broken"))
    assert (counted.pending, counted.failed) == (60, 0)


async def test_it_is_paused_where_workers_find_their_batches_in_others_hands_between_two_faults(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(database, "news")
    fault, tries = OperationalError("", {}, psycopg.OperationalError("it is odd")), count()

    async def fail(*_: Any) -> Any:
        raise BatchTaken if next(tries) % 2 else fault

    monkeypatch.setattr(batches, "send_slice", fail)
    campaign = await turned_until_paused(database, campaigning.engine(database))
    assert campaign.status_reason == StatusReason.INTERNAL_FAULT


async def test_it_is_paused_where_planning_keeps_failing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(database, "news")

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(planning, "next_stretch", fail)
    campaign = await turned_until_paused(database, campaigning.engine(database))
    assert campaign.status_reason == StatusReason.INTERNAL_FAULT
    monkeypatch.undo()
    assert await campaigning.engine(database).turn() > 0  # planning stands still too
    async with database.read() as session:
        assert (await session.execute(text("SELECT count(*) FROM batches"))).scalar_one() == 0


@pytest.mark.parametrize(
    ("table", "one"),
    [
        ("channels", "new.cid = 'messaging:u007-news'"),
        ("members", "new.user_id = 'u007'"),
        ("messages", "new.target_id = 'u007'"),
        ("recipients", "new.target_id = 'u007' AND new.status = 1"),
    ],
)
async def test_a_target_that_the_database_refuses_fails_alone(
    database: Database, table: str, one: str
) -> None:
    """By whichever table: it is not taken for a channel that somebody else was faster to create."""
    await started(database, "news")
    async with database.transaction() as session:
        if database.dialect == "sqlite":
            refusal = "BEGIN SELECT RAISE(ABORT, 'nobody foresaw this'); END"
        else:
            await session.execute(
                text(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'nobody foresaw this'; END $$"
                )
            )
            refusal = "EXECUTE FUNCTION refuse()"
        await session.execute(
            text(f"CREATE TRIGGER refuses BEFORE INSERT ON {table} FOR EACH ROW WHEN ({one}) {refusal}")
        )
    campaign = await work(database)
    assert campaign.status == Status.COMPLETED
    counted = await books(database, campaign)
    assert (counted.sent, counted.failed) == (59, 1)
    assert (await outcomes(database, campaign))["u007"] == "FAILED INTERNAL_ERROR"


async def test_it_is_resumed_by_itself_with_backoff(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as long each time, five minutes at most; once something was settled, from the beginning."""
    await started(database, "news")
    with monkeypatch.context() as broken:
        failing(broken, "news", OperationalError("", {}, psycopg.errors.DiskFull("no room")))
        waits = []
        for _ in range(10):
            campaign = await turned_until_paused(database, campaigning.engine(database))
            assert campaign.status_reason == StatusReason.STORAGE_FULL
            assert campaign.resume_at is not None
            waits.append((campaign.resume_at - campaign.status_changed_at) / timedelta(seconds=1))
            assert (await come_due(database, resume_at=LONG_AGO)).status == Status.IN_PROGRESS
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    campaign = await work(database)
    assert (campaign.status, campaign.status_reason) == (Status.COMPLETED, None)
    assert (await books(database, campaign)).sent == 60
    assert await events(database) == [
        "campaign.started",
        *["campaign.paused", "campaign.resumed"] * 10,
        "campaign.completed",
    ]


async def test_progress_forgets_earlier_faults(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "FIRST_CHUNK", 20)
    monkeypatch.setattr(planning, "BATCH", 20)
    await started(database, "news")
    for times in (1, 2):
        with monkeypatch.context() as broken:
            failing(broken, "news", OperationalError("", {}, psycopg.errors.DiskFull("no room")))
            assert (await turned_until_paused(database, campaigning.engine(database))).faults == times
        await come_due(database, resume_at=LONG_AGO)
    await campaigning.engine(database).turn()
    failing(monkeypatch, "news", OperationalError("", {}, psycopg.errors.DiskFull("no room")))
    assert (await turned_until_paused(database, campaigning.engine(database))).faults == 1


async def test_who_pauses_it_then_keeps_it_paused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(database, "news")
    with monkeypatch.context() as broken:
        failing(broken, "news", OperationalError("", {}, psycopg.errors.DiskFull("no room")))
        await turned_until_paused(database, campaigning.engine(database))
    campaign = await act(database, "pause")
    assert (campaign.status, campaign.status_reason, campaign.resume_at) == (Status.PAUSED, None, None)
    assert (await resume(database)).status == Status.IN_PROGRESS
    assert (await work(database)).status == Status.COMPLETED


async def test_a_stop_at_ends_such_a_pause(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await started(database, "news")
    with monkeypatch.context() as broken:
        failing(broken, "news", OperationalError("", {}, psycopg.errors.DiskFull("no room")))
        await turned_until_paused(database, campaigning.engine(database))
    await set_columns(database, resume_at=LONG_AGO)
    campaign = await come_due(database, stop_at=LONG_AGO)
    assert (campaign.status, campaign.resume_at) == (Status.STOPPED, None)


async def test_a_full_disk(sqlite_template: Path, tmp_path: Path) -> None:
    """SQLite's own: the file may not grow any more. What was sent stays, and sending goes on when there is
    room. (A full disk under PostgreSQL: see above, by its error.)"""
    file = shutil.copy(sqlite_template, tmp_path / "carillon.db")
    database = Database(f"sqlite:///{file}", durable=False)
    await started(database, "news", message_template={"text": "Hello! " * 500})  # pages of it, however large
    worker = campaigning.engine(database)

    def limit(connection: Any, *_: Any) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + room}")

    room = faults = 0
    event.listen(database._writer.sync_engine, "begin", limit)
    while (await campaigning.read(database)).status == Status.IN_PROGRESS:
        await worker.turn()
        faults += 1
    campaign = await campaigning.read(database)
    assert (campaign.status, campaign.status_reason) == (Status.PAUSED, StatusReason.STORAGE_FULL)
    assert faults == 1  # further tries would use up what the pause needs to be stored
    assert campaign.status_message is not None
    assert "no room" in campaign.status_message
    room = 10_000
    await come_due(database, resume_at=LONG_AGO)
    campaign = await work(database)
    assert (campaign.status, (await books(database, campaign)).sent) == (Status.COMPLETED, 60)
    await database.close()


async def test_a_disk_too_full_for_the_pause_itself(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is kept for that on the disk, given up when nothing else is left, and kept again."""
    file = shutil.copy(sqlite_template, tmp_path / "carillon.db")
    database = Database(f"sqlite:///{file}", durable=False)
    await started(database, "news")
    assert database.reserve is not None
    database.reserve.keep()
    kept, full = tmp_path / "carillon.db-reserve", sqlite3.OperationalError("database or disk is full")
    assert kept.stat().st_size > 400_000
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    pause = lifecycle.pause_for_fault

    async def store(*given: Any) -> Any:
        if kept.exists():
            raise OperationalError("", {}, full)
        return await pause(*given)

    monkeypatch.setattr(lifecycle, "pause_for_fault", store)
    failing(monkeypatch, "news", OperationalError("", {}, full))
    worker = campaigning.engine(database)
    await worker.turn()
    campaign = await campaigning.read(database)
    assert (campaign.status, campaign.status_reason) == (Status.PAUSED, StatusReason.STORAGE_FULL)
    database.reserve.keep()
    assert kept.exists()
    await database.close()
