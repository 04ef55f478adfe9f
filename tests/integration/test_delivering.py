"""Deliverers against real servers, on both databases: order, retries, rest, disabling, leases, stopping."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from standardwebhooks import WebhookVerificationError

from app.database import Database, now
from app.events import service as events
from app.events.models import Event
from app.ids import message_ids
from app.webhooks import bodies, deliverer, delivering, expanding, routes, service
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint
from tests.integration.delivering import (
    Work,
    add_endpoint,
    change,
    deliveries,
    endpoint_of,
    happen,
    pass_time,
    working,
)
from tests.integration.receiving import Post, Receiver, allowing, receiving

DELIVERED, FAILED, PENDING = DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.PENDING


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A customer's server."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def work(database: Database) -> AsyncIterator[Work]:
    """A deliverer."""
    async with working(database) as work:
        yield work


async def tell(database: Database, *sizes: int) -> None:
    """Events of about these sizes, in bytes."""
    async with database.transaction() as session:
        for size in sizes:
            await events.record(session, "campaign.updated", 1, {"description": "x" * size})


async def change_lease(session: AsyncSession, endpoint: Endpoint, name: str) -> None:
    """Gives the endpoint to somebody."""
    own = col(Endpoint.endpoint_id) == endpoint.endpoint_id
    await session.execute(update(Endpoint).where(own).values(leased_by=name))


async def set_enabled(database: Database, endpoint: Endpoint, enabled: bool) -> None:
    async with database.transaction() as session:
        await service.update(session, endpoint.endpoint_id, {"enabled": enabled}, allowing())


async def answer_never(_: Post) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


# --- what arrives


async def test_events_arrive_signed_each_once(database: Database, receiver: Receiver, work: Work) -> None:
    endpoint = await add_endpoint(database, receiver.url)
    await happen(database, 300)
    settled = await work.until_settled()

    assert sorted(receiver.ids) == [each.id for each in settled]
    assert len(set(receiver.ids)) == 300
    assert {(each.status, each.attempts, each.status_code, each.error) for each in settled} == {
        (DELIVERED, 1, 204, None)
    }
    assert all(each.delivered_at and each.next_attempt_at is None for each in settled)
    for post in receiver.posts:
        assert post.verified(endpoint.secret)["type"] == "campaign.updated"


async def test_one_at_a_time_first_attempts_arrive_in_the_order_of_creation(
    database: Database, receiver: Receiver
) -> None:
    async with working(database, allowing(webhook_connections=1)) as work:
        await add_endpoint(database, receiver.url)
        for _ in range(10):
            await happen(database, 20)
        settled = await work.until_settled()

    assert receiver.most_in_flight == 1
    assert receiver.ids == [each.id for each in settled]


async def test_many_at_a_time_none_begins_before_an_earlier_one(
    database: Database, receiver: Receiver
) -> None:
    """With ten in flight an arrival is at most nine places early."""
    async with working(database, allowing(webhook_connections=10)) as work:
        await add_endpoint(database, receiver.url)
        await happen(database, 200)
        order = {each.id: place for place, each in enumerate(await work.until_settled())}

    assert receiver.most_in_flight <= 10
    assert all(abs(order[id_] - place) < 10 for place, id_ in enumerate(receiver.ids))


async def test_an_event_that_was_committed_later_with_a_smaller_id_is_not_passed_over(
    database: Database, receiver: Receiver, work: Work
) -> None:
    await add_endpoint(database, receiver.url)
    async with database.transaction() as session:
        early = Event(id="0", type="campaign.updated", campaign_no=1, data={}, created_at=await now(session))
    await happen(database)
    await work.until_settled()
    async with database.transaction() as session:
        session.add(early)
    await work.until(lambda: len(receiver.posts) == 2)


async def test_a_batch_is_one_post_with_one_signature(
    database: Database, receiver: Receiver, work: Work
) -> None:
    endpoint = await add_endpoint(database, receiver.url, batch_size=100)
    await happen(database, 250)
    await work.until_settled()

    told = [post.verified(endpoint.secret) for post in receiver.posts]
    assert {each["type"] for each in told} == {"batch"}
    assert sorted(len(each["events"]) for each in told) == [50, 100, 100]


async def test_what_has_been_deleted_since_is_not_told(
    database: Database, receiver: Receiver, work: Work
) -> None:
    await add_endpoint(database, receiver.url)
    async with database.transaction() as session:  # messages that are gone already
        await events.record_messages(session, message_ids(3), [], await now(session), (1, "news"))
    settled = await work.until_settled()

    assert receiver.posts == []
    assert [(each.status, each.attempts, each.error) for each in settled] == [
        (FAILED, 0, routes.NOTHING_LEFT)
    ] * 3


async def test_a_body_that_cannot_be_built_costs_no_other_its_turn(
    database: Database, receiver: Receiver, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, broken = bodies.build, set[str]()

    async def breaking(session: AsyncSession, found: Iterable[Delivery]) -> dict[str, bytes | None]:
        found = list(found)
        broken.update(found[0].id for _ in range(1) if not broken)
        if broken & {each.id for each in found}:
            raise KeyError("a fault")
        return await build(session, found)

    monkeypatch.setattr(bodies, "build", breaking)
    await add_endpoint(database, receiver.url)
    await happen(database, 10)
    settled = await work.until_settled(pending=1)

    assert len(receiver.posts) == 9
    (faulty,) = (each for each in settled if each.id in broken)
    assert (faulty.status, faulty.attempts, faulty.error) == (PENDING, 1, routes.FAULT)


# --- failures


async def test_what_fails_comes_again_with_the_same_id_and_body(
    database: Database, receiver: Receiver, work: Work
) -> None:
    await add_endpoint(database, receiver.url)
    receiver.answers(500, 204)
    await happen(database)
    (waiting,) = await work.until_settled(pending=1)

    assert (waiting.status, waiting.attempts, waiting.status_code) == (PENDING, 1, 500)
    assert waiting.error == "Answered 500 Internal Server Error."
    assert waiting.next_attempt_at is not None
    assert waiting.next_attempt_at - waiting.created_at >= timedelta(seconds=2.5)

    await pass_time(database, timedelta(seconds=5))
    (settled,) = await work.until_settled()
    assert (settled.status, settled.attempts, settled.status_code, settled.error) == (DELIVERED, 2, 204, None)
    first, second = receiver.posts
    assert (first.id, first.body) == (second.id, second.body)


async def test_a_receiver_that_asks_for_time_gets_it(
    database: Database, receiver: Receiver, work: Work
) -> None:
    await add_endpoint(database, receiver.url)
    receiver.answers(503, 204, headers={"Retry-After": "3600"})
    await happen(database)
    (waiting,) = await work.until_settled(pending=1)

    assert waiting.next_attempt_at is not None
    assert waiting.next_attempt_at - waiting.created_at >= timedelta(hours=1)
    await pass_time(database, timedelta(minutes=59))
    await work.until_settled(pending=1)
    assert len(receiver.posts) == 1
    await pass_time(database, timedelta(minutes=10))
    await work.until_settled()
    assert len(receiver.posts) == 2


async def test_a_redirect_is_a_failure_and_not_followed(
    database: Database, receiver: Receiver, work: Work
) -> None:
    async with receiving() as elsewhere:
        await add_endpoint(database, receiver.url)
        receiver.answers(307, headers={"Location": elsewhere.url})
        await happen(database)
        (waiting,) = await work.until_settled(pending=1)
    assert elsewhere.posts == []
    assert waiting.error is not None and "not followed" in waiting.error


async def test_a_name_that_leads_inside_is_not_posted_to(database: Database, receiver: Receiver) -> None:
    async with working(database, allowing(webhook_allowed_networks="10.0.0.0/8")) as work:
        await add_endpoint(database, receiver.url)
        await happen(database)
        (waiting,) = await work.until_settled(pending=1)
    assert receiver.posts == []
    assert waiting.error is not None and waiting.error.startswith("Refused: ")


async def test_after_three_days_it_has_failed(database: Database, receiver: Receiver, work: Work) -> None:
    await add_endpoint(database, receiver.url)
    receiver.answers(500)
    await happen(database)
    await work.until_settled(pending=1)
    await pass_time(database, timedelta(days=3))
    (settled,) = await work.until_settled()

    assert (settled.status, settled.attempts, settled.next_attempt_at) == (FAILED, 2, None)
    assert settled.error == "Answered 500 Internal Server Error."


async def test_what_nobody_attempted_in_its_three_days_is_not_attempted_any_more(
    database: Database, receiver: Receiver, work: Work
) -> None:
    await add_endpoint(database, receiver.url)
    receiver.answers(500)
    await happen(database)
    await work.until_settled(pending=1)
    await pass_time(database, timedelta(days=4))
    (settled,) = await work.until_settled()

    assert (settled.status, settled.attempts, settled.error) == (FAILED, 1, routes.TOO_LATE)
    assert len(receiver.posts) == 1


async def test_an_endpoint_that_fails_ten_times_rests_and_is_probed(
    database: Database, receiver: Receiver
) -> None:
    receiver.answers(500)
    async with working(database, allowing(webhook_connections=1)) as work:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 100)
        await work.until(lambda: len(receiver.posts) == 10)
        for _ in range(5):
            await work.deliverer.turn()
        resting = await endpoint_of(database, endpoint)
        assert (len(receiver.posts), resting.failures) == (10, 10)
        assert resting.rests_until is not None and resting.leased_by is None

        await work.until(lambda: len(receiver.posts) == 11)  # a second later: one, to see
        await work.until(lambda: not work.deliverer.posting_to)
        assert receiver.posts[10].at - receiver.posts[9].at >= 0.9
        resting = await endpoint_of(database, endpoint)
        assert resting.failures == 11

        receiver.answers(204)
        await pass_time(database, timedelta(hours=1))
        settled = await work.until_settled()
    assert {each.status for each in settled} == {DELIVERED}
    well = await endpoint_of(database, endpoint)
    assert (well.failures, well.failing_since, well.rests_until) == (0, None, None)


async def test_a_day_of_nothing_but_failures_disables_an_endpoint_and_others_hear_of_it(
    database: Database, receiver: Receiver, work: Work
) -> None:
    async with receiving() as other:
        endpoint = await add_endpoint(database, receiver.url, event_types=["campaign.updated"])
        await add_endpoint(database, other.url, event_types=["webhook_endpoint.disabled"])
        receiver.answers(500)
        await happen(database, 20)
        await work.until_settled(pending=20)
        for probes in range(1, 7):  # four hours apart, as the last retries are
            await pass_time(database, timedelta(hours=4))
            await work.until(lambda: len(receiver.posts) == 20 + probes)  # noqa: B023
            await work.until(lambda: not work.deliverer.posting_to)
        await work.until(lambda: other.posts)

    disabled = await endpoint_of(database, endpoint)
    assert not disabled.enabled
    assert disabled.disabled_reason is not None
    assert disabled.disabled_reason.startswith("It did nothing but fail for a day")
    assert other.posts[0].told["type"] == "webhook_endpoint.disabled"
    assert endpoint.secret not in other.posts[0].body.decode()


async def test_410_disables_an_endpoint_until_it_is_enabled_again(
    database: Database, receiver: Receiver
) -> None:
    receiver.answers(410)
    async with working(database, allowing(webhook_connections=1)) as work:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 5)
        await work.until(lambda: receiver.posts)
        await work.until(lambda: not work.deliverer.posting_to)
        disabled = await endpoint_of(database, endpoint)
        assert (disabled.enabled, disabled.disabled_reason) == (False, routes.GONE)
        await happen(database, 5)
        for _ in range(5):
            await work.deliverer.turn()
        assert len(receiver.posts) == 1

        receiver.answers(204)
        await set_enabled(database, endpoint, True)
        await work.until(lambda: len(receiver.posts) == 11)
        settled = await work.until_settled()
    assert {each.status for each in settled} == {DELIVERED}


async def test_a_slow_and_a_dead_endpoint_delay_no_other(database: Database, receiver: Receiver) -> None:
    slow, dead = Receiver(answer_never), "http://127.0.0.1:1/"
    settings = allowing(webhook_connections=5, webhook_timeout_seconds=60)
    async with receiving(slow), working(database, settings) as work:
        for url in (slow.url, dead, receiver.url):
            await add_endpoint(database, url)
        await happen(database, 500)
        await work.until(lambda: len(receiver.posts) == 500)

    assert len(slow.posts) == slow.most_in_flight == 5


# --- secrets


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    database: Database, receiver: Receiver, work: Work
) -> None:
    endpoint = await add_endpoint(database, receiver.url)
    async with database.transaction() as session:
        rotated = await service.rotate(session, endpoint.endpoint_id)
    await happen(database)
    await work.until_settled()
    for secret in (endpoint.secret, rotated.secret):
        receiver.posts[0].verified(secret)

    await pass_time(database, timedelta(days=1))
    await happen(database)
    await work.until(lambda: len(receiver.posts) == 2)
    receiver.posts[1].verified(rotated.secret)
    with pytest.raises(WebhookVerificationError):
        receiver.posts[1].verified(endpoint.secret)


# --- disabled, deleted


async def test_to_a_disabled_endpoint_nothing_is_posted_until_it_is_enabled(
    database: Database, receiver: Receiver, work: Work
) -> None:
    endpoint = await add_endpoint(database, receiver.url)
    await set_enabled(database, endpoint, False)
    await happen(database, 3)
    for _ in range(5):
        await work.deliverer.turn()
    assert receiver.posts == []
    await set_enabled(database, endpoint, True)
    await work.until(lambda: len(receiver.posts) == 3)


async def test_to_a_deleted_endpoint_nothing_is_posted_whatever_waits(
    database: Database, receiver: Receiver
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: Post) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return web.Response()

    receiver.answer = answer
    async with working(database, allowing(webhook_connections=1)) as work:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 50)
        await work.until(begun.is_set)
        async with database.transaction() as session:
            await service.delete(session, endpoint.endpoint_id)
        work.deliverer._next_look = 0.0
        await work.deliverer.turn()
        go_on.set()
        await work.until(lambda: not work.deliverer.posting_to)
        for _ in range(3):
            await work.deliverer.turn()
    assert len(receiver.posts) == 1


async def test_nothing_is_posted_by_what_was_known_long_ago(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database cannot be asked, nobody knows whether the endpoint is still there, or still ours."""
    monkeypatch.setattr(routes, "SECONDS_FRESH", 0.0)
    async with working(database) as work:
        await add_endpoint(database, receiver.url)
        await happen(database, 5)
        for _ in range(10):
            work.deliverer._next_look = 0.0
            await work.deliverer.turn()
            await asyncio.sleep(0)
        assert receiver.posts == []
        monkeypatch.setattr(routes, "SECONDS_FRESH", 2.0)
        await work.until(lambda: len(receiver.posts) == 5)


# --- leases


async def test_deliverers_share_endpoints_and_double_nothing(database: Database) -> None:
    async with receiving() as one, receiving() as two, receiving() as three:
        receivers = (one, two, three)
        for receiver in receivers:
            await add_endpoint(database, receiver.url)
        await happen(database, 200)
        async with working(database, name="a") as a, working(database, name="b") as b:

            def all_is_there() -> bool:
                return all(len(receiver.posts) >= 200 for receiver in receivers)

            await asyncio.gather(a.until(all_is_there), b.until(all_is_there))
            await asyncio.gather(a.until_settled(), b.until_settled())
    for receiver in receivers:
        assert len(receiver.posts) == len(set(receiver.ids)) == 200


async def test_who_has_lost_his_lease_writes_nothing_and_stops(
    database: Database, receiver: Receiver
) -> None:
    go_on = asyncio.Event()

    async def answer(_: Post) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=204)

    receiver.answer = answer
    settings = allowing(webhook_connections=2)
    async with working(database, settings, name="a") as slow, working(database, settings, name="b") as other:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 10)
        await slow.until(lambda: len(receiver.posts) == 2)
        await pass_time(database, timedelta(seconds=11))  # as if it had been stopped for so long
        other.deliverer._next_look = 0.0
        await other.deliverer.turn()
        leased = await endpoint_of(database, endpoint)
        assert leased.leased_by is not None and leased.leased_by.startswith("b~")
        await other.until(lambda: len(receiver.posts) == 4)  # the same two, once more

        slow.deliverer._next_look = 0.0
        await slow.deliverer.turn()
        assert slow.deliverer.posting_to == 0
        assert {each.status for each in await deliveries(database)} == {PENDING}
        go_on.set()
        settled = await other.until_settled()
        await slow.deliverer.turn()

    assert {(each.status, each.attempts) for each in settled} == {(DELIVERED, 1)}
    assert len(receiver.posts) == 12
    assert sorted(set(receiver.ids)) == [each.id for each in settled]


async def test_who_was_held_up_keeps_what_nobody_has_taken(database: Database, receiver: Receiver) -> None:
    go_on = asyncio.Event()

    async def answer(_: Post) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=204)

    receiver.answer = answer
    async with working(database) as work:
        await add_endpoint(database, receiver.url)
        await happen(database, 5)
        await work.until(lambda: len(receiver.posts) == 5)
        await pass_time(database, timedelta(seconds=11))
        go_on.set()
        settled = await work.until_settled()
    assert {(each.status, each.attempts) for each in settled} == {(DELIVERED, 1)}
    assert len(receiver.posts) == 5


async def test_who_stops_writes_what_ended_and_gives_the_rest_back_at_once(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.webhooks.deliverer.SECONDS_TO_END_POSTS", 0.3)

    async def answer(post: Post) -> web.StreamResponse:
        if post.told["campaign"] is None or receiver.posts.index(post) >= 3:
            await asyncio.Event().wait()
        return web.Response(status=204)

    receiver.answer = answer
    async with working(database, allowing(webhook_connections=5)) as work:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 20)
        await work.until(lambda: len(receiver.posts) == 8)
    assert (await endpoint_of(database, endpoint)).leased_by is None
    assert sum(each.status == DELIVERED for each in await deliveries(database)) == 3

    receiver.posts.clear()
    receiver.answers(204)
    async with working(database) as work:
        settled = await work.until_settled()
    assert len(receiver.posts) == 17
    assert {each.status for each in settled} == {DELIVERED}


async def test_an_idle_endpoint_is_given_back(
    database: Database, receiver: Receiver, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SECONDS_TO_STAY", 0.0)
    endpoint = await add_endpoint(database, receiver.url)
    await happen(database)
    await work.until_settled()
    for _ in range(3):
        work.deliverer._next_look = 0.0
        await work.deliverer.turn()
    assert (await endpoint_of(database, endpoint)).leased_by is None


async def test_a_delivery_that_is_gone_from_the_rows_costs_nothing(
    database: Database, receiver: Receiver, work: Work
) -> None:
    """Pruned, or cleared away with its endpoint, while it was in flight."""
    go_on = asyncio.Event()

    async def answer(_: Post) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=500)

    receiver.answer = answer
    await add_endpoint(database, receiver.url)
    await happen(database)
    await work.until(lambda: receiver.posts)
    async with database.transaction() as session:
        await session.execute(delete(Delivery))
    go_on.set()
    await work.until(lambda: not work.deliverer.posting_to)
    async with database.read() as session:
        assert (await session.execute(select(col(Delivery.id)))).all() == []


async def test_bodies_in_hand_are_bounded(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits for an endpoint that does not answer."""
    monkeypatch.setattr(deliverer, "SHARED_BYTES", 200_000)
    monkeypatch.setattr(deliverer, "MOST_BYTES_EACH", 100_000)
    monkeypatch.setattr(deliverer, "LEAST_BYTES_EACH", 30_000)
    hanging = Receiver(answer_never)
    async with receiving(hanging), working(database) as work:
        urls = [f"{hanging.url}/{number}" for number in range(5)]
        for url in (*urls, receiver.url):
            await add_endpoint(database, url)
        await tell(database, *[8_000] * 60)
        most = 0

        def all_arrived() -> bool:
            nonlocal most
            most = max(most, sum(route.bytes_in_hand for route in work.deliverer._routes.values()))
            return len(receiver.posts) == 60

        def all_have_their_share() -> bool:
            posted = Counter(post.path for post in hanging.posts)
            return len(posted) == 5 and min(posted.values()) >= 3  # an equal one, if no more

        await work.until(all_arrived)
        await work.until(all_have_their_share)
        for route in work.deliverer._routes.values():
            assert route.bytes_in_hand <= 100_000 + 11_000
        assert most <= 200_000 + 6 * (30_000 + 11_000)


async def test_a_body_that_would_be_too_large_is_split_before_it_is_posted(
    database: Database, receiver: Receiver
) -> None:
    """Each event once and in order, whatever their sizes; only one that is too large by itself stays."""
    sizes = [300_000, 10, 700_000, 1_200_000, 10, 10, 900_000, 90_000, *[30_000] * 90]
    async with working(database, allowing(webhook_connections=1)) as work:
        await add_endpoint(database, receiver.url, batch_size=50)
        await tell(database, *sizes)
        settled = await work.until_settled()

    told = [post.told["events"] for post in receiver.posts]
    assert [len(event["campaign"]["description"]) for events_ in told for event in events_] == sizes
    assert {post.told["type"] for post in receiver.posts} == {"batch"}
    assert all(
        len(post.body) <= routes.MOST_BODY_BYTES or len(post.told["events"]) == 1 for post in receiver.posts
    )
    assert len(receiver.posts) == len(settled) == len(set(receiver.ids))
    assert [each.size for each in sorted(settled, key=lambda each: receiver.ids.index(each.id))] == [
        len(events_) for events_ in told
    ]


async def test_what_was_attempted_is_never_split(database: Database, receiver: Receiver) -> None:
    async with working(database) as work:
        endpoint = await add_endpoint(database, receiver.url, batch_size=50)
        await happen(database, 10)
        receiver.answers(500)
        (before,) = await work.until_settled(pending=1)
        async with database.transaction() as session:
            await change_lease(session, endpoint, "me")
            await delivering.split(session, "me", before, 2)
        (after,) = await deliveries(database)
    assert (after.holds, after.size) == (before.holds, 10)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=9), st.integers(1, 500))
def test_portions_are_the_same_events_in_order(counts: list[int], most: int) -> None:
    holds = [[f"e{number}", number, count] for number, count in enumerate(counts)]
    made = delivering.portions(holds, most)
    assert _places(part for portion in made for part in portion) == _places(holds)
    assert [sum(part[2] for part in portion) for portion in made[:-1]] == [most] * (len(made) - 1)
    assert 0 < sum(part[2] for part in made[-1]) <= most


def _places(parts: Iterable[list[Any]]) -> list[tuple[str, int]]:
    return [(event_id, place) for event_id, first, count in parts for place in range(first, first + count)]


async def test_a_fault_of_one_queue_costs_no_other_its_turn(
    database: Database, receiver: Receiver, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    expand, asked = expanding.expand, list[str]()
    broken = await add_endpoint(database, receiver.url + "/broken")
    await add_endpoint(database, receiver.url)

    async def breaking(session: AsyncSession, endpoint: Endpoint, want: int) -> int:
        made = await expand(session, endpoint, want)
        if endpoint.endpoint_id == broken.endpoint_id:
            asked.append(endpoint.endpoint_id)
            raise KeyError("a fault")
        return made

    monkeypatch.setattr(expanding, "expand", breaking)
    await happen(database, 100)
    settled = await work.until_settled()
    assert len(settled) == len(receiver.posts) == 100
    assert {each.status for each in settled} == {DELIVERED}
    for _ in range(5):
        work.deliverer._next_look = 0.0
        await work.deliverer.turn()
    assert 1 <= len(asked) <= 2  # together with the other, then alone, then not for a while

    monkeypatch.setattr(expanding, "expand", expand)
    monkeypatch.setattr(work.deliverer._routes[broken.endpoint_id], "_expands_at", 0.0)
    await work.until(lambda: len(receiver.posts) == 200)


async def test_an_endpoint_that_was_enabled_is_not_disabled_for_what_was_posted_before(
    database: Database, receiver: Receiver
) -> None:
    """Three posts hang; one answers 410, somebody enables it, another answers 410: that one is old."""
    go_on = [asyncio.Event() for _ in range(3)]

    async def answer(post: Post) -> web.StreamResponse:
        place = receiver.posts.index(post)
        if place < 3:
            await go_on[place].wait()
        return web.Response(status=410 if place < 2 else 204)

    receiver.answer = answer
    async with working(database, allowing(webhook_connections=3, webhook_timeout_seconds=60)) as work:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database, 3)
        await work.until(lambda: len(receiver.posts) == 3)
        go_on[0].set()
        route = work.deliverer._routes[endpoint.endpoint_id]
        await work.until(lambda: not route.endpoint.enabled)
        assert (await endpoint_of(database, endpoint)).disabled_reason == routes.GONE

        await set_enabled(database, endpoint, True)
        for _ in range(5):
            work.deliverer._next_renewal = 0.0  # it writes
            await work.deliverer.turn()
            assert (await endpoint_of(database, endpoint)).enabled
        go_on[1].set()
        await happen(database)
        await work.until(lambda: len(receiver.posts) >= 4)  # while the last of the old ones hangs still
        for _ in range(5):
            work.deliverer._next_look = work.deliverer._next_renewal = 0.0
            await work.deliverer.turn()
        now_ = await endpoint_of(database, endpoint)
        assert (now_.enabled, now_.failures) == (True, 0)
        go_on[2].set()
        await work.until(lambda: not work.deliverer.posting_to)
    assert len(receiver.posts) >= 4


async def test_a_rest_that_somebody_ended_is_over_at_once(
    database: Database, receiver: Receiver, work: Work
) -> None:
    """Whatever Retry-After asked for is for the deliveries; the rest is short, and a test ends it."""
    receiver.answers(503, headers={"Retry-After": "86400"})
    endpoint = await add_endpoint(database, receiver.url)
    await happen(database, 30)
    await work.until_settled(pending=30)
    resting = await endpoint_of(database, endpoint)
    assert resting.rests_until is not None and resting.failing_since is not None
    assert resting.rests_until - resting.failing_since <= timedelta(minutes=1)
    await change(database, endpoint, rests_until=resting.rests_until + timedelta(minutes=5))

    receiver.answers(204)
    async with database.transaction() as session:
        await service.test(session, endpoint.endpoint_id)
    settled = await work.until_settled(pending=30)
    assert [each.status for each in settled] == [PENDING] * 30 + [DELIVERED]
    well = await endpoint_of(database, endpoint)
    assert (well.failures, well.rests_until) == (0, None)


async def test_a_change_of_its_url_holds_at_once(database: Database, receiver: Receiver, work: Work) -> None:
    async with receiving() as moved:
        endpoint = await add_endpoint(database, receiver.url)
        await happen(database)
        await work.until(lambda: receiver.posts)
        await change(database, endpoint, url=moved.url)
        await happen(database)
        work.deliverer._next_look = 0.0
        await work.until(lambda: moved.posts)
    assert len(receiver.posts) == 1
