"""What a campaign may say and whom it may name: the rules that hold whatever is stored.

Paths are the input's own names, outermost first, so that a form can show each error at its field.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app import validation
from app.channels.distinct import MAX_TYPE, channel_type_problem
from app.channels.filtering import CHANNELS
from app.errors import Invalid, InvalidInput
from app.ledger.models import OutcomeReason, RecipientStatus
from app.messages.rendering import ChannelIdTemplate, MessageTemplate
from app.validation import Problems

MAX_SEGMENTS = 25
MAX_USER_IDS = 10_000
MAX_TEMPLATE_MEMBERS = 1_000
MAX_NAME = 128
MAX_DESCRIPTION = 256
MAX_PACE = 10_000_000
SENDER_MODES = ("EXCLUDE", "INCLUDE")
SENDER_VISIBILITIES = ("HIDDEN", "ARCHIVED")

# What may change at any status before the end, and after it; everything else is content.
CHANGEABLE = frozenset({"name", "description", "max_messages_per_second", "stop_at"})
ALWAYS_CHANGEABLE = frozenset({"name", "description"})
AUDIENCE = frozenset({"segment_ids", "user_ids"})
REQUIRED = frozenset(
    {"sender_id", "message_template", "create_channels", "show_channels", "skip_push", "skip_webhook"}
)


@dataclass(frozen=True, slots=True)
class Examined:
    """What was said of a campaign: the names given, the fields that are fine as they are stored, and what is
    wrong with the others, to which whoever looks further adds."""

    names: Sequence[str]
    fields: dict[str, Any]
    problems: Problems


def examined(given: Mapping[str, Any]) -> Examined:
    """Tells what is fine from what is not. Compiling a template may take 300 ms: no lock should be held.

    An audience is one thing: if either part of it is wrong, neither counts as fine.
    """
    problems, fine = Problems(), dict[str, Any]()
    for name, value in given.items():
        with problems.at(name):
            fine[name] = _field(name, value)
    both = given.get("segment_ids") and given.get("user_ids")
    if both:
        sentence = "an audience is either segmentIds or userIds, not both"
        problems.add(InvalidInput(sentence), "user_ids")
    if both or any(name in given and name not in fine for name in AUDIENCE):
        fine = {name: value for name, value in fine.items() if name not in AUDIENCE}
    return Examined(list(given), fine, problems)


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given fields as they are stored. Raises every problem at once."""
    looked_at = examined(given)
    looked_at.problems.check()
    return looked_at.fields


def retryable(reasons: Sequence[str] | None) -> frozenset[OutcomeReason]:
    """The reasons whose recipients a retry sends to again; None: those of FAILED. Raises INVALID_INPUT."""
    if reasons is None:
        return frozenset(reason for reason in OutcomeReason if reason.status == RecipientStatus.FAILED)
    problems = Problems()
    if not reasons:
        with problems.at("reasons"):
            raise InvalidInput("name at least one reason, or leave it out for those of FAILED")
    for position, reason in enumerate(reasons):
        with problems.at("reasons", position):
            if OutcomeReason[reason] is OutcomeReason.SENDER:
                raise InvalidInput("a campaign never writes to its own sender: leave SENDER out")
    problems.check()
    return frozenset(OutcomeReason[reason] for reason in reasons)


def _field(name: str, value: Any) -> Any:
    if value is None:
        if name in REQUIRED:
            raise InvalidInput("is required and cannot be cleared")
        return None
    match name:
        case "campaign_id" | "sender_id":
            return validation.identifier(value)
        case "name":
            return validation.text(value, most=MAX_NAME)
        case "description":
            return validation.text(value, most=MAX_DESCRIPTION)
        case "segment_ids":
            return _ids(value, MAX_SEGMENTS, "segments")
        case "user_ids":
            return _ids(value, MAX_USER_IDS, "userIds")
        case "max_messages_per_second":
            return _pace(value)
        case "message_template":
            return _message_template(value)
        case "channel_template":
            return _channel_template(value)
        case _:
            return value


def _ids(values: Sequence[str], most: int, what: str) -> list[str]:
    if len(values) > most:
        validation.beyond(f"a campaign names at most {most:,} {what}", limit=most, given=len(values))
    return validation.distinct(values, validation.identifier)


def _pace(value: int) -> int:
    if not 1 <= value <= MAX_PACE:
        raise InvalidInput(f"must be from 1 to {MAX_PACE:,}; leave it out for no limit of its own")
    return value


def _message_template(given: Mapping[str, Any]) -> dict[str, Any]:
    template = {
        "text": given["text"],
        "attachments": given.get("attachments") or [],
        "custom": given.get("custom") or {},
        "poll_id": given.get("poll_id"),
        "defaults": given.get("defaults") or {},
    }
    with _paths_from(1):
        MessageTemplate.compile(template)
    return template


@contextmanager
def _paths_from(depth: int) -> Iterator[None]:
    """Templates name their mistakes from the campaign on; whoever gathers them here adds that himself."""
    try:
        yield
    except Invalid as mistakes:
        for error in mistakes.errors:
            error.path = error.path[depth:]
        raise


def _channel_template(given: Mapping[str, Any]) -> dict[str, Any]:
    problems, template = Problems(), dict(given)
    with problems.at("type"):
        problem = channel_type_problem(validation.text(given["type"], most=MAX_TYPE))
        if problem is not None:
            raise InvalidInput(problem)
    if given.get("id") is not None:
        with problems.at("id"), _paths_from(2):
            ChannelIdTemplate.compile(given["id"])
    if given.get("team") is not None:
        with problems.at("team"):
            validation.identifier(given["team"])
    with problems.at("custom"):
        template["custom"] = validation.custom(given.get("custom") or {}, reserved=CHANNELS.reserved)
    if given.get("members") and given.get("members_template"):
        with problems.at("members_template"):
            raise InvalidInput("give members or membersTemplate, not both")
    with problems.at("members"):
        template["members"] = _members(given.get("members") or [])
    with problems.at("members_template"):
        template["members_template"] = _members_template(given.get("members_template") or [])
    problems.check()
    return template


def _members(user_ids: Sequence[str]) -> list[str]:
    _few_enough(user_ids)
    return validation.distinct(user_ids, validation.identifier)


def _members_template(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    _few_enough(given)
    problems, kept = Problems(), []
    seen: set[str] = set()
    for position, member in enumerate(given):
        with problems.at(position):
            kept.append(_member(member, seen))
    problems.check()
    return kept


def _member(given: Mapping[str, Any], seen: set[str]) -> dict[str, Any]:
    problems = Problems()
    with problems.at("user_id"):
        validation.identifier(given["user_id"])
        if given["user_id"] in seen:
            raise InvalidInput("is named twice")
        seen.add(given["user_id"])
    if given.get("channel_role") is not None:
        with problems.at("channel_role"):
            validation.text(given["channel_role"], least=1, most=64)
    with problems.at("custom"):
        custom = validation.custom(given.get("custom") or {})
    problems.check()
    return {"user_id": given["user_id"], "channel_role": given.get("channel_role"), "custom": custom}


def _few_enough(members: Sequence[Any]) -> None:
    if len(members) > MAX_TEMPLATE_MEMBERS:
        validation.beyond(
            f"a channel template has at most {MAX_TEMPLATE_MEMBERS:,} members",
            limit=MAX_TEMPLATE_MEMBERS,
            given=len(members),
        )
