"""What tests of sending say: people, a campaign, and engines that work until nothing is left."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlmodel import col

from app.campaigns import capacity as room
from app.campaigns import queries, service
from app.campaigns.models import Campaign
from app.channels.distinct import MEMBERS_WITH_KEY, members_key
from app.channels.models import Channel, Member
from app.database import Database, now
from app.ledger.models import OutcomeReason, Recipient, RecipientStatus
from app.ledger.verification import Books, audit
from app.messages.models import Message
from app.segments.models import Segment, SegmentTarget
from app.sending import ahead
from app.sending.engine import Engine
from app.users.models import User

TO_RECEIVER = {"type": "messaging", "id": "{{ receiver.id }}-news"}


class Silent:
    """A publisher that nobody listens to."""

    async def publish(self, campaign_no: int) -> None:
        """Says nothing."""


def engine(database: Database, **limits: Any) -> Engine:
    """One worker's engine."""
    return Engine(database, Silent(), **{"seconds_to_confirm": 0.0, **limits})  # type: ignore[arg-type]


async def add_users(database: Database, user_ids: Iterable[str], **fields: Any) -> None:
    """Users with their id as name unless told otherwise."""
    async with database.transaction() as session:
        at = await now(session)
        rows = [
            {"name": user_id.title(), "role": "user", "teams": [], "custom": {}, **fields, "id": user_id}
            for user_id in user_ids
        ]
        await session.execute(insert(User), [{**row, "created_at": at, "updated_at": at} for row in rows])


async def add_list(
    database: Database, segment_no: int, target_ids: Iterable[str], segment_type: str = "USER"
) -> str:
    """A manual segment."""
    async with database.transaction() as session:
        at = await now(session)
        ids = list(target_ids)
        segment = Segment(
            segment_no=segment_no,
            segment_id=f"list-{segment_no}",
            type=segment_type,
            kind="MANUAL",
            size=len(ids),
            size_state="READY",
            created_at=at,
            updated_at=at,
        )
        session.add(segment)
        if ids:
            await session.execute(
                insert(SegmentTarget),
                [{"segment_no": segment_no, "target_id": target, "created_at": at} for target in ids],
            )
        return segment.segment_id


async def add_channel(database: Database, cid: str, members: Iterable[str], **fields: Any) -> None:
    """A channel that existed before the campaign."""
    channel_type, _, channel_id = cid.partition(":")
    people = list(members)
    async with database.transaction() as session:
        at = await now(session)
        session.add(
            Channel(
                cid=cid,
                type=channel_type,
                channel_id=channel_id,
                member_count=len(people),
                members_key=members_key(people) if people else None,
                created_at=at,
                updated_at=at,
                **fields,
            )
        )
        for user_id in people:
            session.add(Member(cid=cid, user_id=user_id, created_at=at))


async def create(database: Database, campaign_id: str = "news", **given: Any) -> Campaign:
    """A draft that greets by name; by default into a channel of each receiver's own."""
    fields: dict[str, Any] = {
        "campaign_id": campaign_id,
        "sender_id": "sender",
        "message_template": {"text": "Hello {{ receiver.name }}"},
        "create_channels": True,
        "channel_template": TO_RECEIVER,
        **given,
    }
    async with database.transaction() as session:
        return await service.create(session, fields)


async def start(database: Database, campaign_id: str = "news", capacity: int | None = None) -> Campaign:
    """Starts it now."""
    needed = await room.needed_to_start(database, campaign_id, capacity)
    async with database.transaction() as session:
        return await service.start(
            session, campaign_id, scheduled_for=None, stop_at=None, capacity=capacity, needed=needed
        )


async def work(database: Database, campaign_id: str = "news", *, turns: int = 300, **limits: Any) -> Campaign:
    """Turns of one engine until the campaign does not run any more."""
    worker = engine(database, **limits)
    for _ in range(turns):
        await worker.turn()
        campaign = await read(database, campaign_id)
        if campaign.status != "IN_PROGRESS":
            return campaign
    raise AssertionError(f"{campaign_id} still {campaign.status} after {turns} turns")


def let_break(monkeypatch: pytest.MonkeyPatch, target_id: str) -> None:
    """Any batch with this target breaks while its outcomes are decided, and nobody foresaw how."""
    whole = ahead.settle_without_writing

    async def breaks(writer: Any, blueprint: Any, entries: Any) -> int:
        if any(entry.target_id == target_id for entry in entries):
            raise RuntimeError("this batch always breaks")
        return await whole(writer, blueprint, entries)

    monkeypatch.setattr(ahead, "settle_without_writing", breaks)


async def read(database: Database, campaign_id: str = "news") -> Campaign:
    """The campaign as it is."""
    async with database.read() as session:
        campaign = await queries.by_id(session, campaign_id)
    assert campaign is not None
    return campaign


async def books(database: Database, campaign: Campaign) -> Books:
    """The campaign's books, balanced or the test fails with what does not agree."""
    async with database.read() as session:
        counted = await audit(session, campaign.campaign_no)
    assert counted.problems == ()
    return counted


async def outcomes(database: Database, campaign: Campaign) -> Mapping[str, str]:
    """What happened to each target: `SENT`, `SKIPPED SENDER` ..."""
    async with database.read() as session:
        rows = await session.execute(
            select(Recipient).where(col(Recipient.campaign_no) == campaign.campaign_no)
        )
        return {
            row.target_id: " ".join(
                [RecipientStatus(row.status).name, *([OutcomeReason(row.reason).name] if row.reason else [])]
            )
            for row in rows.scalars()
        }


async def messages(database: Database) -> list[Message]:
    """All messages, by channel and number."""
    async with database.read() as session:
        rows = await session.execute(select(Message).order_by(col(Message.cid), col(Message.seq)))
        return list(rows.scalars())


async def channel(database: Database, cid: str) -> tuple[Channel, dict[str, Member]]:
    """A channel with its members."""
    async with database.read() as session:
        found = await session.get(Channel, cid)
        assert found is not None, cid
        rows = await session.execute(select(Member).where(col(Member.cid) == cid))
        return found, {member.user_id: member for member in rows.scalars()}


async def recounted(database: Database) -> None:
    """Every channel says of its members what its members say, or the test fails."""
    async with database.read() as session:
        channels = list((await session.execute(select(Channel))).scalars())
        rows = (await session.execute(select(col(Member.cid), col(Member.user_id)))).all()
    members: dict[str, list[str]] = {found.cid: [] for found in channels}
    for cid, user_id in rows:
        assert cid in members, f"{user_id} is in {cid}, which does not exist"
        members[cid].append(user_id)
    for found in channels:
        here = members[found.cid]
        key = members_key(here) if 0 < len(here) <= MEMBERS_WITH_KEY else None
        assert (found.member_count, found.members_key) == (len(here), key), found.cid
