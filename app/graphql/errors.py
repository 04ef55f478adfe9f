"""How failures look to clients: UserErrors in payloads, coded errors at the top, faults masked.

A resolver or service raises `AppError` or `Invalid`; nothing here needs to be called by hand.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import strawberry
from strawberry.types.base import StrawberryContainer, StrawberryObjectDefinition, get_object_definition
from strawberry.utils.str_converters import to_camel_case

from app.errors import AppError, Invalid
from app.graphql.scalars import JSON


@strawberry.enum(description="Why something was refused.")
class ErrorCode(Enum):
    """The codes that programs may rely on."""

    INVALID_INPUT = strawberry.enum_value(
        "INVALID_INPUT", description="The input breaks a rule, whatever is stored."
    )
    NOT_FOUND = strawberry.enum_value("NOT_FOUND", description="Nothing of that id exists (any more).")
    ALREADY_EXISTS = strawberry.enum_value("ALREADY_EXISTS", description="The id that was chosen is taken.")
    CONFLICT = strawberry.enum_value("CONFLICT", description="What is stored does not allow this now.")
    LIMIT_EXCEEDED = strawberry.enum_value(
        "LIMIT_EXCEEDED", description="Past a limit; details have `limit` and `given`."
    )
    QUOTA_EXCEEDED = strawberry.enum_value(
        "QUOTA_EXCEEDED", description="The month's message capacity does not hold the audience."
    )


@strawberry.type(description="One reason why a mutation did nothing.")
class UserError:
    """An expected failure, for people (`message`) and programs (`code`, `path`, `details`)."""

    code: ErrorCode = strawberry.field(description="Why, for programs.")
    message: str = strawberry.field(description="Why, and how to mend it, for people.")
    path: list[str] = strawberry.field(
        description="Where in the input, outermost first, list positions as decimals: "
        '["users", "17", "name"]; [] for the whole.'
    )
    details: JSON | None = strawberry.field(
        default=None,
        description="For programs: limit, given, left, resetsAt, line, column, campaignIds, allowed ...",
    )


@strawberry.interface(description="What every mutation answers.")
class MutationPayload:
    """The base of all payloads. Every other field of a payload needs a default: it stands beside errors."""

    errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why nothing was done; empty on success."
    )


def user_errors(failure: AppError | Invalid, input_type: object = None) -> list[UserError]:
    """The UserErrors of what a service raised. Paths get the GraphQL names of `input_type`'s fields."""
    errors = failure.errors if isinstance(failure, Invalid) else (failure,)
    return [
        UserError(
            code=ErrorCode[error.code],
            message=error.message,
            path=graphql_path(error.path, input_type),
            details=JSON(error.details) if error.details else None,
        )
        for error in errors
    ]


def graphql_path(path: Sequence[str], input_type: object) -> list[str]:
    """`path` with GraphQL's names: only what names a field of the input is renamed, never a JSON key."""
    names: list[str] = []
    for part in path:
        input_type = _unwrapped(input_type)
        definition = get_object_definition(input_type) if input_type is not None else None
        if definition is None or part.isdecimal():
            names.append(part)
            continue
        name, input_type = _field_of(definition, part)
        names.append(name)
    return names


def _field_of(definition: StrawberryObjectDefinition, part: str) -> tuple[str, object]:
    for field in definition.fields:
        name = field.graphql_name or to_camel_case(field.python_name)
        if part in (field.python_name, name):
            return name, field.type
    return part, None


def _unwrapped(kind: object) -> object:
    while isinstance(kind, StrawberryContainer):
        kind = kind.of_type
    return kind


def extensions_of(failure: AppError | Invalid) -> dict[str, Any]:
    """`extensions` of a top-level error: the code, where in the arguments it is, and details."""
    first = failure.errors[0] if isinstance(failure, Invalid) else failure
    extensions: dict[str, Any] = {"code": first.code}
    if first.path:
        extensions["inputPath"] = list(first.path)
    if first.details:
        extensions["details"] = first.details
    return extensions
