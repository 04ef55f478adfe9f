"""What kinds of segments there are."""

from enum import StrEnum


class SegmentType(StrEnum):
    """What a segment's targets are."""

    USER = "USER"
    CHANNEL = "CHANNEL"


class SegmentKind(StrEnum):
    """How a segment's targets are found."""

    MANUAL = "MANUAL"
    FILTER = "FILTER"
    ALL_USERS = "ALL_USERS"
    ALL_SENDER_CHANNELS = "ALL_SENDER_CHANNELS"


class SizeState(StrEnum):
    """Whether a segment's size is known: being counted, known, or never counted."""

    COMPUTING = "COMPUTING"
    READY = "READY"
    NEVER = "NEVER"
