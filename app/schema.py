"""The schema: every domain's api joined."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import strawberry
from graphql import build_schema, lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig

from app.graphql import refetch
from app.graphql.columnwise import ColumnwiseExecutor
from app.graphql.execution import Admitted, CarillonSchema
from app.graphql.scalars import SCALARS
from app.keys import api as keys
from app.operations import api as operations
from app.usage import api as usage

DOMAINS = ("users", "segments", "channels", "messages", "campaigns", "webhooks")


def _joined(name: str, description: str) -> Any:
    """The root type `name`, which has every domain's fields; None where no domain has any."""
    parts = [getattr(api, name) for api in _APIS if hasattr(api, name)]
    return strawberry.type(type(name, tuple(parts), {}), description=description) if parts else None


_EXISTING = [domain for domain in DOMAINS if find_spec(f"app.{domain}.api")]
if "campaigns" not in _EXISTING and "segments" in _EXISTING:
    _EXISTING.remove("segments")
_APIS: list[Any] = [refetch, keys, usage, operations]
_APIS += [import_module(f"app.{domain}.api") for domain in _EXISTING]

schema = CarillonSchema(
    query=_joined("Query", "Everything that can be read."),
    mutation=_joined("Mutation", "Everything that can be changed; for keys with the role ADMIN."),
    subscription=_joined("Subscription", "What is told as it happens."),
    extensions=[Admitted],
    execution_context_class=ColumnwiseExecutor,
    config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
)


def export() -> str:
    """The schema's SDL, sorted, so that a difference between two versions is a difference in meaning."""
    return print_schema(lexicographic_sort_schema(build_schema(str(schema)))) + "\n"
