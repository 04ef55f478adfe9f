"""How fields are declared: `@query`, `@mutation`, `@subscription`, each with its permission, and `@field`."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import strawberry
from strawberry.extensions import FieldExtension
from strawberry.types.base import StrawberryContainer
from strawberry.types.field import StrawberryField

from app.errors import AppError, Forbidden, Invalid, Unauthenticated
from app.graphql.context import Info
from app.graphql.errors import user_errors
from app.graphql.outcomes import restored, stored
from app.graphql.permissions import IsAdmin, IsViewer

Decorator: TypeAlias = Callable[[Callable[..., Any]], Any]

# A field's metadata, for the worst-case cost of a document: how many items it may have, and how many simple
# fields it is as much work as.
MAX_SIZE = "max_size"
WEIGHT = "weight"
# And of a subscription, that one execution serves all who ask the same.
SHARED = "shared"


def field(*, description: str, max_size: int | None = None, weight: int = 1) -> Decorator:
    """A field with a resolver. `max_size`: how many items a plain list may have at most; `weight`: how many
    simple fields it costs as much as."""
    declared: Decorator = strawberry.field(description=description, metadata=_cost(max_size, weight))
    return declared


def query(*, description: str, max_size: int | None = None, weight: int = 1) -> Decorator:
    """A field of Query for any valid key; `max_size` and `weight` as in `field`."""
    declared: Decorator = strawberry.field(
        description=description, permission_classes=[IsViewer], metadata=_cost(max_size, weight)
    )
    return declared


def _cost(max_size: int | None, weight: int) -> dict[str, int]:
    return {WEIGHT: weight} if max_size is None else {MAX_SIZE: max_size, WEIGHT: weight}


def mutation(*, description: str) -> Decorator:
    """A field of Mutation for admins. Its resolver returns `Payload | None`; an AppError or Invalid that it
    raises becomes the payload's errors, with GraphQL's names in their paths.

    Where a resolver has several transactions, the last is the one that makes its payload true, and those
    before it are harmless when repeated: see `HeldDatabase`. What may follow is left with `after_commit`.
    """
    declared: Decorator = strawberry.mutation(
        description=description, permission_classes=[IsAdmin], extensions=[Deciding()]
    )
    return declared


def subscription(*, description: str, shared: bool = False) -> Decorator:
    """A field of Subscription for any valid key. `shared`: one execution serves all who ask the same, if the
    resolver says with every value for whom it is (`context.onlookers.shown`); then what slow readers have not
    got yet may be replaced by what is newer."""
    declared: Decorator = strawberry.subscription(
        description=description, permission_classes=[IsViewer], metadata={SHARED: shared}
    )
    return declared


class Deciding(FieldExtension):
    """Turns what a service raised into the payload's errors; faults and missing rights pass. With an
    Idempotency-Key, what was decided before is not done again."""

    def apply(self, field: StrawberryField) -> None:
        """Remembers the field: its types can be resolved only later."""
        self._field = field
        for argument in field.arguments:
            argument.description = argument.description or "What is to be done."

    async def resolve_async(
        self, next_: Callable[..., Awaitable[Any]], source: Any, info: Info, **arguments: Any
    ) -> Any:
        """The resolver's payload, or one that has only errors. What mutations before it in the same document
        have loaded is forgotten: it may have changed."""
        context = info.context
        context.forget()
        attempt = context.attempt
        if attempt is None:
            return await self._payload(next_(source, info, **arguments))
        name = str(info.path.key)
        outcome = attempt.outcome(name)
        if outcome is not None:
            return await restored(info, self._field.type, outcome)
        async with context.holding(attempt) as held:
            payload = await self._payload(next_(source, info, **arguments))
            await held.settle(name, stored(payload), refused=bool(payload.errors))
        return payload

    async def _payload(self, deciding: Awaitable[Any]) -> Any:
        try:
            return await deciding
        except (Forbidden, Unauthenticated):
            raise
        except (AppError, Invalid) as failure:
            return self._kind()(errors=user_errors(failure, self._input()))

    def _kind(self) -> Callable[..., Any]:
        kind: Any = self._field.type
        while isinstance(kind, StrawberryContainer):
            kind = kind.of_type
        payload: Callable[..., Any] = kind
        return payload

    def _input(self) -> object:
        return next((argument.type for argument in self._field.arguments), None)
