"""Where templates run: what each rendering may cost, counted; and a Jinja environment that counts. Pure.

A template reaches fields, items and the functions of `functions.py`, never a Python attribute or call.
Steps and built text are counted as they are spent, so the same template and data always end the same.
"""

import operator
from collections.abc import Callable, Mapping, MutableMapping
from math import isfinite
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from app.messages.templating.values import Fields, Missing, Unfit, member, plain, to_json

MAX_STEPS = 100_000  # 60 ms at worst: a loop over n items with k nodes inside takes n * k
MAX_BUILT = 65_536  # characters of text, intermediate ones included
MAX_NUMBER = 2**63 - 1  # what JSON readers and databases hold
MAX_MISSING = 100  # names of missing variables that one rendering collects: a loop can make up thousands
CHARACTERS_PER_STEP = 16
STEPS_PER_CALL = 5  # a filter, test or method, even one that finds nothing to do

Function = Callable[..., Any]

_WEIGHTLESS = frozenset((int, float, bool, type(None)))  # paid for as one item of what holds them


class Exceeded(Exception):
    """One rendering would cost more than it may."""


class RenderContext(Context):
    """One recipient's rendering: its variables, and what is left of its steps and of its text."""

    def __init__(
        self,
        environment: "Sandbox",
        variables: dict[str, Any],
        defaults: Mapping[str, Any],
        collect_missing: bool = False,
    ) -> None:
        # Not Context's own constructor: it spends 2 us on what the sandbox cannot use.
        self.environment = environment
        self.eval_ctx = environment.evaluation
        self.parent = variables
        self.vars: dict[str, Any] = {}
        self.exported_vars: set[str] = set()
        self.defaults = defaults
        self.missing: dict[str, None] | None = {} if collect_missing else None
        self.steps = MAX_STEPS
        self.built = MAX_BUILT

    def resolve_or_missing(self, key: str) -> Any:
        """Jinja's way to a name that the template has not set itself."""
        return self.parent.get(key, missing)

    def spend(self, steps: int) -> None:
        """Takes steps, or raises Exceeded."""
        self.steps -= steps
        if self.steps < 0:
            raise Exceeded(f"the template takes more than {MAX_STEPS:,} steps")

    def build(self, characters: int) -> None:
        """Takes room for text that is about to be built, or raises Exceeded."""
        self.built -= characters
        if self.built < 0:
            raise Exceeded(f"the template builds more than {MAX_BUILT:,} characters")

    def weigh(self, value: Any) -> Any:
        """Takes the steps that looking at all of a value costs; gives the value."""
        kind = type(value)
        if kind is str:
            self.spend(1 + len(value) // CHARACTERS_PER_STEP)
        elif isinstance(value, list | tuple | Mapping):
            self._walk(value)
        return value

    def _walk(self, value: Any) -> None:
        waiting = [value]
        while waiting:
            item = waiting.pop()
            if type(item) in _WEIGHTLESS:
                continue
            if isinstance(item, str):
                self.spend(1 + len(item) // CHARACTERS_PER_STEP)
            elif isinstance(item, list | tuple):
                self.spend(1 + len(item))
                waiting.extend(item)
            elif isinstance(item, Mapping):
                self.spend(1 + 2 * len(item))
                waiting.extend(item)
                waiting.extend(item.values())
            elif type(item) is Fields:
                waiting.append(item.plain())

    def absent(self, path: str) -> Any:
        """The default for a missing variable, or what stands for it."""
        default = self.defaults.get(path)
        return Missing(name=path) if default is None else default

    def note(self, value: Any) -> None:
        """Remembers a missing variable that the message would have shown."""
        if self.missing is None or len(self.missing) >= MAX_MISSING:
            return
        if isinstance(value, Missing) and value.variable:
            self.missing[value.variable] = None

    def text(self, value: Any) -> str:
        """How a value reads: nothing for a missing one, JSON for lists and objects."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return str(value)
        if value is None or isinstance(value, Undefined):
            self.note(value)
            return ""
        return self.json(value)

    def json(self, value: Any) -> str:
        """A value as JSON text."""
        text = to_json(plain(self.weigh(shown(value)))).decode()
        self.build(len(text))
        return text

    def listed(self, value: Any) -> list[Any]:
        """What a loop over a value, or a filter for lists, goes through; a new list, and paid for."""
        if value is None or isinstance(value, Undefined):
            self.note(value)
            return []
        value = shown(value)
        if not isinstance(value, str | list | tuple | Mapping):
            raise Unfit(f"{_kind(value)} is not a list")
        self.spend(1 + len(value))
        return list(value)


def shown(value: Any) -> Any:
    """A person or channel as the object of its fields; anything else as it is."""
    return value.plain() if type(value) is Fields else value


def number(value: Any) -> Any:
    """A number that JSON can hold. Raises Exceeded past 64 bits and for infinity, Unfit for all else.

    (With a text or a list Python's operators repeat, concatenate and format, uncounted.)
    """
    if isinstance(value, complex):
        raise Unfit("the result is not a real number")
    if not _is_number(value):
        raise Unfit(f"{_kind(value)} is not a number")
    if isinstance(value, float) and not isfinite(value):
        raise Exceeded("a number is too large")
    if isinstance(value, int) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise Exceeded("a number has more than 64 bits")
    return value


@pass_context
def _finalize(context: RenderContext, value: Any) -> str:
    """What `{{ ... }}` writes."""
    text = value if type(value) is str else context.text(value)
    context.build(len(text))
    return text


_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja, with fields instead of attributes, counted operators, and no function but those it is given."""

    intercepted_binops = frozenset(_ARITHMETIC)
    intercepted_unops = frozenset("+-")

    def __init__(self, filters: Mapping[str, Function], tests: Mapping[str, Function]) -> None:
        super().__init__(
            undefined=Missing,
            finalize=_finalize,
            autoescape=False,
            keep_trailing_newline=True,
            optimized=False,  # constants too are computed where they are counted
            cache_size=0,
        )
        names: MutableMapping[str, Any] = self.globals
        names.clear()
        self.filters = dict(filters)
        self.tests = dict(tests)
        self.evaluation = EvalContext(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: a field."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`: a field or an item."""
        value = member(obj, argument)
        if value is not None:
            return value
        return Missing(name=str(argument) if isinstance(argument, str | int | float) else None)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A filter that a template names by a value: `map('upper')`. Never one of those that count."""
        if not isinstance(name, str) or name not in self.filters or name.startswith("_"):
            raise Unfit("map names a filter that is not there")
        return super().call_filter(name, *args, **kwargs)

    def call_test(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A test that a template names by a value: `select('odd')`."""
        if not isinstance(name, str) or name not in self.tests:
            raise Unfit("select names a test that is not there")
        return super().call_test(name, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers, `+` on text and lists, `*` on text; with a missing operand: missing."""
        assert isinstance(context, RenderContext)
        context.spend(1)
        for side, other in ((left, right), (right, left)):
            if side is None or isinstance(side, Undefined):
                context.note(side)
                return other if operator == "+" and not _is_number(other) else Missing()
        if _is_number(left) and _is_number(right):
            return _calculate(operator, left, right)
        if operator == "+":
            return _joined(context, left, right)
        if operator == "*" and isinstance(left, str) and isinstance(right, int):
            context.build(len(left) * max(right, 0))
            return left * right
        if operator == "%" and isinstance(left, str):
            arguments = right if isinstance(right, tuple) else (right,)
            return self.filters["format"](context, left, *arguments)
        raise Unfit(f"{_kind(left)} {operator} {_kind(right)} is not possible")

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """The sign of a number."""
        if isinstance(arg, Undefined):
            return arg
        if not _is_number(arg):
            raise Unfit(f"{operator} {_kind(arg)} is not possible")
        return arg if operator == "+" else -arg


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _calculate(sign: str, left: Any, right: Any) -> Any:
    if sign == "**" and isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 63:
        raise Exceeded("a number has more than 64 bits")
    return number(_ARITHMETIC[sign](left, right))


def _joined(context: RenderContext, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        context.build(len(left) + len(right))
        return left + right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return [*context.weigh(left), *context.weigh(right)]
    raise Unfit(f"{_kind(left)} + {_kind(right)} is not possible")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "true or false"
    if _is_number(value):
        return "a number"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping | Fields) else "this"
