"""What a document may cost, judged before anything expensive looks at it.

Standard validation is quadratic in places (1.3 s for 44 kB), so that these limits come first: characters,
tokens, operations, variables, then one walk over the selections for the rest. `first` and `last` count as
given, by a variable too; a variable that is null or left out gives none.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    Node,
    NullValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    ValueNode,
    VariableNode,
    Visitor,
    get_named_type,
    is_composite_type,
    is_list_type,
    is_non_null_type,
    visit,
)

from app.errors import AppError, InvalidInput
from app.graphql import merging, values
from app.graphql.connections import DEFAULT_SIZE
from app.graphql.failures import beyond, refused
from app.graphql.fields import MAX_SIZE, WEIGHT
from app.settings import Settings

PAGE_ARGUMENTS = ("first", "last")
LIST_SIZE = 10  # what a plain list counts as when its field does not say
INTROSPECTED_LIST_SIZE = 3
MAX_REPEATED_WEIGHT = 10  # of a field inside of a subscription
COUNT_WEIGHT = 10  # of totalCount in a list of one of many parents, which are counted together
COUNT_ALL_WEIGHT = 10_000  # and in a list of the whole table
DEFINITION = "strawberry-definition"

_TOKEN = re.compile(
    r'"""(?:\\"""|[^"]|"(?!""))*"""|"(?:\\.|[^"\\\n\r])*"|#[^\n\r]*|\.\.\.'
    r"|[_A-Za-z][_0-9A-Za-z]*|-?[0-9][0-9.eE+-]*|[!$&()\:=@\[\]{|}]"
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


@dataclass(frozen=True)
class Weight:
    """What a selection adds up to, fragments included."""

    fields: int = 0
    depth: int = 0
    cost: int = 0

    def beside(self, other: "Weight") -> "Weight":
        """Both, side by side."""
        return Weight(self.fields + other.fields, max(self.depth, other.depth), self.cost + other.cost)


def check_text(query: str, settings: Settings) -> None:
    """Refuses a document that is too long to be parsed, or that holds half of a surrogate pair."""
    if len(query) > settings.max_document_characters:
        raise beyond("Characters of the document", settings.max_document_characters, len(query))
    try:
        values.check_text(query)
    except AppError as error:
        raise refused(error) from None


def tokens(query: str) -> int:
    """How many tokens a document has, comments not counted."""
    found: list[str] = _TOKEN.findall(query)
    return len(found) - sum(token[0] == "#" for token in found)


def nesting(query: str) -> int:
    """How deep brackets stand within brackets."""
    deepest = depth = 0
    for token in _TOKEN.finditer(query):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        deepest = max(deepest, depth)
    return deepest


def page_variables(document: DocumentNode) -> frozenset[str]:
    """The variables that a document gives as `first` or `last`: its cost depends on their values."""
    found: set[str] = set()

    class Collect(Visitor):
        def enter_field(self, node: FieldNode, *_: Any) -> None:
            for argument in node.arguments or ():
                if argument.name.value in PAGE_ARGUMENTS and isinstance(argument.value, VariableNode):
                    found.add(argument.value.name.value)

    visit(document, Collect())
    return frozenset(found)


def check_document(
    schema: GraphQLSchema, document: DocumentNode, settings: Settings, variables: Mapping[str, Any]
) -> None:
    """Refuses a document past a limit, or with a literal that no database could store. `variables` are the
    values that the request brings."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) > settings.max_document_operations:
        raise beyond("Operations in the document", settings.max_document_operations, len(operations))
    for operation in operations:
        defined = operation.variable_definitions or ()
        if len(defined) > settings.max_document_variables:
            raise beyond("Variables of an operation", settings.max_document_variables, len(defined))
    fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
    if len(fragments) > settings.max_document_fragments:
        raise beyond("Fragments in the document", settings.max_document_fragments, len(fragments))
    _Walk(schema, document, settings, variables).check(operations)
    _check_comparisons([*operations, *fragments], fragments, settings)


def _check_comparisons(
    definitions: Sequence[Node], fragments: Sequence[FragmentDefinitionNode], settings: Settings
) -> None:
    most, given, named = settings.max_document_comparisons, 0, {node.name.value: node for node in fragments}
    for definition in definitions:
        given += merging.comparisons(definition, named, most - given)
        if given > most:
            raise beyond("Pairs of the same field in one place, fragments included", most, given)


class _Walk:
    """One walk over a document. Each fragment is weighed once for each page size it is used with."""

    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, settings: Settings, variables: Mapping[str, Any]
    ) -> None:
        self._schema = schema
        self._settings = settings
        self._variables = variables
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._defaults = _defaults(document)
        self._weights: dict[tuple[str, int, bool, int], Weight] = {}
        self._repeating = False
        self._count_weight = COUNT_WEIGHT
        self._open: set[str] = set()
        self._aliases = 0
        self._directives = 0

    def check(self, operations: Sequence[OperationDefinitionNode]) -> None:
        """Refuses what is past a limit: in any operation, and in fragments that none of them uses."""
        for operation in operations:
            self._count_directives(operation)
            for variable in operation.variable_definitions or ():
                self._count_directives(variable)
                if variable.default_value is not None:
                    self._check_value(variable.default_value, 0)
            root = self._schema.get_root_type(operation.operation)
            self._repeating = operation.operation is OperationType.SUBSCRIPTION
            self._check_cost(self._selections(operation, root, 1))
        self._repeating = False
        for name in self._fragments:
            self._check_cost(self._fragment(name, 1))

    def _check_cost(self, weight: Weight) -> None:
        most = self._settings.max_document_cost
        if weight.cost > most:
            raise beyond(
                "Fields of the largest possible answer (first or last make it smaller)", most, weight.cost
            )

    def _within_limits(self, weight: Weight) -> Weight:
        settings = self._settings
        if weight.fields > settings.max_document_fields:
            raise beyond("Fields selected, fragments included", settings.max_document_fields, weight.fields)
        if weight.depth > settings.max_document_depth:
            raise beyond("Levels of the selection", settings.max_document_depth, weight.depth)
        return weight

    def _selections(self, node: Node, parent: GraphQLNamedType | None, page: int) -> Weight:
        weight = Weight()
        for selection in getattr(getattr(node, "selection_set", None), "selections", ()):
            self._count_directives(selection)
            weight = self._within_limits(weight.beside(self._selection(selection, parent, page)))
        return weight

    def _selection(self, node: Node, parent: GraphQLNamedType | None, page: int) -> Weight:
        if isinstance(node, FieldNode):
            return self._field(node, parent, page)
        if isinstance(node, InlineFragmentNode):
            condition = node.type_condition
            inner = self._schema.get_type(condition.name.value) if condition else parent
            return self._selections(node, inner, page)
        assert isinstance(node, FragmentSpreadNode)
        return self._fragment(node.name.value, page)

    def _fragment(self, name: str, page: int) -> Weight:
        fragment = self._fragments.get(name)
        if fragment is None or name in self._open:  # validation has the better sentence for both
            return Weight(fields=1)
        place = (name, page, self._repeating, self._count_weight)
        known = self._weights.get(place)
        if known is None:
            self._open.add(name)
            self._count_directives(fragment)
            inner = self._schema.get_type(fragment.type_condition.name.value)
            known = self._weights[place] = self._selections(fragment, inner, page)
            self._open.discard(name)
        return known

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, page: int) -> Weight:
        if node.alias is not None:
            self._aliases += 1
            if self._aliases > self._settings.max_document_aliases:
                raise beyond("Aliases in the document", self._settings.max_document_aliases, self._aliases)
        for argument in node.arguments or ():
            self._check_value(argument.value, 0)
        name = node.name.value
        field = _field_of(self._schema, parent, name)
        kind = get_named_type(field.type) if field is not None else None
        if parent is not None and parent.name.endswith("Connection") and name in ("edges", "nodes"):
            inner = self._selections(node, kind, 1)
            return Weight(1 + inner.fields, 1 + inner.depth, page * inner.cost)
        if self._repeating and field is not None:
            _check_repeatable(name, field)
        size, inner_page = self._sizes(node, field, parent)
        outer, self._count_weight = self._count_weight, self._weight_of_count(parent)
        inner = self._selections(node, kind, inner_page)
        self._count_weight = outer
        cost = 1 if name == "ofType" else self._own_weight(name, field, parent) + size * inner.cost
        return Weight(1 + inner.fields, 1 + inner.depth, cost)

    def _weight_of_count(self, parent: GraphQLNamedType | None) -> int:
        return COUNT_ALL_WEIGHT if parent is self._schema.query_type else COUNT_WEIGHT

    def _own_weight(self, name: str, field: GraphQLField | None, parent: GraphQLNamedType | None) -> int:
        if name == "totalCount" and parent is not None and parent.name.endswith("Connection"):
            return self._count_weight
        return _metadata(field).get(WEIGHT, 1)

    def _sizes(
        self, node: FieldNode, field: GraphQLField | None, parent: GraphQLNamedType | None
    ) -> tuple[int, int]:
        """How many objects the field gives at most, and how many items the connection that it is."""
        if field is None:
            return 1, 1
        most = _metadata(field).get(MAX_SIZE)
        if _is_list(field):
            return most or self._plain_size(field, parent), 1
        return 1, 1 if most is None else self._page_size(node, most)

    def _page_size(self, node: FieldNode, most: int) -> int:
        given = [
            self._given(argument.value, most)
            for argument in node.arguments or ()
            if argument.name.value in PAGE_ARGUMENTS
        ]
        sizes = [size for size in given if size is not None]
        return max(*sizes, 0) if sizes else min(DEFAULT_SIZE, most)

    def _given(self, node: ValueNode, most: int) -> int | None:
        """A page's size; None where none is given. What is no number counts as the most."""
        if isinstance(node, VariableNode):
            return self._given_by(node.name.value, most)
        if isinstance(node, NullValueNode):
            return None
        if isinstance(node, IntValueNode) and len(node.value) <= 19:
            return min(int(node.value), most)
        return most

    def _given_by(self, variable: str, most: int) -> int | None:
        """As the request gives it; or else by the default, the largest where operations differ."""
        if variable in self._variables:
            value = self._variables[variable]
            if value is None:
                return None
            return min(value, most) if isinstance(value, int) else most
        defaults = self._defaults.get(variable, [])
        sizes = [self._given(default, most) for default in defaults if default is not None]
        given = [size for size in sizes if size is not None]
        if given and len(given) < len(defaults):
            given.append(min(DEFAULT_SIZE, most))
        return max(given, default=None)

    def _plain_size(self, field: GraphQLField, parent: GraphQLNamedType | None) -> int:
        if not is_composite_type(get_named_type(field.type)):
            return 1
        if parent is not None and parent.name == "__Schema":
            return len(self._schema.type_map)
        return INTROSPECTED_LIST_SIZE if parent is not None and parent.name == "__Type" else LIST_SIZE

    def _count_directives(self, node: Node) -> None:
        self._directives += len(getattr(node, "directives", None) or ())
        if self._directives > self._settings.max_document_directives:
            raise beyond(
                "Directives in the document", self._settings.max_document_directives, self._directives
            )

    def _check_value(self, node: ValueNode, depth: int) -> None:
        if depth > self._settings.max_json_depth:
            raise beyond("Levels of a value", self._settings.max_json_depth, depth)
        try:
            if isinstance(node, StringValueNode):
                values.check_text(node.value)
            elif isinstance(node, IntValueNode):
                _check_digits(node.value)
        except AppError as error:
            raise refused(error) from None
        if isinstance(node, ListValueNode):
            for item in node.values:
                self._check_value(item, depth + 1)
        elif isinstance(node, ObjectValueNode):
            for member in node.fields:
                self._check_value(member.value, depth + 1)


def _check_repeatable(name: str, field: GraphQLField) -> None:
    """Refuses what would be read again for every event: lists with pages, and what weighs much."""
    paged = get_named_type(field.type).name.endswith("Connection")
    if paged or _metadata(field).get(WEIGHT, 1) > MAX_REPEATED_WEIGHT:
        sentence = (
            f"Subscriptions cannot select {name}: it would be read for every event. Ask for it in a query."
        )
        raise refused(InvalidInput(sentence, details={"field": name}))


def _defaults(document: DocumentNode) -> dict[str, list[ValueNode | None]]:
    """What the operations of a document give each variable that a request leaves out; None: nothing."""
    found: dict[str, list[ValueNode | None]] = {}
    for operation in document.definitions:
        for variable in getattr(operation, "variable_definitions", None) or ():
            found.setdefault(variable.variable.name.value, []).append(variable.default_value)
    return found


def _check_digits(digits: str) -> None:
    values.check_integer(int(digits) if len(digits) <= 20 else 1 << 64)


def _field_of(schema: GraphQLSchema, parent: GraphQLNamedType | None, name: str) -> GraphQLField | None:
    if parent is None or not is_composite_type(parent):
        return None
    find: Callable[..., GraphQLField | None] = schema.get_field
    return find(parent, name)


def _metadata(field: GraphQLField | None) -> Mapping[str, int]:
    """What a field's declaration says of its cost."""
    definition = field.extensions.get(DEFINITION) if field is not None else None
    metadata: Mapping[str, int] = definition.metadata if definition is not None else {}
    return metadata


def _is_list(field: GraphQLField) -> bool:
    kind = field.type
    return is_list_type(kind.of_type if is_non_null_type(kind) else kind)
