"""What mutations of campaigns take."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry

from app.campaigns.api.enums import SenderMode, SenderVisibility
from app.graphql.scalars import JSON
from app.ledger.api import OutcomeReason

CAMPAIGN_ID = "Which campaign."
NAME = "At most 128 characters."
DESCRIPTION = "At most 256 characters."
SEGMENT_IDS = (
    "The segments that are its audience: at most 25, all of users or all of channels, and not together with "
    "userIds."
)
USER_IDS = "The users who are its audience, existing or not: at most 10,000."
SENDER_ID = "Who it speaks for: a user that exists."
SENDER_MODE = "In which channels the sender becomes a member; null: in created ones."
SENDER_VISIBILITY = "How the sender sees created channels."
MESSAGE = "What is said."
CREATE_CHANNELS = "Whether absent channels of users are created; needs a channelTemplate at the start."
CHANNEL = "Which channels are written to; null: the receiver's channel with the sender, of any type."
SHOW_CHANNELS = "Whether channels that receivers have hidden reappear."
SKIP_PUSH = "Whether no push notifications go out."
SKIP_WEBHOOK = "Whether no events of single messages and channels go out."
PACE = "Ceiling for this campaign: 1 to 10,000,000; null: only the server's own."


@strawberry.input(description="What is said, in Jinja: `{{ receiver.name }}` and the like in any string.")
class MessageTemplateInput:
    """A message before it is rendered."""

    text: str = strawberry.field(description="The text; at most 5,000 characters once rendered.")
    attachments: list[JSON] | None = strawberry.field(
        default=strawberry.UNSET, description="At most 30, of 5 KB together once rendered."
    )
    custom: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Custom data of each message; at most 5 KB once rendered."
    )
    poll_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="The poll that each message asks; copied unchanged."
    )
    defaults: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description='Values for variables that a receiver lacks: {"receiver.name": "there"}',
    )


@strawberry.input(description="A member of every channel that the campaign creates.")
class MemberTemplateInput:
    """A member besides receiver and sender."""

    user_id: str = strawberry.field(description="Who.")
    channel_role: str | None = strawberry.field(
        default=strawberry.UNSET, description="1 to 64 characters; null: the usual role."
    )
    custom: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Custom data of the membership."
    )


@strawberry.input(description="Which channels are written to, and how they are created.")
class ChannelTemplateInput:
    """A channel before its receiver is known."""

    type: str = strawberry.field(description="1 to 64 letters, digits, `_` and `-`.")
    id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="A template of their ids that uses receiver; null: the one channel of sender, receiver "
        "and members.",
    )
    team: str | None = strawberry.field(default=strawberry.UNSET, description="The team of created channels.")
    custom: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="Custom data of created channels."
    )
    members: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Further members, at most 1,000; not with membersTemplate."
    )
    members_template: list[MemberTemplateInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Further members with roles and custom data, at most 1,000."
    )


@strawberry.input(description="A campaign to create. Its audience is segmentIds or userIds.")
class CreateCampaignInput:
    """A new draft."""

    campaign_id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="1 to 255 printable characters without white space. Default: a UUIDv7.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description=NAME)
    description: str | None = strawberry.field(default=strawberry.UNSET, description=DESCRIPTION)
    segment_ids: list[str] | None = strawberry.field(default=strawberry.UNSET, description=SEGMENT_IDS)
    user_ids: list[str] | None = strawberry.field(default=strawberry.UNSET, description=USER_IDS)
    sender_id: str = strawberry.field(description=SENDER_ID)
    sender_mode: SenderMode | None = strawberry.field(default=strawberry.UNSET, description=SENDER_MODE)
    sender_visibility: SenderVisibility | None = strawberry.field(
        default=strawberry.UNSET, description=SENDER_VISIBILITY
    )
    message_template: MessageTemplateInput = strawberry.field(description=MESSAGE)
    create_channels: bool = strawberry.field(default=False, description=CREATE_CHANNELS)
    channel_template: ChannelTemplateInput | None = strawberry.field(
        default=strawberry.UNSET, description=CHANNEL
    )
    show_channels: bool = strawberry.field(default=False, description=SHOW_CHANNELS)
    skip_push: bool = strawberry.field(default=False, description=SKIP_PUSH)
    skip_webhook: bool = strawberry.field(default=False, description=SKIP_WEBHOOK)
    max_messages_per_second: int | None = strawberry.field(default=strawberry.UNSET, description=PACE)


@strawberry.input(
    description="What is omitted stays as it is, null clears; templates and lists are replaced whole. "
    "Content changes only before the start; name and description always; maxMessagesPerSecond and stopAt "
    "until the end."
)
class UpdateCampaignInput:
    """Changes of a campaign."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)
    name: str | None = strawberry.field(default=strawberry.UNSET, description=NAME)
    description: str | None = strawberry.field(default=strawberry.UNSET, description=DESCRIPTION)
    segment_ids: list[str] | None = strawberry.field(default=strawberry.UNSET, description=SEGMENT_IDS)
    user_ids: list[str] | None = strawberry.field(default=strawberry.UNSET, description=USER_IDS)
    sender_id: str | None = strawberry.field(default=strawberry.UNSET, description=SENDER_ID)
    sender_mode: SenderMode | None = strawberry.field(default=strawberry.UNSET, description=SENDER_MODE)
    sender_visibility: SenderVisibility | None = strawberry.field(
        default=strawberry.UNSET, description=SENDER_VISIBILITY
    )
    message_template: MessageTemplateInput | None = strawberry.field(
        default=strawberry.UNSET, description=MESSAGE
    )
    create_channels: bool | None = strawberry.field(default=strawberry.UNSET, description=CREATE_CHANNELS)
    channel_template: ChannelTemplateInput | None = strawberry.field(
        default=strawberry.UNSET, description=CHANNEL
    )
    show_channels: bool | None = strawberry.field(default=strawberry.UNSET, description=SHOW_CHANNELS)
    skip_push: bool | None = strawberry.field(default=strawberry.UNSET, description=SKIP_PUSH)
    skip_webhook: bool | None = strawberry.field(default=strawberry.UNSET, description=SKIP_WEBHOOK)
    max_messages_per_second: int | None = strawberry.field(default=strawberry.UNSET, description=PACE)
    stop_at: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="When it stops by itself, at any status before the end."
    )


@strawberry.input(description="A campaign to start.")
class StartCampaignInput:
    """When to start, and when to stop."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)
    scheduled_for: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="When it starts by itself; omitted or in the past: now."
    )
    stop_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="When it stops by itself, after its start; omitted: when it is done.",
    )


@strawberry.input(description="A campaign to make another of.")
class DuplicateCampaignInput:
    """A campaign, and what the copy is called."""

    campaign_id: str = strawberry.field(description="Which campaign, whatever its status.")
    new_campaign_id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The copy's id: 1 to 255 printable characters without white space. Default: a UUIDv7.",
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The copy's name, at most 128 characters. Omitted: that of the original; null: none.",
    )


@strawberry.input(description="A campaign to delete.")
class DeleteCampaignInput:
    """A campaign to delete."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)


@strawberry.input(description="A campaign to take back to DRAFT.")
class UnscheduleCampaignInput:
    """A campaign to unschedule."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)


@strawberry.input(description="A campaign to stop for good.")
class StopCampaignInput:
    """A campaign to stop."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)


@strawberry.input(description="A campaign to pause.")
class PauseCampaignInput:
    """A campaign to pause."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)


@strawberry.input(description="A paused campaign to go on with.")
class ResumeCampaignInput:
    """A campaign to resume."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)


@strawberry.input(description="A completed campaign to send again to whom it did not reach.")
class RetryRecipientsInput:
    """A campaign, and which of its recipients."""

    campaign_id: str = strawberry.field(description=CAMPAIGN_ID)
    reasons: list[OutcomeReason] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Those skipped or failed for one of these, never SENDER; omitted: those of FAILED.",
    )


def given(value: object) -> Any:
    """What an input says, as services take it: plain dicts without what was omitted, enums by their names."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return [given(item) for item in value]
    if is_dataclass(value):
        fields: Mapping[str, object] = vars(value)
        return {name: given(item) for name, item in fields.items() if item is not strawberry.UNSET}
    return value
