"""Directions of a sort, shared by every list that takes one."""

from enum import Enum

import strawberry


@strawberry.enum(description="Which way a list is sorted. Nulls come last both ways.")
class SortDirection(Enum):
    """Up or down."""

    ASC = strawberry.enum_value("ASC", description="The smallest first.")
    DESC = strawberry.enum_value("DESC", description="The largest first.")
