"""Text made of nothing but words and built-in fields, written for thousands of receivers at once. Pure.

Jinja takes 3 us for `Hello {{ receiver.name }}`, this a twentieth. Whatever is not plain, in the template or
in a value, is left to Jinja: then the two can never differ.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from types import NoneType
from typing import Any

from jinja2 import nodes

PLAIN_FIELDS = ("id", "name", "role", "language")
PlainParts = tuple[str | tuple[str, str], ...]  # words, or (variable, field)


def plain_parts(tree: nodes.Template) -> PlainParts | None:
    """The words and fields of a template that has nothing else; None for any other."""
    parts: list[str | tuple[str, str]] = []
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            return None
        for part in statement.nodes:
            match part:
                case nodes.TemplateData(data=words):
                    parts.append(words)
                case nodes.Getattr(node=nodes.Name(name="receiver" | "user"), attr=name) if (
                    name in PLAIN_FIELDS
                ):
                    parts.append(("receiver", name))
                case nodes.Getattr(node=nodes.Name(name="sender"), attr=name) if name in PLAIN_FIELDS:
                    parts.append(("sender", name))
                case _:
                    return None
    return tuple(parts)


class PlainText:
    """A plain template with its defaults. People are rows that begin with `PLAIN_FIELDS`."""

    def __init__(self, words: str, fields: Sequence[tuple[str, int, str]], longest: int) -> None:
        self._words = words
        self._fields = fields
        self._longest = longest

    @classmethod
    def of(cls, parts: PlainParts, defaults: Mapping[str, Any], longest: int) -> "PlainText | None":
        """None where a default is no text: how that reads is Jinja's business."""
        fields = []
        for part in parts:
            if isinstance(part, tuple):
                default = defaults.get(".".join(part))
                if not isinstance(default, str | None):
                    return None
                fields.append((part[0], PLAIN_FIELDS.index(part[1]), default or ""))
        words = "".join(part.replace("%", "%%") if isinstance(part, str) else "%s" for part in parts)
        return cls(words, fields, longest)

    def write(self, receivers: Sequence[Sequence[Any]], sender: Sequence[Any]) -> list[str] | None:
        """The text for each receiver; None if a value is anything but text or absent, or a result too long or
        not storable."""
        columns: list[Any] = []
        for variable, position, default in self._fields:
            values = [row[position] for row in (receivers if variable == "receiver" else (sender,))]
            kinds = set(map(type, values))
            if not kinds <= {str, NoneType}:
                return None
            if NoneType in kinds:
                values = [default if value is None else value for value in values]
            columns.append(values if variable == "receiver" else repeat(values[0], len(receivers)))
        if columns:
            texts = list(map(self._words.__mod__, zip(*columns, strict=True)))
        else:
            texts = [self._words % ()] * len(receivers)
        return texts if storable(texts, self._longest) else None


def storable(texts: Sequence[str], longest: int) -> bool:
    """Whether every text has at most `longest` characters, all of which databases and JSON can hold."""
    everything = "".join(texts)
    if "\0" in everything or max(map(len, texts), default=0) > longest:
        return False
    try:
        everything.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True
