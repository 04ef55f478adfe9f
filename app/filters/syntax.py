"""The filter language as a tree, after everything about it was checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.filters.fields import CustomField, Field

Logic = Literal["$and", "$or", "$nor"]


@dataclass(frozen=True)
class Condition:
    """One operator on one field. `operand` has the form that the field's column is compared with."""

    field: Field | CustomField
    operator: str
    operand: Any


@dataclass(frozen=True)
class Group:
    """Conditions that hold together as `logic` says; an empty `$and` holds for every row."""

    logic: Logic
    parts: "Sequence[Condition | Group]"


Node = Condition | Group
