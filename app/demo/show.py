"""`carillon run --demo`: the main job before your eyes, through the same doors that everybody uses."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from app.database import Database
from app.demo import people
from app.demo.client import Client, Json, Refused
from app.importing import import_visibly
from app.settings import Settings, load

SENDER = "carillon-demo"
FINISHED = ("COMPLETED", "STOPPED")

GREETING = (
    "{% if receiver.language == 'de' %}Guten Tag{% elif receiver.language == 'el' %}Γεια σας"
    "{% elif receiver.language == 'ar' %}مرحبا{% elif receiver.language == 'hi' %}नमस्ते"
    "{% elif receiver.language == 'ja' %}こんにちは{% else %}Hello{% endif %}"
)
TEXT = GREETING + (
    " {{ receiver.name }}! {% if receiver.plan == 'pro' %}Thank you for being with us on the pro plan."
    "{% else %}Your {{ receiver.plan }} plan has something new for you.{% endif %}"
)

UPSERT_SENDER = """
mutation ($input: UpsertUsersInput!) { upsertUsers(input: $input) { errors { message } } }"""
CREATE_SEGMENT = """
mutation ($input: CreateSegmentInput!) {
  createSegment(input: $input) { segment { segmentId } errors { message } }
}"""
CREATE_CAMPAIGN = """
mutation ($input: CreateCampaignInput!) {
  createCampaign(input: $input) { campaign { campaignId } errors { message } }
}"""
START_CAMPAIGN = """
mutation ($input: StartCampaignInput!) {
  startCampaign(input: $input) { campaign { status } errors { message } }
}"""
FOLLOW = """
subscription ($campaignId: String!) {
  campaignUpdated(campaignId: $campaignId) {
    status
    stats {
      targets pending sent skipped failed messagesSent channelsCreated usersSent
      progress messagesPerSecond startedAt completedAt
    }
  }
}"""
MESSAGES = """
query ($campaignId: String!, $targetIds: [String!]!) {
  campaign(campaignId: $campaignId) {
    recipients(filter: { targetId: { in: $targetIds } }) {
      nodes { user { name } channel { messages(last: 1) { nodes { text sender { name } } } } }
    }
  }
}"""


def main() -> None:
    """The process that `carillon run --demo` starts once everything is ready."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    console = Console()
    try:
        asyncio.run(_show(load(), console))
    except Refused as refused:
        console.print(f"The demo failed: {refused}", markup=False)
        sys.exit(1)


async def _show(settings: Settings, console: Console) -> None:
    assert settings.admin_key is not None
    await _import_people(settings, console)
    async with Client(settings.address, settings.admin_key) as client:
        campaign_id = await _campaign(client, console)
        started = time.monotonic()
        await client.execute(START_CAMPAIGN, {"input": {"campaignId": campaign_id}})
        async with client.subscription(FOLLOW, {"campaignId": campaign_id}) as events:
            campaign = await _follow(events, console)
        took = time.monotonic() - started
        _print_stats(campaign, took, console)
        await _print_messages(client, campaign_id, console)
    console.print(f"\nThe server goes on running at {settings.address}/graphql")
    console.print(f"Admin key: {settings.admin_key}", markup=False, highlight=False)
    console.print("Ctrl-C stops it.")


async def _import_people(settings: Settings, console: Console) -> None:
    file = settings.data_dir / "people.ndjson"
    people.write(file)
    console.print(f"\n[bold]1. Import[/] {people.COUNT:,} users: carillon import users {file}")
    began = time.monotonic()
    database = Database(settings.database)
    try:
        report = await import_visibly(database, file, "ndjson")
    finally:
        await database.close()
    console.print(f"   {report.stored:,} users in {time.monotonic() - began:.1f} s")


async def _campaign(client: Client, console: Console) -> str:
    await client.execute(UPSERT_SENDER, {"input": {"users": [{"userId": SENDER, "name": "Carillon"}]}})
    segment = {
        "type": "USER",
        "name": "Everybody on a plan",
        "filter": {"plan": {"$in": ["free", "plus", "pro"]}, "age": {"$gte": 16}},
    }
    made = await client.execute(CREATE_SEGMENT, {"input": segment})
    segment_id = made["createSegment"]["segment"]["segmentId"]
    console.print(f"[bold]2. Segment[/] {segment['name']}: {segment['filter']}")
    campaign = {
        "name": "Hello everybody",
        "segmentIds": [segment_id],
        "senderId": SENDER,
        "messageTemplate": {"text": TEXT},
        "channelTemplate": {"type": "messaging"},
        "createChannels": True,
    }
    made = await client.execute(CREATE_CAMPAIGN, {"input": campaign})
    console.print(f"[bold]3. Campaign[/] {campaign['name']}, a message to each of them from Carillon")
    campaign_id: str = made["createCampaign"]["campaign"]["campaignId"]
    return campaign_id


async def _follow(events: AsyncIterator[Json], console: Console) -> Json:
    """Shows every state that the subscription brings; returns the last one."""
    campaign: Json = {}
    with Progress(
        TextColumn("   {task.fields[status]:<11}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,} of {task.total:,} settled, {task.fields[rate]:,.0f} messages/s"),
        console=console,
    ) as bar:
        task = bar.add_task("", total=people.COUNT, status="", rate=0.0)
        async for event in events:
            campaign = event["campaignUpdated"]
            stats = campaign["stats"]
            bar.update(
                task,
                completed=stats["sent"] + stats["skipped"] + stats["failed"],
                total=max(stats["targets"], 1),
                status=campaign["status"],
            )
            if stats["messagesPerSecond"]:  # nought when it is over
                bar.update(task, rate=stats["messagesPerSecond"])
            if campaign["status"] in FINISHED:
                break
    return campaign


def _print_stats(campaign: Json, took: float, console: Console) -> None:
    stats = campaign["stats"]
    table = Table(title=f"{campaign['status']} in {took:.1f} s", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for label, name in (
        ("targets", "targets"),
        ("= sent", "sent"),
        ("+ skipped", "skipped"),
        ("+ failed", "failed"),
        ("+ pending", "pending"),
        ("messages", "messagesSent"),
        ("channels created", "channelsCreated"),
    ):
        table.add_row(label, f"{stats[name]:,}")
    console.print(table)


async def _print_messages(client: Client, campaign_id: str, console: Console) -> None:
    found = await client.execute(MESSAGES, {"campaignId": campaign_id, "targetIds": people.picked()})
    console.print("[bold]4. What some of them read[/]")
    for recipient in found["campaign"]["recipients"]["nodes"]:
        message = recipient["channel"]["messages"]["nodes"][0]
        console.print(
            f"   {message['sender']['name']} to {recipient['user']['name']}: {message['text']}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
