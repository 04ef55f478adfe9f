"""A campaign's message as each recipient gets it. Compiled once, rendered millions of times. Pure.

Text without Jinja is never run through it; JSON that is the same for everyone is serialised once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.messages.builders import Build, Constant, RenderError, plain_text
from app.messages.content import MAX_TEXT, Compilation
from app.messages.templating.counted import ENVIRONMENT
from app.messages.templating.plain import PLAIN_FIELDS, PlainText
from app.messages.templating.sandbox import RenderContext
from app.messages.templating.values import (
    CHANNEL_FIELDS,
    USER_FIELDS,
    Fields,
    Missing,
    Variables,
    channel_fields,
    user_fields,
)

__all__ = [
    "ChannelIdTemplate",
    "Fields",
    "MessageTemplate",
    "RenderError",
    "RenderedMessage",
    "Variables",
    "channel_fields",
    "user_fields",
]

VARIABLES = ("sender", "receiver", "channel")

_BUILT_IN = {"sender": USER_FIELDS, "receiver": USER_FIELDS, "channel": CHANNEL_FIELDS}
_ABSENT = {name: Missing(name=name) for name in VARIABLES}


@dataclass(slots=True)
class RenderedMessage:
    """What one recipient gets. `attachments` and `custom` are JSON text, ready to be stored.

    `missing` names the variables that rendered empty, when they were asked for.
    """

    text: str
    attachments: str
    custom: str
    missing: tuple[str, ...] = ()


class MessageTemplate:
    """A message with variables, ready to be rendered for anybody.

    `poll_id` is copied to every message. `needs_receiver` says that it names a receiver's field for which
    there is no default, so that a channel without a receiver cannot get it.
    """

    def __init__(
        self,
        text: Build,
        attachments: Build,
        custom: Build,
        *,
        poll_id: str | None,
        defaults: dict[str, Any],
        paths: frozenset[str],
        required: frozenset[str],
    ) -> None:
        self._text = text
        self._attachments = attachments
        self._custom = custom
        self._defaults = defaults
        self._plain = plain_text(text, defaults, MAX_TEXT)
        self.paths = paths
        self.poll_id = poll_id
        self.needs_receiver = any(_root(path) == "receiver" and path not in defaults for path in required)

    @classmethod
    def compile(
        cls, template: Mapping[str, Any], *, extra_custom: Mapping[str, Any] | None = None
    ) -> "MessageTemplate":
        """From {"text", "attachments", "custom", "poll_id", "defaults"}; only text is required.

        `extra_custom` goes into every message's custom and wins over the template's own keys. Raises
        Invalid with every mistake; paths begin with messageTemplate, line and column are in details.
        """
        found = Compilation("messageTemplate", VARIABLES)
        text = found.text(template.get("text"), "text")
        attachments = found.attachments(template.get("attachments"))
        custom = found.custom(template.get("custom"), dict(extra_custom or {}))
        defaults = found.defaults(template.get("defaults"))
        poll_id = found.poll_id(template.get("poll_id"))
        found.finish()
        return cls(
            text,
            attachments,
            custom,
            poll_id=poll_id,
            defaults=defaults,
            paths=_union(program.paths for program in found.programs),
            required=_union(program.required for program in found.programs),
        )

    def needs(self, variable: str) -> bool:
        """Whether the template names sender, receiver or channel at all."""
        return any(_root(path) == variable for path in self.paths)

    def needs_custom(self, variable: str) -> bool:
        """Whether rendering reads custom fields of sender, receiver or channel."""
        return _needs_custom(self.paths, variable)

    @property
    def same_for_all(self) -> tuple[str, str] | None:
        """Attachments and custom as JSON text, where they are the same in every message."""
        match self._attachments, self._custom:
            case Constant(value=attachments), Constant(value=custom):
                return attachments, custom
        return None

    def needs_details(self, variable: str) -> bool:
        """Whether rendering reads more of sender or receiver than id, name, role and language."""
        return _needs_details(self.paths, variable)

    @property
    def is_plain(self) -> bool:
        """Whether `plain_texts` can do anything."""
        return self._plain is not None and self.same_for_all is not None

    def plain_texts(self, receivers: Sequence[Sequence[Any]], sender: Sequence[Any]) -> list[str] | None:
        """The texts for all these receivers at once, where the template is plain and nothing is wrong with
        any of them; else `render` tells. People are rows that begin with id, name, role, language."""
        return None if self._plain is None else self._plain.write(receivers, sender)

    def render(self, variables: Variables, *, collect_missing: bool = False) -> RenderedMessage:
        """The message for these people. Raises RenderError, and nothing else, whatever the template does."""
        context = RenderContext(ENVIRONMENT, _named(variables), self._defaults, collect_missing)
        text = self._text(context)
        if len(text) > MAX_TEXT:
            raise RenderError(f"text: at most {MAX_TEXT:,} characters, it has {len(text):,}")
        return RenderedMessage(
            text, self._attachments(context), self._custom(context), tuple(context.missing or ())
        )


class ChannelIdTemplate:
    """The id of the channel that each receiver gets the message in."""

    def __init__(self, build: Build, paths: frozenset[str]) -> None:
        self._build = build
        self._plain: PlainText | None = plain_text(build, {}, MAX_TEXT)
        self.paths = paths

    @classmethod
    def compile(cls, text: str) -> "ChannelIdTemplate":
        """Raises Invalid for a mistake, and for an id that is the same for all receivers."""
        found = Compilation("channelTemplate", ("sender", "receiver"))
        build = found.text(text, "id")
        paths = _union(program.paths for program in found.programs)
        if not found.errors and not any(_root(path) == "receiver" for path in paths):
            found.invalid("id must use receiver, as in vip-{{ receiver.id }}", "id")
        found.finish()
        return cls(build, paths)

    def needs_custom(self, variable: str) -> bool:
        """Whether rendering reads custom fields of sender or receiver."""
        return _needs_custom(self.paths, variable)

    def needs_details(self, variable: str) -> bool:
        """Whether rendering reads more of sender or receiver than id, name, role and language."""
        return _needs_details(self.paths, variable)

    @property
    def is_plain(self) -> bool:
        """Whether `plain_ids` can do anything."""
        return self._plain is not None

    def plain_ids(self, receivers: Sequence[Sequence[Any]], sender: Sequence[Any]) -> list[str] | None:
        """The ids for all these receivers at once, as `MessageTemplate.plain_texts`. They may still break the
        rules for ids."""
        return None if self._plain is None else self._plain.write(receivers, sender)

    def render(self, variables: Variables) -> str:
        """The channel id, which may still break the rules for ids. Raises RenderError."""
        text: str = self._build(RenderContext(ENVIRONMENT, _named(variables), {}))
        return text


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset[str]().union(*sets)


def _root(path: str) -> str:
    return path.partition(".")[0]


def _needs_custom(paths: frozenset[str], variable: str) -> bool:
    built_in = {f"{variable}.{field}" for field in _BUILT_IN[variable]}
    return any(_root(path) == variable and path not in built_in for path in paths)


def _needs_details(paths: frozenset[str], variable: str) -> bool:
    few = {f"{variable}.{field}" for field in PLAIN_FIELDS}
    return any(_root(path) == variable and path not in few for path in paths)


def _named(variables: Variables) -> dict[str, Any]:
    return {
        "sender": variables.sender or _ABSENT["sender"],
        "receiver": variables.receiver or _ABSENT["receiver"],
        "channel": variables.channel or _ABSENT["channel"],
    }
