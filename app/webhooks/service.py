"""Endpoints: making and changing them, testing them, delivering again; and their disabling by the server.

Secrets leave in two ways only: in what `create` and `rotate` return, and as signatures.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app import validation
from app.database import now
from app.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from app.events import service as events
from app.events.models import Event
from app.ids import new_uuid
from app.settings import Settings
from app.validation import Problems
from app.webhooks import expanding, queries
from app.webhooks.addresses import check_url
from app.webhooks.expanding import MAX_BATCH, Parcel
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint
from app.webhooks.schedule import GIVES_UP_AFTER

MAX_ENDPOINTS = 50
OLD_SECRET_SIGNS_FOR = timedelta(days=1)
TEST = "webhook_endpoint.test"

_USUAL: dict[str, Any] = {"url": None, "event_types": None, "batch_size": 1}


def new_secret() -> str:
    """A new secret as Standard Webhooks writes them: `whsec_` and 256 random bits."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


async def create(session: AsyncSession, given: Mapping[str, Any], settings: Settings) -> Endpoint:
    """A new endpoint of `url`, `event_types` (None or empty: all) and `batch_size`. It hears of what happens
    from now on. Raises every problem of the input at once, and LIMIT_EXCEEDED for the 51st."""
    fields = _checked({name: given.get(name, usual) for name, usual in _USUAL.items()}, settings)
    count = await queries.count_while_creating(session)
    if count >= MAX_ENDPOINTS:
        raise LimitExceeded(
            f"At most {MAX_ENDPOINTS} endpoints are allowed; delete one that is not needed any more.",
            details={"limit": MAX_ENDPOINTS, "given": count + 1},
        )
    endpoint = Endpoint(endpoint_id=new_uuid(), secret=new_secret(), created_at=await now(session), **fields)
    session.add(endpoint)
    await events.listen(session, endpoint.endpoint_id, endpoint.event_types)
    return endpoint


async def update(
    session: AsyncSession, endpoint_id: str, changes: Mapping[str, Any], settings: Settings
) -> Endpoint:
    """Changes `url`, `event_types`, `batch_size` or `enabled`, whichever is given.

    What waits goes to the new URL. Enabling the disabled forgets all failures. `enabled` true, also of one
    that is enabled, lets what waits be attempted at once: a rest ends. So does a new URL's.
    """
    problems, fields = Problems(), dict[str, Any]()
    with problems.at():
        fields = _checked(changes, settings)
    with problems.at():
        endpoint = await _locked(session, endpoint_id)
    problems.check()
    if fields.get("enabled"):
        await queries.make_due(session, endpoint_id, await now(session))
    if fields.get("enabled") or fields.get("url", endpoint.url) != endpoint.url:
        _end_rest(endpoint)
    if "enabled" in fields and fields["enabled"] != endpoint.enabled:
        endpoint.disabled_reason = endpoint.failing_since = None
        endpoint.failures = 0
    for name, value in fields.items():
        setattr(endpoint, name, value)
    if "event_types" in fields:
        await events.listen(session, endpoint_id, endpoint.event_types)
    await session.flush()
    return endpoint


async def rotate(session: AsyncSession, endpoint_id: str) -> Endpoint:
    """The endpoint with a new secret. The last one signs beside it for a day, or until the next rotation."""
    endpoint = await _locked(session, endpoint_id)
    endpoint.previous_secret, endpoint.secret = endpoint.secret, new_secret()
    endpoint.previous_secret_until = await now(session) + OLD_SECRET_SIGNS_FOR
    await session.flush()
    return endpoint


async def delete(session: AsyncSession, endpoint_id: str) -> Endpoint:
    """Deletes an endpoint: nothing is posted to it any more, whatever waits. Its rows are cleared later."""
    endpoint = await _locked(session, endpoint_id)
    endpoint.deleted_at = await now(session)
    await events.stop_listening(session, endpoint_id)
    await session.flush()
    return endpoint


async def disable(session: AsyncSession, endpoint_id: str, reason: str) -> Endpoint | None:
    """Disables an endpoint for a reason of the server's, of which the other endpoints are told; None if it is
    disabled or deleted already. What waits for it goes on waiting."""
    endpoint = await queries.locked(session, endpoint_id)
    if endpoint is None or not endpoint.enabled:
        return None
    endpoint.enabled, endpoint.disabled_reason = False, reason
    await events.record(session, events.ENDPOINT_DISABLED, None, _told(endpoint))
    await session.flush()
    return endpoint


async def test(session: AsyncSession, endpoint_id: str) -> Delivery:
    """A delivery of the event `webhook_endpoint.test`, behind the deliveries that are due, before events that
    are in none yet. It ends the endpoint's rest. Raises CONFLICT for an endpoint that is disabled."""
    endpoint = await _locked_enabled(session, endpoint_id, "endpoint_id")
    at = await now(session)
    _end_rest(endpoint)
    event = Event(id=new_uuid(), type=TEST, data=_told(endpoint), created_at=at, dispatched_at=at)
    session.add(event)
    await session.flush()
    parcel = Parcel(event_type=TEST, holds=[[event.id, 0, 1]], size=1)
    (delivery_id,) = await expanding.add(session, endpoint, [parcel], at)
    return await _delivery(session, delivery_id)


async def redeliver(session: AsyncSession, delivery_id: str) -> Delivery:
    """Attempts a delivery again, now and as often as a new one, with the same id and the same body. It ends
    the endpoint's rest.

    One that was never posted, and holds more events than the endpoint takes in one post, keeps as many as
    that; the others become deliveries of their own. Raises CONFLICT for an endpoint that is disabled.
    """
    found = (await queries.deliveries(session, [delivery_id])).get(delivery_id)
    if found is None:
        raise _no_delivery(delivery_id)
    endpoint = await _locked_enabled(session, found.endpoint_id, "delivery_id")
    delivery = await _delivery(session, delivery_id)
    at = await now(session)
    _end_rest(endpoint)
    if delivery.status == DeliveryStatus.FAILED and not delivery.attempts:
        await _fit(session, endpoint, delivery, at + GIVES_UP_AFTER)
    delivery.status, delivery.delivered_at = DeliveryStatus.PENDING, None
    delivery.next_attempt_at, delivery.gives_up_at = at, at + GIVES_UP_AFTER
    await session.flush()
    return delivery


def _end_rest(endpoint: Endpoint) -> None:
    """Lets the next post begin now. Its failures stay: after ten of them that post is a probe."""
    endpoint.rests_until = None


async def _fit(session: AsyncSession, endpoint: Endpoint, delivery: Delivery, gives_up_at: datetime) -> None:
    """Makes a delivery that was never attempted one that its endpoint takes by now, of one event or a batch.
    What it cannot keep waits in the queue again, in its order, until `gives_up_at`."""
    kept, left = _divided(delivery.holds, endpoint.batch_size)
    if left:
        await queries.requeue(session, endpoint.endpoint_id, left, gives_up_at)
    delivery.holds, delivery.size = kept, sum(count for _, _, count in kept)
    event = await session.get(Event, kept[0][0])
    event_type = delivery.event_type if event is None else event.type
    delivery.event_type = expanding.body_type(endpoint, delivery.size, event_type)


def _divided(holds: Sequence[Sequence[Any]], most: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """The first so many events of what a delivery holds, and the others."""
    kept, left = list[list[Any]](), list[list[Any]]()
    for event_id, first, count in holds:
        here = min(count, most)
        most -= here
        if here:
            kept.append([event_id, first, here])
        if here < count:
            left.append([event_id, first + here, count - here])
    return kept, left


def _told(endpoint: Endpoint) -> dict[str, Any]:
    """What events tell of an endpoint. Not its URL: others may be told, and URLs have tokens in them."""
    return endpoint.model_dump(
        mode="json",
        include={
            "endpoint_id",
            "event_types",
            "batch_size",
            "enabled",
            "disabled_reason",
            "failing_since",
            "created_at",
        },
    )


def _checked(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    checks = {
        "url": lambda url: check_url(url, settings),
        "event_types": _event_types,
        "batch_size": _batch_size,
        "enabled": _enabled,
    }
    fields, problems = validation.each(given, checks)
    problems.check()
    return fields


def _event_types(given: Any) -> list[str]:
    """Each once; None: all there are or will be."""
    if given is None:
        return []
    validation.between(given, least=0, most=len(events.TYPES) * 10)
    return validation.distinct(given, _event_type)


def _event_type(given: Any) -> str:
    if given not in events.TYPES:
        allowed = list(events.TYPES)
        sentence = f"is no type of event; there are {', '.join(allowed)}"
        raise InvalidInput(sentence, details={"allowed": allowed})
    return str(given)


def _batch_size(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InvalidInput("must be a whole number from 1")
    if given > MAX_BATCH:
        validation.beyond(f"at most {MAX_BATCH} events fit in one post", limit=MAX_BATCH, given=given)
    return given


def _enabled(given: Any) -> bool:
    if not isinstance(given, bool):
        raise InvalidInput("must be true or false")
    return given


async def _locked(session: AsyncSession, endpoint_id: str) -> Endpoint:
    endpoint = await queries.locked(session, endpoint_id)
    if endpoint is None:
        raise NotFound(f"There is no endpoint {endpoint_id}.", path=("endpoint_id",))
    return endpoint


async def _locked_enabled(session: AsyncSession, endpoint_id: str, path: str) -> Endpoint:
    endpoint = await _locked(session, endpoint_id)
    if not endpoint.enabled:
        raise Conflict(
            "The endpoint is disabled: nothing is posted to it. Enable it first with updateWebhookEndpoint.",
            path=(path,),
        )
    return endpoint


async def _delivery(session: AsyncSession, delivery_id: str) -> Delivery:
    delivery = await queries.locked_delivery(session, delivery_id)
    if delivery is None:
        raise _no_delivery(delivery_id)
    return delivery


def _no_delivery(delivery_id: str) -> NotFound:
    return NotFound(f"There is no delivery {delivery_id} (any more).", path=("delivery_id",))
