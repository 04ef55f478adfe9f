"""The filters and text methods that templates may use, each within the sandbox's count. Pure.

What is not listed here does not exist for a template: above all nothing random, nothing that pads or
repeats text to a given length, and nothing that reaches beyond its arguments.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import markupsafe
from jinja2 import Undefined, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.runtime import LoopContext

from app.messages.templating.sandbox import (
    MAX_NUMBER,
    STEPS_PER_CALL,
    Exceeded,
    Function,
    RenderContext,
    number,
    shown,
)
from app.messages.templating.values import Unfit

MAX_DIGITS = 40
MAX_PRECISION = 15
MAX_WIDTH = 99  # two digits of width or of precision
DIGITS_OF_INTEGER = MAX_WIDTH + 24
DIGITS_OF_FLOAT = MAX_WIDTH + 324
_DIGIT = re.compile(r"\d")
_FORMAT = re.compile(r"%(\(\w+\))?[#0\- +]{0,4}\d{0,2}(?:\.\d{0,2})?([diouxXeEfFgGs%])|%")


def _on_text(function: Callable[..., Any]) -> Function:
    """A filter of one text: missing is empty, and what comes out is counted."""

    @pass_context
    @wraps(function)
    def run(context: RenderContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = context.text(value)
        context.weigh(text)
        result = function(text, *args, **kwargs)
        if isinstance(result, str):
            context.build(len(result))
        return result

    return run


def _on_list(name: str, *, takes: str = "environment") -> Function:
    """Jinja's filter of that name, over a list that is paid for, a call for each item included; a list where
    Jinja gives an iterator.
    """
    function = JINJA_FILTERS[name]

    @pass_context
    def run(context: RenderContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        items = context.listed(value)
        context.weigh(items)
        context.spend(len(items) * STEPS_PER_CALL)
        context.weigh(args)
        context.weigh(kwargs)
        for argument in (*args, *kwargs.values()):
            _pay_for_path(context, argument, items)
        result = function(context if takes == "context" else context.environment, items, *args, **kwargs)
        if isinstance(result, Iterable) and not isinstance(result, str | list | tuple | Mapping | Undefined):
            result = list(result)
        return context.weigh(result)

    return run


def _pay_for_path(context: RenderContext, attribute: Any, items: list[Any]) -> None:
    """An attribute argument such as `address.city` looks once at every part of every item."""
    if isinstance(attribute, str):
        context.spend(len(items) * (attribute.count(".") + attribute.count(",")))


def _attributes(context: RenderContext, attribute: Any, items: list[Any]) -> list[Any]:
    if attribute is None:
        return items
    _pay_for_path(context, attribute, items)
    return list(map(make_attrgetter(context.environment, attribute), items))


def _trim(text: str, chars: str | None = None) -> str:
    return text.strip(_few(chars))


def _few(chars: str | None) -> str | None:
    if chars is not None and len(chars) > MAX_DIGITS:
        raise Unfit(f"trimming takes at most {MAX_DIGITS} characters")
    return chars


def _truncate(
    text: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5
) -> str:
    if len(text) <= length + leeway:
        return text
    kept = text[: max(length - len(end), 0)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


@pass_context
def _replace(context: RenderContext, value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = context.text(value), context.text(old), context.text(new)
    context.weigh(text)
    found = text.count(old)
    if count >= 0:
        found = min(found, count)
    context.build(len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, found)


@pass_context
def _join(context: RenderContext, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    items = _attributes(context, attribute, context.listed(value))
    texts = [context.text(item) for item in items]
    separator = context.text(d)
    context.build(sum(map(len, texts)) + len(separator) * max(len(texts) - 1, 0))
    return separator.join(texts)


@pass_context
def _format(context: RenderContext, value: Any, /, *args: Any, **kwargs: Any) -> str:
    pattern = context.text(value)
    context.weigh(pattern)
    conversions = _FORMAT.findall(pattern)
    if not all(kind for _, kind in conversions):
        raise Unfit("a format has a % that is not like %s, %d or %.2f")
    if kwargs and (args or not all(name for name, kind in conversions if kind != "%")):
        raise Unfit("a format has names for all of its values, or for none")
    named = {name: _scalar(context, item) for name, item in kwargs.items()}
    listed = tuple(_scalar(context, item) for item in args)
    widest = max(map(_width, (*named.values(), *listed)), default=0)
    context.build(len(pattern) + len(conversions) * max(widest, MAX_WIDTH))
    formatted: str = pattern % (named or listed)
    return formatted


def _width(value: Any) -> int:
    """How many characters a conversion makes of a value at most, padding aside."""
    if isinstance(value, str):
        return len(value)
    return DIGITS_OF_INTEGER if abs(value) <= MAX_NUMBER else DIGITS_OF_FLOAT


def _scalar(context: RenderContext, value: Any) -> Any:
    return value if isinstance(value, int | float) else context.text(value)


@pass_context
def _default(context: RenderContext, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    absent = value is None or isinstance(value, Undefined) or (boolean and not value)
    return default_value if absent else value


@pass_context
def _length(context: RenderContext, value: Any) -> int:
    return len(value) if isinstance(value, str) else len(context.listed(value))


@pass_context
def _first(context: RenderContext, value: Any) -> Any:
    return next(iter(context.listed(value)), None)


@pass_context
def _last(context: RenderContext, value: Any) -> Any:
    return next(reversed(context.listed(value)), None)


@pass_context
def _list(context: RenderContext, value: Any) -> list[Any]:
    return context.listed(value)


@pass_context
def _reverse(context: RenderContext, value: Any) -> Any:
    if isinstance(value, str):
        context.build(len(value))
        return value[::-1]
    return context.listed(value)[::-1]


@pass_context
def _sum(context: RenderContext, value: Any, attribute: str | int | None = None, start: float = 0) -> Any:
    items = _attributes(context, attribute, context.listed(value))
    context.spend(len(items))
    total = number(start)
    for item in items:
        total = number(total + (0 if item is None or isinstance(item, Undefined) else number(item)))
    return total


@pass_context
def _items(context: RenderContext, value: Any) -> list[tuple[Any, Any]]:
    value = shown(value)
    return [(key, value[key]) for key in context.listed(value)]


@pass_context
def _dictsort(context: RenderContext, value: Any, *args: Any, **kwargs: Any) -> Any:
    context.listed(value)
    entries = {} if value is None or isinstance(value, Undefined) else context.weigh(shown(value))
    return JINJA_FILTERS["dictsort"](entries, *args, **kwargs)


@pass_context
def _to_int(context: RenderContext, value: Any, default: int = 0, base: int = 10) -> Any:
    if _is_missing(context, value):
        return default
    if isinstance(value, str):
        value = _parsed(value, lambda text: int(text, base)) or _parsed_float(value)
    try:
        return number(int(value))
    except (TypeError, ValueError, OverflowError):
        return default


@pass_context
def _to_float(context: RenderContext, value: Any, default: float = 0.0) -> Any:
    if _is_missing(context, value):
        return default
    if isinstance(value, str):
        value = _parsed_float(value)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _is_missing(context: RenderContext, value: Any) -> bool:
    context.note(value)
    return value is None or isinstance(value, Undefined)


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text) if len(text) <= MAX_DIGITS else None
    except ValueError:
        return None


def _parsed_float(text: str) -> float | None:
    return _parsed(text, float) if _DIGIT.search(text) else None


@pass_context
def _round(context: RenderContext, value: Any, precision: int = 0, method: str = "common") -> Any:
    if _is_missing(context, value):
        return value
    if not -MAX_PRECISION <= precision <= MAX_PRECISION:
        raise Unfit(f"round takes a precision of {-MAX_PRECISION} to {MAX_PRECISION}")
    return number(JINJA_FILTERS["round"](number(value), precision, method))


@pass_context
def _abs(context: RenderContext, value: Any) -> Any:
    if _is_missing(context, value):
        return value
    return abs(number(value))


@pass_context
def _tojson(context: RenderContext, value: Any) -> str:
    context.note(value)
    return context.json(value)


FILTERS: Mapping[str, Function] = {
    "abs": _abs,
    "capitalize": _on_text(str.capitalize),
    "count": _length,
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "e": _on_text(lambda text: str(markupsafe.escape(text))),
    "escape": _on_text(lambda text: str(markupsafe.escape(text))),
    "first": _first,
    "float": _to_float,
    "format": _format,
    "groupby": _on_list("groupby"),
    "int": _to_int,
    "items": _items,
    "join": _join,
    "last": _last,
    "length": _length,
    "list": _list,
    "lower": _on_text(str.lower),
    "map": _on_list("map", takes="context"),
    "max": _on_list("max"),
    "min": _on_list("min"),
    "reject": _on_list("reject", takes="context"),
    "rejectattr": _on_list("rejectattr", takes="context"),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "safe": _on_text(str),
    "select": _on_list("select", takes="context"),
    "selectattr": _on_list("selectattr", takes="context"),
    "sort": _on_list("sort"),
    "string": _on_text(str),
    "sum": _sum,
    "title": _on_text(JINJA_FILTERS["title"]),
    "tojson": _tojson,
    "trim": _on_text(_trim),
    "truncate": _on_text(_truncate),
    "unique": _on_list("unique"),
    "upper": _on_text(str.upper),
    "urlencode": _on_text(JINJA_FILTERS["urlencode"]),
    "wordcount": _on_text(lambda text: len(text.split())),
}


def _split(context: RenderContext, value: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    context.spend(1 + len(value))
    return value.split(sep, maxsplit)


def _joined(context: RenderContext, value: str, items: Any) -> Any:
    return FILTERS["join"](context, items, value)


def _starts(context: RenderContext, value: str, prefix: str) -> bool:
    return value.startswith(prefix)


def _ends(context: RenderContext, value: str, suffix: str) -> bool:
    return value.endswith(suffix)


METHODS: Mapping[str, Function] = {
    "capitalize": FILTERS["capitalize"],
    "endswith": _ends,
    "join": _joined,
    "lower": FILTERS["lower"],
    "lstrip": _on_text(lambda text, chars=None: text.lstrip(_few(chars))),
    "replace": _replace,
    "rstrip": _on_text(lambda text, chars=None: text.rstrip(_few(chars))),
    "split": _split,
    "startswith": _starts,
    "strip": FILTERS["trim"],
    "title": _on_text(str.title),
    "upper": FILTERS["upper"],
}


def call_method(context: RenderContext, value: Any, name: str, args: tuple[Any, ...]) -> Any:
    """`value.name(args)` of a template, for text, and loop.cycle(). Raises Unfit for any other."""
    if _is_missing(context, value):
        return value
    if isinstance(value, LoopContext) and name in ("cycle", "changed"):
        return value.cycle(*args) if name == "cycle" else value.changed(*args)
    if not isinstance(value, str) or name not in METHODS:
        raise Unfit(f"there is no method {name}()")
    context.weigh(args)
    method: Callable[..., Any] = METHODS[name]
    return method(context, value, *args)


def checked_range(context: RenderContext, *bounds: Any) -> list[int]:
    """range(), as a list that is paid for before it is made."""
    numbers = range(*(number(bound) for bound in bounds))
    try:
        context.spend(1 + len(numbers))
    except OverflowError:
        raise Exceeded("a range is too long") from None
    return list(numbers)
