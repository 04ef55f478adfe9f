"""What can be filtered: a collection is a mapping of field names to columns and their kinds."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, SQLColumnExpression

EQUALITY = ("$eq", "$ne", "$in", "$nin", "$exists")
ORDER = ("$gt", "$gte", "$lt", "$lte")


class Kind(StrEnum):
    """What a field holds, which decides its operators and their operands."""

    TEXT = "text"
    SEARCHED_TEXT = "searched text"
    TIME = "time"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LABELS = "labels"
    MEMBERS = "members"
    CUSTOM = "custom"


OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    Kind.TEXT: EQUALITY + ORDER,
    Kind.SEARCHED_TEXT: (*EQUALITY, *ORDER, "$autocomplete"),
    Kind.TIME: EQUALITY + ORDER,
    Kind.NUMBER: EQUALITY + ORDER,
    Kind.BOOLEAN: EQUALITY,
    Kind.LABELS: ("$contains", "$in", "$eq"),
    Kind.MEMBERS: ("$in", "$eq"),
    Kind.CUSTOM: (*EQUALITY, *ORDER, "$autocomplete", "$contains"),
}


@dataclass(frozen=True)
class Field:
    """A built-in field: the name that a filter calls it by, its kind, and the column that holds it.

    `column` of LABELS is a JSON list of distinct strings. MEMBERS has the key of its row in `column` and
    in `rows` a statement of (key, member) pairs, each once.
    """

    name: str
    kind: Kind
    column: SQLColumnExpression[Any]
    rows: Select[str, str] | None = None


@dataclass(frozen=True)
class CustomField:
    """A field that the client made up: `keys` lead to it through nested objects of the column `custom`."""

    name: str
    keys: tuple[str, ...]
    column: SQLColumnExpression[Any]
    kind = Kind.CUSTOM


@dataclass(frozen=True)
class Collection:
    """Rows that filters choose from. `noun` names them in sentences."""

    noun: str
    fields: Mapping[str, Field]
    custom: SQLColumnExpression[Any]

    @property
    def reserved(self) -> frozenset[str]:
        """The names that a custom key may not have."""
        return frozenset(self.fields)


def collection(
    noun: str, *fields: Field, custom: Any, aliases: Mapping[str, str] | None = None
) -> Collection:
    """The collection of these fields; `aliases` maps further names to theirs."""
    table = {field.name: field for field in fields}
    table |= {alias: table[name] for alias, name in (aliases or {}).items()}
    return Collection(noun, table, custom)
