"""Bodies of requests: read up to a limit, as strict JSON."""

import json
import re
from typing import Any, NoReturn

from starlette.requests import Request

from app.errors import InvalidInput, LimitExceeded
from app.graphql.failures import Refused, beyond, refused
from app.settings import Settings


async def read(request: Request, limit: int) -> bytes:
    """The body, chunked or not. Raises Refused (413) as soon as it is past `limit` bytes."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit, int(announced))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit, len(body))
    return bytes(body)


class _NoConstant(ValueError):
    """NaN or an infinity, which Python takes for JSON."""


_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(r"[\[{]+|[\]}]+")


def decode(body: bytes | str, settings: Settings, what: str = "The body") -> Any:
    """The value of strict JSON in UTF-8 that holds no more values than the settings allow; `what` it is, for
    the sentence. Raises Refused (400)."""
    max_values = settings.max_json_values
    try:
        text = body if isinstance(body, str) else body.decode()
        if (
            _punctuation(text) >= max_values
            and (given := _punctuation(_STRING.sub("", text)) + 1) > max_values
        ):
            raise refused(
                LimitExceeded(
                    f"{what} has more than {max_values:,} values, which is the limit.",
                    details={"limit": max_values, "given": given},
                ),
                status=400,
            )
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise _invalid(f"{what} is not UTF-8.") from None
    except RecursionError:
        levels = _levels(_STRING.sub("", text))
        raise beyond("Levels of the JSON", settings.max_json_depth, levels, status=400) from None
    except json.JSONDecodeError as error:
        raise _invalid(f"{what} is not JSON (line {error.lineno}, column {error.colno}).") from None
    except _NoConstant as constant:
        raise _invalid(f"{what} is not JSON: {constant} is no value of it.") from None
    except ValueError:  # Python reads at most 4,300 digits
        sentence = "has an integer of thousands of digits; an integer has at most 64 bits"
        raise _invalid(f"{what} {sentence}.") from None


def _punctuation(text: str) -> int:
    """At most how many values JSON without strings has, but for one. Costs a tenth of reading it."""
    return text.count(",") + text.count("[") + text.count("{")


def _levels(text: str) -> int:
    """How deep brackets of JSON without strings stand within brackets."""
    deepest = depth = 0
    for run in _BRACKETS.finditer(text):
        depth += len(run[0]) if run[0][0] in "[{" else -len(run[0])
        deepest = max(deepest, depth)
    return deepest


def _no_constant(constant: str) -> NoReturn:
    raise _NoConstant(constant)


def _invalid(sentence: str) -> Refused:
    return refused(InvalidInput(sentence), status=400)


def _too_large(limit: int, given: int) -> Refused:
    message = f"The body has more than {limit:,} bytes, which is the limit."
    return refused(LimitExceeded(message, details={"limit": limit, "given": given}), status=413)
