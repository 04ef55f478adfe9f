"""What the rewritten template calls for every loop, look-up, call, comparison and literal. Pure."""

from collections.abc import Mapping
from typing import Any

from jinja2 import pass_context

from app.messages.templating.conditions import TESTS
from app.messages.templating.functions import FILTERS, call_method, checked_range
from app.messages.templating.sandbox import Function, RenderContext, Sandbox, shown
from app.messages.templating.values import Fields, member


@pass_context
def _field(context: RenderContext, root: Any, path: str, name: str) -> Any:
    value = root.get(name) if type(root) is Fields else member(root, name)
    return context.absent(path) if value is None else value


@pass_context
def _path(context: RenderContext, root: Any, path: str, parts: tuple[str | int, ...]) -> Any:
    value = root
    for part in parts:
        value = member(value, part)
        if value is None:
            return context.absent(path)
    return value


@pass_context
def _loop(context: RenderContext, value: Any, weight: int) -> list[Any]:
    items = context.listed(value)
    context.spend(len(items) * weight)
    return items


@pass_context
def _concat(context: RenderContext, *values: Any) -> str:
    texts = [context.text(value) for value in values]
    context.spend(len(texts))
    context.build(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _weighed(context: RenderContext, value: Any) -> Any:
    return context.weigh(shown(value))


@pass_context
def _slice(context: RenderContext, value: Any, *bounds: Any) -> Any:
    value = context.listed(value) if not isinstance(value, str) else context.weigh(value)
    return value[slice(*bounds)]


@pass_context
def _call(context: RenderContext, value: Any, name: str, *args: Any) -> Any:
    return call_method(context, value, name, args)


@pass_context
def _range(context: RenderContext, *bounds: Any) -> list[int]:
    return checked_range(context, *bounds)


COUNTED: Mapping[str, Function] = {
    "_field": _field,
    "_path": _path,
    "_loop": _loop,
    "_concat": _concat,
    "_weighed": _weighed,
    "_slice": _slice,
    "_call": _call,
    "_range": _range,
}
ENVIRONMENT = Sandbox({**FILTERS, **COUNTED}, TESTS)
