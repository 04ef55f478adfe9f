"""The way that comes to mind first: a job of the queue for each recipient, and objects of the ORM."""

import asyncio
import time
from typing import Any

from arq import create_pool
from arq.worker import Worker, func
from jinja2.sandbox import SandboxedEnvironment

from app.channels.distinct import pair_key
from app.channels.models import Channel, Member
from app.database import Database, now
from app.ids import new_number, new_uuid
from app.ledger.models import Recipient, RecipientStatus
from app.messages.models import Message
from app.queue import deserialize, redis_settings, serialize
from app.users.models import User
from scripts.benchmarks.campaign import TEXT
from scripts.benchmarks.places import SENDER, Place, user_id

_QUEUE = "naive"


def run_naive(place: Place, recipients: int, redis_url: str) -> float:
    """Sends so many in a fresh database; the seconds from the first job put in to the last one done."""
    url = place.fresh()
    try:
        return asyncio.run(_run(url, recipients, redis_url))
    finally:
        place.drop(url)


async def _run(url: str, recipients: int, redis_url: str) -> float:
    database = Database(url, durable=False)
    pool = await create_pool(
        redis_settings(redis_url),
        default_queue_name=_QUEUE,
        job_serializer=serialize,
        job_deserializer=deserialize,
    )
    campaign_no, began = new_number(), time.perf_counter()
    for number in range(recipients):
        await pool.enqueue_job("send_one", campaign_no, user_id(number))
    worker = Worker(
        functions=[func(_send_one, name="send_one", keep_result=0)],
        queue_name=_QUEUE,
        redis_pool=pool,
        job_serializer=serialize,
        job_deserializer=deserialize,
        handle_signals=False,
        burst=True,
        poll_delay=0.01,
        ctx={"database": database, "template": SandboxedEnvironment().from_string(TEXT)},
    )
    await worker.async_run()
    seconds = time.perf_counter() - began
    await worker.close()
    await database.close()
    return seconds


async def _send_one(ctx: dict[str, Any], campaign_no: int, receiver_id: str) -> None:
    async with ctx["database"].transaction() as session:
        receiver, at = await session.get_one(User, receiver_id), await now(session)
        cid, message_id = f"messaging:{receiver_id}-news", new_uuid()
        session.add(
            Channel(
                cid=cid,
                type="messaging",
                channel_id=f"{receiver_id}-news",
                created_by_id=SENDER,
                member_count=2,
                members_key=pair_key(SENDER, receiver_id),
                last_seq=1,
                last_message_at=at,
                created_at=at,
                updated_at=at,
            )
        )
        session.add_all(Member(cid=cid, user_id=each, created_at=at) for each in (SENDER, receiver_id))
        session.add(
            Message(
                id=message_id,
                cid=cid,
                seq=1,
                sender_id=SENDER,
                text=ctx["template"].render(receiver=receiver),
                campaign_no=campaign_no,
                target_id=receiver_id,
                created_at=at,
            )
        )
        session.add(
            Recipient(
                campaign_no=campaign_no,
                target_id=receiver_id,
                status=RecipientStatus.SENT,
                batch_no=1,
                cid=cid,
                message_id=message_id,
                settled_at=at,
            )
        )
