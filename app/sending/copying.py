"""The forms in which PostgreSQL takes many rows at once: COPY's text, and lists as JSON. Pure."""

from collections.abc import Mapping, Sequence

_SPECIAL = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPES = str.maketrans(_SPECIAL)


def lines(columns: Mapping[str, Sequence[str | None]]) -> str:
    """Rows in COPY's text form, given column by column."""
    escaped = [_escaped(column) for column in columns.values()]
    return "\n".join(map("\t".join, zip(*escaped, strict=True))) + "\n"


def _escaped(values: Sequence[str | None]) -> Sequence[str]:
    """A column in COPY's text form."""
    texts = [value for value in values if value is not None]
    together = "".join(texts)
    if len(texts) == len(values) and not any(special in together for special in _SPECIAL):
        return texts
    return ["\\N" if value is None else value.translate(_ESCAPES) for value in values]


def table(*columns: str) -> str:
    """A table `w` of columns that are each given as a JSON list."""
    lists = ", ".join("jsonb_array_elements_text(%s)" for _ in columns)
    names = [column.split()[0] for column in columns]
    casts = ", ".join(f"{name}::{column.split()[1]}" for name, column in zip(names, columns, strict=True))
    return f"(SELECT {casts} FROM ROWS FROM ({lists}) AS given ({', '.join(names)})) AS w"
