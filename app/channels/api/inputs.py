"""What mutations of channels take."""

from typing import Any

import strawberry

from app.channels.inputs import CHECKS
from app.channels.service import FLAGS
from app.graphql.scalars import JSON

CID = "type:channelId"
USER_IDS = "1 to 1,000 users."


@strawberry.input(description="A channel to create, or to change where it exists.")
class ChannelInput:
    """What is omitted stays as it is; null clears."""

    type: str = strawberry.field(description="1 to 64 letters, digits, `_` or `-`.")
    channel_id: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="1 to 255 printable characters without white space. Omitted: the one channel of this "
        "type with exactly these members.",
    )
    members: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Without channelId: the one channel of this type with exactly these members. They are "
        "users that exist, at most 1,000, and replace the members there are.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="At most 255 characters.")
    team: str | None = strawberry.field(default=strawberry.UNSET, description="1 to 255 characters.")
    custom: JSON | None = strawberry.field(
        default=strawberry.UNSET,
        description="Replaced whole: at most 32,768 bytes, 10 levels. No key may repeat a built-in field of "
        "the filter language, start with `$` or contain a dot.",
    )
    created_by_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Who created it: a user that exists."
    )
    frozen: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether nothing more can be written into it."
    )

    def given(self) -> dict[str, Any]:
        """The fields that were given."""
        every = {name: getattr(self, name) for name in CHECKS}
        return {name: value for name, value in every.items() if value is not strawberry.UNSET}


@strawberry.input(description="Channels to create or change, all or none.")
class UpsertChannelsInput:
    """Channels to create or change."""

    channels: list[ChannelInput] = strawberry.field(
        description="1 to 1,000 channels, each once, with at most 10,000 members together."
    )


@strawberry.input(description="Channels to delete.")
class DeleteChannelsInput:
    """Channels to delete."""

    cids: list[str] = strawberry.field(description="1 to 1,000, existing or not.")


@strawberry.input(description="Who joins a channel.")
class AddChannelMembersInput:
    """Users for a channel."""

    cid: str = strawberry.field(description=CID)
    user_ids: list[str] = strawberry.field(description=f"{USER_IDS} They have to exist.")


@strawberry.input(description="Who leaves a channel.")
class RemoveChannelMembersInput:
    """Members of a channel."""

    cid: str = strawberry.field(description=CID)
    user_ids: list[str] = strawberry.field(description=USER_IDS)


@strawberry.input(description="How one member sees a channel. What is omitted stays as it is; null is false.")
class UpdateChannelMemberInput:
    """A member, and what changes."""

    cid: str = strawberry.field(description=CID)
    user_id: str = strawberry.field(description="The member.")
    hidden: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether the member has hidden the channel."
    )
    archived: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether the member has archived the channel."
    )
    muted: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether the member has muted the channel."
    )

    def given(self) -> dict[str, bool | None]:
        """The flags that were given."""
        every = {name: getattr(self, name) for name in FLAGS}
        return {name: value for name, value in every.items() if value is not strawberry.UNSET}


@strawberry.input(description="Who has read which channel.")
class MarkChannelReadInput:
    """A member of a channel."""

    cid: str = strawberry.field(description=CID)
    user_id: str = strawberry.field(description="The member.")
