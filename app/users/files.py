"""Files of users, record by record, in flat memory: CSV and NDJSON. Pure but for reading the file.

NDJSON has a user a line with the fields of the API's UserInput. CSV has them as columns; any other column
becomes a field of custom. A cell that reads as a JSON number, true or false is stored as that, unless the
column is headed `name:string`; an empty cell is left out. `teams` is a JSON list or separated by `;`.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import orjson

from app.errors import AppError, Invalid, InvalidInput
from app.users.inputs import RESERVED, checked
from app.validation import MAX_INTEGER, MIN_INTEGER

Format = Literal["csv", "ndjson"]

MAX_LINE = 1_000_000
BOM = b"\xef\xbb\xbf"
FIELDS = {
    "userId": "user_id",
    "name": "name",
    "role": "role",
    "language": "language",
    "teams": "teams",
    "imageUrl": "image_url",
    "custom": "custom",
    "lastActiveAt": "last_active_at",
    "deactivated": "deactivated",
}
SHOWN = {name: shown for shown, name in FIELDS.items()}

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_MANY_DIGITS = re.compile(rb"\d{19}")
_BAD_BYTES = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Record:
    """What stands on `line` (its first): a checked user, or the reason why there is none."""

    line: int
    user: dict[str, Any] | None
    reason: str = ""


def records(file: BinaryIO, form: Format) -> Iterator[Record]:
    """Every record of the file; blank lines are passed over. Raises `InvalidInput` where the whole file
    cannot be read: it is empty, or a CSV without a fitting header."""
    return _csv(file) if form == "csv" else _ndjson(file)


def _record(line: int, read: Callable[[], Mapping[str, Any]]) -> Record:
    try:
        return Record(line, checked(read()))
    except Invalid as several:
        return Record(line, None, "; ".join(_sentence(error) for error in several.errors))
    except AppError as error:
        return Record(line, None, _sentence(error))


def _sentence(error: AppError) -> str:
    if not error.path:
        return error.message
    place = ".".join((SHOWN.get(error.path[0], error.path[0]), *error.path[1:]))
    return f"{place} {error.message}"


def _ndjson(file: BinaryIO) -> Iterator[Record]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) >= MAX_LINE and not line.endswith(b"\n"):
            _skip_line(file)
            yield Record(number, None, f"is longer than {MAX_LINE:,} bytes")
        elif line.strip():
            yield _record(number, lambda line=line: _fields(line))  # type: ignore[misc]
    if number == 0:
        raise InvalidInput("the file is empty")


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
        pass


def _fields(line: bytes) -> dict[str, Any]:
    try:
        given = orjson.loads(line)
        if _MANY_DIGITS.search(line):  # orjson rounds whole numbers beyond 64 bits; they are to be refused
            given = json.loads(line)
    except UnicodeDecodeError:
        raise InvalidInput("is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"is not JSON: {error}" if _decodes(line) else "is not UTF-8") from None
    if not isinstance(given, dict):
        raise InvalidInput("is not a JSON object")
    unknown = [name for name in given if name not in FIELDS]
    if unknown:
        raise InvalidInput(
            f"has the unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}; custom holds all others"
        )
    return {FIELDS[name]: value for name, value in given.items()}


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv(file: BinaryIO) -> Iterator[Record]:
    # Bytes that are no UTF-8 become lone surrogates, so that only their own line is bad.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        reader = csv.reader(text, strict=True)
        columns = _columns(reader)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Record(line, None, f"is not CSV: {error}")
                continue
            if cells:
                yield _record(line, lambda cells=cells: _row(columns, cells))  # type: ignore[misc]
    finally:
        text.detach()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a CSV: the field it fills, or the key of custom, and how its cells are read."""

    name: str
    custom: bool
    read: Callable[[str], Any]


def _columns(reader: "Iterator[list[str]]") -> list[Column]:
    try:
        header = [cell.strip() for cell in next(reader)]
    except StopIteration:
        raise InvalidInput("the file is empty; a CSV begins with a line of column names") from None
    except csv.Error as error:
        raise InvalidInput(f"line 1 is not CSV: {error}") from None
    if "userId" not in header:
        raise InvalidInput(f"the column userId is missing; the first line names {', '.join(header)[:500]}")
    columns = [_column(name) for name in header]
    names = [(column.name, column.custom) for column in columns]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidInput(f"the column {header[position]} is there twice")
    return columns


def _column(heading: str) -> Column:
    if heading in FIELDS:
        return Column(FIELDS[heading], custom=False, read=_READERS.get(heading, str))
    name, _, kind = heading.rpartition(":")
    name, read = (name, str) if name and kind == "string" else (heading, _scalar)
    if not name or name in RESERVED or name.startswith("$") or "." in name or _BAD_BYTES.search(name):
        raise InvalidInput(
            f"{heading!r} cannot be a column: a custom field needs a name of its own, without $ before it or "
            f"a dot in it; columns of the user itself are {', '.join(FIELDS)}"
        )
    return Column(name, custom=True, read=read)


def _row(columns: list[Column], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(columns):
        raise InvalidInput(f"has {len(cells)} cells where the first line has {len(columns)}")
    if _BAD_BYTES.search("".join(cells)):
        raise InvalidInput("is not UTF-8")
    fields, custom = dict[str, Any](), dict[str, Any]()
    for column, cell in zip(columns, cells, strict=True):
        if cell:
            (custom if column.custom else fields)[column.name] = column.read(cell)
    if custom:
        fields["custom"] = {**fields.get("custom", {}), **custom}
    return fields


def _scalar(cell: str) -> Any:
    if cell in ("true", "false"):
        return cell == "true"
    number = _NUMBER.fullmatch(cell)
    if number is None:
        return cell
    if number[2] is None and number[3] is None:
        whole = int(cell) if len(cell) <= 20 else MAX_INTEGER + 1
        return whole if MIN_INTEGER <= whole <= MAX_INTEGER else cell
    value = float(cell)
    return value if abs(value) != float("inf") else cell


def _teams(cell: str) -> Any:
    if cell.lstrip().startswith("["):
        try:
            return orjson.loads(cell)
        except ValueError:
            raise InvalidInput("is not a JSON list, nor a list separated by ;", path=("teams",)) from None
    return [team.strip() for team in cell.split(";") if team.strip()]


def _custom(cell: str) -> Any:
    try:
        given = orjson.loads(cell)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InvalidInput("is not a JSON object", path=("custom",))
    return given


def _deactivated(cell: str) -> Any:
    return {"true": True, "false": False}.get(cell.strip().lower(), cell)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "teams": _teams,
    "custom": _custom,
    "deactivated": _deactivated,
}
