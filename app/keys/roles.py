"""What a key may do."""

from enum import StrEnum


class Role(StrEnum):
    """ADMIN may do everything, VIEWER every query and subscription and no mutation."""

    ADMIN = "ADMIN"
    VIEWER = "VIEWER"
