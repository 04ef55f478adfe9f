"""The engine, on both databases: who gets a message, in which channel, exactly once."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from app.campaigns import capacity, lifecycle, service
from app.campaigns.models import Campaign
from app.channels.distinct import distinct_id, members_key
from app.channels.models import Channel, Member
from app.database import Database, now, took_too_long
from app.errors import QuotaExceeded
from app.ledger.models import Batch, Plan, Rate, Recipient
from app.segments import service as segments
from app.sending import audience, batches, faults, isolation, opening, planning, throttle
from app.sending import outcomes as deciding
from app.usage import service as usage
from app.users.models import User
from tests.integration.campaigning import (
    TO_RECEIVER,
    add_channel,
    add_list,
    add_users,
    books,
    channel,
    create,
    engine,
    let_break,
    messages,
    outcomes,
    read,
    start,
    work,
)


async def a_campaign(database: Database, receivers: list[str], **given: Any) -> Campaign:
    """Sender, receivers, and a started campaign to a list of them."""
    await add_users(database, ["sender", *receivers])
    segment_id = await add_list(database, 1, receivers)
    await create(database, **{"segment_ids": [segment_id], **given})
    return await start(database)


async def test_every_target_gets_one_message_or_one_reason(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob", "cid"])
    await add_users(database, ["gone"], deactivated_at=datetime.now(UTC))
    await add_users(database, ["erased"], deleted_at=datetime.now(UTC))
    await add_channel(database, "messaging:cold-news", ["cid"], frozen=True)
    await add_users(database, ["cold"])
    first = await add_list(database, 1, ["ann", "sender", "gone", "nobody"])
    second = await add_list(database, 2, ["ann", "bob", "erased", "cold"])
    await create(database, segment_ids=[first, second])
    await start(database)
    campaign = await work(database)
    assert campaign.status == "COMPLETED"
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "bob": "SENT",
        "cold": "SKIPPED CHANNEL_FROZEN",
        "erased": "SKIPPED USER_DEACTIVATED",
        "gone": "SKIPPED USER_DEACTIVATED",
        "nobody": "SKIPPED UNKNOWN_USER",
        "sender": "SKIPPED SENDER",
    }
    assert [(m.cid, m.text) for m in await messages(database)] == [
        ("messaging:ann-news", "Hello Ann"),
        ("messaging:bob-news", "Hello Bob"),
    ]
    counted = await books(database, campaign)
    assert (counted.targets, counted.sent, counted.skipped) == (7, 2, 5)


async def test_a_message_is_what_its_receiver_reads(database: Database) -> None:
    await add_users(database, ["sender"])
    await add_users(database, ["ann"], custom={"plan": {"name": "pro"}, "age": 41})
    await create(
        database,
        user_ids=["ann"],
        message_template={
            "text": "Hi {{ user.name }}, {plan}: {{ receiver.plan.name }} from {{ sender.name }}"
            " in {{ channel.cid }}",
            "attachments": [{"title": "For {{ receiver.name }}", "age": "{{ receiver.age }}"}],
            "custom": {"kind": "{{ receiver.plan.name }}"},
            "poll_id": "poll-1",
        },
    )
    await start(database)
    campaign = await work(database)
    (message,) = await messages(database)
    assert message.text == "Hi Ann, {plan}: pro from Sender in messaging:ann-news"
    assert message.attachments == [{"title": "For Ann", "age": 41}]
    assert message.custom == {"kind": "pro", "campaign_id": "news"}
    assert (message.type, message.poll_id, message.campaign_no) == ("regular", "poll-1", campaign.campaign_no)


async def test_created_channels_have_the_templates_members_team_and_custom(database: Database) -> None:
    await a_campaign(
        database,
        ["ann"],
        sender_visibility="ARCHIVED",
        channel_template={
            **TO_RECEIVER,
            "team": "red",
            "custom": {"topic": "news"},
            "members_template": [{"user_id": "agent", "channel_role": "moderator", "custom": {"desk": 7}}],
        },
    )
    await work(database)
    found, members = await channel(database, "messaging:ann-news")
    assert (found.team, found.custom, found.created_by_id, found.member_count) == (
        "red",
        {"topic": "news"},
        "sender",
        3,
    )
    assert found.members_key == members_key(["agent", "ann", "sender"])
    assert {user_id: (m.channel_role, m.archived, m.custom) for user_id, m in members.items()} == {
        "agent": ("moderator", False, {"desk": 7}),
        "ann": ("channel_member", False, {}),
        "sender": ("channel_member", True, {}),
    }


@pytest.mark.parametrize(
    ("mode", "of_created", "of_existing"),
    [
        (None, {"ann", "sender"}, {"bob"}),
        ("EXCLUDE", {"ann"}, {"bob"}),
        ("INCLUDE", {"ann", "sender"}, {"bob", "sender"}),
    ],
)
async def test_sender_mode(
    database: Database, mode: str, of_created: set[str], of_existing: set[str]
) -> None:
    await add_channel(database, "messaging:bob-news", ["bob"])
    await a_campaign(database, ["ann", "bob"], sender_mode=mode)
    await work(database)
    created, members = await channel(database, "messaging:ann-news")
    assert set(members) == of_created and created.member_count == len(of_created)
    existing, members = await channel(database, "messaging:bob-news")
    assert set(members) == of_existing and existing.member_count == len(of_existing)
    assert existing.members_key == members_key(of_existing)


async def test_a_receiver_who_left_is_added_again_and_sees_the_channel_if_shown(database: Database) -> None:
    await add_channel(database, "messaging:ann-news", ["agent"])
    await add_channel(database, "messaging:bob-news", ["bob"])
    async with database.transaction() as session:
        await session.execute(update(Member).where(col(Member.user_id) == "bob").values(hidden=True))
    await a_campaign(database, ["ann", "bob"], show_channels=True, create_channels=False)
    campaign = await work(database)
    found, members = await channel(database, "messaging:ann-news")
    assert set(members) == {"agent", "ann"} and found.member_count == 2
    _, members = await channel(database, "messaging:bob-news")
    assert not members["bob"].hidden
    assert (await books(database, campaign)).sent == 2


async def test_receivers_whose_id_renders_alike_share_one_channel(database: Database) -> None:
    await add_users(database, ["sender"])
    await add_users(database, [f"u{n}" for n in range(4)], custom={"team": "red"})
    await create(
        database,
        user_ids=[f"u{n}" for n in range(4)],
        channel_template={"type": "messaging", "id": "{{ receiver.team }}"},
    )
    await start(database)
    campaign = await work(database)
    found, members = await channel(database, "messaging:red")
    assert (found.last_seq, found.member_count, set(members)) == (4, 5, {"sender", "u0", "u1", "u2", "u3"})
    assert [message.seq for message in await messages(database)] == [1, 2, 3, 4]
    assert campaign.final_stats is not None and campaign.final_stats["channels_created"] == 1


async def test_without_an_id_the_distinct_channel_is_found_again(database: Database) -> None:
    await a_campaign(database, ["ann"], channel_template={"type": "messaging"})
    await work(database)
    await create(database, "again", user_ids=["ann"], channel_template={"type": "messaging"})
    await start(database, "again")
    await work(database, "again")
    found, members = await channel(database, f"messaging:{distinct_id(['sender', 'ann'])}")
    assert (found.last_seq, set(members)) == (2, {"ann", "sender"})


async def test_without_a_template_the_latest_channel_of_the_two_is_used(database: Database) -> None:
    pair = distinct_id(["sender", "ann"])
    old, new = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    await add_channel(database, f"messaging:{pair}", ["sender", "ann"], last_message_at=old)
    await add_channel(database, f"support:{pair}", ["sender", "ann"], last_message_at=new)
    await add_channel(database, f"quiet:{pair}", ["sender", "ann"])
    await a_campaign(database, ["ann", "bob"], channel_template=None, create_channels=False)
    campaign = await work(database)
    assert await outcomes(database, campaign) == {"ann": "SENT", "bob": "SKIPPED NO_CHANNEL"}
    assert [message.cid for message in await messages(database)] == [f"support:{pair}"]


async def test_a_campaign_that_reached_nobody_says_why(database: Database) -> None:
    await a_campaign(database, ["ann", "bob"], create_channels=False)
    campaign = await work(database)
    assert campaign.status_message == "all 2 skipped: NO_CHANNEL; createChannels is false"


async def test_failures_are_the_recipients_own(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_users(database, ["sender", "ann", "bob", "eve", "long"])
    await add_users(database, ["spaced"], custom={"room": "a b"})
    await create(
        database,
        user_ids=["ann", "bob", "eve", "long", "spaced"],
        message_template={
            "text": "{{ 1 // (0 if receiver.id == 'bob' else 1) }}"
            "{{ 'x' * (6000 if receiver.id == 'long' else 1) }}"
        },
        channel_template={"type": "messaging", "id": "{{ receiver.room|default(receiver.id) }}"},
    )
    decided = deciding._render

    def breaks_for_eve(target: Any, *rest: Any) -> None:
        if target.entry.target_id == "eve":
            deciding._fail_alone(target.entry, rest[0])
        else:
            decided(target, *rest)

    monkeypatch.setattr(deciding, "_render", breaks_for_eve)
    await start(database)
    campaign = await work(database)
    assert await outcomes(database, campaign) == {
        "ann": "SENT",
        "bob": "FAILED RENDER_ERROR",
        "eve": "FAILED INTERNAL_ERROR",
        "long": "FAILED RENDER_ERROR",
        "spaced": "FAILED CHANNEL_ID_INVALID",
    }
    async with database.read() as session:
        assert set((await session.execute(select(col(Channel.cid)))).scalars()) == {"messaging:ann"}
        details = dict((await session.execute(select(col(Recipient.target_id), col(Recipient.detail)))).all())
    assert "division by zero" in details["bob"] and "5,000" in details["long"]
    await books(database, campaign)


async def test_a_large_audience_is_planned_while_it_is_sent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "FIRST_CHUNK", 40)
    monkeypatch.setattr(planning, "CHUNK", 100)
    monkeypatch.setattr(planning, "BATCH", 30)
    receivers = [f"u{n:04d}" for n in range(700)]
    await add_users(database, ["sender", *receivers])
    lists = [await add_list(database, n, receivers[n * 50 : n * 50 + 400]) for n in range(7)]
    await create(database, segment_ids=lists)
    await start(database)
    worker = engine(database)
    await worker.turn()
    campaign = await read(database)
    counted = await books(database, campaign)
    assert counted.sent == 30 and counted.pending == 10 and not counted.planned
    campaign = await work(database)
    counted = await books(database, campaign)
    assert (counted.targets, counted.sent) == (700, 700)


async def test_workers_side_by_side_send_each_target_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "FIRST_CHUNK", 100)
    monkeypatch.setattr(planning, "BATCH", 20)
    campaign = await a_campaign(database, [f"u{n:04d}" for n in range(600)])

    async def one_worker() -> int:
        worker = engine(database, seconds_to_confirm=1.0)
        while (await read(database)).status == "IN_PROGRESS":
            await asyncio.sleep(min(0.05, await worker.turn()))
        return worker.sent

    shares = await asyncio.gather(*(one_worker() for _ in range(3)))
    counted = await books(database, campaign)
    assert (counted.sent, sum(shares)) == (600, 600)


async def test_nothing_commits_after_a_pause_and_a_resume_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 10)
    campaign = await a_campaign(database, [f"u{n:03d}" for n in range(50)])
    worker = engine(database)
    await worker.turn()
    async with database.transaction() as session:
        paused = await service.pause(session, "news")
    assert paused.status == "PAUSED"
    for _ in range(5):
        await worker.turn()
    assert (await books(database, campaign)).sent == 10
    async with database.transaction() as session:
        await service.resume(session, "news", capacity=None)
    assert (await work(database)).status == "COMPLETED"
    assert (await books(database, campaign)).sent == 50


async def test_stop_keeps_what_is_unsettled_pending(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 10)
    await a_campaign(database, [f"u{n:03d}" for n in range(50)])
    worker = engine(database)
    await worker.turn()
    async with database.transaction() as session:
        await service.stop(session, "news")
    await worker.turn()
    campaign = await read(database)
    counted = await books(database, campaign)
    assert (counted.sent, counted.pending) == (10, 40)
    assert campaign.final_stats is not None and campaign.final_stats["pending"] == 40


async def test_stop_at_ends_it_and_no_message_commits_after(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "BATCH", 10)
    campaign = await a_campaign(database, [f"u{n:03d}" for n in range(50)])
    worker = engine(database)
    await worker.turn()
    async with database.transaction() as session:
        await session.execute(update(Campaign).values(stop_at=datetime.now(UTC) - timedelta(seconds=1)))
    await worker.turn()
    assert (await books(database, campaign)).sent == 10
    async with database.transaction() as session:
        ended = await lifecycle.settle_due(session, campaign.campaign_no, None)
    assert ended is not None
    assert (ended.status, ended.status_reason) == ("STOPPED", "STOP_AT_REACHED")


async def test_a_missing_sender_pauses_the_campaign(database: Database) -> None:
    await a_campaign(database, ["ann"])
    async with database.transaction() as session:
        await session.execute(
            update(User).where(col(User.id) == "sender").values(deactivated_at=datetime.now(UTC))
        )
    campaign = await work(database)
    assert (campaign.status, campaign.status_reason) == ("PAUSED", "SENDER_MISSING")
    assert (await books(database, campaign)).pending == 1


async def test_a_recipient_that_breaks_its_batch_is_found_and_fails_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_break(monkeypatch, "u0013")
    await a_campaign(database, [f"u{n:04d}" for n in range(40)])
    campaign = await work(database)
    counted = await books(database, campaign)
    assert (counted.sent, counted.failed) == (39, 1)
    assert (await outcomes(database, campaign))["u0013"] == "FAILED INTERNAL_ERROR"


async def test_a_crash_counts_as_a_try_and_a_database_fault_does_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await a_campaign(database, ["ann"])
    worker = engine(database)

    async def tries() -> int:
        async with database.read() as session:
            return (await session.execute(select(col(Batch.attempts)))).scalar_one()

    async def away(*_: Any) -> None:
        raise ConnectionError("the database is away")

    class Killed(BaseException):
        """Nothing after it runs, as after SIGKILL."""

    async def killed(*_: Any) -> None:
        raise Killed

    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    for how, counted in ((away, 1), (killed, 2)):
        with monkeypatch.context() as patch:
            patch.setattr(batches, "send_slice", how)
            with contextlib.suppress(Killed):
                await worker.turn()
        worker._faults.backoff.clear()
        assert await tries() - len(worker._hands._owed) == counted - 1
    assert (await work(database)).status == "COMPLETED"


async def test_the_pace_is_kept_whatever_is_skipped(database: Database) -> None:
    receivers = [f"u{n:03d}" for n in range(60)]
    await add_users(database, ["sender", *receivers])
    await create(
        database,
        user_ids=[
            name for pair in zip(receivers, [f"nobody-{n}" for n in range(60)], strict=True) for name in pair
        ],
        max_messages_per_second=50,
    )
    await start(database)
    worker, began = engine(database), asyncio.get_running_loop().time()
    while (campaign := await read(database)).status == "IN_PROGRESS":
        await asyncio.sleep(await worker.turn())
    seconds = asyncio.get_running_loop().time() - began
    counted = await books(database, campaign)
    assert (counted.sent, counted.skipped) == (60, 60)
    assert seconds >= 0.95 * (60 - 10) / 50  # the first slice of ten goes at once


async def test_capacity_is_reserved_at_start_and_given_back_at_the_end(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob"])
    await create(database, user_ids=["ann", "bob", "nobody"])
    with pytest.raises(QuotaExceeded, match="needs 3 messages, 2 of 2 are left"):
        await start(database, capacity=2)
    assert (await read(database)).status == "DRAFT"
    await start(database, capacity=3)
    await work(database, monthly_messages=3)
    async with database.read() as session:
        assert await usage.used(session, datetime.now(UTC)) == 2
        assert await capacity.unreleased(session) == []


async def test_an_audience_that_outgrows_the_capacity_pauses_the_campaign(database: Database) -> None:
    await add_users(database, ["sender", "ann", "bob", "cid"])
    await create(database, user_ids=["ann", "bob", "cid"])
    await start(database, capacity=3)
    async with database.transaction() as session:
        await session.execute(update(Plan).values(reserved=1))
    campaign = await work(database, monthly_messages=3)
    assert (campaign.status, campaign.status_reason) == ("PAUSED", "QUOTA_EXCEEDED")
    assert (await books(database, campaign)).targets == 0


async def test_an_empty_audience_completes(database: Database) -> None:
    await add_users(database, ["sender"])
    await create(database, segment_ids=[await add_list(database, 1, [])])
    await start(database)
    campaign = await work(database)
    assert campaign.status == "COMPLETED" and (await books(database, campaign)).targets == 0


async def test_two_starts_at_once_start_once(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    await create(database, user_ids=["ann"])
    results = await asyncio.gather(*(start(database) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, Campaign) for result in results) == 1
    assert {getattr(result, "code", "started") for result in results} == {"started", "CONFLICT"}
    assert (await books(database, await work(database))).sent == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_waits_of_a_batch_are_bounded_for_its_transaction_only(database: Database) -> None:
    campaign = await a_campaign(database, ["ann"])
    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    async with database.transaction() as session:
        await opening.open_batch(session, campaign.campaign_no, 1)
        for setting, value in (("lock_timeout", "100ms"), ("transaction_timeout", "5s")):
            shown = await session.execute(text("SELECT current_setting(:name)"), {"name": setting})
            assert shown.scalar_one() == value
    async with database.transaction() as session:
        shown = await session.execute(text("SELECT current_setting('transaction_timeout')"))
        assert shown.scalar_one() == "30s"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_batch_that_takes_too_long_is_ended_by_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection's own timeout was running already, and a smaller one did not take effect."""
    monkeypatch.setattr(opening, "LONGEST_TRANSACTION", "300ms")
    campaign = await a_campaign(database, ["ann"])
    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    with pytest.raises(DBAPIError, match="transaction timeout") as ended:
        async with database.transaction() as session:
            await opening.open_batch(session, campaign.campaign_no, 1)
            await session.execute(text("SELECT pg_sleep(10)"))
    assert took_too_long(ended.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_batch_too_large_for_its_time_is_halved_until_it_fits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    receivers = ["ann", "bob", "cid", "dee"]
    campaign = await a_campaign(database, receivers)
    deliver = batches.deliver

    async def slow(session: Any, writer: Any, blueprint: Any, entries: Any, shared: Any) -> Any:
        if len(entries) > 1:
            await session.execute(text("SELECT pg_sleep(10)"))
        return await deliver(session, writer, blueprint, entries, shared)

    monkeypatch.setattr(opening, "LONGEST_TRANSACTION", "200ms")
    monkeypatch.setattr(batches, "deliver", slow)
    monkeypatch.setattr(faults, "FIRST_BACKOFF_SECONDS", 0.0)
    campaign = await work(database)
    assert (await books(database, campaign)).sent == 4


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_batch_that_waits_for_a_channel_is_given_back(database: Database) -> None:
    await add_channel(database, "messaging:ann-news", ["ann"])
    campaign = await a_campaign(database, ["ann"])
    worker = engine(database)
    async with database.transaction() as holder:
        await holder.execute(select(Channel).with_for_update())
        await worker.turn()
        assert worker._faults.backoff == {}
        assert (await books(database, campaign)).pending == 1
    assert (await work(database)).status == "COMPLETED"


async def test_two_workers_that_halve_a_batch_fail_nobody_by_it(database: Database) -> None:
    """Each has seen it fail too often; the second finds a half of one, who has not."""
    campaign = await a_campaign(database, ["ann", "bob"])
    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    async with database.transaction() as session:
        await session.execute(update(Batch).values(attempts=isolation.MAX_TRIES + 1))
        batch_no = (await session.execute(select(col(Batch.batch_no)))).scalar_one()
    async with database.transaction() as session:
        await isolation.isolate(session, campaign.campaign_no, batch_no)
    with pytest.raises(opening.BatchTaken):
        async with database.transaction() as session:
            await isolation.isolate(session, campaign.campaign_no, batch_no)
    assert (await books(database, await work(database))).sent == 2


async def test_workers_that_want_the_same_batch_do_not_take_it_for_broken(database: Database) -> None:
    await add_users(database, ["sender", "ann"])
    workers = [engine(database, seconds_to_confirm=1.0) for _ in range(8)]
    for number in range(6):
        await create(database, f"c{number}", user_ids=["ann"])
        await start(database, f"c{number}")
        campaign = await read(database, f"c{number}")
        await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
        while (campaign := await read(database, f"c{number}")).status == "IN_PROGRESS":
            await asyncio.gather(*(worker.turn() for worker in workers))
        assert await outcomes(database, campaign) == {"ann": "SENT"}


async def test_an_outage_that_lasts_does_not_count_as_tries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await a_campaign(database, ["ann"])
    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    worker = engine(database)

    async def away(*_: Any) -> None:
        raise ConnectionError("the database is away")

    for _ in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(batches, "send_slice", away)
            await worker.turn()
            patch.setattr(batches, "forgive", away)
            await worker.turn()
        worker._faults.backoff.clear()
    assert (await books(database, await work(database))).sent == 1


async def test_what_takes_long_is_sent_in_slices(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "SECONDS_TO_RENDER", 0.0)
    campaign = await a_campaign(database, ["ann", "bob", "cid", "sender"][:3])
    worker = engine(database)
    await worker.turn()
    assert (await books(database, campaign)).sent == 1
    assert (await books(database, await work(database))).sent == 3


async def test_many_template_members_make_small_transactions(database: Database) -> None:
    members = [f"agent-{number}" for number in range(1_000)]
    await a_campaign(
        database, [f"u{n:02d}" for n in range(30)], channel_template={"type": "team", "members": members}
    )
    worker = engine(database)
    await worker.turn()
    campaign = await read(database)
    assert (await books(database, campaign)).sent == 9  # 10,000 members or less
    campaign = await work(database)
    assert (await books(database, campaign)).sent == 30


async def test_a_raised_pace_takes_effect_at_once(database: Database) -> None:
    await add_users(database, ["sender", *(f"u{n:03d}" for n in range(300))])
    await create(database, user_ids=[f"u{n:03d}" for n in range(300)], max_messages_per_second=1)
    await start(database)
    worker, clock = engine(database), asyncio.get_running_loop().time
    began = clock()
    assert await worker.turn() == 0.0
    ((campaign_no, free_at),) = worker._free_at.items()
    assert began < free_at <= clock() + 1
    worker._free_at[campaign_no] = clock() + 600  # on a machine that may be slow
    assert await worker.turn() > 1
    async with database.transaction() as session:
        await service.update(session, "news", {"max_messages_per_second": None})
    assert await worker.turn() == 0.0
    assert (await work(database)).status == "COMPLETED"


async def test_a_paced_campaign_goes_before_one_that_may_have_all_of_the_servers_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had a tenth of its pace, or nothing: whoever came first took the server's whole slice each time."""
    people = [f"u{n:03d}" for n in range(300)]
    await add_users(database, ["sender", *people])
    await create(database, "all", user_ids=people)
    await create(database, "few", user_ids=people, max_messages_per_second=20)
    worker = engine(database, messages_per_second=100)
    every, few = await start(database, "all"), await start(database, "few")
    while not (await books(database, every)).sent:
        await worker.turn()
    waits = {
        throttle.SERVER: 0.09,  # the slice of the other one, which has had its share
        throttle.share_of(every.campaign_no): 1.5,
        few.campaign_no: 0.0,
    }
    at = datetime.now(UTC)

    async def stands_still(_: object) -> datetime:
        return at

    monkeypatch.setattr(throttle, "now", stands_still)
    async with database.transaction() as session:
        for scope, seconds in waits.items():
            await session.merge(Rate(scope=scope, next_at=at + timedelta(seconds=seconds)))
    worker = engine(database, messages_per_second=100)
    before, had = (await books(database, every)).sent, (await books(database, few)).sent
    for _ in range(20):
        await worker.turn()
        worker._free_at.clear()
    assert (await books(database, few)).sent > had
    assert (await books(database, every)).sent == before
    async with database.read() as session:
        scopes = set((await session.execute(select(col(Rate.scope)))).scalars())
    assert scopes == waits.keys()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_rate_row_that_is_held_is_waited_for_a_moment_only(database: Database) -> None:
    """By a worker that was stopped, not killed, say; its transaction ends by itself."""
    limits = throttle.Limits(7, 50, 100, 60.0)
    slice_of_it = await throttle.reserve(database, limits)
    assert slice_of_it.messages == 10
    async with database.transaction() as session:
        await session.execute(select(Rate).where(col(Rate.scope) == throttle.SERVER).with_for_update())
        refused = await throttle.reserve(database, limits)
        assert refused.messages == 0 and 0 < limits.wait(refused.waits) < 1
        await throttle.give_back(database, slice_of_it, 10)  # is forfeited
    async with throttle._briefly(database) as session:
        bounds = "SELECT current_setting('transaction_timeout'), current_setting('lock_timeout')"
        assert (await session.execute(text(bounds))).one() == ("1s", "100ms")


async def test_whoever_gets_no_message_is_settled_without_leave_to_send(database: Database) -> None:
    """It would take ten minutes else, and the leave from campaigns that can use it."""
    nobody = [f"a{n:03d}" for n in range(600)]  # before all others in the order of ids
    await add_users(database, ["sender", "u1", "u2"])
    await create(database, user_ids=[*nobody, "u1", "u2"])
    await start(database)
    worker, waited = engine(database, messages_per_second=1), 0.0
    while (await read(database)).status != "COMPLETED" and waited < 30:
        wait = await worker.turn()
        waited += wait
        async with database.transaction() as session:  # time goes by
            earlier = await now(session) - timedelta(seconds=wait)
            await session.execute(update(Rate).values(next_at=earlier))
        worker._free_at.clear()
    counted = await books(database, await read(database))
    assert (counted.sent, counted.skipped) == (2, 600)
    assert waited < 5


async def test_a_slice_for_which_there_is_no_leave_ends_before_the_first_who_gets_a_message(
    database: Database,
) -> None:
    people = [f"u{n:03d}" for n in range(20)]
    await add_users(database, ["sender", *people[10:]])
    await create(database, user_ids=people)
    campaign, worker = await start(database), engine(database)
    await planning.plan_chunk(database, campaign.campaign_no, capacity=None)
    for settled in (10, None):
        async with database.transaction() as session:
            slicing = batches.send_slice(
                session, campaign.campaign_no, 1, batches.ONLY_LEFT_OUT, worker._blueprints
            )
            if settled is None:
                with pytest.raises(batches.SomebodyToSendTo):
                    await slicing
            else:
                assert await slicing == batches.Slice(settled, 0)
    assert (await books(database, await work(database))).sent == 10


async def test_a_clock_that_was_set_back_does_not_stop_a_paced_campaign(database: Database) -> None:
    campaign = await a_campaign(database, ["ann"], max_messages_per_second=50)
    async with database.transaction() as session:
        later = datetime.now(UTC) + timedelta(minutes=10)
        session.add(Rate(scope=campaign.campaign_no, next_at=later))
    assert (await work(database)).status == "COMPLETED"


async def test_a_filter_that_matches_few_is_planned_in_short_reads(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "LEAST_WIDTH", 7)
    monkeypatch.setattr(planning, "FIRST_CHUNK", 2)
    monkeypatch.setattr(planning, "CHUNK", 3)
    receivers = [f"u{n:03d}" for n in range(60)]
    await add_users(database, ["sender", *receivers])
    few = [receivers[n] for n in (0, 1, 29, 30, 31, 32, 33, 59)]
    async with database.transaction() as session:
        await session.execute(update(User).where(col(User.id).in_(few)).values(role="few"))
        await segments.create(
            session, {"segment_id": "few", "type": "USER", "filter": {"role": {"$eq": "few"}}}
        )
    await create(database, segment_ids=["few"])
    await start(database)
    campaign = await work(database)
    assert await outcomes(database, campaign) == dict.fromkeys(few, "SENT")
    assert (await books(database, campaign)).targets == len(few)
