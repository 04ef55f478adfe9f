"""What was written: rows and characters of each table, which both sides must agree in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The columns whose characters are counted; where one side stands in for a value it has the same length.
TABLES: Mapping[str, tuple[str, ...]] = {
    "channels": ("cid", "type", "channel_id", "custom", "created_by_id", "members_key"),
    "members": ("cid", "user_id", "channel_role", "custom"),
    "messages": ("id", "cid", "sender_id", "type", "text", "attachments", "custom", "target_id"),
    "recipients": ("target_id", "cid", "message_id"),
    "batches": ("first_target", "last_target"),
}


class Differing(Exception):
    """The two sides wrote different things, so their times say nothing; or the campaign did not send all."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What is in a table."""

    rows: int
    characters: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows with {self.characters:,} characters"


Content = Mapping[str, Amount]


def content(connection: Any) -> Content:
    """What is in the tables of a database that the driver's `connection` belongs to."""
    found = {}
    for table, columns in TABLES.items():
        lengths = " + ".join(f"length(CAST({column} AS text))" for column in columns)
        found[table] = Amount(
            *map(
                int,
                connection.execute(f"SELECT count(*), coalesce(sum({lengths}), 0) FROM {table}").fetchone(),
            )
        )
    return found


def check_complete(written: Content, number_of_users: int) -> None:
    """Raises `Differing` unless every user got a message in a channel of two."""
    expected = {"channels": 1, "members": 2, "messages": 1, "recipients": 1}
    for table, each in expected.items():
        if written[table].rows != each * number_of_users:
            raise Differing(
                f"the campaign to {number_of_users:,} users wrote {written[table].rows:,} rows into {table}"
            )


def check_same(campaign: Content, floor: Content) -> None:
    """Raises `Differing` unless both sides wrote the same rows with as many characters."""
    for table in TABLES:
        if campaign[table] != floor[table]:
            raise Differing(f"{table}: the campaign wrote {campaign[table]}, the floor {floor[table]}")
