"""Rewrites a template so that whatever could cost goes through the counted functions. Pure."""

from collections.abc import Iterable
from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from app.messages.templating.sandbox import STEPS_PER_CALL


class Rewriting(NodeTransformer):
    """Sends whatever could cost through the counted functions, and collects the variables that are named."""

    def __init__(self, variables: Iterable[str]) -> None:
        self.paths: set[str] = set()
        self.required: set[str] = set()
        self._has_default = False
        self._variables = frozenset(variables)
        self._loops = 0

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        """`user` is another name of `receiver`."""
        if node.name == "user":
            node = nodes.Name("receiver", node.ctx, lineno=node.lineno)
        self._name(node.name, node.name)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:
        """`variable|default(...)` names a variable that need not be there."""
        if node.name in ("default", "d") and isinstance(
            node.node, nodes.Name | nodes.Getattr | nodes.Getitem
        ):
            self._has_default = True
            variable, node.node = self.visit(node.node), None
            self.generic_visit(node)
            node.node = variable
        else:
            self.generic_visit(node)
        return node

    def _name(self, root: str, path: str) -> None:
        if root in self._variables:
            self.paths.add(path)
            if not self._has_default:
                self.required.add(path)
        self._has_default = False

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Expr:
        """A chain of fields is one look-up."""
        return self._chain(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """An item by a constant belongs to the chain; slices are counted."""
        if isinstance(node.arg, nodes.Slice):
            bounds = (node.arg.start, node.arg.stop, node.arg.step)
            given: list[Any] = [self.visit(bound) if bound else nodes.Const(None) for bound in bounds]
            return _apply("_slice", self.visit(node.node), *given, at=node)
        if isinstance(node.arg, nodes.Const):
            return self._chain(node)
        self.generic_visit(node)
        return node

    def _chain(self, node: nodes.Getattr | nodes.Getitem) -> nodes.Expr:
        parts: list[Any] = []
        root: Any = node
        while True:
            if isinstance(root, nodes.Getattr):
                parts.insert(0, root.attr)
            elif isinstance(root, nodes.Getitem) and isinstance(root.arg, nodes.Const):
                parts.insert(0, root.arg.value)
            else:
                break
            root = root.node
        label = "item"
        if isinstance(root, nodes.Name):
            label = "receiver" if root.name == "user" else root.name
            root = nodes.Name(label, "load", lineno=node.lineno)
        else:
            root = self.visit(root)
        path = ".".join((label, *map(str, parts)))
        self._name(label, path)
        if len(parts) == 1:
            return _apply("_field", root, nodes.Const(path), nodes.Const(parts[0]), at=node)
        return _apply("_path", root, nodes.Const(path), nodes.Const(tuple(parts)), at=node)

    def visit_Call(self, node: nodes.Call) -> nodes.Expr:
        """range() and methods of text; the checks let nothing else through."""
        args = [self.visit(arg) for arg in node.args]
        if isinstance(node.node, nodes.Getattr):
            text: nodes.Expr = self.visit(node.node.node)
            return _apply("_call", text, nodes.Const(node.node.attr), *args, at=node)
        return _apply("_range", *args, at=node)

    def visit_For(self, node: nodes.For) -> nodes.For:
        """A loop pays for each of its rounds what its body weighs."""
        weight = 1 + sum(_size(part) for part in (*node.body, *([node.test] if node.test else [])))
        self._loops += 1
        self.generic_visit(node)
        self._loops -= 1
        iterated: Any = node.iter
        node.iter = _apply("_loop", iterated, nodes.Const(weight), at=node)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Expr:
        """Text that a loop repeats is counted like text that is computed."""
        return nodes.Const(node.data, lineno=node.lineno) if self._loops else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """`~`."""
        first, *rest = [self.visit(part) for part in node.nodes]
        return _apply("_concat", first, *rest, at=node)

    def visit_Operand(self, node: nodes.Operand) -> nodes.Operand:
        """The right side of a comparison."""
        node.expr = _apply("_weighed", self.visit(node.expr), at=node)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        """Comparing looks at all of both sides."""
        self.generic_visit(node)
        node.expr = _apply("_weighed", node.expr, at=node)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        """A literal pays for all it holds, so that nesting cannot multiply."""
        self.generic_visit(node)
        return _apply("_weighed", node, at=node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        """Like a list."""
        self.generic_visit(node)
        return _apply("_weighed", node, at=node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        """Like a list; on the left of an assignment it stays."""
        self.generic_visit(node)
        return _apply("_weighed", node, at=node) if node.ctx == "load" else node


def _size(tree: nodes.Node) -> int:
    own = STEPS_PER_CALL if isinstance(tree, nodes.Filter | nodes.Test | nodes.Call) else 1
    return own + sum(_size(child) for child in tree.iter_child_nodes())


def _apply(function: str, value: nodes.Expr, *args: nodes.Expr, at: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, function, list(args), [], None, None, lineno=at.lineno)
