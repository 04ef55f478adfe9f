"""The form in which SQLite stages the messages of a slice, before they go set-based into each table. Pure."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from app.scratch import Filled

# The messages to be sent. A row with `messages` founds its channel. The defaults are those of most batches: a
# channel for each receiver, founded by two; then five columns are enough, and every column costs.
STAGE = (
    "CREATE {}TABLE IF NOT EXISTS staged (position INTEGER PRIMARY KEY, target_id TEXT, cid TEXT,"
    " message_id TEXT, text TEXT, attachments TEXT, custom TEXT, seq INTEGER DEFAULT 1,"
    " created INTEGER DEFAULT 1, messages INTEGER DEFAULT 1, member_count INTEGER DEFAULT 2,"
    " members_key TEXT)"
)
# Of those staged at once: with each row a statement of its own, every row waits for other threads of Python.
ROWS_A_STATEMENT = 100


class Staged(NamedTuple):
    """Messages as they are staged. `pairs`: each founds a channel of its own, with two members; `order` is
    what inserts have to add to go by cid; `ahead` is where they are already."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    pairs: bool
    order: str
    ahead: Filled | None = None

    def inserts(self) -> Iterator[tuple[str, list[Any]]]:
        """The statements that stage them, each with what it is given."""
        one = f"(?{', ?' * (len(self.columns) - 1)})"
        for start in range(0, len(self.rows), ROWS_A_STATEMENT):
            rows = self.rows[start : start + ROWS_A_STATEMENT]
            values = ", ".join([one] * len(rows))
            yield (
                f"INSERT INTO staged ({', '.join(self.columns)}) VALUES {values}",
                list(chain.from_iterable(rows)),
            )


def order_of(cids: Sequence[str]) -> str:
    """What has to be added to insert in the order of cids; most often they are staged in it already."""
    cids = list(cids)
    return "" if cids == sorted(cids) else " ORDER BY cid"
