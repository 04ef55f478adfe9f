"""What may be said about a user. Pure: the same rules hold for the API and for imported files."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from app import validation
from app.errors import InvalidInput
from app.users.filtering import USERS

MAX_NAME = 255
MAX_ROLE = 64
MAX_LANGUAGE = 35
MAX_TEAMS = 100
MAX_TEAM = 255
MAX_URL = 2_048
DEFAULT_ROLE = "user"

RESERVED = USERS.reserved


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one user as they are stored; None clears a field, what is absent stays absent.

    `user_id` is required; `deactivated` stays a boolean. Raises every problem, each under its field.
    """
    kept, problems = validation.each(given, CHECKS)
    if "user_id" not in given:
        problems.add(InvalidInput("is required"), "user_id")
    problems.check()
    return kept


def _name(value: Any) -> str | None:
    return None if value is None else validation.text(value, most=MAX_NAME)


def _role(value: Any) -> str:
    return DEFAULT_ROLE if value is None else validation.identifier(value, most=MAX_ROLE)


def _language(value: Any) -> str | None:
    return None if value is None else validation.identifier(value, most=MAX_LANGUAGE)


def _teams(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"must be a list of strings, not {validation.named(value)}")
    validation.between(value, most=MAX_TEAMS, least=0)
    return validation.distinct(value, lambda team: validation.text(team, least=1, most=MAX_TEAM))


def _image_url(value: Any) -> str | None:
    return None if value is None else validation.text(value, most=MAX_URL)


def _custom(value: Any) -> dict[str, Any]:
    return {} if value is None else validation.custom(value, reserved=RESERVED)


def _last_active_at(value: Any) -> datetime | None:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return None if value is None else validation.instant(value)


def _deactivated(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"must be true or false, not {validation.named(value)}")
    return bool(value)


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "user_id": validation.identifier,
    "name": _name,
    "role": _role,
    "language": _language,
    "teams": _teams,
    "image_url": _image_url,
    "custom": _custom,
    "last_active_at": _last_active_at,
    "deactivated": _deactivated,
}
