"""Who may use a field. `fields.py` puts these on every root field; nothing else needs to."""

from typing import Any

from strawberry.permission import BasePermission

from app.errors import Forbidden, Unauthenticated
from app.graphql.context import Info
from app.keys.roles import Role

NO_MUTATION = "This key has the role VIEWER, which allows no mutation. Use a key with the role ADMIN."


class _Permission(BasePermission):
    @property
    def schema_directive(self) -> None:
        """None: the schema shows no directive for it, the field's description says it."""
        return


class IsViewer(_Permission):
    """Any valid key."""

    def has_permission(self, source: Any, info: Info, **kwargs: Any) -> bool:
        """Whether there is a key at all; the transport lets nothing else through."""
        return info.context.viewer is not None

    def on_unauthorized(self) -> None:
        """Says so with UNAUTHENTICATED."""
        raise Unauthenticated("Send a key: Authorization: Bearer KEY.")


class IsAdmin(_Permission):
    """A key with the role ADMIN."""

    def has_permission(self, source: Any, info: Info, **kwargs: Any) -> bool:
        """Whether the key's role is ADMIN."""
        return info.context.viewer.role is Role.ADMIN

    def on_unauthorized(self) -> None:
        """Says so with FORBIDDEN."""
        raise Forbidden(NO_MUTATION)
