"""Identifiers made by the server. None comes from a database sequence, so that shards need not agree."""

import secrets
import time
from datetime import datetime


def new_uuid() -> str:
    """A UUIDv7 (RFC 9562): sorts by creation, which keeps indexes appending (random ids halve the speed)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def first_uuid_of(instant: datetime) -> str:
    """What every UUIDv7 made before `instant` (to the millisecond) sorts before, and none after it."""
    digits = f"{int(instant.timestamp() * 1_000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def new_number() -> int:
    """A positive 63-bit number that sorts by creation: 43 bits of milliseconds, 20 of chance.

    Internal keys (`campaign_no`, `segment_no`) are such numbers, so that an id which a client deletes
    and creates again never meets what its first holder left behind.
    """
    return (time.time_ns() // 1_000_000 & (1 << 43) - 1) << 20 | secrets.randbits(20)


def message_ids(count: int) -> list[str]:
    """`count` UUIDv7s in ascending order that share their beginning: one draw of chance for a whole batch."""
    first = new_uuid()
    head, counter = first[:24], secrets.randbits(47)
    return [f"{head}{counter + position:012x}" for position in range(count)]
