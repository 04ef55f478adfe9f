"""Channels and members in GraphQL: finding, changing, reading and deleting them."""

from typing import Annotated, Any

import strawberry

from app.campaigns import reading
from app.channels import models, queries, service
from app.channels.api.channel import (
    MAX_PAGE,
    SHAPE,
    Channel,
    ChannelSort,
    ChannelSortField,
    Member,
    channels_of_user,
    order,
)
from app.channels.api.inputs import (
    AddChannelMembersInput,
    DeleteChannelsInput,
    MarkChannelReadInput,
    RemoveChannelMembersInput,
    UpdateChannelMemberInput,
    UpsertChannelsInput,
)
from app.channels.filtering import CHANNELS
from app.channels.inputs import MAX_CHANNELS
from app.channels.upserting import upsert_channels
from app.filters.language import parse
from app.graphql.connections import connection, select_listing
from app.graphql.context import Info
from app.graphql.deleting import DeletePayload
from app.graphql.errors import MutationPayload
from app.graphql.fields import MAX_SIZE, mutation, query
from app.graphql.scalars import JSON
from app.ledger.erasing import delete_channels
from app.validation import Problems

__all__ = ["Channel", "ChannelSort", "ChannelSortField", "Member", "Mutation", "Query", "channels_of_user"]


@strawberry.type
class Query:
    """Queries about channels."""

    @query(description="The channel with this cid.")
    async def channel(
        self, info: Info, cid: Annotated[str, strawberry.argument(description="type:channelId")]
    ) -> Channel | None:
        """One channel."""
        return (await Channel.by_keys(info, [cid]))[0]

    @connection(Channel, max_size=MAX_PAGE, description="All channels, by cid.")
    async def channels(
        self,
        info: Info,
        filter: Annotated[
            JSON | None,
            strawberry.argument(description="The filter language for channels, as in a segment's filter."),
        ] = strawberry.UNSET,
        sort: Annotated[
            list[ChannelSort] | None, strawberry.argument(description="By what; the first level counts most.")
        ] = strawberry.UNSET,
    ) -> Any:
        """Channels that match."""
        statement = queries.matching()
        if filter:
            problems = Problems()
            with problems.at("filter"):
                statement = queries.matching(parse(CHANNELS, filter).where(info.context.database.dialect))
            problems.check()
        return select_listing(info, statement, order(sort or ()), Channel.of, shape=SHAPE)


@strawberry.type(description="The channels, or why none was stored.")
class UpsertChannelsPayload(MutationPayload):
    """The channels in the order of the input."""

    channels: list[Channel] = strawberry.field(
        default_factory=list,
        description="The channels as they are now, in the order of the input.",
        metadata={MAX_SIZE: MAX_CHANNELS},
    )


@strawberry.type(description="The channel as it is now, or why nothing was done.")
class ChannelPayload(MutationPayload):
    """A channel, or errors."""

    channel: Channel | None = strawberry.field(default=None, description="The channel.")

    @classmethod
    def of(cls, row: models.Channel) -> "ChannelPayload":
        """The payload of a change that succeeded."""
        return cls(channel=Channel.of(row))


@strawberry.type
class Mutation:
    """Changes of channels."""

    @mutation(
        description="Creates channels, or changes those that exist; all or none. Without channelId it is the "
        "distinct channel of the members given."
    )
    async def upsert_channels(self, info: Info, input: UpsertChannelsInput) -> UpsertChannelsPayload | None:
        """Upserts up to a thousand channels."""
        async with info.context.database.transaction() as session:
            rows = await upsert_channels(session, [channel.given() for channel in input.channels])
        return UpsertChannelsPayload(channels=[Channel.of(row) for row in rows])

    @mutation(
        description="Deletes channels with their members and messages. Campaigns keep what became of "
        "their recipients. Channels that do not exist are no error."
    )
    async def delete_channels(self, info: Info, input: DeleteChannelsInput) -> DeletePayload | None:
        """Deletes up to a thousand channels."""
        deleted = await delete_channels(info.context.database, input.cids)
        return DeletePayload(deleted_ids=[Channel.global_id(cid) for cid in deleted])

    @mutation(description="Makes users members of a channel; those who are already stay as they are.")
    async def add_channel_members(self, info: Info, input: AddChannelMembersInput) -> ChannelPayload | None:
        """Adds up to a thousand members."""
        async with info.context.database.transaction() as session:
            return ChannelPayload.of(await service.add_members(session, input.cid, input.user_ids))

    @mutation(description="Takes users out of a channel; those who are no members are no error.")
    async def remove_channel_members(
        self, info: Info, input: RemoveChannelMembersInput
    ) -> ChannelPayload | None:
        """Removes up to a thousand members."""
        async with info.context.database.transaction() as session:
            return ChannelPayload.of(await service.remove_members(session, input.cid, input.user_ids))

    @mutation(description="Changes hidden, archived or muted of one member.")
    async def update_channel_member(
        self, info: Info, input: UpdateChannelMemberInput
    ) -> ChannelPayload | None:
        """Changes what is given."""
        async with info.context.database.transaction() as session:
            changing = service.update_member(session, input.cid, input.user_id, input.given())
            return ChannelPayload.of(await changing)

    @mutation(
        description="The user has read everything in the channel up to now: usersRead of the campaigns that "
        "wrote there counts it."
    )
    async def mark_channel_read(self, info: Info, input: MarkChannelReadInput) -> ChannelPayload | None:
        """Reads. Whoever watches a campaign that has another reader is told."""
        async with info.context.database.transaction() as session:
            read = await reading.mark_read(session, input.cid, input.user_id)
            for campaign_no in read.campaign_nos:
                info.context.publisher.publish_after_commit(session, campaign_no)
            return ChannelPayload.of(read.channel)
