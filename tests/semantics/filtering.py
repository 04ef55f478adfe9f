"""The filter language as SEMANTICS has it, read plainly; and random data and filters to try it with.

Nothing here knows `app.filters`.
"""

import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, Any]

# ------------------------------------------------------------------ the page, read plainly

ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
TIMES = ("created_at", "updated_at", "last_active", "last_message_at")
SETS = ("teams", "team", "members")


def matches(row: Row, wanted: Mapping[str, Any], sets: Sequence[str]) -> bool:
    """Several keys are AND; $and, $or and $nor take lists."""
    return all(_holds(row, key, value, sets) for key, value in wanted.items())


def _holds(row: Row, key: str, value: Any, sets: Sequence[str]) -> bool:
    match key:
        case "$and":
            return all(matches(row, part, sets) for part in value)
        case "$or":
            return any(matches(row, part, sets) for part in value)
        case "$nor":
            return not any(matches(row, part, sets) for part in value)
        case _ if key in sets:
            return _set_holds(set(row["teams" if key == "team" else key]), value)
    found = _found(row, key)
    operators = value if isinstance(value, dict) else {"$eq": value}
    return all(_compares(found, name, _operand(key, operand)) for name, operand in operators.items())


def _set_holds(has: set[str], value: Any) -> bool:
    if isinstance(value, str):
        return value in has
    if isinstance(value, list):
        return has == set(value)
    ((name, operand),) = value.items()
    match name:
        case "$contains":
            return operand in has
        case "$in":
            return any(one in has for one in operand)
        case _:
            return has == set(operand)


def _found(row: Row, key: str) -> Any:
    if key in row and key != "custom":
        return row[key]
    value = row["custom"]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _operand(key: str, operand: Any) -> Any:
    if key not in TIMES or isinstance(operand, bool) or operand is None:
        return operand
    return [_operand(key, one) for one in operand] if isinstance(operand, list) else _instant(operand)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _equals(found: Any, operand: Any) -> bool:
    """JSON types are exact; null equals absent."""
    if operand is None:
        return found is None
    return _type(found) == _type(operand) and bool(found == operand)


def _compares(found: Any, name: str, operand: Any) -> bool:
    match name:
        case "$eq":
            return _equals(found, operand)
        case "$ne":
            return not _equals(found, operand)
        case "$in":
            return any(_equals(found, one) for one in operand)
        case "$nin":
            return not any(_equals(found, one) for one in operand)
        case "$exists":
            return (found is not None) is operand
        case "$contains":
            return isinstance(found, list) and any(_equals(one, operand) for one in found)
        case "$autocomplete":
            return isinstance(found, str) and _begins_a_word(found.lower(), operand.lower())
        case _:
            return _type(found) == _type(operand) and ORDERS[name](found, operand)


def _begins_a_word(text: str, search: str) -> bool:
    starts = (at for at in range(len(text)) if at == 0 or not text[at - 1].isalnum())
    return any(text.startswith(search, at) for at in starts)


# ------------------------------------------------------------------ random data and filters

WORDS = ["ann", "Ann", "ANNA", "éva", "Éva", "жан", "ЖАН", "smith", "Smi", "o", "2nd", "αβ", "ΑΒ"]
TEXTS = [
    "", "a", "A", "ab", "b", "0", "1", "1.0", "true", "false", "null", "É", "é", "e\u0301", "Ж", "ж", "z",
    "~", "ß", "İ", "i", "100%", "a_b", "a%b", "_", "%", "a\\b", "\\", "'", '"', "a'b", "`", "$eq", "{}", "[]",
    "x--", "\t", "\n", "\x7f", "\u2028", "\ufffd", "\uffff", "😀", "𝒜", "a b", ":x", "%s", "%(x)s", "?", "*",
    "[a]", "a]",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 10, 0.0, 1.0, -1.0, -0.0, 0.1, 0.5, 1.5, -1.5, 1e-7, 5e-324, 1e15, 1e15 + 0.5, 2**53,
    2**53 + 1, -(2**53) - 1, 2.0**53, 2.0**60, 2**60 + 1, 2**63 - 1, -(2**63), -(2.0**63), 2.0**63, 1e19,
    1e23, 1.7e308, -1.7e308, 123456789.125, 0.30000000000000004, 0.3,
]  # fmt: skip
KEYS = [
    "k",
    "n",
    "l",
    "K",
    "ключ",
    "É",
    "two words",
    'q"t',
    "b\\s",
    "a'b",
    "%",
    "0",
    "[0]",
    "items",
    "$".join("ab"),
]
TEAMS = ["red", "Red", "blue", "grün", "a%", "'", "1"]
PEOPLE = ["ann", "Ann", "bob", "é", "É", "x%", "y_", "o'k"]


@dataclass(frozen=True)
class Dice:
    """Random values of every kind that the page speaks of."""

    random: random.Random

    def one(self, values: Sequence[Any]) -> Any:
        return self.random.choice(values)

    def some(self, values: Sequence[Any], most: int) -> list[Any]:
        return [self.one(values) for _ in range(self.random.randint(0, most))]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def text(self) -> str:
        if self.chance(0.5):
            return str(self.one(TEXTS))
        return self.one([" ", "-", "'", ".", "_", "@", "]", "—", "\u00a0", "🎉", "❤\ufe0f"]).join(
            self.some(WORDS, 3)
        )

    def number(self) -> int | float:
        if self.chance(0.7):
            return self.one(NUMBERS)
        if self.chance(0.5):
            return self.random.randint(-(2**63), 2**63 - 1)
        return self.random.uniform(-1e6, 1e6)

    def scalar(self) -> Any:
        return self.one([self.text, self.number, lambda: self.one([True, False])])()

    def value(self, depth: int = 2) -> Any:
        kind = self.random.randint(0, 9)
        if kind == 0:
            return None
        if kind == 1 and depth:
            return {self.one(KEYS): self.value(depth - 1) for _ in range(self.random.randint(0, 3))}
        if kind in (2, 3) and depth:
            return [self.value(depth - 1) for _ in range(self.random.randint(0, 3))]
        return self.scalar()

    def custom(self) -> dict[str, Any]:
        return {key: self.value() for key in dict.fromkeys(self.some(KEYS, 5))}

    def time(self) -> datetime:
        return START + timedelta(hours=self.random.randint(0, 4), microseconds=self.random.randint(0, 1))

    def user(self, position: int) -> Row:
        return {
            "id": f"{self.one(['a', 'A', 'é', 'É', 'b-ann', '%', '_', '😀', 'ж'])}{position}",
            "name": None if self.chance(0.2) else self.text(),
            "role": self.one(["user", "admin", "Admin", "é"]),
            "language": self.one([None, "en", "de", "EN"]),
            "teams": list(dict.fromkeys(self.some(TEAMS, 3))),
            "created_at": self.time(),
            "updated_at": self.time(),
            "last_active": None if self.chance(0.3) else self.time(),
            "deactivated": self.chance(0.3),
            "custom": self.custom(),
        }

    def channel(self, position: int) -> Row:
        channel_type, channel_id = (
            self.one(["team", "Team", "live_1"]),
            f"{self.one(['a', 'É', '%'])}{position}",
        )
        members = list(dict.fromkeys(self.some(PEOPLE, 4)))
        return {
            "cid": f"{channel_type}:{channel_id}",
            "id": channel_id,
            "type": channel_type,
            "name": None if self.chance(0.2) else self.text(),
            "team": self.one([None, "red", "Red", "a%"]),
            "created_by_id": self.one([None, "ann", "Ann"]),
            "frozen": self.chance(0.3),
            "created_at": self.time(),
            "last_message_at": None if self.chance(0.4) else self.time(),
            "members": members,
            "member_count": len(members),
            "custom": self.custom(),
        }

    def filter(self, fields: Mapping[str, str], rows: Sequence[Row], depth: int = 0) -> dict[str, Any]:
        """Up to five levels; operands are often what some row has."""
        if depth < 5 and self.chance(0.3):
            parts = [self.filter(fields, rows, depth + 1) for _ in range(self.random.randint(1, 3))]
            return {self.one(["$and", "$or", "$nor"]): parts}
        wanted = dict[str, Any]()
        for _ in range(self.random.randint(1, 2)):
            key = self.one(list(fields)) if self.chance(0.45) else self._path(rows)
            wanted[key] = self._conditions(key, fields.get(key, "custom"), rows)
        return wanted

    def _path(self, rows: Sequence[Row]) -> str:
        """Mostly one that some row has."""
        if self.chance(0.2):
            return ".".join(self.one(KEYS) for _ in range(self.random.randint(1, 3)))
        path, inside = [], self.one([row["custom"] for row in rows if row["custom"]])
        while isinstance(inside, dict) and inside and not (path and self.chance(0.3)):
            path.append(self.one(list(inside)))
            inside = inside[path[-1]]
        return ".".join(path)

    def _conditions(self, key: str, kind: str, rows: Sequence[Row]) -> Any:
        if kind in ("teams", "members"):
            some = self.some(TEAMS if kind == "teams" else PEOPLE, 3)
            if self.chance(0.4):
                some = list(self.one(rows)[kind])
            forms: list[Any] = [{"$in": some}, {"$eq": some}, some]
            return self.one(
                [*forms, {"$contains": self.one(TEAMS)}, self.one(TEAMS)] if kind == "teams" else forms
            )
        names = ["$eq", "$ne", "$in", "$nin", "$exists"]
        names += list(ORDERS) if kind != "boolean" else []
        names += ["$autocomplete"] if kind in ("searched", "custom") else []
        names += ["$contains"] if kind == "custom" else []
        chosen = dict.fromkeys(self.one(names) for _ in range(self.one([1, 1, 2])))  # as drawn: sets vary
        if list(chosen) == ["$eq"] and self.chance(0.5):
            return self._operand(key, kind, rows)
        return {name: self._operand_of(name, key, kind, rows) for name in chosen}

    def _operand_of(self, name: str, key: str, kind: str, rows: Sequence[Row]) -> Any:
        if name == "$exists":
            return self.chance(0.5)
        if name == "$autocomplete":
            word = self.one(WORDS)
            return word[: self.random.randint(1, len(word))]
        if name in ("$in", "$nin"):
            return [self._operand(key, kind, rows) for _ in range(self.random.randint(0, 4))]
        while True:
            operand = self._operand(key, kind, rows)
            if _fits(name, operand):
                return operand

    def _operand(self, key: str, kind: str, rows: Sequence[Row]) -> Any:
        if kind != "boolean" and self.chance(0.1):
            return None
        if self.chance(0.5):
            found = _found(self.one(rows), key)
            found = self.one(found) if isinstance(found, list) and found else found
            if isinstance(found, datetime):
                return self._spelled(found)
            if isinstance(found, str | int | float):
                return found
        return {"boolean": lambda: self.chance(0.5), "time": lambda: self._spelled(self.time())}.get(
            kind, self.number if kind == "number" else self.scalar if kind == "custom" else self.text
        )()

    def _spelled(self, at: datetime) -> str:
        return at.isoformat().replace("+00:00", self.one(["Z", "+00:00"]))


def _fits(name: str, operand: Any) -> bool:
    if name in ORDERS:
        return operand is not None and not isinstance(operand, bool)
    return name != "$contains" or operand is not None


USER_FIELDS = {
    "id": "searched", "name": "searched", "role": "text", "language": "text", "created_at": "time",
    "updated_at": "time", "last_active": "time", "deactivated": "boolean", "teams": "teams", "team": "teams",
}  # fmt: skip
CHANNEL_FIELDS = {
    "cid": "text", "id": "text", "type": "text", "name": "searched", "team": "text", "created_by_id": "text",
    "frozen": "boolean", "created_at": "time", "last_message_at": "time", "member_count": "number",
    "members": "members",
}  # fmt: skip
