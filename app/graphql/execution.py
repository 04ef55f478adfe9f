"""One operation from request to results, whatever transport it came by."""

import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema import Schema
from strawberry.types import ExecutionContext, ExecutionResult

from app.auth import Viewer
from app.errors import AppError, Forbidden, InvalidInput
from app.graphql import coercion, sizes, values
from app.graphql.context import Context, Services
from app.graphql.documents import Documents, operation_of
from app.graphql.failures import Refused, present, refused
from app.graphql.fields import SHARED
from app.graphql.limits import DEFINITION
from app.graphql.permissions import NO_MUTATION
from app.graphql.reading import ReadingDatabase, Turns
from app.graphql.sharing import Payload, Push, Sharing
from app.keys.roles import Role


@dataclass(frozen=True)
class Request:
    """What a client asks for."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None

    @classmethod
    def of(cls, body: object) -> "Request":
        """The request in a JSON body. Raises Refused unless it has the shape of one."""
        if not isinstance(body, dict):
            raise _misshapen("The body has to be a JSON object with a query.")
        query = body.get("query")
        if not isinstance(query, str) or not query:
            raise _misshapen("`query` has to be a string that holds a GraphQL document.")
        for name in ("variables", "extensions"):
            if not isinstance(body.get(name), dict | None):
                raise _misshapen(f"`{name}` has to be a JSON object, if given.")
        operation_name = body.get("operationName")
        if not isinstance(operation_name, str | None):
            raise _misshapen("`operationName` has to be a string, if given.")
        return cls(query, body.get("variables"), operation_name or None)


def _misshapen(sentence: str) -> Refused:
    return refused(InvalidInput(sentence), status=400)


class CarillonSchema(Schema):
    """A schema whose errors are fit for clients, and which runs documents that were admitted before."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Codes and sentences for mistakes; faults are logged once and masked."""
        present(errors)


class Admitted(SchemaExtension):
    """Takes the document that the context brings: parsed, measured and valid."""

    def on_parse(self) -> Any:
        """Skips parsing."""
        self.execution_context.graphql_document = self._context.document
        yield

    def on_validate(self) -> Any:
        """Skips validation."""
        if self._context.document is not None:
            self.execution_context.pre_execution_errors = []
        yield

    @property
    def _context(self) -> Context:
        context: Context = self.execution_context.context
        return context


class Operations:
    """Runs operations of a schema, each with a context of its own."""

    def __init__(self, schema: Schema, services: Services) -> None:
        self._schema = schema
        self._services = services
        self._documents = Documents(schema, services.settings)
        self._sharing = Sharing()
        self._turns = Turns(services.database.pool_size)

    def admit(self, request: Request, viewer: Viewer) -> tuple[Context, OperationType]:
        """The context to run `request` in, and what kind of operation it is. Raises Refused."""
        admitted = self._documents.admit(request.query, request.variables)
        operation = operation_of(admitted.document, request.operation_name)
        kind, variables = operation.operation, request.variables or {}
        if not _is_forbidden(operation, viewer):  # or else nothing looks at them
            settings = self._services.settings
            sizes.check(self._schema._schema, operation.variable_definitions or (), variables, settings)
            try:
                values.check(variables, settings.max_json_depth)
            except AppError as error:
                raise refused(error) from None
        context = Context(self._services, viewer, admitted.document, admitted.understood)
        context.reading = self._reading(viewer, kind)
        return context, kind

    def _reading(self, viewer: Viewer, kind: OperationType) -> ReadingDatabase:
        """A mutation may take as long as it does: it is not to be left half done."""
        seconds = None if kind is OperationType.MUTATION else self._services.settings.query_seconds
        each = kind is OperationType.SUBSCRIPTION
        return ReadingDatabase(self._services.database, self._turns, viewer.key_id, seconds, each=each)

    async def execute(self, request: Request, context: Context) -> ExecutionResult:
        """The result of an admitted query or mutation."""
        forbidden = self._forbidden(request, context)
        if forbidden is not None:
            return forbidden
        with _reading_ends(context):
            result = await self._schema.execute(
                request.query,
                variable_values=request.variables,
                context_value=context,
                operation_name=request.operation_name,
            )
        return self._explained(request, context, result)

    def _forbidden(self, request: Request, context: Context) -> ExecutionResult | None:
        """What every field of a mutation says to who may call none, without its variables being coerced."""
        document = context.document
        operation = document and operation_of(document, request.operation_name)
        if not document or not operation or not _is_forbidden(operation, context.viewer):
            return None
        nodes = {_key_of(node): node for node in _fields_in(operation.selection_set, document)}
        code = {"code": Forbidden.code}
        errors = [GraphQLError(NO_MUTATION, node, path=[key], extensions=code) for key, node in nodes.items()]
        return ExecutionResult(data=dict.fromkeys(nodes), errors=errors)

    def _explained(self, request: Request, context: Context, result: ExecutionResult) -> ExecutionResult:
        """The result; if variables do not have their types, with the reasons in our words. Names of the
        schema are suggested where everybody may read it."""
        if context.document is None or not is_request_error(result):
            return result
        operation = operation_of(context.document, request.operation_name)
        errors = coercion.errors_of(
            self._schema._schema,
            operation.variable_definitions or (),
            request.variables or {},
            suggest=context.settings.introspection,
        )
        present(errors)
        return ExecutionResult(data=None, errors=errors) if errors else result

    async def results(self, request: Request, context: Context) -> AsyncGenerator[dict[str, Any], None]:
        """The answers of an admitted operation, one for a query or mutation, as they come for a subscription.

        Everything loaded is forgotten between two: the next event may have changed it.
        """
        forbidden = self._forbidden(request, context)
        if forbidden is not None:
            yield answer(forbidden)
            return
        with _reading_ends(context):
            stream: Any = await self._schema.stream(
                request.query,
                variable_values=request.variables,
                context_value=context,
                operation_name=request.operation_name,
            )
            async with contextlib.aclosing(stream):
                async for result in stream:
                    context.forget()
                    yield answer(self._explained(request, context, result))

    def subscribed(
        self, request: Request, context: Context, push: Push | None = None
    ) -> AsyncGenerator[Payload, None]:
        """What an admitted subscription tells. Where it is shared, it is executed and encoded once for all
        who ask the same with the same role, and a payload goes to `push` where that takes it. Close it."""
        if not self._is_shared(request, context):
            return self._encoded(request, context)
        variables = orjson.dumps(request.variables or {}, option=orjson.OPT_SORT_KEYS)
        question = (request.query, variables, request.operation_name)
        return self._sharing.payloads(question, partial(self.results, request), context, push)

    async def _encoded(self, request: Request, context: Context) -> AsyncGenerator[Payload, None]:
        async with contextlib.aclosing(self.results(request, context)) as results:
            async for result in results:
                yield Payload(orjson.dumps(result), refusal="data" not in result)

    def _is_shared(self, request: Request, context: Context) -> bool:
        """Whether the field that is subscribed to says so; there is just one."""
        assert context.document is not None
        operation = operation_of(context.document, request.operation_name)
        root = self._schema._schema.subscription_type
        fields = _fields_in(operation.selection_set, context.document)
        definitions = (
            root.fields[node.name.value].extensions.get(DEFINITION) for node in fields if root is not None
        )
        return all(definition.metadata.get(SHARED, False) for definition in definitions)


def _is_forbidden(operation: OperationDefinitionNode, viewer: Viewer) -> bool:
    return operation.operation is OperationType.MUTATION and viewer.role is not Role.ADMIN


@contextlib.contextmanager
def _reading_ends(context: Context) -> Iterator[None]:
    """Behind the block nothing is read any more, even if it was cancelled: loaders have their own tasks."""
    try:
        yield
    finally:
        if context.reading is not None:
            context.reading.end()


def _key_of(node: FieldNode) -> str:
    return node.alias.value if node.alias else node.name.value


def _fields_in(selected: SelectionSetNode, document: DocumentNode) -> Iterator[FieldNode]:
    """The fields of a selection, those of its fragments too."""
    for node in selected.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            yield from _fields_in(node.selection_set, document)
        elif isinstance(node, FragmentSpreadNode):
            for fragment in document.definitions:
                if isinstance(fragment, FragmentDefinitionNode) and fragment.name.value == node.name.value:
                    yield from _fields_in(fragment.selection_set, document)


def answer(result: ExecutionResult) -> dict[str, Any]:
    """A result as JSON. One that never began to execute (a variable of the wrong type) has no data."""
    body: dict[str, Any] = {}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    if not is_request_error(result):
        body["data"] = result.data
    return body


def is_request_error(result: ExecutionResult) -> bool:
    """Whether the operation was refused before any field was resolved."""
    errors = result.errors or ()
    return result.data is None and bool(errors) and all(error.path is None for error in errors)


def refusal(failure: Refused) -> dict[str, Any]:
    """A refused request's answer."""
    return {"errors": [error.formatted for error in failure.errors]}
