"""What a template may contain: the checks allow what is known instead of forbidding what is bad. Pure."""

import unicodedata
from collections.abc import Iterable

from jinja2 import nodes

from app.messages.templating.conditions import TESTS
from app.messages.templating.functions import FILTERS, METHODS
from app.messages.templating.sandbox import MAX_NUMBER
from app.messages.templating.source import Source, TemplateMistake

MAX_NODES = 2_000
MAX_DEPTH = 60

_STATEMENTS = (
    nodes.Output, nodes.For, nodes.If, nodes.With, nodes.FilterBlock, nodes.Assign, nodes.AssignBlock,
)  # fmt: skip
_EXPRESSIONS = (
    nodes.BinExpr, nodes.UnaryExpr, nodes.Name, nodes.Const, nodes.TemplateData, nodes.Tuple, nodes.List,
    nodes.Dict, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem, nodes.Getattr,
    nodes.Slice, nodes.Concat, nodes.Compare,
)  # fmt: skip
_PARTS = (nodes.Template, nodes.Operand, nodes.Pair, nodes.Keyword)
_ALLOWED = _STATEMENTS + _EXPRESSIONS + _PARTS
_KEYWORDS = {
    nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from", nodes.Extends: "extends",
    nodes.Block: "block", nodes.Macro: "macro", nodes.CallBlock: "call",
    nodes.Scope: "autoescape", nodes.NSRef: "namespace",
}  # fmt: skip


class Checks:
    """Everything that is looked at before a template is rewritten."""

    def __init__(self, source: Source, variables: Iterable[str]) -> None:
        self._source = source
        self._variables = tuple(variables)

    def run(self, tree: nodes.Template) -> None:
        """Raises the first TemplateMistake."""
        count = 0
        waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
        while waiting:
            node, depth = waiting.pop()
            count += 1
            if depth > MAX_DEPTH:
                raise self._source.mistake_at(node, "the template is nested too deeply")
            if count > MAX_NODES:
                raise self._source.mistake_at(node, f"the template has more than {MAX_NODES:,} parts")
            self._check(node)
            waiting.extend((child, depth + 1) for child in node.iter_child_nodes())

    def _check(self, node: nodes.Node) -> None:
        if not isinstance(node, _ALLOWED):
            word = _KEYWORDS.get(type(node), type(node).__name__.lower())
            raise self._source.mistake_at(node, f"'{word}' is not available in messages", word)
        match node:
            case nodes.Name(name=name) | nodes.Keyword(key=name) if (
                unicodedata.normalize("NFKC", name) != name
            ):
                # Python reads both spellings as one name, so that one could stand for `receiver`.
                raise self._source.mistake_at(node, f"'{name}' is spelt with letters of another form", name)
            case nodes.Name(ctx="store", name=name) if name in (*self._variables, "range", "loop", "self"):
                raise self._source.mistake_at(node, f"'{name}' is given: choose another name", name)
            case nodes.Const(value=int(value)) if value > MAX_NUMBER:
                raise self._source.mistake_at(node, "a number has more than 64 bits")
            case nodes.Getattr(attr=str(name)) | nodes.Getitem(arg=nodes.Const(value=str(name))):
                if name.startswith("__"):
                    raise self._source.mistake_at(node, f"'{name}' cannot be a field", name)
            case nodes.For(recursive=True):
                raise self._source.mistake_at(node, "recursive loops are not available", "recursive")
            case nodes.Filter(name=name) if name not in FILTERS:
                raise self._unknown(node, "filter", name, FILTERS)
            case nodes.Test(name=name) if name not in TESTS:
                raise self._unknown(node, "test", name, TESTS)
            case nodes.Filter() | nodes.Test() | nodes.Call():
                self._check_call(node)

    def _check_call(self, node: nodes.Filter | nodes.Test | nodes.Call) -> None:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise self._source.mistake_at(node, "* and ** arguments are not available")
        if not isinstance(node, nodes.Call):
            return
        match node.node:
            case nodes.Name(name="range"):
                if not node.args:
                    raise self._source.mistake_at(node, "range() needs a number", "range")
            case nodes.Name(name=name):
                raise self._source.mistake_at(node, f"there is no function {name}(), only range()", name)
            case nodes.Getattr(attr=name):
                known = sorted({*METHODS, "cycle", "changed"})
                if name not in known:
                    listed = ", ".join(known)
                    raise self._source.mistake_at(
                        node, f"there is no method {name}(); known are {listed}", name
                    )
            case _:
                raise self._source.mistake_at(node, "only range() and methods of text can be called")
        if node.kwargs:
            raise self._source.mistake_at(node, "calls take no named arguments")

    def _unknown(self, node: nodes.Node, what: str, name: str, known: Iterable[str]) -> TemplateMistake:
        listed = ", ".join(sorted(word for word in known if word.isalpha()))
        return self._source.mistake_at(node, f"there is no {what} '{name}'; known are {listed}", name)
