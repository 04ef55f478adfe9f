"""Names of channels: cids, and the derived ids of distinct channels. Pure."""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

DISTINCT_PREFIX = "!members-"
MEMBERS_WITH_KEY = 1_002  # sender, receiver and the 1,000 members of a template
MAX_CHANNEL_ID = 255
MAX_TYPE = 64
HEAD = 32  # characters of an id that a key shows
_TYPE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def members_key(user_ids: Iterable[str]) -> str:
    """The name of a set of members: the beginnings of its first two ids, and the SHA-256 of all of them,
    sorted, each behind its length.

    The hash makes it unique; the beginnings keep the channels of one sender together, so that a campaign
    walks the indexes in order. With the hash alone SQLite sent a quarter as much.
    """
    ids = sorted(user_ids)
    digest = sha256("".join([f"{len(user_id)}:{user_id}" for user_id in ids]).encode()).hexdigest()
    return f"{'~'.join([user_id[:HEAD] for user_id in ids[:2]])}~{digest}"


def pair_key(one: str, other: str) -> str:
    """`members_key` of two different ids, in half the time: campaigns need one for every recipient."""
    if other < one:
        one, other = other, one
    digest = sha256(f"{len(one)}:{one}{len(other)}:{other}".encode()).hexdigest()
    return f"{one[:HEAD]}~{other[:HEAD]}~{digest}"


def pair_keys(one: str, others: Iterable[str]) -> list[str]:
    """`pair_key` of one id with each of many others."""
    head, own = one[:HEAD], f"{len(one)}:{one}"
    keys = []
    for other in others:
        if one < other:
            digest = sha256(f"{own}{len(other)}:{other}".encode()).hexdigest()
            keys.append(f"{head}~{other[:HEAD]}~{digest}")
        else:
            digest = sha256(f"{len(other)}:{other}{own}".encode()).hexdigest()
            keys.append(f"{other[:HEAD]}~{head}~{digest}")
    return keys


def distinct_id(user_ids: Iterable[str]) -> str:
    """The channel id of the one channel of its type for these members."""
    return DISTINCT_PREFIX + members_key(user_ids)


def cid_of(channel_type: str, channel_id: str) -> str:
    """`type:channelId`, the key of a channel."""
    return f"{channel_type}:{channel_id}"


def split_cid(cid: str) -> tuple[str, str] | None:
    """Type and channel id of a cid; None if it is none. The id may have colons, the type cannot."""
    channel_type, colon, channel_id = cid.partition(":")
    if not colon or channel_type_problem(channel_type) or channel_id_problem(channel_id):
        return None
    return channel_type, channel_id


def channel_type_problem(channel_type: str) -> str | None:
    """Why this cannot be a channel's type; None if it can."""
    if _TYPE.fullmatch(channel_type):
        return None
    return "a channel type has 1 to 64 letters, digits, _ or -"


def channel_id_problem(channel_id: str) -> str | None:
    """Why this cannot be a channel's id; None if it can."""
    if not channel_id:
        return "the channel id is empty"
    if len(channel_id) > MAX_CHANNEL_ID:
        return f"the channel id has {len(channel_id)} characters, {MAX_CHANNEL_ID} are allowed"
    if not channel_id.isprintable() or " " in channel_id:
        return "the channel id has white space or characters that cannot be printed"
    return None


def any_channel_id_problem(channel_ids: Sequence[str]) -> bool:
    """Whether `channel_id_problem` has something to say about one of these; all are looked at at once."""
    together = "".join(channel_ids)
    lengths = set(map(len, channel_ids))
    return (
        0 in lengths
        or max(lengths, default=0) > MAX_CHANNEL_ID
        or not together.isprintable()
        or " " in together
    )
