"""A campaign from its users to its last ledger row, by the generated client; prints what it met, as JSON."""

import asyncio
import json
import os
import sys
from typing import Any

from carillon_client import (
    CampaignFilter,
    CampaignSort,
    CampaignSortField,
    CampaignStatus,
    CampaignStatusFilter,
    Client,
    CreateCampaignInput,
    CreateSegmentInput,
    GraphQLClientGraphQLMultiError,
    LedgerCampaignRecipients,
    LedgerCampaignRecipientsEdgesNode,
    MessageTemplateInput,
    Problem,
    RecipientFilter,
    RecipientStatus,
    RecipientStatusFilter,
    SegmentType,
    SortDirection,
    StartCampaignInput,
    UpsertUsersInput,
    UserInput,
)
from carillon_client.input_types import ChannelTemplateInput

PEOPLE = 23
PAGE = 7
LEGAL = MessageTemplateInput(text="Hello {{ receiver.name }}", defaults={"receiver.name": "you"})


def client() -> Client:
    """A client with the admin key."""
    address, key = os.environ["CARILLON"], {"Authorization": f"Bearer {os.environ['KEY']}"}
    return Client(
        url=f"{address}/graphql",
        headers=key,
        ws_url=f"{address.replace('http', 'ws', 1)}/graphql",
        ws_connection_init_payload=key,
    )


async def refused(carillon: Client) -> dict[str, Any]:
    """What is answered to mistakes."""
    two_words = await carillon.upsert_users(
        UpsertUsersInput(users=[UserInput(user_id="fine"), UserInput(user_id="two words")])
    )
    assert two_words.upsert_users is not None and two_words.upsert_users.users == []
    template = await carillon.create_campaign(
        CreateCampaignInput(sender_id="shop", message_template=MessageTemplateInput(text="{{ reciever }}"))
    )
    assert template.create_campaign is not None and template.create_campaign.campaign is None
    nobody = await carillon.start_campaign(StartCampaignInput(campaign_id="nobody"))
    assert nobody.start_campaign is not None
    return {
        "users": [problem(error) for error in two_words.upsert_users.errors],
        "template": [problem(error) for error in template.create_campaign.errors],
        "start": [problem(error) for error in nobody.start_campaign.errors],
        "page": await too_large_a_page(carillon),
    }


def problem(error: Problem) -> list[Any]:
    """An error of a mutation, as it is compared."""
    return [error.code.value, error.path, error.details]


async def too_large_a_page(carillon: Client) -> str:
    """The code of an error of a query."""
    try:
        await carillon.campaign_list(first=101)
    except GraphQLClientGraphQLMultiError as failure:
        return str((failure.errors[0].extensions or {})["code"])
    raise AssertionError("101 campaigns in one page")


async def prepare(carillon: Client) -> None:
    """The shop, its readers, one who is deactivated, and a draft for all of them."""
    people = [
        UserInput(user_id=f"user-{number:02d}", name=f"Reader {number}", custom={"plan": "pro"})
        for number in range(PEOPLE)
    ]
    stored = await carillon.upsert_users(
        UpsertUsersInput(
            users=[
                UserInput(user_id="shop", name="The Shop"),
                UserInput(user_id="zoe", deactivated=True, custom={"plan": "pro"}),
                *people,
            ]
        )
    )
    assert stored.upsert_users is not None and stored.upsert_users.errors == []
    made = await carillon.create_segment(
        CreateSegmentInput(segment_id="pro", type_=SegmentType.USER, filter_={"plan": {"$in": ["pro"]}})
    )
    assert made.create_segment is not None and made.create_segment.segment is not None
    draft = await carillon.create_campaign(
        CreateCampaignInput(
            campaign_id="news",
            name="News",
            sender_id="shop",
            segment_ids=["pro"],
            message_template=LEGAL,
            channel_template=ChannelTemplateInput(type_="messaging"),
            create_channels=True,
        )
    )
    assert draft.create_campaign is not None and draft.create_campaign.campaign is not None
    assert draft.create_campaign.campaign.status is CampaignStatus.DRAFT


async def start_and_watch(carillon: Client) -> dict[str, Any]:
    """Watches from the draft to the end, and starts once the draft has been seen."""
    statuses, last, balanced = list[str](), None, True
    async for event in carillon.watch_campaign("news", False):
        campaign = event.campaign_updated
        if not statuses:
            started = await carillon.start_campaign(StartCampaignInput(campaign_id="news"))
            assert started.start_campaign is not None and started.start_campaign.errors == []
        last = campaign.stats
        statuses.append(campaign.status.value)
        balanced &= last.targets == last.sent + last.skipped + last.failed + last.pending
    assert last is not None
    return {
        "first": statuses[0],
        "last": statuses[-1],
        "balanced": balanced,
        "sent": last.sent,
        "skipped": last.skipped,
        "progress": last.progress,
    }


async def recipients(carillon: Client, **place: Any) -> LedgerCampaignRecipients:
    """One page of the ledger."""
    page = await carillon.ledger("news", **place)
    assert page.campaign is not None
    return page.campaign.recipients


async def forward(carillon: Client) -> list[LedgerCampaignRecipientsEdgesNode]:
    """The whole ledger, from its beginning."""
    rows, after, more = list[LedgerCampaignRecipientsEdgesNode](), None, True
    while more:
        page = await recipients(carillon, first=PAGE, after=after)
        rows += [edge.node for edge in page.edges]
        after, more = page.page_info.end_cursor, page.page_info.has_next_page
    assert page.total_count == len(rows)
    return rows


async def backward(carillon: Client) -> list[LedgerCampaignRecipientsEdgesNode]:
    """The whole ledger, from its end."""
    rows, before, more = list[LedgerCampaignRecipientsEdgesNode](), None, True
    while more:
        page = await recipients(carillon, last=PAGE, before=before)
        rows = [edge.node for edge in page.edges] + rows
        before, more = page.page_info.start_cursor, page.page_info.has_previous_page
    return rows


async def left_out(carillon: Client) -> list[str]:
    """Who was skipped, asked by a filter."""
    skipped = RecipientFilter(
        status=RecipientStatusFilter(in_=[RecipientStatus.SKIPPED, RecipientStatus.FAILED])
    )
    page = await recipients(carillon, filter_=skipped)
    return [f"{edge.node.target_id} {edge.node.reason and edge.node.reason.value}" for edge in page.edges]


async def looked_at(carillon: Client) -> dict[str, Any]:
    """The pages of a dashboard about it."""
    page = (await carillon.campaign_page("news")).campaign
    explained = (await carillon.explain("news", "zoe")).campaign
    shown = (await carillon.preview("news", 1, ["user-00"])).campaign
    done = CampaignFilter(status=CampaignStatusFilter(eq=CampaignStatus.COMPLETED))
    newest = [CampaignSort(field=CampaignSortField.CREATED_AT, direction=SortDirection.DESC)]
    listed = (await carillon.campaign_list(filter_=done, sort=newest, last=10)).campaigns
    everybody = (await carillon.user_list(filter_={"plan": "pro"}, first=1)).users
    assert page is not None and explained is not None and shown is not None
    assert explained.explain is not None and shown.preview is not None
    reason = explained.explain.reason
    return {
        "template": page.message_template.text,
        "duration known": page.stats.started_at is not None and page.stats.completed_at is not None,
        "reasons": [[left.reason.value, left.count] for left in page.stats.reasons],
        "explained": [explained.explain.in_audience, reason and reason.value],
        "preview": [message.text for message in shown.preview],
        "listed": [campaign.campaign_id for campaign in listed.nodes],
        "on the pro plan": everybody.total_count,
    }


async def main() -> None:
    """The story."""
    async with client() as carillon:
        met: dict[str, Any] = {"refused": await refused(carillon)}
        await prepare(carillon)
        met["watched"] = await start_and_watch(carillon)
        rows = await forward(carillon)
        met["ledger"] = [[row.target_id, row.status.value, row.message and row.message.text] for row in rows]
        met["the same backward"] = await backward(carillon) == rows
        met["left out"] = await left_out(carillon)
        met["looked at"] = await looked_at(carillon)
    json.dump(met, sys.stdout)


asyncio.run(main())
