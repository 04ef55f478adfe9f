"""The four operators of order, as Python and SQLAlchemy both understand them."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

ORDERINGS: Mapping[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
