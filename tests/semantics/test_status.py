"""SEMANTICS, "Status": the table cell by cell, each transition raced by two, and every sentence below it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlmodel import col

from app.campaigns import queries
from app.campaigns.api.enums import CampaignAction
from app.campaigns.models import Campaign, CampaignSegment
from app.campaigns.states import RUNNING, Action, Status, allowed_actions, move
from app.database import Database
from app.errors import AppError, Conflict, Invalid, InvalidInput, NotFound
from app.events.models import Event
from app.segments import service as segments
from app.segments.models import Segment
from app.settings import Settings, load
from app.usage.service import period_bounds
from tests.integration.campaigning import (
    Silent,
    add_list,
    add_users,
    books,
    create,
    engine,
    read,
    start,
    work,
)
from tests.semantics.acting import (
    LATER,
    LONG_AGO,
    SOON,
    act,
    at_once,
    come_due,
    events,
    in_status,
    resume,
    retry,
    schedule,
    set_columns,
    set_user,
    settle,
)
from workers import housekeeping
from workers.housekeeping import Housekeeping
from workers.outlook import look
from workers.sending import SendingLoop

Act = Callable[[Database], Awaitable[Campaign]]


def changes(**given: Any) -> Act:
    """An update of these fields."""
    return lambda database: act(database, "update", given=given)


def acts(action: str, **given: Any) -> Act:
    """Another action of the service."""
    return lambda database: act(database, action, **given)


START = acts("start", scheduled_for=None, stop_at=None, capacity=None)
SCHEDULE = acts("start", scheduled_for=LATER, stop_at=None, capacity=None)
UPDATE_CONTENT = changes(message_template={"text": "Good day {{ receiver.name }}"})
FREE = {"name": "Name", "description": "Why", "max_messages_per_second": 5, "stop_at": LATER}


@dataclass(frozen=True)
class Cell:
    """What one cell of the table promises: what each act leads to, and whether an event says so."""

    leads: tuple[tuple[Act, Status | None, str | None], ...] = ()  # act, next status (None: the same), event
    refused: tuple[Act, ...] = ()
    told: str = ""


def cells(action: str, status: Status, words: str) -> Cell:
    """The cell's words, in code."""
    one = {
        "stop": acts("stop"),
        "pause": acts("pause"),
        "resume": acts("resume", capacity=None),
        "update content": UPDATE_CONTENT,
        "delete": acts("remove"),
    }.get(action)
    free = [changes(**{name: value}) for name, value in FREE.items()]
    match (action, words):
        case ("start", "IN_PROGRESS, or SCHEDULED when scheduledFor is in the future"):
            return Cell(
                (
                    (SCHEDULE, Status.SCHEDULED, "campaign.scheduled"),
                    (acts("unschedule"), Status.DRAFT, "campaign.updated"),
                    (START, Status.IN_PROGRESS, "campaign.started"),
                )
            )
        case ("start", "reschedules, or starts now without scheduledFor"):
            return Cell(
                (
                    (SCHEDULE, Status.SCHEDULED, "campaign.scheduled"),
                    (START, Status.IN_PROGRESS, "campaign.started"),
                )
            )
        case ("start", refusal) if refusal.startswith("CONFLICT"):
            return Cell(refused=(START, SCHEDULE), told=refusal[len("CONFLICT") :].strip(' ("').rstrip('")'))
        case ("update name, description, maxMessagesPerSecond, stopAt", "yes"):
            return Cell(tuple((change, None, "campaign.updated") for change in free))
        case ("update name, description, maxMessagesPerSecond, stopAt", "name and description only"):
            return Cell(
                tuple((change, None, "campaign.updated") for change in free[:2]), refused=tuple(free[2:])
            )
    assert one is not None
    match words:
        case "CONFLICT":
            return Cell(refused=(one,))
        case "no change, no error":
            return Cell(((one, status, None),))
        case "yes":
            return Cell(((one, None, "campaign.updated" if action == "update content" else None),))
        case _:
            return Cell(((one, Status(words), f"campaign.{EVENTS[action]}"),))


EVENTS = {"stop": "stopped", "pause": "paused", "resume": "resumed"}
COLUMNS = [
    "start",
    "stop",
    "pause",
    "resume",
    "update content",
    "update name, description, maxMessagesPerSecond, stopAt",
    "delete",
]
# The table of the page, word by word.
TABLE = """
| DRAFT | IN_PROGRESS, or SCHEDULED when scheduledFor is in the future | CONFLICT | CONFLICT | CONFLICT | yes | yes | yes |
| SCHEDULED | reschedules, or starts now without scheduledFor | STOPPED | CONFLICT | CONFLICT | yes | yes | yes |
| IN_PROGRESS | CONFLICT | STOPPED | PAUSED | CONFLICT | CONFLICT | yes | CONFLICT |
| PAUSED | CONFLICT | STOPPED | no change, no error | IN_PROGRESS | CONFLICT | yes | CONFLICT |
| STOPPED | CONFLICT | no change, no error | CONFLICT | CONFLICT | CONFLICT | name and description only | yes |
| COMPLETED | CONFLICT ("sent once: create a new one") | CONFLICT | CONFLICT | CONFLICT | CONFLICT | name and description only | yes |
"""  # noqa: E501
ROWS = [
    (Status(row[0]), column, words)
    for row in ([word.strip() for word in line.split("|")[1:-1]] for line in TABLE.strip().splitlines())
    for column, words in zip(COLUMNS, row[1:], strict=True)
]


@pytest.mark.parametrize(
    ("status", "action", "words"), ROWS, ids=[f"{row[0]}: {row[1]}: {row[2]}" for row in ROWS]
)
async def test_a_cell_of_the_table(database: Database, status: Status, action: str, words: str) -> None:
    await in_status(database, status)
    cell = cells(action, status, words)
    for refused in cell.refused:
        before, happened = await read(database), await events(database)
        with pytest.raises(Conflict, match=cell.told or None):
            await refused(database)
        assert (await read(database), await events(database)) == (before, happened)
    for done, leads_to, event in cell.leads:
        before, happened = await read(database), await events(database)
        after = await done(database)
        assert after.status == (leads_to or before.status)
        assert await events(database) == [*happened, *([event] if event else [])]
        if words == "no change, no error":
            assert await read(database) == before
        if action == "delete":
            async with database.read() as session:
                assert await queries.by_id(session, "news") is None


@pytest.mark.parametrize("status", list(Status))
def test_allowed_actions_agree_with_the_table(status: Status) -> None:
    row = {action: words for row_status, action, words in ROWS if row_status == status}
    changing = {
        Action.START: not row["start"].startswith("CONFLICT"),
        Action.UNSCHEDULE: status == Status.SCHEDULED,
        Action.STOP: row["stop"] == "STOPPED",
        Action.PAUSE: row["pause"] == "PAUSED",
        Action.RESUME: row["resume"] == "IN_PROGRESS",
        Action.EDIT: row["update content"] == "yes",
        Action.DELETE: row["delete"] == "yes",
        Action.RETRY: status == Status.COMPLETED,
    }
    assert allowed_actions(status) == [action for action, allowed in changing.items() if allowed]
    assert {action.value for action in Action} == {action.name for action in CampaignAction}


@pytest.mark.parametrize("status", list(Status))
async def test_unschedule_is_scheduled_to_draft_and_conflict_elsewhere(
    database: Database, status: Status
) -> None:
    await in_status(database, status)
    if status != Status.SCHEDULED:
        with pytest.raises(Conflict):
            await act(database, "unschedule")
        return
    draft = await act(database, "unschedule")
    assert (draft.status, draft.scheduled_for, draft.stop_at) == ("DRAFT", None, None)


@pytest.mark.parametrize("status", [status for status in Status if status != Status.COMPLETED])
async def test_retry_is_refused_unless_completed(database: Database, status: Status) -> None:
    await in_status(database, status)
    with pytest.raises(Conflict):
        await retry(database)
    assert (await read(database)).status == status


# ------------------------------------------------------------------ two callers at the same time


@dataclass(frozen=True)
class Racer:
    """An act, and what it is to the transition table."""

    act: Act
    action: Action | None  # None: a change that every running status allows
    event: str | None
    leads_to: Status | None = None  # where that is not what the table says


RACERS = {
    "start": Racer(START, Action.START, "campaign.started"),
    "schedule": Racer(SCHEDULE, Action.START, "campaign.scheduled", Status.SCHEDULED),
    "unschedule": Racer(acts("unschedule"), Action.UNSCHEDULE, "campaign.updated"),
    "stop": Racer(acts("stop"), Action.STOP, "campaign.stopped"),
    "pause": Racer(acts("pause"), Action.PAUSE, "campaign.paused"),
    "resume": Racer(acts("resume", capacity=None), Action.RESUME, "campaign.resumed"),
    "update": Racer(UPDATE_CONTENT, Action.EDIT, "campaign.updated"),
    "change pace": Racer(changes(max_messages_per_second=500), None, "campaign.updated"),
    "delete": Racer(acts("remove"), Action.DELETE, None),
    "retry": Racer(acts("retry", reasons=None, capacity=None), Action.RETRY, "campaign.started"),
}
ALLOWED = {
    Status.DRAFT: ["start", "schedule", "update", "delete"],
    Status.SCHEDULED: ["start", "schedule", "unschedule", "stop", "update", "delete"],
    Status.IN_PROGRESS: ["stop", "pause", "change pace"],
    Status.PAUSED: ["stop", "pause", "resume", "change pace"],
    Status.STOPPED: ["stop", "delete"],
    Status.COMPLETED: ["retry", "delete"],
}
RACES = [
    (status, *pair)
    for status, names in ALLOWED.items()
    for pair in itertools.combinations_with_replacement(names, 2)
]
DELETED = "deleted"


def one_after_the_other(status: Status, *names: str) -> tuple[dict[str, list[str]], str, list[str]]:
    """What the table says of these acts in this order: each one's answers, the end, and the events."""
    now: Status | str = status
    answers: dict[str, list[str]] = {}
    told: list[str] = []
    for name in names:
        racer = RACERS[name]
        answer, next_status = _answer(racer, now)
        answers.setdefault(name, []).append(answer)
        if answer == "done" and (next_status != now or racer.action in {None, Action.EDIT, Action.START}):
            told += [racer.event] if racer.event else []
        now = next_status
    return {name: sorted(answer) for name, answer in answers.items()}, now, told


def _answer(racer: Racer, now: Status | str) -> tuple[str, Status | str]:
    if now == DELETED:
        return "NOT_FOUND", now
    assert isinstance(now, Status)
    if racer.action is None:
        return ("CONFLICT", now) if now in {Status.STOPPED, Status.COMPLETED} else ("done", now)
    try:
        moved = move(racer.action, now)
    except Conflict:
        return "CONFLICT", now
    if racer.action is Action.DELETE:
        return "done", DELETED
    return "done", racer.leads_to or moved or now


@pytest.mark.parametrize(
    ("status", "first", "second"), RACES, ids=[f"{status}: {a} and {b}" for status, a, b in RACES]
)
async def test_two_at_once_agree_as_if_one_came_after_the_other(
    database: Database, status: Status, first: str, second: str
) -> None:
    campaign = await in_status(database, status)
    happened = len(await events(database))
    results = await at_once(database, *(RACERS[name].act(database) for name in (first, second)))  # type: ignore[arg-type]
    answers: dict[str, list[str]] = {}
    for name, result in zip((first, second), results, strict=True):
        answers.setdefault(name, []).append(result.code if isinstance(result, AppError) else "done")
    async with database.read() as session:
        left = await queries.by_id(session, "news")
    seen = (
        {name: sorted(answer) for name, answer in answers.items()},
        Status(left.status) if left else DELETED,
        (await events(database))[happened:],
    )
    orders = [one_after_the_other(status, first, second), one_after_the_other(status, second, first)]
    assert seen in orders
    await books(database, campaign)
    if left is not None and left.status in RUNNING:
        if left.status == Status.PAUSED:
            await resume(database)
        await books(database, await work(database))


async def test_starting_with_two_calls_at_the_same_time_starts_once(database: Database) -> None:
    await in_status(database, Status.DRAFT)
    results = await at_once(database, *(START(database) for _ in range(4)))  # type: ignore[misc]
    assert sorted(getattr(result, "code", "done") for result in results) == ["CONFLICT"] * 3 + ["done"]
    campaign = await work(database)
    assert (await books(database, campaign)).sent == 1
    assert await events(database) == ["campaign.started", "campaign.completed"]


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("start", {"IN_PROGRESS"}),
        ("schedule", {"IN_PROGRESS", "SCHEDULED"}),
        ("unschedule", {"IN_PROGRESS", "DRAFT"}),
        ("stop", {"STOPPED"}),
        ("update", {"IN_PROGRESS"}),
        ("delete", {"IN_PROGRESS", DELETED}),
    ],
)
async def test_somebody_acts_at_the_moment_when_it_is_due(
    database: Database, name: str, ends: set[str]
) -> None:
    campaign = await in_status(database, Status.SCHEDULED)
    await set_columns(database, scheduled_for=LONG_AGO)
    await at_once(database, settle(database, campaign.campaign_no), RACERS[name].act(database))  # type: ignore[arg-type]
    async with database.read() as session:
        left = await queries.by_id(session, "news")
    assert (left.status if left else DELETED) in ends
    assert (await events(database)).count("campaign.started") <= 1
    await books(database, campaign)


# ------------------------------------------------------------------ the sentences below the table


async def test_starting_again_without_stop_at_clears_it(database: Database) -> None:
    await in_status(database, Status.DRAFT)
    assert (await schedule(database, stop_at=LATER)).stop_at == LATER
    assert (await schedule(database)).stop_at is None
    assert (await schedule(database, stop_at=LATER)).stop_at == LATER
    assert (await start(database)).stop_at is None


@pytest.mark.parametrize("status", [Status.DRAFT, Status.SCHEDULED, Status.IN_PROGRESS, Status.PAUSED])
async def test_stop_at_is_nullable_and_changeable_until_the_end(database: Database, status: Status) -> None:
    await in_status(database, status)
    for instant in (LATER, LATER + timedelta(days=1), None):
        assert (await changes(stop_at=instant)(database)).stop_at == instant


NEEDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("an audience (segmentIds or userIds)", {"user_ids": None}, "segment_ids", "no audience"),
    ("a sender that exists", {}, "sender_id", "does not exist or is deactivated"),
    (
        "with createChannels and a user audience, a channelTemplate",
        {"channel_template": None},
        "channel_template",
        "createChannels needs a channelTemplate",
    ),
]


async def _lacking(database: Database, fields: dict[str, Any]) -> None:
    if fields:
        await act(database, "update", given=fields)
    else:
        await set_user(database, "sender", deleted_at=LONG_AGO)


@pytest.mark.parametrize(
    ("fields", "path", "words"), [row[1:] for row in NEEDS], ids=[row[0] for row in NEEDS]
)
async def test_a_campaign_needs_at_start(
    database: Database, fields: dict[str, Any], path: str, words: str
) -> None:
    await in_status(database, Status.DRAFT)
    await _lacking(database, fields)
    for begin in (START, SCHEDULE):
        with pytest.raises(InvalidInput, match=words):
            await begin(database)
    assert (await read(database)).status == "DRAFT"


@pytest.mark.parametrize(
    ("fields", "path", "words"), [row[1:] for row in NEEDS], ids=[row[0] for row in NEEDS]
)
async def test_a_campaign_needs_it_on_every_update_while_scheduled(
    database: Database, fields: dict[str, Any], path: str, words: str
) -> None:
    await in_status(database, Status.SCHEDULED)
    if not fields:
        await set_user(database, "sender", deleted_at=LONG_AGO)
        fields = {"name": "Any change"}
    with pytest.raises(InvalidInput, match=words) as raised:
        await act(database, "update", given=fields)
    assert raised.value.path == (path,)
    assert (await read(database)).name is None


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("audience", "no audience"),
        ("sender", "does not exist or is deactivated"),
        ("template", "createChannels needs a channelTemplate"),
        ("segment", "was deleted"),
    ],
)
async def test_and_again_when_due_not_startable_is_stopped_with_an_event(
    database: Database, column: str, words: str
) -> None:
    segment = await add_list(database, 1, ["ann"])
    await in_status(database, Status.SCHEDULED, user_ids=None, segment_ids=[segment])
    async with database.transaction() as session:
        campaign = await queries.locked(session, "news")
        assert campaign is not None
        if column == "audience":
            for named in (await queries.segments_of(session, [campaign.campaign_no]))[campaign.campaign_no]:
                await session.delete(
                    await session.get_one(CampaignSegment, (campaign.campaign_no, named.segment_no))
                )
        elif column == "template":
            campaign.channel_template = None
        elif column == "segment":
            await session.execute(update(Segment).values(deleted_at=LONG_AGO))
    if column == "sender":
        await set_user(database, "sender", deactivated_at=LONG_AGO)
    stopped = await come_due(database, scheduled_for=LONG_AGO)
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "NOT_STARTABLE")
    assert words in str(stopped.status_message)
    assert await events(database) == ["campaign.scheduled", "campaign.stopped"]


async def test_an_update_while_scheduled_names_all_that_it_lacks_each_once(database: Database) -> None:
    await in_status(database, Status.SCHEDULED)
    lacking = {"channel_template": None, "user_ids": None, "sender_id": "nobody"}
    with pytest.raises(Invalid) as raised:
        await act(database, "update", given=lacking)
    assert sorted(error.path for error in raised.value.errors) == [
        ("channel_template",),
        ("segment_ids",),
        ("sender_id",),
    ]


async def test_an_update_after_the_end_is_a_conflict_for_each_field(database: Database) -> None:
    await in_status(database, Status.STOPPED)
    refused = {"show_channels": True, "max_messages_per_second": 5, "stop_at": LONG_AGO}
    with pytest.raises(Invalid) as raised:
        await act(database, "update", given={"name": "Name", **refused})
    assert [(error.code, error.path) for error in raised.value.errors] == [
        ("CONFLICT", (name,)) for name in refused
    ]


async def test_a_plan_that_outgrows_the_month_says_how_many_more_and_how_to_go_on(database: Database) -> None:
    await add_users(database, ["sender"])
    segment = await add_list(database, 1, ["a", "b"])
    await create(database, segment_ids=[segment])
    await start(database, capacity=3)
    async with database.transaction() as session:
        await segments.add_targets(session, segment, ["c", "d"])
    paused = await work(database, monthly_messages=3)
    until = period_bounds(datetime.now(UTC))[1].date()
    assert paused.status_message == (
        f"Beyond what it holds already this campaign needs 2 messages, 1 of 3 are left until {until}."
        " Raise CARILLON_MONTHLY_MESSAGES or wait, then resume it."
    )


async def test_the_sender_has_to_exist_already_at_creation(database: Database) -> None:
    await add_users(database, ["gone"], deleted_at=LONG_AGO)
    await add_users(database, ["asleep"], deactivated_at=LONG_AGO)
    for sender_id in ("nobody", "gone"):
        with pytest.raises(InvalidInput, match=f"There is no user {sender_id}"):
            await create(database, sender_id=sender_id)
    assert (await create(database, sender_id="asleep", user_ids=["ann"])).status == "DRAFT"
    with pytest.raises(InvalidInput, match="does not exist or is deactivated"):
        await start(database)


@pytest.mark.parametrize("column", ["deleted_at", "deactivated_at"])
async def test_a_sender_deleted_or_deactivated_while_it_runs_pauses_it(
    database: Database, column: str
) -> None:
    campaign = await in_status(database, Status.IN_PROGRESS)
    await set_user(database, "sender", **{column: LONG_AGO})
    paused = await work(database)
    assert (paused.status, paused.status_reason) == ("PAUSED", "SENDER_MISSING")
    with pytest.raises(InvalidInput, match="does not exist or is deactivated"):
        await resume(database)
    await set_user(database, "sender", **{column: None})
    await resume(database)
    await work(database)
    assert (await books(database, campaign)).sent == 1
    assert await events(database) == [
        "campaign.started",
        "campaign.paused",
        "campaign.resumed",
        "campaign.completed",
    ]


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.IN_PROGRESS, Status.PAUSED])
async def test_stop_at_reached_is_stopped_with_its_reason_also_scheduled_and_paused(
    database: Database, status: Status
) -> None:
    await in_status(database, status)
    stopped = await come_due(database, stop_at=LONG_AGO)
    assert (stopped.status, stopped.status_reason) == ("STOPPED", "STOP_AT_REACHED")
    assert (await events(database))[-1] == "campaign.stopped"


async def test_scheduled_for_in_the_past_means_now(database: Database) -> None:
    await in_status(database, Status.DRAFT)
    started = await schedule(database, LONG_AGO)
    assert (started.status, started.scheduled_for) == ("IN_PROGRESS", None)


@pytest.mark.parametrize("status", list(Status))
async def test_stop_at_must_lie_after_the_start(database: Database, status: Status) -> None:
    campaign = await in_status(database, status)
    begins = campaign.started_at or campaign.scheduled_for or datetime.now(UTC)
    with pytest.raises((InvalidInput, Conflict)) as raised:
        await changes(stop_at=begins)(database)
    ended = status in {Status.STOPPED, Status.COMPLETED}
    assert (raised.value.code, raised.value.path) == ("CONFLICT" if ended else "INVALID_INPUT", ("stop_at",))
    if status in {Status.DRAFT, Status.SCHEDULED}:
        for scheduled_for, stop_at in ((None, LONG_AGO), (LATER, LATER), (LATER, SOON)):
            with pytest.raises(InvalidInput, match="stopAt must lie after the start"):
                await act(database, "start", scheduled_for=scheduled_for, stop_at=stop_at, capacity=None)


@pytest.mark.parametrize(("action", "status"), [("pause", "PAUSED"), ("stop", "STOPPED")])
async def test_pausing_and_stopping_return_the_new_status_at_once_and_nothing_is_sent_after_it(
    database: Database, action: str, status: str
) -> None:
    campaign = await in_status(database, Status.IN_PROGRESS)
    assert (await act(database, action)).status == status
    worker = engine(database)
    for _ in range(3):
        await worker.turn()
    assert (await books(database, campaign)).sent == 0


@pytest.mark.parametrize("audience", ["segment", "filter"])
async def test_an_empty_audience_completes(database: Database, audience: str) -> None:
    segment = await add_list(database, 1, [])
    await in_status(database, Status.DRAFT, user_ids=None, segment_ids=[segment])
    if audience == "filter":
        async with database.transaction() as session:
            await session.execute(update(Segment).values(kind="FILTER", filter={"name": "Nobody"}))
    await start(database)
    completed = await work(database)
    assert (completed.status, completed.status_message) == ("COMPLETED", None)
    assert (await books(database, completed)).targets == 0


SAYS_WHY: list[tuple[dict[str, Any], str | None]] = [
    (
        {"user_ids": ["ann", "odd"], "create_channels": False},
        "all 2 skipped: NO_CHANNEL; createChannels is false",
    ),
    ({"user_ids": ["nobody", "sender"]}, "1 skipped: SENDER; 1 skipped: UNKNOWN_USER"),
    ({"user_ids": ["odd"]}, "all 1 failed: RENDER_ERROR"),
    ({"user_ids": ["ann", "odd"]}, None),
]


@pytest.mark.parametrize(("given", "sentence"), SAYS_WHY, ids=[str(row[1]) for row in SAYS_WHY])
async def test_a_campaign_that_sent_nothing_says_why(
    database: Database, given: dict[str, Any], sentence: str | None
) -> None:
    await in_status(database, Status.DRAFT, **given)
    await start(database)
    assert (await work(database)).status_message == sentence


async def test_a_schedule_missed_while_everything_was_down_starts_late(database: Database) -> None:
    await in_status(database, Status.SCHEDULED)
    assert (await come_due(database, scheduled_for=LONG_AGO, stop_at=LATER)).status == "IN_PROGRESS"


async def test_unless_stop_at_has_passed_then_stopped(database: Database) -> None:
    await in_status(database, Status.SCHEDULED)
    stopped = await come_due(database, scheduled_for=LONG_AGO, stop_at=LONG_AGO + timedelta(minutes=1))
    assert (stopped.status, stopped.status_reason, stopped.started_at) == ("STOPPED", "STOP_AT_REACHED", None)


async def test_what_is_deleted_is_never_due(database: Database) -> None:
    await in_status(database, Status.SCHEDULED)
    await act(database, "remove")
    await set_columns(database, scheduled_for=LONG_AGO, stop_at=LONG_AGO)
    async with database.read() as session:
        assert await queries.due(session, datetime.now(UTC)) == []
        assert (await look(session)).next_due is None


async def test_events_name_reasons_and_stats_as_webhooks_will_send_them(database: Database) -> None:
    await in_status(database, Status.COMPLETED)
    async with database.read() as session:
        rows = await session.execute(select(col(Event.data)).where(col(Event.type) == "campaign.completed"))
        body = rows.scalar_one()
    assert body["status"] == "completed"
    assert (body["campaign_id"], body["sender_id"], body["audience"]) == ("news", "sender", "USER")
    assert body["stats"]["reasons"] == [{"reason": "RENDER_ERROR", "count": 1, "samples": ["odd"]}]


async def test_nothing_can_be_asked_of_a_campaign_that_is_not_there(database: Database) -> None:
    for name, racer in RACERS.items():
        with pytest.raises(NotFound, match="no campaign news"):
            await racer.act(database)
        assert name


async def test_a_campaign_starts_when_it_is_due(
    database: Database, settings: Settings, stopping: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Housekeeping sleeps until then. Of what it has not seen coming it learns within two seconds."""
    assert housekeeping.LONGEST_SLEEP_SECONDS == 2
    monkeypatch.setattr(housekeeping, "LONGEST_SLEEP_SECONDS", 3_600.0)
    await in_status(database, Status.DRAFT)
    await schedule(database, datetime.now(UTC) + timedelta(hours=1))
    due_at = datetime.now(UTC) + timedelta(seconds=0.5)
    await set_columns(database, scheduled_for=due_at)
    publisher: Any = Silent()
    keeper = Housekeeping(settings, database, publisher, SendingLoop(engine(database)))
    keeping = asyncio.create_task(keeper.run(stopping))
    async with asyncio.timeout(60):
        while (await read(database)).status == Status.SCHEDULED:
            await asyncio.sleep(0.01)
    stopping.set()
    keeper.wake()
    await keeping
    started_at = (await read(database)).started_at
    assert started_at is not None and due_at <= started_at


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a worker without limits."""
    return load(database_url=database_url, data_dir=tmp_path)


@pytest.fixture
def stopping() -> asyncio.Event:
    """What ends housekeeping."""
    return asyncio.Event()
