"""Looking at idle connections of PostgreSQL before they are used."""

import math
import time
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

SECONDS_UNTIL_PING = 1.0


def ping_idle(engine: AsyncEngine) -> None:
    """Has connections looked at before they are used, unless they worked a moment ago: a ping each time is a
    quarter of a short read's round trips."""

    @event.listens_for(engine.sync_engine, "checkin")
    def remember(_: Any, record: Any) -> None:
        record.info["worked"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def look(connection: Any, record: Any, _: Any) -> None:
        if time.monotonic() - record.info.get("worked", math.inf) <= SECONDS_UNTIL_PING:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise DisconnectionError from error
