"""What is posted: the body of a delivery, built from the rows that its events tell of.

The texts of messages stand in `messages` and nowhere else: no row a message is written for telling of it.
What was deleted or erased since is left out. Three statements, however many the deliveries.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Text, cast, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels.models import Channel
from app.events.models import Event
from app.events.service import CHANNEL_CREATED, MESSAGE_NEW
from app.given import given
from app.messages.models import Message
from app.webhooks.models import BATCH, Delivery

Body = dict[str, Any]
Span = tuple[int, int]  # of what a row of `events` stands for: from the first, up to but without the second

_COUNTER = 12  # digits at the end of a message's id, by which those of one event differ

_MESSAGE = (
    col(Message.id),
    col(Message.cid),
    col(Message.seq),
    col(Message.sender_id),
    col(Message.target_id),
    col(Message.type),
    col(Message.text),
    cast(col(Message.attachments), Text),
    cast(col(Message.custom), Text),
    col(Message.poll_id),
)
_CHANNEL = (
    col(Channel.cid),
    col(Channel.created_at),
    col(Channel.channel_id),
    col(Channel.type),
    col(Channel.name),
    col(Channel.team),
    cast(col(Channel.custom), Text),
    col(Channel.created_by_id),
    col(Channel.member_count),
)


class Part(NamedTuple):
    """Some of what a row of `events` stands for, as `Delivery.holds` has them."""

    event_id: str
    first: int
    size: int


class Happened(NamedTuple):
    """A row of `events`."""

    type: str
    data: dict[str, Any]
    created_at: datetime

    def ids_of(self, places: Iterable[int]) -> list[str]:
        """The ids of its messages at these places."""
        first: str = self.data["first"]
        head, counter = first[:-_COUNTER], int(first[-_COUNTER:], 16)
        return [f"{head}{counter + place:012x}" for place in places]

    def cids_of(self, part: Part) -> list[str]:
        """The cids of a part of its channels."""
        cids: list[str] = self.data["cids"][part.first : part.first + part.size]
        return cids


class Rows(NamedTuple):
    """What events tell of, as far as it is there: messages by id, channels by cid."""

    messages: Mapping[str, Sequence[Any]]
    channels: Mapping[str, Sequence[Any]]


async def build(session: AsyncSession, deliveries: Iterable[Delivery]) -> dict[str, bytes | None]:
    """The body of each of these deliveries, JSON in UTF-8; None where all that it tells of was deleted."""
    holding = {each.id: ([Part(*part) for part in each.holds], each.event_type) for each in deliveries}
    wanted = {part for parts, _ in holding.values() for part in parts}
    events = await _events(session, {part.event_id for part in wanted})
    rows = await _rows(session, events, wanted)
    return {
        delivery_id: _body([event for part in parts for event in _tell(part, events, rows)], event_type)
        for delivery_id, (parts, event_type) in holding.items()
    }


def _body(events: Sequence[Body], event_type: str) -> bytes | None:
    if not events:
        return None
    whole = {"type": BATCH, "events": events} if event_type == BATCH else events[0]
    return orjson.dumps(whole, option=orjson.OPT_UTC_Z)


async def _events(session: AsyncSession, event_ids: Collection[str]) -> dict[str, Happened]:
    found = await session.execute(
        select(col(Event.id), col(Event.type), col(Event.data), col(Event.created_at)).where(
            col(Event.id).in_(event_ids)
        )
    )
    return {event_id: Happened(*fields) for event_id, *fields in found}


async def _rows(session: AsyncSession, events: Mapping[str, Happened], parts: Iterable[Part]) -> Rows:
    spans, cids = dict[str, list[Span]](), set[str]()
    for part in sorted(parts):
        event = events.get(part.event_id)
        if event is not None and event.type == MESSAGE_NEW:
            _extend(spans.setdefault(part.event_id, []), part)
        elif event is not None and event.type == CHANNEL_CREATED:
            cids.update(event.cids_of(part))
    ranges = [
        events[event_id].ids_of((first, end - 1)) for event_id, found in spans.items() for first, end in found
    ]
    return Rows(
        await _messages(session, ranges) if ranges else {}, await _channels(session, cids) if cids else {}
    )


def _extend(spans: list[Span], part: Part) -> None:
    """Makes one span of parts that lie side by side: a thousand posts of one message each are one walk."""
    end = part.first + part.size
    if spans and part.first <= spans[-1][1]:
        spans[-1] = (spans[-1][0], max(spans[-1][1], end))
    else:
        spans.append((part.first, end))


async def _messages(session: AsyncSession, ranges: Iterable[Sequence[str]]) -> dict[str, Sequence[Any]]:
    asked = given(session, ranges, first=Text, last=Text)
    rows = await session.execute(
        select(*_MESSAGE).join(asked, col(Message.id).between(asked.c.first, asked.c.last))
    )
    return {row[0]: row for row in rows}


async def _channels(session: AsyncSession, cids: Collection[str]) -> dict[str, Sequence[Any]]:
    asked = given(session, ((cid,) for cid in cids), cid=Text)
    rows = await session.execute(select(*_CHANNEL).join(asked, asked.c.cid == col(Channel.cid)))
    return {cid: fields for cid, *fields in rows}


def _tell(part: Part, events: Mapping[str, Happened], rows: Rows) -> Iterable[Body]:
    """What a part of an event has to say by now."""
    event = events.get(part.event_id)
    if event is None:
        return []
    if event.type == MESSAGE_NEW:
        ids = event.ids_of(range(part.first, part.first + part.size))
        return [_message(event, rows.messages[each]) for each in ids if each in rows.messages]
    if event.type == CHANNEL_CREATED:
        channels = [rows.channels.get(cid) for cid in event.cids_of(part)]
        return [_channel(event, fields) for fields in channels if fields and fields[0] == event.created_at]
    return [_said(event, event.type.partition(".")[0], event.data)]


def _said(event: Happened, name: str, content: Any) -> Body:
    return {"type": event.type, "created_at": event.created_at, name: content}


def _message(event: Happened, fields: Sequence[Any]) -> Body:
    """Of a message: its event was created when it was."""
    message_id, cid, seq, sender_id, target_id, kind, text, attachments, custom, poll_id = fields
    message = {
        "id": message_id,
        "cid": cid,
        "seq": seq,
        "type": kind,
        "sender_id": sender_id,
        "target_id": target_id,
        "campaign_id": event.data["campaign_id"],
        "text": text,
        "attachments": orjson.Fragment(attachments),
        "custom": orjson.Fragment(custom),
        "poll_id": poll_id,
        "created_at": event.created_at,
    }
    return _said(event, "message", message)


def _channel(event: Happened, fields: Sequence[Any]) -> Body:
    """Of a channel as it is by now. One that was deleted, and created again since, is another one."""
    created_at, channel_id, kind, name, team, custom, created_by_id, member_count = fields
    channel = {
        "id": channel_id,
        "cid": f"{kind}:{channel_id}",
        "type": kind,
        "name": name,
        "team": team,
        "custom": orjson.Fragment(custom),
        "created_by_id": created_by_id,
        "member_count": member_count,
        "created_at": created_at,
    }
    return _said(event, "channel", channel)
