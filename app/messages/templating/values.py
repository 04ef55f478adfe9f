"""What a template sees: people and channels as fields, and what stands for a missing one. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from jinja2 import Undefined
from jinja2.filters import _GroupTuple
from jinja2.runtime import LoopContext

from app.database import from_microseconds

USER_FIELDS = ("id", "name", "role", "language", "created_at")
CHANNEL_FIELDS = ("id", "cid", "type", "name", "team")
LOOP_FIELDS = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem")
)

CustomFields = str | bytes | Mapping[str, Any] | None
Instant = datetime | int | str | None


class Unfit(Exception):
    """A value of a kind that cannot be used where the template uses it; the message says so in words."""


class Missing(Undefined):
    """A variable that is absent or null: empty in text, null in JSON, false in conditions, equal to none.

    Jinja makes these itself for names that were never set; the template's own are named by their path.
    """

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = None, name: str | None = None, exc: Any = None
    ) -> None:
        super().__init__(hint, name=name)

    @property
    def variable(self) -> str | None:
        """The path that was asked for, as the template spells it."""
        return self._undefined_name

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Undefined)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def _never(self, other: object) -> bool:
        return False

    __lt__ = __le__ = __gt__ = __ge__ = _never  # type: ignore[assignment]
    __hash__ = Undefined.__hash__


class Fields:
    """One person or channel: built-in fields first, then custom ones, which are parsed when first asked for.

    There is no way from here to a Python attribute, and nothing a template does can change the fields.
    """

    __slots__ = ("_custom", "_own")

    def __init__(self, own: dict[str, Any], custom: CustomFields) -> None:
        self._own = own
        self._custom = custom

    def get(self, name: str) -> Any:
        """The field's value, None where there is none."""
        own = self._own
        if name not in own:
            return self._customs().get(name)
        if name == "created_at":
            own[name] = _rfc3339(own[name])
        return own[name]

    def plain(self) -> dict[str, Any]:
        """All fields as a new dictionary."""
        return {**self._customs(), **{name: self.get(name) for name in self._own}}

    def _customs(self) -> Mapping[str, Any]:
        custom = self._custom
        if isinstance(custom, str | bytes):
            custom = self._custom = orjson.loads(custom)
        return custom or {}


def user_fields(
    id: str,
    name: str | None,
    role: str | None,
    language: str | None,
    created_at: Instant,
    custom: CustomFields = None,
) -> Fields:
    """A user as a template sees it, from what the database holds.

    `created_at` may be SQLite's microseconds, `custom` JSON text; None where the template names no custom
    field (`MessageTemplate.needs_custom`).
    """
    own = {"id": id, "name": name, "role": role, "language": language, "created_at": created_at}
    return Fields(own, custom)


def channel_fields(
    cid: str, type: str, id: str, name: str | None, team: str | None, custom: CustomFields = None
) -> Fields:
    """A channel as a template sees it."""
    return Fields({"id": id, "cid": cid, "type": type, "name": name, "team": team}, custom)


@dataclass(slots=True)
class Variables:
    """Who and what one rendering is about. What is None renders as missing."""

    sender: Fields | None = None
    receiver: Fields | None = None
    channel: Fields | None = None


def member(value: Any, part: Any) -> Any:
    """`value.part` or `value[part]` of a template: a field or an item, None where there is none.

    Never a Python attribute, so `receiver.items` is the custom field.
    """
    kind = type(value)
    if kind is dict or kind is Fields:
        return value.get(part) if isinstance(part, str | int | float) else None
    if kind in (list, tuple, str):
        within = type(part) is int and -len(value) <= part < len(value)
        return value[part] if within else None
    if kind is LoopContext:
        return getattr(value, part) if part in LOOP_FIELDS else None
    if kind is _GroupTuple:
        return getattr(value, part) if part in ("grouper", "list") else member(tuple(value), part)
    return None


def plain(value: Any) -> Any:
    """The JSON value for what a template computed. Raises Unfit for what JSON cannot hold."""
    kind = type(value)
    if kind in (str, int, float, bool) or value is None:
        return value
    if isinstance(value, Undefined):
        return None
    if kind is Fields:
        return plain(value.plain())
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise Unfit("this is neither text nor JSON")


def _key(key: Any) -> str:
    if not isinstance(key, str | int | float):
        raise Unfit("the names of an object must be text")
    return str(key)


def _rfc3339(instant: Instant) -> str | None:
    if isinstance(instant, int):
        instant = from_microseconds(instant)
    if isinstance(instant, datetime):
        return _utc_text(instant)
    return instant


def _utc_text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_json(value: Any) -> bytes:
    """JSON, compact. Raises TypeError for a number over 64 bits, half a surrogate pair, very deep nesting."""
    return orjson.dumps(value)
