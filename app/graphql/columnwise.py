"""Lists of objects, executed field by field for all of their items at once instead of item by item.

graphql-core resolves and completes each field of each item by itself, for some 10 us. Here the selection
below a list is understood once, as completers that mirror how the specification completes values (see
`columns`). What is understood are attributes, resolvers that take nothing but `self`, and fields that are
loaded by a key (see `keyed`). A list whose selection has anything else is left to graphql-core; so is every
single item with which anything is wrong, so that errors, and the nulls that they cause, are its own.

Nothing is generated from a document: its names are only looked up in the schema and used as keys of dicts.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLString,
    get_named_type,
    is_composite_type,
    is_interface_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types import Info
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from app.graphql import keyed
from app.graphql.columns import (
    Attribute,
    Completer,
    Computed,
    Field,
    Interface,
    Keyed,
    Leaf,
    List,
    Narrowed,
    NonNull,
    Object,
    TypeName,
)
from app.graphql.limits import DEFINITION
from app.graphql.nodes import Columns
from app.graphql.shapes import Unmade

T = TypeVar("T")
Details: TypeAlias = list[FieldDetails]

MAX_UNDERSTOOD = 100


class NotUnderstood(Exception):
    """A selection has something that only graphql-core can execute."""


class Place(NamedTuple):
    """Where a field stands: what the `info` of its resolver is made of."""

    parent: GraphQLObjectType
    key: str
    field: GraphQLField
    definition: StrawberryField
    nodes: list[FieldNode]


class Understood:
    """What was understood of one document, as long as it is remembered: completers of lists, None for those
    that are left to graphql-core. Which fields are included may depend on variables, so that these count."""

    def __init__(self) -> None:
        self._completers: dict[tuple[Any, ...], Completer | None] = {}

    def completer(self, key: tuple[Any, ...], understand: Callable[[], Completer]) -> Completer | None:
        """The one remembered under `key`, or the one that `understand` gives."""
        if key not in self._completers:
            if len(self._completers) >= MAX_UNDERSTOOD:
                self._completers.clear()
            try:
                self._completers[key] = understand()
            except (NotUnderstood, GraphQLError):
                self._completers[key] = None
        return self._completers[key]


class ColumnwiseExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes lists by columns where it can."""

    def complete_list_value(
        self,
        return_type: Any,
        field_details_list: Details,
        info: Any,
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        """The completed list, or an awaitable of it."""
        stock = partial(
            super().complete_list_value, return_type, field_details_list, info, path, result, position_context
        )
        unmade = isinstance(result, Unmade)
        if not (unmade or type(result) is list) or not is_composite_type(get_named_type(return_type)):
            return stock()
        completer = self._completer(return_type.of_type, field_details_list) if len(result) else None
        if completer is None or not (unmade or not any(map(self.is_awaitable, result))):
            return stock()
        again = partial(
            self._again, return_type.of_type, field_details_list, info, path, result, position_context
        )
        return self._executed(completer, result, partial(self._info, path), again)

    def _executed(self, completer: Completer, items: list[Any], info: Any, again: Any) -> Any:
        odd: set[int] = set()
        completing = completer.complete(items, odd, info)
        if completer.loads:
            return self._loaded(completing, odd, again)
        completed = _result(completing)
        return again(completed, odd) if odd else completed

    async def _loaded(self, completing: Awaitable[list[Any]], odd: set[int], again: Any) -> list[Any]:
        completed = await completing
        if not odd:
            return completed
        executed = again(completed, odd)
        result: list[Any] = await executed if self.is_awaitable(executed) else executed
        return result

    def _again(
        self,
        item_type: Any,
        details: Details,
        info: Any,
        path: Path,
        items: list[Any],
        position_context: Any,
        completed: list[Any],
        odd: set[int],
    ) -> Any:
        """`completed`, in which graphql-core has executed the odd items."""
        awaitable: dict[int, Awaitable[Any]] = {}
        try:
            for place in sorted(odd):
                one: list[Any] = []
                item_path = path.add_key(place, None)
                if self.complete_list_item_value(
                    items[place], one, item_type, details, info, item_path, position_context
                ):
                    awaitable[place] = one[0]
                completed[place] = one[0]
        except Exception:
            self.settle_in_background(list(awaitable.values()))
            raise
        return _awaited(completed, awaitable) if awaitable else completed

    def _info(self, path: Path, place: Place) -> Info:
        """What the resolver of a field below the list at `path` gets."""
        raw = self.build_resolve_info(
            place.field, place.nodes, place.parent, Path(path, place.key, place.parent.name)
        )
        return Info(_raw_info=raw, _field=place.definition)

    def _completer(self, item_type: GraphQLOutputType, details: Details) -> Completer | None:
        if self.middleware_manager is not None and self.middleware_manager.middlewares:
            return None
        understood: Understood | None = getattr(self.context_value, "understood", None)
        if understood is None:
            return None
        flags = [each for each in self.variable_values.coerced.items() if type(each[1]) is bool]
        key = (item_type, *(id(each.node) for each in details), *flags)
        return understood.completer(key, lambda: Understanding(self).completer(item_type, details))


async def _awaited(completed: list[Any], awaitable: dict[int, Awaitable[Any]]) -> list[Any]:
    found = await gather_with_cancel(*awaitable.values())
    for place, value in zip(awaitable, found, strict=True):
        completed[place] = value
    return completed


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never waits returns."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a completer that loads nothing has waited")


class Understanding:
    """Makes completers of selections. Raises NotUnderstood."""

    def __init__(self, executor: ColumnwiseExecutor) -> None:
        self._executor = executor
        self._schema = executor.schema

    def completer(self, kind: Any, details: Details) -> Completer:
        """Completes values of `kind` by the selection in `details`."""
        if is_non_null_type(kind):
            return NonNull(self.completer(kind.of_type, details))
        if is_list_type(kind):
            return List(self.completer(kind.of_type, details))
        if is_leaf_type(kind):
            return Leaf(kind)
        if is_object_type(kind):
            return self._object(kind, details)
        if is_interface_type(kind):
            return self._interface(kind, details)
        raise NotUnderstood

    def _object(self, kind: GraphQLObjectType, details: Details) -> Completer:
        definition = _definition(kind)
        checked = kind.is_type_of is not None
        if definition.is_type_of is not None or (checked and definition.concrete_of is not None):
            raise NotUnderstood
        fields = [self._field(kind, key, each) for key, each in self._selected(kind, details)]
        return Object(kind.name, fields, definition.origin if checked else None)

    def _interface(self, kind: GraphQLInterfaceType, details: Details) -> Completer:
        if _definition(kind).resolve_type is not None:
            raise NotUnderstood
        understood: dict[type, Completer] = {}
        for each in self._schema.get_possible_types(kind):
            with suppress(NotUnderstood):
                understood[_definition(each).origin] = self._object(each, details)
        return Interface(understood)

    def _selected(self, kind: GraphQLObjectType, details: Details) -> list[tuple[str, Details]]:
        if any(each.fragment_variable_values for each in details):
            raise NotUnderstood
        collected = self._executor.collect_subfields(kind, details)
        if collected.new_defer_usages:
            raise NotUnderstood
        return list(collected.grouped_field_set.items())

    def _field(self, parent: GraphQLObjectType, key: str, details: Details) -> Field:
        name = details[0].node.name.value
        if name == "__typename":
            return TypeName(key, Leaf(GraphQLString), parent.name)
        field, definition = _declared(parent, name)
        declared: keyed.Keyed | None = definition.metadata.get(keyed.KEYED)
        if declared is None and _is_attribute(definition):
            return Attribute(key, self.completer(field.type, details), definition.python_name)
        if declared is None:
            return Computed(key, self.completer(field.type, details), _resolver(definition))
        if definition.extensions:
            raise NotUnderstood
        place = Place(parent, key, field, definition, [each.node for each in details])
        completer, load = self._loading(field, declared, details)
        return Keyed(
            key, completer, declared.key_of, load, declared.absent, place, attribute=declared.attribute
        )

    def _loading(
        self, field: GraphQLField, declared: keyed.Keyed, details: Details
    ) -> tuple[Completer, keyed.LoadMany]:
        """How the values of a keyed field are completed and loaded; of nodes just the columns needed."""
        columns = keyed.node_type(field.type).columns() if declared.reference else None
        kind = get_named_type(field.type)
        if columns is not None and is_object_type(kind):
            with suppress(NotUnderstood):
                return self._narrowed(kind, columns, details)
        return self.completer(field.type, details), declared.load_many

    def _narrowed(
        self, kind: GraphQLObjectType, columns: Columns, details: Details
    ) -> tuple[Completer, keyed.LoadMany]:
        """For nodes of which nothing but columns is selected."""
        names = {each[0].node.name.value for _, each in self._selected(kind, details)} - {"__typename"}
        chosen = columns.chosen(_attribute(_declared(kind, name)[1]) for name in names)
        if chosen is None:
            raise NotUnderstood
        completer = Narrowed(self._object(kind, details), columns.shape, chosen)
        return completer, partial(columns.load_many, columns=chosen)


def _definition(kind: GraphQLNamedType) -> StrawberryObjectDefinition:
    definition = kind.extensions.get(DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition):
        raise NotUnderstood
    return definition


def _declared(parent: GraphQLObjectType, name: str) -> tuple[GraphQLField, StrawberryField]:
    """A field that takes no arguments, and its declaration."""
    field = parent.fields.get(name)
    definition = field.extensions.get(DEFINITION) if field is not None else None
    if field is None or field.args or not isinstance(definition, StrawberryField):
        raise NotUnderstood
    return field, definition


def _is_attribute(definition: StrawberryField) -> bool:
    """Whether the value of a field is an attribute of its object."""
    return (
        definition.base_resolver is None
        and definition.default_resolver is getattr
        and not definition.extensions
    )


def _attribute(definition: StrawberryField) -> str:
    """The attribute that is all that is needed for a field."""
    declared: keyed.Keyed | None = definition.metadata.get(keyed.KEYED)
    attribute = definition.python_name if declared is None else declared.attribute
    if attribute is None or not (declared is not None or _is_attribute(definition)):
        raise NotUnderstood
    return attribute


def _resolver(definition: StrawberryField) -> Callable[[Any], Any]:
    """What gives the value of a field for an object, where nothing else is needed for it."""
    resolver = definition.base_resolver
    alone = resolver is not None and not resolver.is_async and list(resolver.signature.parameters) == ["self"]
    if definition.extensions or resolver is None or not alone:
        raise NotUnderstood
    return cast("Callable[[Any], Any]", resolver.wrapped_func)
