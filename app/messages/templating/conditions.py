"""The tests that templates may use after `is` and in `select`, each within the sandbox's count. Pure.

Only numbers are odd: to Python `"%9999d" % 2` is a text of ten thousand characters.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.tests import TESTS as JINJA_TESTS

from app.messages.templating.sandbox import Function, RenderContext, number, shown


def _test(name: str) -> Function:
    function: Any = JINJA_TESTS[name]

    @pass_context
    def run(context: RenderContext, value: Any, *args: Any) -> bool:
        context.spend(1)
        given = [context.weigh(shown(item)) for item in (value, *args)]
        return bool(function(*given))

    return run


@pass_context
def _is_defined(context: RenderContext, value: Any) -> bool:
    return not isinstance(value, Undefined)


@pass_context
def _is_undefined(context: RenderContext, value: Any) -> bool:
    return isinstance(value, Undefined)


@pass_context
def _is_none(context: RenderContext, value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


@pass_context
def _is_divisible(context: RenderContext, value: Any, by: Any) -> bool:
    return bool(number(value) % number(by) == 0)


@pass_context
def _is_odd(context: RenderContext, value: Any) -> bool:
    return bool(number(value) % 2 == 1)


@pass_context
def _is_even(context: RenderContext, value: Any) -> bool:
    return bool(number(value) % 2 == 0)


@pass_context
def _is_lower(context: RenderContext, value: Any) -> bool:
    return isinstance(value, str) and context.weigh(value).islower()


@pass_context
def _is_upper(context: RenderContext, value: Any) -> bool:
    return isinstance(value, str) and context.weigh(value).isupper()


_COMPARISONS = (
    "eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=",
    "gt", "greaterthan", ">", "ge", ">=", "in",
)  # fmt: skip
_KINDS = (
    "boolean", "false", "float", "integer", "iterable", "mapping", "number", "sequence", "string", "true",
)  # fmt: skip
TESTS: Mapping[str, Function] = {
    **{name: _test(name) for name in (*_COMPARISONS, *_KINDS)},
    "defined": _is_defined,
    "divisibleby": _is_divisible,
    "even": _is_even,
    "lower": _is_lower,
    "none": _is_none,
    "odd": _is_odd,
    "undefined": _is_undefined,
    "upper": _is_upper,
}
