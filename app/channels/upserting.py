"""Creating and changing channels, up to a thousand at once, all or none."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app import validation
from app.channels import queries
from app.channels.distinct import MEMBERS_WITH_KEY, members_key
from app.channels.inputs import MAX_CHANNELS, examined, is_distinct
from app.channels.models import Channel
from app.channels.service import problems_of_unknown, unknown_user
from app.database import now
from app.errors import InvalidInput
from app.events import service as events
from app.users import queries as users
from app.validation import Problems

MAX_MEMBERSHIPS = (
    10_000  # given, or taken away by what is given, in one call: a transaction has to stay short
)

Fields = dict[str, Any]


async def upsert_channels(session: AsyncSession, inputs: Sequence[Mapping[str, Any]]) -> list[Channel]:
    """Creates or changes 1 to 1,000 channels, all or none, and gives them back in the order of `inputs`.

    An input has `type` and any other of the fields of `inputs.CHECKS`; what it omits stays as it is, None
    clears, `members` replace those there are. Without `channel_id` it is the distinct channel of its members.
    Every problem is raised at once, under `channels`. Users are locked before channels. An event tells of
    those created.
    """
    problems, given = Problems(), list[Fields]()
    with problems.at("channels"):
        validation.between(inputs, most=MAX_CHANNELS)
        given = _examined(inputs, problems)
        _few_enough(sum(len(fields.get("members", ())) for fields in given))
        await _check_known(session, inputs, given)
    problems.check()
    rows = await _store(session, {fields["cid"]: fields for fields in given}, await now(session))
    return [Channel(**rows[fields["cid"]]) for fields in given]


def _examined(inputs: Iterable[Mapping[str, Any]], problems: Problems) -> list[Fields]:
    """What is fine of each input, in their order; only one that is fine altogether has its `cid`."""
    seen, given = dict[str, int](), list[Fields]()
    for position, fields in enumerate(inputs):
        kept, wrong = examined(fields)
        for error in wrong.errors:
            problems.add(error, "channels", position)
        given.append(kept)
        if "cid" in kept and (first := seen.setdefault(kept["cid"], position)) != position:
            sentence = f"{kept['cid']} is in this call already, at position {first}"
            problems.add(InvalidInput(sentence), "channels", position)
    return given


def _few_enough(memberships: int) -> None:
    if memberships > MAX_MEMBERSHIPS:
        validation.beyond(
            f"at most {MAX_MEMBERSHIPS:,} members may be given, or replaced, in one call",
            limit=MAX_MEMBERSHIPS,
            given=memberships,
        )


async def _check_known(
    session: AsyncSession, inputs: Sequence[Mapping[str, Any]], given: Sequence[Fields]
) -> None:
    """Every user named exists, and does until the commit; every distinct channel named by its id exists."""
    living = await users.shared(session, {user_id for fields in given for user_id in _named(fields)})
    by_their_ids = {
        fields["cid"]: position
        for position, fields in enumerate(given)
        if "cid" in fields
        and is_distinct(fields["channel_id"])
        and inputs[position].get("channel_id") is not None
    }
    existing = await queries.by_cids(session, list(by_their_ids))
    problems = Problems()
    for position, fields in enumerate(given):
        if "members" in fields:
            members = inputs[position]["members"] or ()
            problems_of_unknown(problems, (position, "members"), members, living)
        if (creator := fields.get("created_by_id")) is not None and not living.get(creator):
            problems.add(unknown_user(creator), position, "created_by_id")
    for cid, position in by_their_ids.items():
        if cid not in existing:
            sentence = "is the id of a distinct channel: create it by its members, without channelId"
            problems.add(InvalidInput(sentence), position, "channel_id")
    problems.check()


def _named(fields: Fields) -> Iterable[str]:
    creator = fields.get("created_by_id")
    return [*fields.get("members", ()), *([creator] if creator is not None else [])]


async def _store(session: AsyncSession, given: Mapping[str, Fields], at: datetime) -> dict[str, Fields]:
    """Writes checked channels and gives their whole rows by cid."""
    named = {cid: (fields["type"], fields["channel_id"]) for cid, fields in given.items()}
    rows = await queries.take_or_create(session, named, at)
    created = [cid for cid in given if rows[cid]["created_at"] == at]
    await events.record_messages(session, [], created, at)
    members = {cid: set(fields["members"]) for cid, fields in given.items() if "members" in fields}
    await _replace_members(session, rows, members, at)
    for cid, fields in given.items():
        rows[cid] |= {name: value for name, value in fields.items() if name in queries.WRITTEN}
    await queries.overwrite(session, list(rows.values()))
    return rows


async def _replace_members(
    session: AsyncSession, rows: Mapping[str, Fields], members: Mapping[str, set[str]], at: datetime
) -> None:
    """Makes these the only members of these locked channels, and `rows` say so. Those who stay keep what they
    have read; for whoever joins only later messages are unread."""
    problems = Problems()
    with problems.at("channels"):
        _few_enough(sum(max(0, rows[cid]["member_count"] - len(wanted)) for cid, wanted in members.items()))
    problems.check()
    present = await queries.member_ids(session, list(members))
    leaving = [(cid, user_id) for cid, wanted in members.items() for user_id in present[cid] - wanted]
    joining = {
        (cid, user_id): rows[cid]["last_seq"]
        for cid, wanted in members.items()
        for user_id in wanted - present[cid]
    }
    await queries.delete_members(session, leaving)
    await queries.insert_members(session, joining, at)
    for cid, wanted in members.items():
        key = members_key(wanted) if 0 < len(wanted) <= MEMBERS_WITH_KEY else None
        rows[cid] |= {"member_count": len(wanted), "members_key": key}
