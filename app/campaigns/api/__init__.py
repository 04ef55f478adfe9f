"""Campaigns in GraphQL: finding, changing and watching them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

import strawberry
from sqlalchemy.ext.asyncio import AsyncSession

from app.campaigns import capacity, definition, duplicating, models, queries, service, stats
from app.campaigns.api.campaign import Campaign, campaign_listing, campaigns_naming
from app.campaigns.api.campaign_stats import asked_for
from app.campaigns.api.filtering import NEWEST_FIRST, CampaignFilter, CampaignSort, chosen, order
from app.campaigns.api.inputs import (
    CreateCampaignInput,
    DeleteCampaignInput,
    DuplicateCampaignInput,
    PauseCampaignInput,
    ResumeCampaignInput,
    RetryRecipientsInput,
    StartCampaignInput,
    StopCampaignInput,
    UnscheduleCampaignInput,
    UpdateCampaignInput,
    given,
)
from app.campaigns.api.previews import (
    PREVIEW_WEIGHT,
    MessagePreviewInput,
    MessagePreviewPayload,
    previewed,
)
from app.campaigns.api.testing import TestCampaignInput, TestCampaignPayload, tested
from app.campaigns.states import ACTIVE, ENDED
from app.campaigns.stats import Snapshot
from app.database import after_commit
from app.errors import AppError, NotFound
from app.graphql.connections import connection
from app.graphql.context import Info
from app.graphql.deleting import DeletePayload
from app.graphql.errors import MutationPayload
from app.graphql.fields import mutation, query, subscription
from app.queue import Job
from app.validation import between

__all__ = ["Campaign", "Mutation", "Query", "Subscription", "campaigns_naming"]

MAX_PAGE = 100
MAX_FOLLOWED = 100

CampaignId = Annotated[str, strawberry.argument(description="The campaign's id.")]


@strawberry.type
class Query:
    """Queries about campaigns."""

    @query(description="The campaign with this id; null if there is none, or if deleted.")
    async def campaign(self, info: Info, campaign_id: CampaignId) -> Campaign | None:
        """One campaign."""
        async with info.context.database.read() as session:
            row = await queries.by_id(session, campaign_id)
            return await _seen(info, session, row) if row else None

    @query(
        description="A message that is not saved anywhere yet, as these receivers would get it.",
        weight=PREVIEW_WEIGHT,
    )
    async def message_preview(
        self,
        info: Info,
        input: Annotated[MessagePreviewInput, strawberry.argument(description="What is to be shown.")],
    ) -> MessagePreviewPayload:
        """Rendered by what sends."""
        return await previewed(info, input)

    @connection(Campaign, max_size=MAX_PAGE, description="All campaigns, newest first.")
    async def campaigns(
        self,
        info: Info,
        filter: Annotated[
            CampaignFilter | None, strawberry.argument(description="Only these.")
        ] = strawberry.UNSET,
        sort: Annotated[
            list[CampaignSort] | None,
            strawberry.argument(description="By what; the first level counts most."),
        ] = strawberry.UNSET,
    ) -> Any:
        """Campaigns that match."""
        statement = queries.living().where(chosen(filter, info.context.database.dialect))
        return campaign_listing(info, statement, order(sort or NEWEST_FIRST))


async def _seen(info: Info, session: AsyncSession, row: models.Campaign) -> Campaign:
    """The campaign of a row that this session read; with its stats, where these were asked for."""
    if not asked_for(info):
        return Campaign.of(row)
    found = await stats.of(session, [row])
    return Campaign.of_snapshot(Snapshot(row, found[row.campaign_no]))


@strawberry.type(description="The campaign as it is now, or why nothing was done.")
class CampaignPayload(MutationPayload):
    """A campaign, or errors."""

    campaign: Campaign | None = strawberry.field(default=None, description="The campaign.")


@strawberry.type
class Mutation:
    """Changes of campaigns."""

    @mutation(description="Creates a draft.")
    async def create_campaign(self, info: Info, input: CreateCampaignInput) -> CampaignPayload | None:
        """Creates a draft."""
        examined = await asyncio.to_thread(definition.examined, given(input))  # before anything is locked
        async with info.context.database.transaction() as session:
            return await _changed(info, session, service.create(session, examined))

    @mutation(description="Changes a campaign; while SCHEDULED, only so that it can still start.")
    async def update_campaign(self, info: Info, input: UpdateCampaignInput) -> CampaignPayload | None:
        """Changes what is given."""
        changes = given(input)
        campaign_id = changes.pop("campaign_id")
        examined = await asyncio.to_thread(definition.examined, changes)
        async with info.context.database.transaction() as session:
            return await _changed(info, session, service.update(session, campaign_id, examined))

    @mutation(
        description="A new draft with the same content, audience and pace; scheduledFor and stopAt are not "
        "copied."
    )
    async def duplicate_campaign(self, info: Info, input: DuplicateCampaignInput) -> CampaignPayload | None:
        """Copies what the campaign says now."""
        database = info.context.database
        async with database.read() as session:
            copied = await duplicating.content(session, input.campaign_id, given(input))
        examined = await asyncio.to_thread(definition.examined, copied)
        with duplicating.of_the_original():
            async with database.transaction() as session:
                return await _changed(info, session, service.create(session, examined))

    @mutation(description="Deletes a campaign that is not being sent; its messages stay.")
    async def delete_campaign(self, info: Info, input: DeleteCampaignInput) -> DeletePayload | None:
        """Deletes at once; the ledger is cleared in the background."""
        async with info.context.database.transaction() as session:
            row = await service.remove(session, input.campaign_id)
            info.context.publisher.publish_after_commit(session, row.campaign_no)
        return DeletePayload(deleted_ids=[Campaign.global_id(row.campaign_no)])

    @mutation(description="Starts now, or at scheduledFor; stops by itself at stopAt.")
    async def start_campaign(self, info: Info, input: StartCampaignInput) -> CampaignPayload | None:
        """Starts or schedules."""
        database, limit = info.context.database, info.context.settings.monthly_messages
        needed = await capacity.needed_to_start(database, input.campaign_id, limit)
        async with database.transaction() as session:
            starting = service.start(
                session,
                input.campaign_id,
                scheduled_for=input.scheduled_for or None,
                stop_at=input.stop_at or None,
                capacity=limit,
                needed=needed,
            )
            return await _changed(info, session, starting)

    @mutation(description="Takes a scheduled campaign back to DRAFT.")
    async def unschedule_campaign(self, info: Info, input: UnscheduleCampaignInput) -> CampaignPayload | None:
        """Back to DRAFT."""
        async with info.context.database.transaction() as session:
            return await _changed(info, session, service.unschedule(session, input.campaign_id))

    @mutation(description="Ends a campaign; what is not settled stays PENDING.")
    async def stop_campaign(self, info: Info, input: StopCampaignInput) -> CampaignPayload | None:
        """The end. What is not sent any more is given back before the answer, so that a start that follows
        has it."""
        database = info.context.database
        async with database.transaction() as session:
            payload = await _changed(info, session, service.stop(session, input.campaign_id))
            assert payload.campaign is not None
            campaign_no = payload.campaign.row.campaign_no
            after_commit(session, partial(capacity.give_back, database, campaign_no))
            return payload

    @mutation(description="Pauses a campaign: no message is sent after this answer.")
    async def pause_campaign(self, info: Info, input: PauseCampaignInput) -> CampaignPayload | None:
        """Pauses."""
        async with info.context.database.transaction() as session:
            return await _changed(info, session, service.pause(session, input.campaign_id))

    @mutation(description="Goes on with a paused campaign.")
    async def resume_campaign(self, info: Info, input: ResumeCampaignInput) -> CampaignPayload | None:
        """Resumes."""
        database, limit = info.context.database, info.context.settings.monthly_messages
        needed = await capacity.needed_to_resume(database, input.campaign_id, limit)
        async with database.transaction() as session:
            resuming = service.resume(session, input.campaign_id, capacity=limit, needed=needed)
            return await _changed(info, session, resuming)

    @mutation(
        description="Sends again to recipients of a COMPLETED campaign that were not reached, for these "
        "reasons (default: those of FAILED)."
    )
    async def retry_recipients(self, info: Info, input: RetryRecipientsInput) -> CampaignPayload | None:
        """Runs again for these recipients."""
        limit = info.context.settings.monthly_messages
        async with info.context.database.transaction() as session:
            reasons = given(input).get("reasons")
            retrying = service.retry(session, input.campaign_id, reasons=reasons, capacity=limit)
            return await _changed(info, session, retrying)

    @mutation(
        description="Sends the campaign's message to 1 to 10 users now, whatever its status, outside its "
        "stats: of no campaign, and with test: true in custom. Counts in the month's usage."
    )
    async def test_campaign(self, info: Info, input: TestCampaignInput) -> TestCampaignPayload | None:
        """Sends to testers."""
        return await tested(info, input)


async def _changed(
    info: Info, session: AsyncSession, changing: Awaitable[models.Campaign]
) -> CampaignPayload:
    """The payload of a change. Once it is committed, watchers are told, and workers if there is work or
    may be earlier than they thought."""
    row = await changing
    info.context.publisher.publish_after_commit(session, row.campaign_no)
    if row.status in ACTIVE:
        info.context.doorbell.ring_after_commit(session, Job.SEND)
    return CampaignPayload(campaign=await _seen(info, session, row))


@strawberry.type(description="A campaign that was created or changed, or one that was deleted: one of both.")
class CampaignChange:
    """What happened to a campaign."""

    campaign: Campaign | None = strawberry.field(default=None, description="The campaign as it is now.")
    deleted_id: strawberry.ID | None = strawberry.field(
        default=None, description="The global id of the campaign that is deleted."
    )


@strawberry.type
class Subscription:
    """What campaigns do, as they do it."""

    @subscription(
        description="The campaign as it is now, then its newest state whenever status or stats change, at "
        "most five times a second. Completes after STOPPED or COMPLETED was delivered; with follow only when "
        "the campaign is deleted. Unknown id: NOT_FOUND.",
        shared=True,
    )
    async def campaign_updated(
        self,
        info: Info,
        campaign_id: CampaignId,
        follow: Annotated[
            bool, strawberry.argument(description="Goes on after the end, until the campaign is deleted.")
        ] = False,
    ) -> AsyncGenerator[Campaign, None]:
        """Follows one campaign. Nothing is held while it waits."""
        onlookers = info.context.onlookers
        async with info.context.database.read() as session:
            row = await queries.by_id(session, campaign_id)
        if row is None:
            raise NotFound(f"There is no campaign {campaign_id}.")
        async with aclosing(info.context.watching.states(row.campaign_no, onlookers)) as states:
            async for snapshot in states:
                yield Campaign.of_snapshot(snapshot)
                if snapshot.campaign.status in ENDED and not follow:
                    return

    @subscription(
        description="Every scheduled, running or paused campaign, or those of campaignIds whatever their "
        "status, as they are now; then every creation, change and deletion, at most five times a second a "
        "campaign. A campaign that ends is shown as it ended. Never completes by itself.",
        shared=True,
    )
    async def campaigns_changed(
        self,
        info: Info,
        campaign_ids: Annotated[
            list[str] | None,
            strawberry.argument(
                description="Only these, at most 100, created already or not. Omitted: all campaigns."
            ),
        ] = strawberry.UNSET,
    ) -> AsyncGenerator[CampaignChange, None]:
        """Follows campaigns. Nothing is held while it waits."""
        ids = None if campaign_ids is strawberry.UNSET else _followed(campaign_ids)
        async with aclosing(info.context.overview.changes(ids, info.context.onlookers)) as changes:
            async for change in changes:
                if change.snapshot is None:
                    yield CampaignChange(deleted_id=Campaign.global_id(change.campaign_no))
                else:
                    yield CampaignChange(campaign=Campaign.of_snapshot(change.snapshot))


def _followed(campaign_ids: list[str] | None) -> list[str] | None:
    """The ids to follow. Raises INVALID_INPUT or LIMIT_EXCEEDED unless they are 1 to 100."""
    if campaign_ids is None:
        return None
    try:
        between(campaign_ids, most=MAX_FOLLOWED)
    except AppError as error:
        raise error.under("campaignIds") from None
    return campaign_ids
