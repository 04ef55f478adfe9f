"""Erasing messages and channels. The ledger keeps what became of every target: a message that is gone leaves
its row SENT, without a message, and with a sentence that says so."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Select, Text, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.channels import queries as channels
from app.channels.inputs import checked_cids
from app.channels.models import Channel
from app.channels.service import count_joined
from app.database import Database, changed
from app.given import given
from app.ledger.models import Recipient
from app.messages.models import Message

MESSAGE_DELETED = "The message was deleted."
CHUNK = 1_000  # messages or members erased by one transaction: 50 ms, so that other writers get their turn


class Erased(NamedTuple):
    """What has to be known of a message to erase it."""

    id: str
    cid: str
    seq: int
    campaign_no: int | None
    target_id: str | None


def messages_to_erase() -> Select[Any]:
    """Selects the columns of `Erased`, in the order of channels; unlimited."""
    message = (col(Message.id), col(Message.cid), col(Message.seq))
    columns: tuple[Any, ...] = (*message, col(Message.campaign_no), col(Message.target_id))
    return select(*columns).order_by(*message[1:])


async def erase_messages(session: AsyncSession, messages: Sequence[Erased]) -> None:
    """Deletes these messages; their ledger rows say so. Their channels, whose rows must be locked, know up to
    where messages may be missing."""
    if not messages:
        return
    await _delete(session, messages)
    last: dict[str, int] = {}
    for each in messages:
        last[each.cid] = max(each.seq, last.get(each.cid, 0))
    up_to = given(session, last.items(), cid=Text, seq=BigInteger)
    later = (col(Channel.cid) == up_to.c.cid, col(Channel.erased_seq) < up_to.c.seq)
    await changed(session, update(Channel).where(*later).values(erased_seq=up_to.c.seq))


async def _delete(session: AsyncSession, messages: Sequence[Erased]) -> None:
    """The ledger's rows are locked in the order of their keys. Those that somebody else holds are passed
    over: only the end of a deleted campaign can hold them."""
    targets = given(
        session,
        [(each.campaign_no, each.target_id, each.id) for each in messages if each.campaign_no is not None],
        campaign_no=BigInteger,
        target_id=Text,
        message_id=Text,
    )
    key = (col(Recipient.campaign_no), col(Recipient.target_id))
    sent = await session.execute(
        select(*key)
        .join(targets, and_(key[0] == targets.c.campaign_no, key[1] == targets.c.target_id))
        .where(col(Recipient.message_id) == targets.c.message_id)
        .order_by(*key)
        .with_for_update(of=Recipient, skip_locked=True)
    )
    marked = given(session, sent.all(), campaign_no=BigInteger, target_id=Text)
    of_these = (key[0] == marked.c.campaign_no, key[1] == marked.c.target_id)
    await changed(session, update(Recipient).where(*of_these).values(message_id=None, detail=MESSAGE_DELETED))
    ids = given(session, [(each.id,) for each in messages], id=Text)
    await changed(session, delete(Message).where(col(Message.id).in_(select(ids))))


async def delete_channels(database: Database, cids: Sequence[str]) -> list[str]:
    """Deletes 1 to 1,000 channels with their members and messages; gives the cids of those that were there.

    What is too much for one transaction is emptied in several before the last one deletes the channels, so
    that no writer waits for long. Cids that no channel has are no error: the call can be repeated.
    """
    wanted = checked_cids(cids)
    while await _empty_some(database, wanted):
        pass
    async with database.transaction() as session:
        found = list(await channels.locked(session, wanted))
        statement = messages_to_erase().where(col(Message.cid).in_(found))
        await _delete(session, [Erased(*row) for row in await session.execute(statement)])
        await channels.delete_channels(session, found)
    return found


async def _empty_some(database: Database, cids: Sequence[str]) -> bool:
    """Erases a chunk of what is in these channels, if there is more than one; says whether there was."""
    async with database.transaction() as session:
        statement = messages_to_erase().where(col(Message.cid).in_(cids)).limit(CHUNK + 1)
        messages = [Erased(*row) for row in await session.execute(statement)]
        if len(messages) > CHUNK:
            await channels.locked(session, sorted({each.cid for each in messages[:CHUNK]}))
            await erase_messages(session, messages[:CHUNK])
            return True
        members = await channels.some_members(session, cids, CHUNK + 1)
        if len(members) > CHUNK:
            await channels.locked(session, sorted({cid for cid, _ in members[:CHUNK]}))
            left = await channels.delete_members(session, members[:CHUNK])
            await count_joined(session, {cid: -count for cid, count in left.items()})
            return True
    return False
