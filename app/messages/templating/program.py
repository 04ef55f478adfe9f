"""From a template's source to a program that counts what it does, or to a sentence saying where it is wrong.

Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.environment import Template

from app.messages.templating.checks import Checks
from app.messages.templating.counted import ENVIRONMENT
from app.messages.templating.plain import PlainParts, plain_parts
from app.messages.templating.rewriting import Rewriting
from app.messages.templating.sandbox import RenderContext
from app.messages.templating.source import Source

RESULT = "result"


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled template. `paths` are the variables it names ("receiver.name", or "receiver" for all of it),
    `required` those of them that it does not give a default itself (`|default(...)`). `plain` are its words
    and fields if it has nothing else.
    """

    run: Callable[[RenderContext], Iterator[str]]
    line_of: Callable[[int], int]
    is_expression: bool
    paths: frozenset[str]
    required: frozenset[str]
    plain: PlainParts | None

    def value(self, context: RenderContext) -> Any:
        """What the single expression computes."""
        for _ in self.run(context):
            pass
        return context.vars[RESULT]

    def text(self, context: RenderContext) -> str:
        """What the template writes."""
        return "".join(self.run(context))


def compile_program(text: str, variables: Iterable[str], *, keeps_type: bool) -> Program:
    """The program of a template that may name `variables` (and `user` for receiver).

    With `keeps_type`, a template that is exactly one expression becomes one that computes a value instead
    of text. Raises TemplateMistake.
    """
    names = (*variables, "user") if "receiver" in variables else tuple(variables)
    source = Source(text)
    tree = source.parse()
    Checks(source, names).run(tree)
    plain = plain_parts(tree)
    is_expression = keeps_type and _as_expression(tree)
    rewriting = Rewriting(names)
    rewritten = rewriting.visit(tree)
    try:
        _refuse_unknown_names(source, rewritten, names)
        code = ENVIRONMENT.compile(rewritten)
    except (TemplateSyntaxError, SyntaxError, RecursionError, MemoryError):
        raise source.mistake("the template is nested too deeply, or not valid", 0) from None
    template = Template.from_code(ENVIRONMENT, code, {})
    return Program(
        run=template.root_render_func,
        line_of=template.get_corresponding_lineno,
        is_expression=is_expression,
        paths=frozenset(rewriting.paths),
        required=frozenset(rewriting.required),
        plain=plain,
    )


def _as_expression(tree: nodes.Template) -> bool:
    """Turns `{{ expression }}` alone into an assignment; False for any other template."""
    match tree.body:
        case [nodes.Output(nodes=[expression])] if not isinstance(expression, nodes.TemplateData):
            target = nodes.Name(RESULT, "store", lineno=expression.lineno)
            tree.body = [nodes.Assign(target, expression, lineno=expression.lineno)]
            return True
    return False


def _refuse_unknown_names(source: Source, tree: nodes.Template, names: tuple[str, ...]) -> None:
    targets = [node.target for node in tree.find_all(nodes.Assign)]
    targets += [node.target for node in tree.find_all(nodes.AssignBlock)]
    assigned = {name.name for target in targets for name in _names_in(target)}
    unknown = meta.find_undeclared_variables(tree) - assigned - set(names)
    for node in tree.find_all(nodes.Name):
        if node.name in unknown or node.name in ("self", "super", "caller"):
            listed = ", ".join(names)
            raise source.mistake_at(node, f"'{node.name}' is unknown; known are {listed}", node.name)


def _names_in(target: nodes.Node) -> list[nodes.Name]:
    return [target] if isinstance(target, nodes.Name) else list(target.find_all(nodes.Name))
