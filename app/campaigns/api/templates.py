"""A campaign's templates in GraphQL, as they were given."""

from collections.abc import Mapping
from typing import Any, Self

import strawberry

from app.campaigns.definition import MAX_TEMPLATE_MEMBERS
from app.graphql.fields import MAX_SIZE
from app.graphql.scalars import JSON


@strawberry.type(description="What is said, in Jinja: `{{ receiver.name }}` and the like in any string.")
class MessageTemplate:
    """A message before it is rendered."""

    text: str = strawberry.field(description="The text.")
    attachments: list[JSON] = strawberry.field(description="Whatever is shown with the text.")
    custom: JSON = strawberry.field(description="Custom data of each message.")
    poll_id: str | None = strawberry.field(description="The poll that each message asks; copied unchanged.")
    defaults: JSON = strawberry.field(description="Values for variables that a receiver lacks.")

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The template of a campaign's column."""
        return cls(
            text=stored["text"],
            attachments=[JSON(attachment) for attachment in stored["attachments"]],
            custom=JSON(stored["custom"]),
            poll_id=stored["poll_id"],
            defaults=JSON(stored["defaults"]),
        )


@strawberry.type(description="A member of every channel that a campaign creates.")
class MemberTemplate:
    """A member besides receiver and sender."""

    user_id: str = strawberry.field(description="Who.")
    channel_role: str | None = strawberry.field(description="The role in the channel; null: the usual one.")
    custom: JSON = strawberry.field(description="Custom data of the membership.")


@strawberry.type(description="Which channels a campaign writes to, and how it creates them.")
class ChannelTemplate:
    """A channel before its receiver is known."""

    type: str = strawberry.field(description="The channels' type.")
    id: str | None = strawberry.field(
        description="A template of their ids; null: the one channel of sender, receiver and members."
    )
    team: str | None = strawberry.field(description="The team of created channels.")
    custom: JSON = strawberry.field(description="Custom data of created channels.")
    members: list[str] | None = strawberry.field(description="Further members by their userIds.")
    members_template: list[MemberTemplate] | None = strawberry.field(
        description="Further members with roles and custom data.", metadata={MAX_SIZE: MAX_TEMPLATE_MEMBERS}
    )

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The template of a campaign's column."""
        described = [
            MemberTemplate(
                user_id=member["user_id"],
                channel_role=member["channel_role"],
                custom=JSON(member["custom"]),
            )
            for member in stored["members_template"]
        ]
        return cls(
            type=stored["type"],
            id=stored.get("id"),
            team=stored.get("team"),
            custom=JSON(stored["custom"]),
            members=stored["members"] or None,
            members_template=described or None,
        )
