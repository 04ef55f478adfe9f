"""Messages before they are sent, in GraphQL: as their receivers would get them."""

from collections.abc import Sequence
from typing import Self

import strawberry

from app.campaigns import models
from app.campaigns.api.inputs import MessageTemplateInput, given
from app.errors import AppError, Invalid
from app.graphql.context import Info
from app.graphql.errors import UserError, user_errors
from app.graphql.fields import MAX_SIZE
from app.graphql.scalars import JSON
from app.sending import previewing

PREVIEW_WEIGHT = 10_000  # twenty renderings; templates may make each take 45 ms


@strawberry.type(description="The message as one receiver would get it, or why not.")
class MessagePreview:
    """A rendered message."""

    receiver_id: str | None = strawberry.field(
        description="Who would get it. For a channel: its receiver, null where it has none."
    )
    cid: str | None = strawberry.field(
        description="The channel that it would go to, existing or to be created; null if there is none."
    )
    text: str | None = strawberry.field(description="The text; null if it would not be sent.")
    attachments: list[JSON] = strawberry.field(description="The attachments.")
    custom: JSON = strawberry.field(description="The custom data.")
    missing_variables: list[str] = strawberry.field(
        description="Variables that have no value for this receiver and no default: they render empty."
    )
    error: str | None = strawberry.field(
        description="Why it would not be sent: SKIPPED or FAILED, the reason, and a sentence."
    )

    @classmethod
    def of(cls, preview: previewing.Preview) -> Self:
        """The GraphQL object of a preview."""
        return cls(
            receiver_id=preview.receiver_id,
            cid=preview.cid,
            text=preview.text,
            attachments=[JSON(attachment) for attachment in preview.attachments],
            custom=JSON(preview.custom),
            missing_variables=list(preview.missing),
            error=preview.error,
        )


async def previews_of(
    info: Info, campaign: models.Campaign, receiver_ids: Sequence[str] | None, count: int
) -> list[MessagePreview]:
    """A campaign's message for these receivers, or for the first of its audience; all of one snapshot."""
    async with info.context.database.read() as session:
        found = await previewing.preview(session, campaign, receiver_ids, count)
    return [MessagePreview.of(preview) for preview in found]


@strawberry.input(description="A message that is not saved anywhere yet, and who would get it.")
class MessagePreviewInput:
    """A message to look at."""

    sender_id: str = strawberry.field(description="Who it speaks for: a user that exists.")
    message_template: MessageTemplateInput = strawberry.field(description="What is said.")
    receiver_ids: list[str] = strawberry.field(description="1 to 20 userIds.")


@strawberry.type(description="The message as each receiver would get it, or why it cannot be shown.")
class MessagePreviewPayload:
    """Previews, or errors."""

    previews: list[MessagePreview] = strawberry.field(
        default_factory=list,
        description="One for each receiver. The channel is the one that sender and receiver have; there may "
        "be none yet.",
        metadata={MAX_SIZE: previewing.MAX_RECEIVERS},
    )
    errors: list[UserError] = strawberry.field(
        default_factory=list, description="What is wrong with the input; empty on success."
    )


async def previewed(info: Info, input: MessagePreviewInput) -> MessagePreviewPayload:
    """What messagePreview answers."""
    try:
        async with info.context.database.read() as session:
            found = await previewing.preview_message(
                session, input.sender_id, given(input.message_template), input.receiver_ids
            )
    except (AppError, Invalid) as failure:
        return MessagePreviewPayload(errors=user_errors(failure, MessagePreviewInput))
    return MessagePreviewPayload(previews=[MessagePreview.of(preview) for preview in found])
