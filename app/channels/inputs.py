"""What may be said about a channel. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app import validation
from app.channels.distinct import (
    DISTINCT_PREFIX,
    MAX_TYPE,
    channel_id_problem,
    channel_type_problem,
    cid_of,
    distinct_id,
    split_cid,
)
from app.channels.filtering import CHANNELS
from app.errors import InvalidInput
from app.validation import Problems

MAX_CHANNELS = 1_000
MAX_MEMBERS = 1_000
MAX_NAME = 255
MAX_TEAM = 255


def examined(given: Mapping[str, Any]) -> tuple[dict[str, Any], Problems]:
    """Those fields of one channel that are fine, as they are stored, and every problem of the others.

    `members` are in the order given, each once; None clears a field, what is absent stays absent. Without
    problems there are always `cid` and `channel_id`: without one given, that of the distinct channel of the
    members.
    """
    kept, problems = validation.each(given, CHECKS)
    if "type" not in given:
        problems.add(InvalidInput("is required"), "type")
    if given.get("channel_id") is None and not given.get("members"):
        problems.add(InvalidInput("are needed where there is no channelId: they name the channel"), "members")
    if not problems.errors:
        kept["channel_id"] = kept.get("channel_id") or distinct_id(kept["members"])
        kept["cid"] = cid_of(kept["type"], kept["channel_id"])
    return kept, problems


def is_distinct(channel_id: str) -> bool:
    """Whether this is the id of a distinct channel."""
    return channel_id.startswith(DISTINCT_PREFIX)


def checked_members(user_ids: Sequence[Any]) -> list[str]:
    """1 to 1,000 ids of users, each once; the problems are raised under `user_ids`."""
    problems, kept = Problems(), list[str]()
    with problems.at("user_ids"):
        validation.between(user_ids, most=MAX_MEMBERS)
        kept = validation.distinct(user_ids, validation.identifier)
    problems.check()
    return kept


def checked_cids(cids: Sequence[Any]) -> list[str]:
    """1 to 1,000 cids, each once; the problems are raised under `cids`."""
    problems, kept = Problems(), list[str]()
    with problems.at("cids"):
        validation.between(cids, most=MAX_CHANNELS)
        kept = validation.distinct(cids, _cid)
    problems.check()
    return kept


def flag(value: Any) -> bool:
    """True or false; null is false."""
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"must be true or false, not {validation.named(value)}")
    return bool(value)


def _cid(value: Any) -> str:
    if not isinstance(value, str) or split_cid(value) is None:
        raise InvalidInput("is no cid, which is type:channelId")
    return value


def _type(value: Any) -> str:
    given = validation.text(value, most=MAX_TYPE)
    if (problem := channel_type_problem(given)) is not None:
        raise InvalidInput(problem)
    return given


def _channel_id(value: Any) -> str | None:
    if value is None:
        return None
    given = validation.identifier(value)
    if (problem := channel_id_problem(given)) is not None:
        raise InvalidInput(problem)
    return given


def _members(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"must be a list of user ids, not {validation.named(value)}")
    validation.between(value, most=MAX_MEMBERS, least=0)
    return validation.distinct(value, validation.identifier)


def _name(value: Any) -> str | None:
    return None if value is None else validation.text(value, most=MAX_NAME)


def _team(value: Any) -> str | None:
    return None if value is None else validation.text(value, least=1, most=MAX_TEAM)


def _custom(value: Any) -> dict[str, Any]:
    return {} if value is None else validation.custom(value, reserved=CHANNELS.reserved)


def _created_by_id(value: Any) -> str | None:
    return None if value is None else validation.identifier(value)


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "type": _type,
    "channel_id": _channel_id,
    "members": _members,
    "name": _name,
    "team": _team,
    "custom": _custom,
    "created_by_id": _created_by_id,
    "frozen": flag,
}
"""Checks of each field of a channel, by its name."""
