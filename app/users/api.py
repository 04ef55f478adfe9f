"""Users in GraphQL."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from sqlmodel import col

from app.filters.language import parse
from app.graphql.connections import connection, select_listing
from app.graphql.context import Info
from app.graphql.deleting import DeletePayload
from app.graphql.errors import MutationPayload
from app.graphql.fields import MAX_SIZE, mutation, query
from app.graphql.loaders import Loader
from app.graphql.nodes import Columns, Node
from app.graphql.scalars import JSON
from app.graphql.shapes import Shape
from app.graphql.sorting import SortDirection
from app.keyset import By
from app.ledger import forgetting
from app.users import models, queries, service
from app.users.filtering import USERS
from app.users.inputs import CHECKS
from app.validation import Problems

if TYPE_CHECKING:
    from app.channels.api import Channel

MAX_PAGE = 1_000

users = Loader(queries.by_ids)

PLAIN = ("name", "role", "language", "teams", "image_url", "custom")
INSTANTS = ("created_at", "updated_at", "last_active_at", "deactivated_at")
SHAPE = Shape("User", "id", {"user_id": "id"} | {name: name for name in PLAIN + INSTANTS})
COLUMNS_OF_ROW = Columns(queries.columns_by_ids, SHAPE)


@strawberry.type(description="A person whom campaigns speak to or for.")
class User(Node):
    """A user."""

    user_id: str = strawberry.field(description="The id that the user was given.")
    name: str | None = strawberry.field(description="What people call the user.")
    role: str = strawberry.field(description="The user's role; user unless another was given.")
    language: str | None = strawberry.field(description="The language the user reads.")
    teams: list[str] = strawberry.field(description="The teams the user is in, each once.")
    image_url: str | None = strawberry.field(description="Where the user's picture is.")
    custom: JSON = strawberry.field(description="Custom data, for filters and templates.")
    created_at: datetime = strawberry.field(description="When the user was created.")
    updated_at: datetime = strawberry.field(description="When the user was last written.")
    last_active_at: datetime | None = strawberry.field(description="When the user was last active.")
    deactivated_at: datetime | None = strawberry.field(
        description="Since when the user is deactivated: campaigns skip the user. Null while active."
    )

    @classmethod
    def of(cls, row: models.User) -> "User":
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.id),
            user_id=row.id,
            name=row.name,
            role=row.role,
            language=row.language,
            teams=row.teams,
            image_url=row.image_url,
            custom=JSON(row.custom),
            created_at=row.created_at,
            updated_at=row.updated_at,
            last_active_at=row.last_active_at,
            deactivated_at=row.deactivated_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["User | None"]:
        """Users by their ids."""
        rows = await users.load_many(info, keys)
        return [cls.of(row) if row else None for row in rows]

    @classmethod
    def columns(cls) -> Columns:
        """All but what needs a statement of its own."""
        return COLUMNS_OF_ROW

    @connection(
        Annotated["Channel", strawberry.lazy("app.channels.api")],
        max_size=MAX_PAGE,
        description="The channels that the user is a member of, by cid.",
    )
    async def channels(self, info: Info) -> Any:
        """The user's channels."""
        from app.channels.api import channels_of_user

        return channels_of_user(info, self.user_id)


@strawberry.enum(description="What users can be sorted by.")
class UserSortField(Enum):
    """A column to sort by."""

    USER_ID = strawberry.enum_value("USER_ID", description="Their ids.")
    NAME = strawberry.enum_value("NAME", description="Their names.")
    CREATED_AT = strawberry.enum_value("CREATED_AT", description="When they were created.")
    UPDATED_AT = strawberry.enum_value("UPDATED_AT", description="When they were last written.")
    LAST_ACTIVE_AT = strawberry.enum_value("LAST_ACTIVE_AT", description="When they were last active.")


COLUMNS: dict[UserSortField, tuple[Any, bool]] = {
    UserSortField.USER_ID: (col(models.User.id), False),
    UserSortField.NAME: (col(models.User.name), True),
    UserSortField.CREATED_AT: (col(models.User.created_at), False),
    UserSortField.UPDATED_AT: (col(models.User.updated_at), False),
    UserSortField.LAST_ACTIVE_AT: (col(models.User.last_active_at), True),
}


@strawberry.input(description="One level of a sort.")
class UserSort:
    """A column and a direction."""

    field: UserSortField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.ASC, description="Which way.")


def _order(sort: Sequence[UserSort]) -> list[By]:
    """The order asked for, each column once, made unique by the id."""
    order: dict[UserSortField, By] = {}
    descending = False
    for level in sort:
        column, nullable = COLUMNS[level.field]
        descending = level.direction is SortDirection.DESC
        order.setdefault(level.field, By(column, descending=descending, nullable=nullable))
    order.setdefault(UserSortField.USER_ID, By(COLUMNS[UserSortField.USER_ID][0], descending=descending))
    return list(order.values())


@strawberry.type
class Query:
    """Queries about users."""

    @query(description="The user with this id; null if there is none, or if deleted.")
    async def user(
        self, info: Info, user_id: Annotated[str, strawberry.argument(description="The user's id.")]
    ) -> User | None:
        """One user."""
        return (await User.by_keys(info, [user_id]))[0]

    @connection(User, max_size=MAX_PAGE, description="All users, by id.")
    async def users(
        self,
        info: Info,
        filter: Annotated[
            JSON | None,
            strawberry.argument(description="The filter language for users, as in a segment's filter."),
        ] = strawberry.UNSET,
        sort: Annotated[
            list[UserSort] | None, strawberry.argument(description="By what; the first level counts most.")
        ] = strawberry.UNSET,
    ) -> Any:
        """Users that match."""
        statement = queries.living()
        if filter:
            problems = Problems()
            with problems.at("filter"):
                statement = queries.living(parse(USERS, filter).where(info.context.database.dialect))
            problems.check()
        return select_listing(info, statement, _order(sort or ()), User.of, shape=SHAPE)


@strawberry.input(description="A user to create, or to change where the id exists.")
class UserInput:
    """What is omitted stays as it is; null clears."""

    user_id: str = strawberry.field(
        description="1 to 255 printable characters without white space. It names the user for ever."
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="At most 255 characters.")
    role: str | None = strawberry.field(
        default=strawberry.UNSET, description="1 to 64 characters without white space; null: user."
    )
    language: str | None = strawberry.field(
        default=strawberry.UNSET, description="1 to 35 characters without white space."
    )
    teams: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="At most 100, of 1 to 255 characters each."
    )
    image_url: str | None = strawberry.field(
        default=strawberry.UNSET, description="At most 2,048 characters."
    )
    custom: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Replaced whole: at most 32,768 bytes, 10 levels. No key may repeat a built-in field of "
        "the filter language, start with `$` or contain a dot.",
    )
    last_active_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="When the user was last active."
    )
    deactivated: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether campaigns are to skip the user."
    )

    def given(self) -> dict[str, Any]:
        """The fields that were given."""
        every = {name: getattr(self, name) for name in CHECKS}
        return {name: value for name, value in every.items() if value is not strawberry.UNSET}


@strawberry.input(description="Users to create or change, all or none.")
class UpsertUsersInput:
    """Users to create or change."""

    users: list[UserInput] = strawberry.field(description="1 to 1,000 users, each once.")


@strawberry.type(description="The users, or why none was stored.")
class UpsertUsersPayload(MutationPayload):
    """The users in the order of the input."""

    users: list[User] = strawberry.field(
        default_factory=list,
        description="The users as they are now, in the order of the input.",
        metadata={MAX_SIZE: service.MAX_UPSERTED},
    )


@strawberry.input(description="Users to delete.")
class DeleteUsersInput:
    """Users to delete."""

    user_ids: list[str] = strawberry.field(description="1 to 1,000, existing or not.")
    erase_messages: bool = strawberry.field(
        default=False,
        description="Whether the messages that were sent to them in distinct channels are erased as well.",
    )


@strawberry.type
class Mutation:
    """Changes of users."""

    @mutation(description="Creates users, or changes those whose ids exist; all or none.")
    async def upsert_users(self, info: Info, input: UpsertUsersInput) -> UpsertUsersPayload | None:
        """Upserts up to a thousand users."""
        async with info.context.database.transaction() as session:
            rows = await service.upsert_users(session, [user.given() for user in input.users])
        return UpsertUsersPayload(users=[User.of(row) for row in rows])

    @mutation(
        description="Deletes users: erases all of them but their ids, and makes them members of nothing; of "
        "many channels it may take a moment. Campaigns keep what became of them. Users that do not exist are "
        "no error."
    )
    async def delete_users(self, info: Info, input: DeleteUsersInput) -> DeletePayload | None:
        """Deletes up to a thousand users."""
        deleted = await forgetting.delete_users(
            info.context.database, input.user_ids, erase_messages=input.erase_messages
        )
        return DeletePayload(deleted_ids=[User.global_id(user_id) for user_id in deleted])
