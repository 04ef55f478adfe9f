"""Channels and members as GraphQL sees them, and their orders."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from sqlmodel import col

from app.channels import models, queries
from app.errors import InvalidInput
from app.graphql.connections import Listing, connection, nested_listing, select_family
from app.graphql.context import Info
from app.graphql.keyed import loaded, reference_by
from app.graphql.loaders import Loader
from app.graphql.nodes import Columns, Node
from app.graphql.scalars import JSON
from app.graphql.shapes import Derived, Shape
from app.graphql.sorting import SortDirection
from app.keyset import By
from app.messages import queries as messages
from app.messages.api import SHAPE as MESSAGE
from app.messages.api import Message
from app.messages.models import Message as MessageRow

if TYPE_CHECKING:
    from app.users.api import User

MAX_PAGE = 1_000

channels = Loader(queries.by_cids)
members = Loader(queries.members_by_keys)
unread_counts = Loader(messages.unread_counts)

MEMBERS = select_family(queries.members_of, [By(col(models.Member.user_id))], plain=True)
MESSAGES = select_family(messages.in_channel, [By(col(MessageRow.seq))], plain=True)
CHANNELS_OF_USERS = select_family(
    queries.of_user,
    [By(col(models.Member.cid))],  # has an index by user
    plain=True,
)

PLAIN_OF_MEMBER = (
    *("cid", "user_id", "channel_role", "custom", "hidden", "archived", "muted", "last_read_at"),
)
MEMBER = Shape(
    "Member", Derived("{} {}".format, ("cid", "user_id")), {name: name for name in PLAIN_OF_MEMBER}
)
PLAIN = (
    *("cid", "type", "channel_id", "name", "team", "custom", "created_by_id", "frozen", "member_count"),
    *("created_at", "last_message_at"),
)
SHAPE = Shape("Channel", "cid", {name: name for name in PLAIN})
COLUMNS_OF_ROW = Columns(queries.columns_by_cids, SHAPE)


@strawberry.type(description="A user in a channel.")
class Member(Node):
    """A membership, with what the member has read."""

    cid: strawberry.Private[str]
    user_id: str = strawberry.field(description="The member.")
    channel_role: str = strawberry.field(description="The member's role in the channel.")
    custom: JSON = strawberry.field(description="Custom data of the membership.")
    hidden: bool = strawberry.field(description="Whether the member has hidden the channel.")
    archived: bool = strawberry.field(description="Whether the member has archived the channel.")
    muted: bool = strawberry.field(description="Whether the member has muted the channel.")
    last_read_at: datetime | None = strawberry.field(
        description="When the member last said to have read everything."
    )

    @classmethod
    def of(cls, row: models.Member) -> "Member":
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(f"{row.cid} {row.user_id}"),
            cid=row.cid,
            user_id=row.user_id,
            channel_role=row.channel_role,
            custom=JSON(row.custom),
            hidden=row.hidden,
            archived=row.archived,
            muted=row.muted,
            last_read_at=row.last_read_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Member | None"]:
        """Members by cid and user id, between which stands the one character that neither can have."""
        rows = await members.load_many(info, [_member_key(key) for key in keys])
        return [cls.of(row) if row else None for row in rows]

    user = reference_by(
        "user_id",
        Annotated["User", strawberry.lazy("app.users.api")],
        description="The member; null if deleted.",
    )

    @loaded(
        unread_counts,
        int,
        absent=0,
        description="How many messages of others came after what the member has read.",
    )
    def unread_count(self) -> queries.MemberKey:
        """The membership."""
        return self.cid, self.user_id


def _member_key(key: str) -> queries.MemberKey:
    cid, space, user_id = key.partition(" ")
    if not space:
        raise InvalidInput("This is not an id of this API: its key should be a cid and a user id.")
    return cid, user_id


@strawberry.type(description="A conversation of its members.")
class Channel(Node):
    """A channel."""

    cid: str = strawberry.field(description="type:channelId")
    type: str = strawberry.field(description="The kind of channel.")
    channel_id: str = strawberry.field(description="The id within its type.")
    name: str | None = strawberry.field(description="What people call it.")
    team: str | None = strawberry.field(description="The team it belongs to.")
    custom: JSON = strawberry.field(description="Custom data.")
    created_by_id: strawberry.Private[str | None]
    frozen: bool = strawberry.field(description="Whether nothing more can be written into it.")
    member_count: int = strawberry.field(description="How many members it has.")
    created_at: datetime = strawberry.field(description="When it was created.")
    last_message_at: datetime | None = strawberry.field(description="When its newest message was sent.")

    @classmethod
    def of(cls, row: models.Channel) -> "Channel":
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.cid),
            cid=row.cid,
            type=row.type,
            channel_id=row.channel_id,
            name=row.name,
            team=row.team,
            custom=JSON(row.custom),
            created_by_id=row.created_by_id,
            frozen=row.frozen,
            member_count=row.member_count,
            created_at=row.created_at,
            last_message_at=row.last_message_at,
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Channel | None"]:
        """Channels by cid."""
        rows = await channels.load_many(info, keys)
        return [cls.of(row) if row else None for row in rows]

    @classmethod
    def columns(cls) -> Columns:
        """All but the lists of what is in it."""
        return COLUMNS_OF_ROW

    created_by = reference_by(
        "created_by_id",
        Annotated["User", strawberry.lazy("app.users.api")],
        description="Who created it; for a campaign's channels its sender. Null if unknown or deleted.",
    )

    @connection(Member, max_size=MAX_PAGE, description="Its members, by user id.")
    async def members(self, info: Info) -> Any:
        """Its members."""
        return nested_listing(info, MEMBERS, self.cid, Member.of, shape=MEMBER)

    @connection(Message, max_size=MAX_PAGE, description="Its messages, the oldest first.")
    async def messages(self, info: Info) -> Any:
        """Its messages, in the order in which the channel took them."""
        return nested_listing(info, MESSAGES, self.cid, Message.of, shape=MESSAGE)


@strawberry.enum(description="What channels can be sorted by.")
class ChannelSortField(Enum):
    """A column to sort by."""

    CID = strawberry.enum_value("CID", description="Their cid.")
    CREATED_AT = strawberry.enum_value("CREATED_AT", description="When they were created.")
    LAST_MESSAGE_AT = strawberry.enum_value("LAST_MESSAGE_AT", description="When their newest message came.")
    MEMBER_COUNT = strawberry.enum_value("MEMBER_COUNT", description="How many members they have.")


COLUMNS: dict[ChannelSortField, tuple[Any, bool]] = {
    ChannelSortField.CID: (col(models.Channel.cid), False),
    ChannelSortField.CREATED_AT: (col(models.Channel.created_at), False),
    ChannelSortField.LAST_MESSAGE_AT: (col(models.Channel.last_message_at), True),
    ChannelSortField.MEMBER_COUNT: (col(models.Channel.member_count), False),
}


@strawberry.input(description="One level of a sort.")
class ChannelSort:
    """A column and a direction."""

    field: ChannelSortField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(default=SortDirection.ASC, description="Which way.")


def order(sort: Sequence[ChannelSort]) -> list[By]:
    """The order asked for, each column once, made unique by the cid."""
    levels: dict[ChannelSortField, By] = {}
    descending = False
    for level in sort:
        column, nullable = COLUMNS[level.field]
        descending = level.direction is SortDirection.DESC
        levels.setdefault(level.field, By(column, descending=descending, nullable=nullable))
    levels.setdefault(ChannelSortField.CID, By(COLUMNS[ChannelSortField.CID][0], descending=descending))
    return list(levels.values())


def channels_of_user(info: Info, user_id: str) -> Listing[Any]:
    """The channels that a user is a member of, by cid: User.channels."""
    return nested_listing(info, CHANNELS_OF_USERS, user_id, Channel.of, shape=SHAPE)
