"""Rows of values given to a statement as one parameter (a column): a thousand pairs spelt out one by one cost
PostgreSQL half a second, and SQLite limits their number."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import ARRAY, ColumnElement, Subquery, Text, any_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from app.database import dialect_of


def among(session: AsyncSession, column: ColumnElement[str], texts: Sequence[str]) -> ColumnElement[bool]:
    """Whether a column's text is one of these, of which there may be many. They travel as one JSON text: of
    an array psycopg escapes each element, 20 ms for 10,000."""
    listed = literal(orjson.dumps(texts).decode(), Text)
    if dialect_of(session) == "sqlite":
        return column.in_(select(func.json_each(listed).table_valued("value").c.value))
    elements = select(func.jsonb_array_elements_text(cast(listed, JSONB)))
    return column == any_(func.array(elements.scalar_subquery()))


def given(session: AsyncSession, rows: Iterable[Sequence[Any]], **columns: type[TypeEngine[Any]]) -> Subquery:
    """A table of these rows: texts and whole numbers, in columns of these names and types."""
    listed = [tuple(row) for row in rows]
    if dialect_of(session) == "sqlite":
        value = func.json_each(literal(orjson.dumps(listed).decode(), Text)).table_valued("value").c.value
        parts = (
            cast(value.op("->>")(place), kind).label(name)
            for place, (name, kind) in enumerate(columns.items())
        )
        return select(*parts).subquery()
    arrays = [
        literal([row[place] for row in listed], ARRAY(kind)) for place, kind in enumerate(columns.values())
    ]
    table = func.unnest(*arrays).table_valued(*columns).render_derived()
    return select(*(cast(table.c[name], kind).label(name) for name, kind in columns.items())).subquery()
