"""A world in rows: everything that lists show, with ties and nulls, and rows that come and go.

Rows are written as they are, not through the API: what matters here is how they are read.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from app.campaigns.models import Campaign, CampaignSegment, CampaignTarget
from app.channels.models import Channel, Member
from app.database import Database
from app.events.models import Event
from app.graphql.nodes import decode_id, encode_id
from app.ids import message_ids, new_number, new_uuid
from app.ledger.models import Batch, BatchReason, BatchTargets, Plan, Recipient
from app.messages.models import Message
from app.segments.models import Segment, SegmentTarget
from app.users.models import User
from app.webhooks.models import Delivery, DeliveryStatus, Endpoint

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = [f"v{number}" for number in range(6)]
KINDS = (
    ("USER", "MANUAL"),
    ("USER", "FILTER"),
    ("USER", "ALL_USERS"),
    ("CHANNEL", "MANUAL"),
    ("CHANNEL", "FILTER"),
    ("CHANNEL", "ALL_SENDER_CHANNELS"),
)


class World:
    """Rows of every kind. `size` of each (six at least), and of each in the lists of the others."""

    def __init__(self, database: Database, size: int, seed: int = 1) -> None:
        self.database = database
        self.size = size
        self.chance = random.Random(seed)
        self.users = [f"u{number:02}" for number in range(size)]
        self.cids = [f"messaging:c{number:02}" for number in range(size)]
        self.segments: list[tuple[int, str]] = []  # number and kind
        self.campaigns: list[int] = []
        self.endpoints = [f"e{number:02}" for number in range(3)]

    async def build(self) -> None:
        """Makes everything."""
        async with self.database.transaction() as session:
            rows: list[SQLModel] = [self._user(user_id) for user_id in self.users]
            for cid in self.cids:
                rows += [self._channel(cid), *(self._member(cid, user_id) for user_id in self.users)]
            for number in range(self.size):
                segment_type, kind = KINDS[number % len(KINDS)]
                segment = self._segment(segment_type, kind)
                rows += [segment, *self._listed(segment)]
            session.add_all(rows)
            await session.flush()
            for number in range(self.size):
                session.add_all(self._campaign(number))
            for endpoint_id in self.endpoints:
                session.add_all([self._endpoint(endpoint_id), *self._delivered(endpoint_id)])
            await session.flush()

    def parents(self, kind: str) -> list[str]:
        """Global ids of nodes whose lists are worth reading; of segments one of every kind."""
        match kind:
            case "Query":
                return [""]
            case "User":
                return [encode_id("User", self.users[1])]
            case "Channel":
                return [encode_id("Channel", self.cids[1])]
            case "Segment":
                return [encode_id("Segment", number) for number, _ in self.segments[: len(KINDS)]]
            case "Campaign":
                return [encode_id("Campaign", self.campaigns[1])]
            case "WebhookEndpoint":
                return [encode_id("WebhookEndpoint", self.endpoints[1])]
        raise AssertionError(f"say where a {kind} is found in this world")

    async def add(self, name: str, parent_id: str) -> None:
        """One row more in the list of this name and parent."""
        async with self.database.transaction() as session:
            session.add_all(await self._added(session, name, parent_id))

    async def remove(self, name: str, node_id: str, parent_id: str) -> None:
        """Takes a node out of the list."""
        async with self.database.transaction() as session:
            for statement in await self._removed(session, name, node_id, parent_id):
                await session.execute(statement.execution_options(synchronize_session=False))

    async def _added(self, session: AsyncSession, name: str, parent_id: str) -> Sequence[SQLModel]:
        new, key = self.chance.randbytes(4).hex(), decode_id(parent_id)[1] if parent_id else ""
        match name:
            case "Query.users":
                return [self._user(f"u{new}")]
            case "Query.channels":
                return [self._channel(f"messaging:{new}")]
            case "Query.segments":
                return [self._segment("USER", "MANUAL")]
            case "Query.campaigns":
                return [self._bare_campaign()]
            case "User.channels":
                return [self._channel(f"messaging:{new}"), self._member(f"messaging:{new}", key)]
            case "Channel.members":
                return [self._member(key, f"u{new}")]
            case "Channel.messages":
                return [self._message(key, 1_000_000 + len(new) + int(new[:6], 16))]
            case "Segment.campaigns":
                campaign = self._bare_campaign()
                named = CampaignSegment(campaign_no=campaign.campaign_no, segment_no=int(key), position=0)
                return [campaign, named]
            case "Segment.targets":
                return self._target_of(dict(self.segments)[int(key)], int(key), new)
            case "Campaign.targets":
                return [CampaignTarget(campaign_no=int(key), target_id=f"u{new}")]
            case "Campaign.recipients":
                return [await self._settled_one(session, int(key), f"u{new}")]
            case "WebhookEndpoint.deliveries":
                return [self._delivery(key, 1_000_000 + int(new[:6], 16))]
        raise AssertionError(f"say how rows come into {name}")

    def _target_of(self, kind: str, segment_no: int, new: str) -> list[SQLModel]:
        match kind:
            case "USER MANUAL" | "CHANNEL MANUAL":
                return [SegmentTarget(segment_no=segment_no, target_id=f"u{new}", created_at=self._when())]
            case "USER FILTER" | "USER ALL_USERS":
                return [self._user(f"u{new}")]
            case "CHANNEL FILTER":
                return [self._channel(f"messaging:{new}")]
            case _:
                return [self._channel(f"messaging:{new}"), self._member(f"messaging:{new}", "u00")]

    async def _settled_one(self, session: AsyncSession, campaign_no: int, new: str) -> SQLModel:
        """Somebody new, or the first of those who are pending: then it stays where it was in the list."""
        batch = await session.get(BatchTargets, (campaign_no, 2))
        if batch is None or len(batch.target_ids) < 3 or self.chance.random() < 0.5:
            return self._recipient(campaign_no, new, 1)
        first, *others = batch.target_ids
        batch.target_ids = others
        of_batch = (col(Batch.campaign_no) == campaign_no, col(Batch.batch_no) == 2)
        await session.execute(update(Batch).where(*of_batch).values(pending=len(others)))
        return self._recipient(campaign_no, first, 1)

    async def _removed(self, session: AsyncSession, name: str, node_id: str, parent_id: str) -> Sequence[Any]:
        kind, key = decode_id(node_id)
        parts = key.split(" ")
        if kind == "Target" and parts[0] == "segment":
            return self._without_target(dict(self.segments)[int(parts[1])], int(parts[1]), parts[2])
        match kind:
            case "User":
                return [delete(User).where(col(User.id) == key)]
            case "Channel" if name == "User.channels":
                of_user = col(Member.user_id) == decode_id(parent_id)[1]
                return [delete(Member).where(col(Member.cid) == key, of_user)]
            case "Channel":
                return [delete(Channel).where(col(Channel.cid) == key)]
            case "Member":
                return [delete(Member).where(col(Member.cid) == parts[0], col(Member.user_id) == parts[1])]
            case "Message":
                return [delete(Message).where(col(Message.id) == key)]
            case "Segment":
                mine = col(Segment.segment_no) == int(key)
                return [update(Segment).where(mine).values(deleted_at=BEGIN)]
            case "Campaign":
                mine = col(Campaign.campaign_no) == int(key)
                return [update(Campaign).where(mine).values(deleted_at=BEGIN)]
            case "Target":
                mine = col(CampaignTarget.campaign_no) == int(parts[1])
                return [delete(CampaignTarget).where(mine, col(CampaignTarget.target_id) == parts[2])]
            case "Recipient":
                mine = col(Recipient.campaign_no) == int(parts[0])
                return [delete(Recipient).where(mine, col(Recipient.target_id) == parts[1])]
            case "WebhookDelivery":
                return [delete(Delivery).where(col(Delivery.id) == key)]
        raise AssertionError(f"say how a {kind} goes")

    def _without_target(self, kind: str, segment_no: int, target_id: str) -> list[Any]:
        match kind:
            case "USER MANUAL" | "CHANNEL MANUAL":
                mine = col(SegmentTarget.segment_no) == segment_no
                return [delete(SegmentTarget).where(mine, col(SegmentTarget.target_id) == target_id)]
            case "USER FILTER" | "USER ALL_USERS":
                return [delete(User).where(col(User.id) == target_id)]
            case "CHANNEL FILTER":
                return [delete(Channel).where(col(Channel.cid) == target_id)]
            case _:
                return [delete(Member).where(col(Member.cid) == target_id, col(Member.user_id) == "u00")]

    def _when(self) -> datetime:
        return BEGIN + timedelta(microseconds=self.chance.randint(0, 3))

    def _user(self, user_id: str) -> User:
        return User(
            id=user_id,
            name=self.chance.choice([None, "Ä", "a", "B", ""]),
            created_at=self._when(),
            updated_at=self._when(),
            last_active_at=self.chance.choice([None, self._when()]),
        )

    def _channel(self, cid: str) -> Channel:
        return Channel(
            cid=cid,
            type="messaging",
            channel_id=cid.partition(":")[2],
            created_by_id="u00",
            member_count=self.chance.randint(0, 3),
            last_message_at=self.chance.choice([None, self._when()]),
            created_at=self._when(),
            updated_at=BEGIN,
        )

    def _member(self, cid: str, user_id: str) -> Member:
        return Member(cid=cid, user_id=user_id, created_at=BEGIN)

    def _message(self, cid: str, seq: int, campaign_no: int | None = None) -> Message:
        return Message(
            id=new_uuid(),
            cid=cid,
            seq=seq,
            sender_id="u00",
            text="Hello",
            campaign_no=campaign_no,
            created_at=BEGIN,
        )

    def _segment(self, segment_type: str, kind: str) -> Segment:
        number = new_number()
        self.segments.append((number, f"{segment_type} {kind}"))
        return Segment(
            segment_no=number,
            segment_id=f"s{number}",
            type=segment_type,
            kind=kind,
            name=self.chance.choice(["", "a", "b"]),
            filter={"created_at": {"$gte": "2020-01-01T00:00:00Z"}} if kind == "FILTER" else None,
            size=self.chance.choice([None, 1, 2]),
            size_as_of=datetime.now(UTC),
            size_state="READY",
            created_at=self._when(),
            updated_at=self._when(),
        )

    def _listed(self, segment: Segment) -> list[SQLModel]:
        if segment.kind != "MANUAL":
            return []
        ids = self.users if segment.type == "USER" else self.cids
        return [
            SegmentTarget(segment_no=segment.segment_no, target_id=each, created_at=BEGIN) for each in ids
        ]

    def _bare_campaign(self, **given: Any) -> Campaign:
        number = new_number()
        return Campaign(
            campaign_no=number,
            campaign_id=f"k{number}",
            name=self.chance.choice([None, "a", "b"]),
            sender_id="u00",
            message_template={"text": "x", "attachments": [], "custom": {}, "poll_id": None, "defaults": {}},
            scheduled_for=self.chance.choice([None, self._when()]),
            status_changed_at=BEGIN,
            created_at=self._when(),
            updated_at=self._when(),
            **given,
        )

    def _campaign(self, place: int) -> list[SQLModel]:
        """One that runs: some are settled, some are not; it is still being planned."""
        campaign = self._bare_campaign(status="IN_PROGRESS", started_at=BEGIN)
        number = campaign.campaign_no
        self.campaigns.append(number)
        cid = self.cids[place % len(self.cids)]
        rows: list[SQLModel] = [campaign, Plan(campaign_no=number, period="2026-01")]
        rows += [CampaignTarget(campaign_no=number, target_id=each) for each in self.users]
        for position, (segment_no, _) in enumerate(self.segments[: self.size]):
            rows.append(CampaignSegment(campaign_no=number, segment_no=segment_no, position=position))
        for seq, user_id in enumerate(self.users):
            message = self._message(cid, place * 1_000 + seq, number)
            recipient = self._recipient(number, user_id, 2 if seq == 3 else 1)
            if seq != 3:
                recipient.message_id, recipient.cid = message.id, cid
            rows += [message, recipient]
        rows += [
            Batch(
                campaign_no=number,
                batch_no=1,
                first_target=self.users[0],
                last_target=self.users[-1],
                targets=len(self.users),
                pending=0,
                sent=len(self.users) - 1,
                skipped=1,
                messages_sent=len(self.users) - 1,
            ),
            BatchReason(campaign_no=number, reason=1, batch_no=1, count=1, samples=[self.users[3]]),
            Batch(
                campaign_no=number,
                batch_no=2,
                first_target=PENDING[0],
                last_target=PENDING[-1],
                targets=len(PENDING),
                pending=len(PENDING),
            ),
            BatchTargets(campaign_no=number, batch_no=2, target_ids=PENDING),
        ]
        return rows

    def _recipient(self, campaign_no: int, target_id: str, status: int) -> Recipient:
        return Recipient(
            campaign_no=campaign_no,
            target_id=target_id,
            status=status,
            reason=1 if status > 1 else None,
            batch_no=1,
            settled_at=BEGIN,
        )

    def _endpoint(self, endpoint_id: str) -> Endpoint:
        url = f"https://{endpoint_id}.example.com"
        return Endpoint(endpoint_id=endpoint_id, url=url, secret="whsec_", created_at=self._when())

    def _delivered(self, endpoint_id: str) -> list[SQLModel]:
        """Deliveries of messages that are there."""
        first = message_ids(self.size)
        event = Event(
            id=new_uuid(),
            type="message.new",
            size=self.size,
            data={"campaign_id": None, "first": first[0], "last": first[-1]},
            created_at=BEGIN,
        )
        messages = [self._message(self.cids[0], 500_000 + self.chance.randrange(400_000)) for _ in first]
        for message_id, message in zip(first, messages, strict=True):
            message.id = message_id
        return [event, *messages, *(self._delivery(endpoint_id, seq, event) for seq in range(self.size))]

    def _delivery(self, endpoint_id: str, seq: int, event: Event | None = None) -> Delivery:
        return Delivery(
            id=new_uuid(),
            endpoint_id=endpoint_id,
            seq=seq,
            event_type="message.new",
            holds=[[event.id if event else "pruned", seq if event else 0, 1]],
            size=1,
            status=self.chance.choice(list(DeliveryStatus)),
            created_at=BEGIN,
            gives_up_at=BEGIN,
        )
