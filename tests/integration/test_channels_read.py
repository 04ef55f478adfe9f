"""Reading channels: memberships, and what is unread of what others wrote."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event, insert

from app.channels import queries
from app.channels.models import Channel, Member
from app.database import Database
from app.ids import new_uuid
from app.messages import queries as messages
from app.messages.models import Message

AT = datetime(2026, 1, 31, tzinfo=UTC)


async def store(database: Database, table: Any, *rows: dict[str, Any]) -> None:
    async with database.transaction() as session:
        await session.execute(insert(table), list(rows))


async def channel(database: Database, cid: str, read: dict[str, int], writers: str) -> None:
    """A channel whose members have read so far, and whose messages were written by these one-letter users."""
    kind, _, channel_id = cid.partition(":")
    times = {"created_at": AT, "updated_at": AT}
    row = {
        "cid": cid,
        "type": kind,
        "channel_id": channel_id,
        "last_seq": len(writers),
        "custom": {},
        **times,
    }
    await store(database, Channel, row)
    member = {"cid": cid, "custom": {}, "created_at": AT}
    await store(database, Member, *({**member, "user_id": who, "read_seq": seq} for who, seq in read.items()))
    message = {"cid": cid, "text": "", "attachments": [], "custom": {}, "created_at": AT}
    rows = ({**message, "id": new_uuid(), "seq": seq, "sender_id": who} for seq, who in enumerate(writers, 1))
    await store(database, Message, *rows)


async def test_unread_is_what_others_wrote_after_what_was_read(database: Database) -> None:
    await channel(database, "messaging:one", {"a": 2, "b": 0, "c": 5}, "aabab")
    await channel(database, "messaging:two", {"a": 0, "d": 1}, "dd")
    keys = [("messaging:one", who) for who in "abcx"] + [("messaging:two", who) for who in "ad"]
    async with database.read() as session:
        counts = await messages.unread_counts(session, keys)
    assert counts == {
        ("messaging:one", "a"): 2,
        ("messaging:one", "b"): 3,
        ("messaging:one", "c"): 0,
        ("messaging:two", "a"): 2,
        ("messaging:two", "d"): 0,
    }


async def test_unread_of_a_page_of_members_takes_two_statements(database: Database) -> None:
    users = [f"user-{number:03}" for number in range(100)]
    await channel(database, "messaging:one", dict.fromkeys(users, 0) | {"a": 1}, "abab")
    statements: list[str] = []

    async with database.read() as session:
        bind = session.get_bind()
        event.listen(bind, "before_cursor_execute", lambda *given: statements.append(given[2]))
        counts = await messages.unread_counts(session, [("messaging:one", who) for who in [*users, "a"]])
    assert len([statement for statement in statements if statement != "BEGIN"]) == 2
    assert counts["messaging:one", "a"] == 2
    assert {counts["messaging:one", who] for who in users} == {4}


async def test_channels_and_members_by_key(database: Database) -> None:
    await channel(database, "messaging:one", {"a": 0, "b": 0}, "a")
    await channel(database, "messaging:two", {"a": 0}, "a")
    async with database.read() as session:
        assert set(await queries.by_cids(session, ["messaging:one", "messaging:x"])) == {"messaging:one"}
        found = await queries.members_by_keys(session, [("messaging:one", "b"), ("messaging:two", "b")])
        of_a = (await session.execute(queries.of_user("a"))).scalars()
        assert set(found) == {("messaging:one", "b")}
        assert {row.cid for row in of_a} == {"messaging:one", "messaging:two"}
