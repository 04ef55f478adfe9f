"""Documents: parsed, measured and validated once, then remembered: clients send the same few all the time."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSyntaxError,
    MaxIntrospectionDepthRule,
    OperationDefinitionNode,
    ValidationRule,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema import Schema
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from app.errors import InvalidInput
from app.graphql import limits
from app.graphql.coercion import shown
from app.graphql.columnwise import Understood
from app.graphql.failures import Refused, beyond, present, refused
from app.graphql.introspection import ShallowIntrospection
from app.settings import Settings

MAX_REMEMBERED = 500
MAX_REMEMBERED_CHARACTERS = 10_000
MAX_ERRORS = 20
MAX_NESTING = 100  # brackets within brackets: the parser gives up at some 300
GENERAL_RULES = [rule for rule in specified_rules if rule is not MaxIntrospectionDepthRule]
RULES = (*GENERAL_RULES, ShallowIntrospection, MaybeNullValidationRule, OneOfInputValidationRule)


@dataclass(frozen=True)
class Admitted:
    """A document, the variables that decide its page sizes, the sizes it was last admitted with, and what is
    understood of it so far."""

    document: DocumentNode
    page_variables: frozenset[str]
    sizes: dict[str, Any]
    understood: Understood = field(default_factory=Understood)


class NoIntrospection(ValidationRule):
    """Refuses questions about the schema, which a setting has turned off; __typename stays."""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        """Refuses __schema and __type."""
        if node.name.value in ("__schema", "__type"):
            sentence = "Introspection is turned off here, by the setting CARILLON_INTROSPECTION=false."
            self.report_error(GraphQLError(sentence, node))


class Documents:
    """Admits documents to a schema."""

    def __init__(self, schema: Schema, settings: Settings) -> None:
        self._schema = schema._schema
        self._settings = settings
        self._rules = RULES if settings.introspection else (*RULES, NoIntrospection)
        self._admitted: OrderedDict[str, Admitted] = OrderedDict()

    def admit(self, query: str, variables: Mapping[str, Any] | None = None) -> Admitted:
        """The document of `query`, valid and within the limits with these variables. Raises Refused."""
        known = self._admitted.get(query)
        given = variables or {}
        if known is None:
            return self._admit_new(query, given)
        self._admitted.move_to_end(query)
        sizes = {name: given[name] for name in known.page_variables if name in given}
        if sizes != known.sizes:
            limits.check_document(self._schema, known.document, self._settings, given)
            known = self._admitted[query] = replace(known, sizes=sizes)
        return known

    def _admit_new(self, query: str, variables: Mapping[str, Any]) -> Admitted:
        limits.check_text(query, self._settings)
        try:
            document = self._parsed(query)
            limits.check_document(self._schema, document, self._settings, variables)
            errors = validate(
                self._schema,
                document,
                self._rules,
                max_errors=MAX_ERRORS,
                hide_suggestions=not self._settings.introspection,
            )
        except RecursionError:
            raise self._too_deep(query) from None
        if errors:
            present(errors)
            raise Refused(errors)
        names = limits.page_variables(document)
        sizes = {name: variables[name] for name in names if name in variables}
        admitted = Admitted(document, names, sizes)
        self._remember(query, admitted)
        return admitted

    def _parsed(self, query: str) -> DocumentNode:
        most = self._settings.max_document_tokens
        try:
            return parse(query, max_lexical_tokens=most)
        except GraphQLSyntaxError as error:
            given = limits.tokens(query)
            if given > most:
                raise beyond("Tokens of the document", most, given) from None
            if sum(map(query.count, "([{")) > MAX_NESTING and limits.nesting(query) > MAX_NESTING:
                raise self._too_deep(query) from None
            present([error])
            raise Refused([error]) from None

    def _too_deep(self, query: str) -> Refused:
        return beyond("Levels of the document", self._settings.max_document_depth, limits.nesting(query))

    def _remember(self, query: str, admitted: Admitted) -> None:
        if len(query) > MAX_REMEMBERED_CHARACTERS:
            return
        self._admitted[query] = admitted
        if len(self._admitted) > MAX_REMEMBERED:
            self._admitted.popitem(last=False)


def operation_of(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """The operation to execute. Raises Refused when `name` names none, or is needed."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if name is None:
        if len(operations) == 1:
            return operations[0]
        sentence = "The document has several operations: name one in operationName."
        raise refused(InvalidInput(sentence if operations else "The document has no operation."))
    for operation in operations:
        if operation.name is not None and operation.name.value == name:
            return operation
    raise refused(InvalidInput(f"The document has no operation named {shown(name)}."))
