"""Who campaigns of the chaos speak to: users, rooms that each has with the sender, and segments of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import insert
from sqlmodel import SQLModel

from app import migrations
from app.channels.distinct import members_key
from app.channels.models import Channel, Member
from app.database import Database, now
from app.events import service as events
from app.segments import service as segments
from app.segments.models import SegmentTarget
from app.users.models import User

SENDER = "sender"
MANY, SOME, FEW = 42_000, 6_000, 600  # the segments of users are "many", "some" and "few"
AUDIENCES = {"many": MANY, "some": SOME, "few": FEW}
ROOMS = SOME
ODD = (SENDER, "nobody")  # the segment "odd" names whom no message can reach
_AT_ONCE = 6_000


def user_id(number: int) -> str:
    """The id of a user, counted from 0; ids sort like their numbers."""
    return f"u-{number:05d}"


def room(number: int) -> str:
    """The cid of the room of a user of that number."""
    return f"room:r-{number:05d}"


async def fill(url: str) -> None:
    """Migrates an empty database and stores everybody, and that somebody wants to hear of every message."""
    migrations.upgrade(url)
    database = Database(url, durable=False)
    async with database.read() as session:
        at = await now(session)
    stamps = {"created_at": at, "updated_at": at}
    users = [*(_user(user_id(number), "user") for number in range(MANY)), _user(SENDER, "admin")]
    await _insert(database, User, [{**user, **stamps} for user in users])
    numbers = range(ROOMS)
    await _insert(database, Channel, [{**_room(number), **stamps} for number in numbers])
    members = [(room(number), who) for number in numbers for who in (SENDER, user_id(number))]
    await _insert(database, Member, [{"cid": cid, "user_id": who, "created_at": at} for cid, who in members])
    await _segments(database)
    await database.close()


async def _segments(database: Database) -> None:
    async with database.transaction() as session:
        for name, size in AUDIENCES.items():
            filters = {"$and": [{"role": "user"}, {"id": {"$lt": user_id(size)}}]}
            await segments.create(session, {"segment_id": name, "type": "USER", "filter": filters})
        await segments.create(
            session, {"segment_id": "rooms", "type": "CHANNEL", "filter": {"type": {"$eq": "room"}}}
        )
        await events.listen(session, "chaos", [events.MESSAGE_NEW, events.CHANNEL_CREATED])
        odd = await segments.create(session, {"segment_id": "odd", "type": "USER"})
        at = await now(session)
        rows = [{"segment_no": odd.segment_no, "target_id": who, "created_at": at} for who in ODD]
        await session.execute(insert(SegmentTarget), rows)


async def _insert(database: Database, table: type[SQLModel], rows: Sequence[dict[str, Any]]) -> None:
    """In transactions that a busy machine too ends within the 30 s that one may take."""
    for first in range(0, len(rows), _AT_ONCE):
        async with database.transaction() as session:
            await session.execute(insert(table), rows[first : first + _AT_ONCE])


def _user(name: str, role: str) -> dict[str, Any]:
    return {"id": name, "name": name.title(), "role": role, "teams": [], "custom": {}}


def _room(number: int) -> dict[str, Any]:
    people: Iterable[str] = (SENDER, user_id(number))
    return {
        "cid": room(number),
        "type": "room",
        "channel_id": room(number).partition(":")[2],
        "member_count": 2,
        "members_key": members_key(people),
    }
