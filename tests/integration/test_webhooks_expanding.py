"""Expansion: queues become deliveries, each event in one of them, in order and in the right numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlmodel import col

from app.database import Database
from app.errors import Conflict, NotFound
from app.events.models import Event
from app.webhooks import bodies, expanding, service
from app.webhooks.expanding import MAX_BATCH, cut
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint, Queued
from app.webhooks.queries import Head
from app.webhooks.schedule import BACKOFF, next_attempt
from tests.api.counting import statements
from tests.integration.campaigning import add_users, create, start, work
from tests.integration.hearing import SETTINGS, deliveries, dispatch, expand, hear, listen, posts

AT = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def heads(draw: st.DrawFn) -> list[Head]:
    found = []
    late = draw(st.integers(0, 5))
    for position in range(draw(st.integers(0, 12))):
        size = draw(st.sampled_from([1, 1, 2, 7, 499, 500, 501, 1_700]))
        taken = draw(st.integers(0, size - 1)) if position == 0 else 0
        gives_up_at = AT if position < late else AT + timedelta(days=1)
        found.append(Head(position, f"e{position}", "message.new", taken, size, gives_up_at))
    return found


@settings(deadline=None)
@given(heads(), st.sampled_from([1, 2, 3, 500]), st.integers(0, 40))
def test_what_is_cut_is_the_head_of_the_queue(waiting: list[Head], batch_size: int, want: int) -> None:
    """In order, without gap or overlap; no parcel too large, no more than wanted, none short but the last."""
    made = cut(waiting, batch_size, want, AT)
    held = [(part[0], place) for parcel in made.parcels for part in parcel.holds for place in _places(part)]
    queue = [(head.event_id, place) for head in waiting for place in range(head.taken, head.size)]
    assert held == queue[: len(held)]
    left = [head for head in waiting if made.through is None or head.position > made.through]
    if made.begun is not None:
        position, taken = made.begun
        left = [head._replace(taken=taken) if head.position == position else head for head in left]
    assert queue[len(held) :] == [(each.event_id, at) for each in left for at in range(each.taken, each.size)]
    fresh = [parcel for parcel in made.parcels if not parcel.expired]
    assert all(parcel.size == sum(part[2] for part in parcel.holds) for parcel in made.parcels)
    assert all(
        parcel.size <= MAX_BATCH and len(parcel.holds) == 1 for parcel in made.parcels if parcel.expired
    )
    assert len(fresh) <= want and all(parcel.size == batch_size for parcel in fresh[:-1])
    assert not fresh or fresh[-1].size == batch_size or len(held) == len(queue)
    assert len(fresh) == want or len(held) == len(queue)


def _places(part: list[int]) -> range:
    return range(part[1], part[1] + part[2])


async def campaign(database: Database, people: int) -> None:
    names = [f"u{number:03}" for number in range(people)]
    await add_users(database, ["sender", *names])
    await create(database, user_ids=names)
    await start(database)
    await work(database)


async def late(database: Database, endpoint: Endpoint, table: type[Queued] | type[Delivery] = Queued) -> None:
    """Three days go by."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with database.transaction() as session:
        own = col(table.endpoint_id) == endpoint.endpoint_id
        await session.execute(update(table).where(own).values(gives_up_at=past))


async def test_one_message_a_post_and_no_more_than_wanted(database: Database) -> None:
    endpoint = await listen(database, "message.new")
    await campaign(database, 7)
    await dispatch(database)
    for expected in (3, 3, 1, 0):
        async with database.transaction() as session:
            assert await expanding.expand(session, endpoint, 3) == expected
    made = await deliveries(database, endpoint)
    assert [each.seq for each in made] == list(range(1, 8))
    assert all(each.size == 1 and each.event_type == "message.new" for each in made)
    told = [body["message"]["target_id"] for body in await posts(database, endpoint)]
    assert told == [f"u{number:03}" for number in range(7)]


async def test_a_batch_goes_across_events_of_all_types(database: Database) -> None:
    endpoint = await listen(database, batch_size=4)
    await campaign(database, 3)
    await dispatch(database)
    assert await expand(database, endpoint) == 2
    bodies_ = await posts(database, endpoint)
    assert [body["type"] for body in bodies_] == ["batch", "batch"]
    assert [[event["type"] for event in body["events"]] for body in bodies_] == [
        ["campaign.started", "channel.created", "channel.created", "channel.created"],
        ["message.new", "message.new", "message.new", "campaign.completed"],
    ]
    assert {each.event_type for each in await deliveries(database, endpoint)} == {"batch"}


async def test_a_delivery_keeps_its_form_when_the_batch_size_changes(database: Database) -> None:
    endpoint = await listen(database, "message.new", batch_size=2)
    await campaign(database, 5)
    await dispatch(database)
    async with database.transaction() as session:
        await expanding.expand(session, endpoint, 1)
    before = await posts(database, endpoint)
    async with database.transaction() as session:
        await service.update(session, endpoint.endpoint_id, {"batch_size": 1}, SETTINGS)
    await expand(database, endpoint)
    after = await posts(database, endpoint)
    assert after[:1] == before
    assert [body["type"] for body in after] == ["batch", "message.new", "message.new", "message.new"]


async def test_what_waited_for_three_days_is_failed_and_can_be_redelivered(database: Database) -> None:
    """A row for many events; redelivered, an endpoint of single posts gets each of them."""
    endpoint = await listen(database, "message.new")
    await campaign(database, 5)
    await dispatch(database)
    await late(database, endpoint)
    assert await expand(database, endpoint) == 1  # which counts: a transaction makes no more than asked for
    (failed,) = await deliveries(database, endpoint)
    assert (failed.status, failed.size, failed.attempts) == (DeliveryStatus.FAILED, 5, 0)
    assert failed.error is not None and "three days" in failed.error
    async with database.transaction() as session:
        again = await service.redeliver(session, failed.id)
    assert (again.id, again.status, again.size) == (failed.id, DeliveryStatus.PENDING, 1)
    told = await hear(database, endpoint)
    assert [each["message"]["target_id"] for each in told] == [f"u{number:03}" for number in range(5)]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 500])
async def test_a_batch_that_was_never_posted_loses_nothing_when_it_is_redelivered(
    database: Database, batch_size: int
) -> None:
    """It is of several events, and the endpoint takes fewer of them in a post than it did."""
    endpoint = await listen(database, batch_size=7)
    await campaign(database, 4)
    before = await hear(database, endpoint)
    failed, *others = await deliveries(database, endpoint)
    assert (len(failed.holds), failed.size, len(others)) == (3, 7, 1)
    async with database.transaction() as session:
        given_up = {"status": DeliveryStatus.FAILED, "next_attempt_at": None}
        await session.execute(update(Delivery).where(col(Delivery.id) == failed.id).values(given_up))
        await session.execute(update(Endpoint).values(batch_size=batch_size))
    async with database.transaction() as session:
        again = await service.redeliver(session, failed.id)
    kept = min(batch_size, 7)
    assert (again.id, again.size) == (failed.id, kept)
    assert again.event_type == ("batch" if batch_size > 1 else "campaign.started")
    told = await hear(database, endpoint)
    assert told == before[:kept] + before[7:] + before[kept:7]


@pytest.mark.parametrize("changes", [{"url": "https://hooks.example.com/new"}, {"enabled": True}])
async def test_a_change_that_may_mend_it_ends_a_rest_and_forgets_no_failure(
    database: Database, changes: dict[str, Any]
) -> None:
    endpoint = await listen(database)
    before = await _resting(database)
    async with database.transaction() as session:
        same = await service.update(session, endpoint.endpoint_id, {"url": endpoint.url}, SETTINGS)
        assert same.rests_until is not None
        mended = await service.update(session, endpoint.endpoint_id, changes, SETTINGS)
        assert (mended.failures, mended.failing_since, mended.rests_until) == (12, before, None)


async def test_a_test_and_a_redelivery_end_a_rest_and_forget_no_failure(database: Database) -> None:
    endpoint = await listen(database)
    for _ in range(2):
        before = await _resting(database)
        async with database.transaction() as session:
            made = await deliveries(database, endpoint)
            if made:
                await service.redeliver(session, made[0].id)
            else:
                await service.test(session, endpoint.endpoint_id)
        async with database.read() as session:
            row = await session.get_one(Endpoint, endpoint.endpoint_id)
            assert (row.failures, row.failing_since, row.rests_until) == (12, before, None)


async def _resting(database: Database) -> datetime:
    """Sends every endpoint to rest; when they began to fail."""
    since = datetime.now(UTC)
    async with database.transaction() as session:
        resting = {"failures": 12, "failing_since": since, "rests_until": since + timedelta(hours=4)}
        await session.execute(update(Endpoint).values(resting))
    return since


async def test_a_redelivery_fails_as_often_as_a_new_delivery(database: Database) -> None:
    """However many attempts it has behind it, which its row goes on counting."""
    endpoint = await listen(database)
    async with database.transaction() as session:
        made = await service.test(session, endpoint.endpoint_id)
        failed = {"status": DeliveryStatus.FAILED, "attempts": 23, "next_attempt_at": None}
        await session.execute(update(Delivery).values(**failed, gives_up_at=made.created_at))
    async with database.transaction() as session:
        again = await service.redeliver(session, made.id)
    assert again.attempts == 23 and again.next_attempt_at is not None
    gaps, at = list[timedelta](), again.next_attempt_at
    for attempts in range(24, 24 + len(BACKOFF)):
        later = next_attempt(attempts, at, again.gives_up_at, chance=lambda: 0.0)
        assert later is not None
        gaps.append(later - at)
        at = later
    assert gaps == [step / 2 for step in BACKOFF]


async def test_a_redelivery_is_the_same_post_again(database: Database) -> None:
    endpoint = await listen(database, "message.new", batch_size=500)
    await campaign(database, 3)
    before = await hear(database, endpoint)
    (made,) = await deliveries(database, endpoint)
    async with database.transaction() as session:
        settled = {"status": DeliveryStatus.DELIVERED, "attempts": 1, "next_attempt_at": None}
        await session.execute(update(Delivery).values(**settled, delivered_at=made.created_at))
        await session.execute(update(Endpoint).values(batch_size=1))
    async with database.transaction() as session:
        again = await service.redeliver(session, made.id)
    assert (again.id, again.holds, again.size) == (made.id, made.holds, 3)
    assert (again.status, again.delivered_at) == (DeliveryStatus.PENDING, None)
    assert again.next_attempt_at is not None and again.gives_up_at > made.gives_up_at
    assert await hear(database, endpoint) == before


async def test_nothing_is_redelivered_to_the_disabled_and_the_deleted(database: Database) -> None:
    endpoint = await listen(database)
    async with database.transaction() as session:
        made = await service.test(session, endpoint.endpoint_id)
        await service.update(session, endpoint.endpoint_id, {"enabled": False}, SETTINGS)
    async with database.transaction() as session:
        with pytest.raises(Conflict, match="Enable it first"):
            await service.redeliver(session, made.id)
        with pytest.raises(Conflict, match="Enable it first"):
            await service.test(session, endpoint.endpoint_id)
        await service.delete(session, endpoint.endpoint_id)
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await service.redeliver(session, made.id)
        assert await expanding.expand(session, endpoint, 10) == 0


async def test_enabling_lets_what_waits_be_attempted_at_once(database: Database) -> None:
    endpoint = await listen(database)
    async with database.transaction() as session:
        await service.test(session, endpoint.endpoint_id)
        soon = datetime.now(UTC) + timedelta(hours=4)
        await session.execute(update(Delivery).values(next_attempt_at=soon))
        await session.execute(update(Endpoint).values(failures=12, failing_since=soon, rests_until=soon))
    async with database.transaction() as session:
        await service.disable(session, endpoint.endpoint_id, "It failed for a day.")
    async with database.transaction() as session:
        again = await service.update(session, endpoint.endpoint_id, {"enabled": True}, SETTINGS)
    assert (again.failures, again.failing_since, again.rests_until, again.disabled_reason) == (
        0,
        None,
        None,
        None,
    )
    (waiting,) = await deliveries(database, endpoint)
    assert waiting.next_attempt_at is not None and waiting.next_attempt_at < soon - timedelta(hours=3)


async def test_few_and_many_cost_the_same_statements(database: Database) -> None:
    single, batched = await listen(database), await listen(database, batch_size=500)
    await campaign(database, 200)
    with statements() as dispatching:
        await dispatch(database)
    assert len(dispatching) <= 10
    costs = []
    for want in (2, 300):
        with statements() as expanding_:
            async with database.transaction() as session:
                await expanding.expand(session, single, want)
        costs.append(len(expanding_))
    assert max(costs) <= 8 and max(costs) - min(costs) <= 1  # an event that was begun is one more
    await expand(database, batched)
    built = []
    for made in ((await deliveries(database, single))[2:150:70], await deliveries(database, single)):
        async with database.read() as session:
            with statements() as building:
                await bodies.build(session, made)
        built.append(len(building))
    assert built[1] <= 3


async def test_an_event_that_was_erased_meanwhile_blocks_nothing(database: Database) -> None:
    endpoint = await listen(database)
    await campaign(database, 2)
    await dispatch(database)
    async with database.transaction() as session:
        await session.execute(delete(Event).where(col(Event.type) == "campaign.started"))
    assert len(await hear(database, endpoint)) == 5
