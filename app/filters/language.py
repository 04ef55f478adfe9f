"""The filter language: `parse()` a JSON object once, ask the database with `where()`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from app.database import DialectName
from app.errors import InvalidInput
from app.filters.expressions import DIALECTS, condition
from app.filters.fields import Collection
from app.filters.parser import tree
from app.filters.syntax import Node


@dataclass(frozen=True)
class Filter:
    """A filter that was checked. Made again from its JSON at any time: parsing costs microseconds."""

    tree: Node

    def where(self, dialect: DialectName) -> ColumnElement[bool]:
        """The condition of SQL that is true for exactly the rows that match."""
        return condition(self.tree, DIALECTS[dialect])


def parse(collection: Collection, given: Any, *, allow_empty: bool = True) -> Filter:
    """The filter that `given`, a JSON object, describes on this collection.

    Raises `InvalidInput`, `LimitExceeded`, or `Invalid` with all problems; paths lead into `given`. An
    empty filter is every row; `allow_empty` False refuses it.
    """
    if given == {} and not allow_empty:
        raise InvalidInput("an empty filter would be everybody; use allUsers for that")
    return Filter(tree(collection, given))
