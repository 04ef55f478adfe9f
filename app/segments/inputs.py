"""What may be said about a segment. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from app import validation
from app.errors import InvalidInput
from app.filters.language import parse
from app.segments.filtering import COLLECTIONS
from app.segments.kinds import SegmentKind, SegmentType
from app.validation import Problems

MAX_NAME = 128
MAX_DESCRIPTION = 256
MAX_TARGET_ID = 320
MAX_TARGETS = 10_000


def checked_new(given: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a new segment. Raises every problem at once."""
    problems, fields = Problems(), dict[str, Any]()
    segment_type = SegmentType(given["type"])
    fields |= {"type": segment_type, "filter": None}
    if given.get("segment_id") is not None:
        with problems.at("segment_id"):
            fields["segment_id"] = validation.identifier(given["segment_id"])
    for name in ("name", "description"):
        with problems.at(name):
            fields[name] = _text(name, given.get(name) or "")
    with problems.at():
        fields["kind"] = checked_kind(segment_type, given)
    if given.get("filter") is not None:
        with problems.at("filter"):
            fields["filter"] = checked_filter(segment_type, given["filter"])
    problems.check()
    return fields


def checked_kind(segment_type: str, given: Mapping[str, Any]) -> SegmentKind:
    """The kind that `filter`, `all_users` and `all_sender_channels` make; a manual list without them."""
    chosen = [
        kind
        for kind, wanted in (
            (SegmentKind.FILTER, given.get("filter") is not None),
            (SegmentKind.ALL_USERS, given.get("all_users")),
            (SegmentKind.ALL_SENDER_CHANNELS, given.get("all_sender_channels")),
        )
        if wanted
    ]
    if len(chosen) > 1:
        raise InvalidInput("filter, allUsers and allSenderChannels exclude each other")
    kind = chosen[0] if chosen else SegmentKind.MANUAL
    if kind is SegmentKind.ALL_USERS and segment_type != SegmentType.USER:
        raise InvalidInput("allUsers is for segments of type USER", path=("all_users",))
    if kind is SegmentKind.ALL_SENDER_CHANNELS and segment_type != SegmentType.CHANNEL:
        raise InvalidInput("allSenderChannels is for segments of type CHANNEL", path=("all_sender_channels",))
    return kind


def checked_changes(segment_type: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that change. Raises every problem at once."""
    problems, fields = Problems(), dict[str, Any]()
    for name, value in changes.items():
        with problems.at(name):
            if value is None:
                raise InvalidInput("cannot be null; leave it out to keep it")
            fields[name] = checked_filter(segment_type, value) if name == "filter" else _text(name, value)
    problems.check()
    return fields


def checked_filter(segment_type: str, given: Any) -> dict[str, Any]:
    """The filter as it is stored, unless it does not parse or would be everybody."""
    parse(COLLECTIONS[segment_type], given, allow_empty=False)
    kept: dict[str, Any] = given
    return kept


def checked_targets(target_ids: Sequence[str]) -> list[str]:
    """1 to 10,000 target ids, each once."""
    problems, wanted = Problems(), list[str]()
    with problems.at("target_ids"):
        validation.between(target_ids, most=MAX_TARGETS)
        wanted = validation.distinct(target_ids, checked_target)
    problems.check()
    return wanted


def checked_target(target_id: str) -> str:
    """An id of a user or channel, existing or not."""
    return validation.identifier(target_id, most=MAX_TARGET_ID)


def _text(name: str, value: Any) -> str:
    return validation.text(value, most=MAX_NAME if name == "name" else MAX_DESCRIPTION)
