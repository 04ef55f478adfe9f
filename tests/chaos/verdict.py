"""What became of a campaign, counted row by row: nothing here believes the stats."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Integer, Text, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import JsonType
from app.ledger.verification import audit
from tests.chaos.campaigns import Campaign

_MESSAGES = "SELECT count(*), count(DISTINCT target_id) FROM messages WHERE campaign_no = :number"
_EVENTS = (
    "SELECT type, count(*) FROM events WHERE campaign_no = :number AND type LIKE 'campaign.%' GROUP BY type"
)
_MESSAGE_IDS = "SELECT id FROM messages WHERE campaign_no = :number ORDER BY id"
_TOLD = text(
    "SELECT type, size, data FROM events"
    " WHERE campaign_no = :number AND type IN ('message.new', 'channel.created')"
).columns(type=Text(), size=Integer(), data=JsonType)
# Of all channels that the campaign wrote into: those whose numbers are not what their rows say.
_CHANNELS = """
SELECT count(*) FROM (SELECT DISTINCT cid FROM messages WHERE campaign_no = :number) AS written
JOIN channels ON channels.cid = written.cid
WHERE last_seq <> (SELECT count(*) FROM messages WHERE messages.cid = channels.cid)
OR last_seq <> (SELECT max(seq) FROM messages WHERE messages.cid = channels.cid)
OR member_count <> (SELECT count(*) FROM members WHERE members.cid = channels.cid)
"""


class Told(NamedTuple):
    """An event that tells of so many messages or channels that one transaction wrote."""

    type: str
    size: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """How many targets have neither message nor reason, how many messages there are too many, and a sentence
    for everything else that is not as it must be."""

    lost: int
    doubled: int
    problems: list[str] = field(default_factory=list)


async def uneven(campaign: Campaign) -> tuple[str, ...]:
    """What does not balance at this moment, by every row."""
    return (await campaign.ground.read(lambda session: audit(session, campaign.campaign_no))).problems


async def judge(campaign: Campaign, stats: dict[str, Any]) -> Verdict:
    """The verdict on a campaign at its end; `stats` are what the API says."""
    number = {"number": campaign.campaign_no}
    async with campaign.ground.database.read() as session:
        books = await audit(session, campaign.campaign_no)
        messages, reached = (await session.execute(text(_MESSAGES), number)).one()
        wrong_channels = (await session.execute(text(_CHANNELS), number)).scalar_one()
        events = Counter({row[0]: row[1] for row in await session.execute(text(_EVENTS), number)})
        message_ids = list((await session.execute(text(_MESSAGE_IDS), number)).scalars())
        told = [Told(*row) for row in await session.execute(_TOLD, number)]
        created = await _created(session, campaign)
    counted = {"sent": books.sent, "skipped": books.skipped, "failed": books.failed, "pending": books.pending}
    expected = {name: getattr(campaign, name) for name in ("sent", "skipped", "failed")} | {"pending": 0}
    said = {name: stats[name] for name in counted}
    said_created = stats["channelsCreated"]
    wrong = {
        f"there should be {expected}, there are {counted}": counted != expected,
        f"the API says {said}, there are {counted}": said != counted,
        f"{wrong_channels} channels miscount": wrong_channels > 0,
        f"{said_created} channels created, not {created}": created not in (None, said_created),
    }
    problems = [*books.problems, *(sentence for sentence, so in wrong.items() if so)]
    problems += _wrong_events(campaign, events)
    problems += _told_wrongly(message_ids, told, said_created)
    lost = campaign.targets - (reached + books.skipped + books.failed)
    return Verdict(max(lost, 0), messages - reached, problems)


async def _created(session: AsyncSession, campaign: Campaign) -> int | None:
    """How many channels only this campaign can have created; None for shapes that share them."""
    if campaign.shape in ("rooms", "distinct"):
        return None
    found = await session.execute(
        text("SELECT count(*) FROM channels WHERE type = 'messaging' AND cid LIKE :like"),
        {"like": f"%-{campaign.campaign_id}"},
    )
    count: int = found.scalar_one()
    return count


def _wrong_events(campaign: Campaign, events: Counter[str]) -> list[str]:
    once = all(events[f"campaign.{name}"] == campaign.started for name in ("started", "completed"))
    in_pairs = events["campaign.paused"] == events["campaign.resumed"]
    return [] if once and in_pairs else [f"events: {dict(events)}"]


def _told_wrongly(message_ids: Sequence[str], told: Sequence[Told], created: int) -> list[str]:
    """What is wrong with the events of messages and channels: of each there is to be told exactly once."""
    problems, messages = [], Counter[str]()
    for event in told:
        if event.type == "message.new":
            first, last = event.data["first"], event.data["last"]
            within = message_ids[bisect_left(message_ids, first) : bisect_right(message_ids, last)]
            messages.update(within)
            if len(within) != event.size:
                problems.append(f"an event tells of {event.size} messages, there are {len(within)}")
    if messages != Counter(message_ids):
        problems.append(f"{messages.total()} messages were told of, there are {len(message_ids)}")
    channels = Counter(cid for event in told if event.type == "channel.created" for cid in event.data["cids"])
    if len(channels) != created or channels.total() != created:
        problems.append(f"{channels.total()} channels were told of, {created} were created")
    return problems
