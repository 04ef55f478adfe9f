"""Messages in GraphQL: what a channel's readers see."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from app.graphql.context import Info
from app.graphql.keyed import reference_by
from app.graphql.loaders import Loader
from app.graphql.nodes import Columns, Node
from app.graphql.scalars import JSON
from app.graphql.shapes import Derived, Shape, Source
from app.messages import models, queries

if TYPE_CHECKING:
    from app.campaigns.api import Campaign
    from app.channels.api import Channel
    from app.users.api import User

messages = Loader(queries.by_ids)


def _campaign_id(campaign_no: int | None, custom: dict[str, Any]) -> str | None:
    return None if campaign_no is None else custom.get("campaign_id")


def _campaign_key(campaign_no: int | None) -> str | None:
    return None if campaign_no is None else str(campaign_no)


PLAIN = ("cid", "sender_id", "type", "text", "attachments", "custom", "poll_id", "created_at")
SOURCES: dict[str, Source] = {
    **{name: name for name in PLAIN},
    "message_id": "id",
    "campaign_id": Derived(_campaign_id, ("campaign_no", "custom")),
    "campaign_key": Derived(_campaign_key, ("campaign_no",)),
}
SHAPE = Shape("Message", "id", SOURCES)
COLUMNS_OF_ROW = Columns(queries.columns_by_ids, SHAPE)


@strawberry.type(description="A message in a channel.")
class Message(Node):
    """A message as it was sent."""

    message_id: str = strawberry.field(description="Its id: a UUIDv7.")
    cid: str = strawberry.field(description="The channel it is in.")
    sender_id: str = strawberry.field(description="Who it speaks for, a user or a former one.")
    type: str = strawberry.field(description="`regular` for every message of a campaign.")
    text: str = strawberry.field(description="What it says, rendered for its reader.")
    attachments: list[JSON] = strawberry.field(description="Whatever is shown with the text.")
    custom: JSON = strawberry.field(description="Custom data; `campaign_id` in messages of a campaign.")
    poll_id: str | None = strawberry.field(description="The poll that it asks.")
    campaign_id: str | None = strawberry.field(
        description="The campaign that sent it, though that may be deleted by now."
    )
    created_at: datetime = strawberry.field(description="When it was sent.")
    campaign_key: strawberry.Private[str | None]

    @classmethod
    def of(cls, row: models.Message) -> "Message":
        """The GraphQL object of a row."""
        return cls(
            id=cls.global_id(row.id),
            message_id=row.id,
            cid=row.cid,
            sender_id=row.sender_id,
            type=row.type,
            text=row.text,
            attachments=[JSON(attachment) for attachment in row.attachments],
            custom=JSON(row.custom),
            poll_id=row.poll_id,
            campaign_id=_campaign_id(row.campaign_no, row.custom),
            created_at=row.created_at,
            campaign_key=_campaign_key(row.campaign_no),
        )

    @classmethod
    async def by_keys(cls, info: Info, keys: Sequence[str]) -> Sequence["Message | None"]:
        """Messages by their ids."""
        rows = await messages.load_many(info, keys)
        return [cls.of(row) if row else None for row in rows]

    @classmethod
    def columns(cls) -> Columns:
        """All of it."""
        return COLUMNS_OF_ROW

    channel = reference_by(
        "cid", Annotated["Channel", strawberry.lazy("app.channels.api")], description="The channel it is in."
    )
    sender = reference_by(
        "sender_id",
        Annotated["User", strawberry.lazy("app.users.api")],
        description="Who it speaks for; null if deleted since.",
    )
    campaign = reference_by(
        "campaign_key",
        Annotated["Campaign", strawberry.lazy("app.campaigns.api")],
        description="The campaign that sent it; null if none did, or if deleted since.",
    )
