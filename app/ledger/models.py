"""The ledger: for every target of a campaign one row with its outcome, and the batches that write it."""

from datetime import datetime
from enum import IntEnum

from sqlalchemy import BigInteger, Index, SmallInteger, text
from sqlmodel import Field, SQLModel

from app.database import JsonType, TextType, UtcDateTime


class RecipientStatus(IntEnum):
    """The outcome of a target; small integers, because the ledger has a row a target."""

    PENDING = 0
    SENT = 1
    SKIPPED = 2
    FAILED = 3


class OutcomeReason(IntEnum):
    """Why a target was skipped or failed. The numbers are stored: never reuse one."""

    SENDER = 1
    UNKNOWN_USER = 2
    UNKNOWN_CHANNEL = 3
    USER_DEACTIVATED = 4
    CHANNEL_FROZEN = 5
    NO_CHANNEL = 6
    NO_RECEIVER = 7
    CHANNEL_ID_INVALID = 8
    RENDER_ERROR = 9
    INTERNAL_ERROR = 10

    @property
    def status(self) -> RecipientStatus:
        """What became of a target with this reason: each goes with one status only."""
        failures = (self.CHANNEL_ID_INVALID, self.RENDER_ERROR, self.INTERNAL_ERROR)
        return RecipientStatus.FAILED if self in failures else RecipientStatus.SKIPPED


class Plan(SQLModel, table=True):
    """How far the audience of a campaign has been walked. Its row lock makes one planner of many.

    `last_batch_no` numbers the batches. `reserved` is what was sent, in whatever month, and what `period` of
    usage still holds for this campaign. `retry_reasons` is what a retry collects while it walks the ledger.
    """

    __tablename__ = "plans"

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    cursor: str | None = Field(default=None, sa_type=TextType)
    planned: bool = Field(default=False)
    last_batch_no: int = Field(default=0)
    targets: int = Field(default=0, sa_type=BigInteger)
    period: str = Field(sa_type=TextType)
    reserved: int = Field(default=0, sa_type=BigInteger)
    retry_reasons: list[int] | None = Field(default=None, sa_type=JsonType)


class Batch(SQLModel, table=True):
    """A range of a campaign's targets, settled in one transaction (or, throttled, in several slices).

    The sums of these rows are the campaign's stats. `pending` counts the ids it still holds; the batch
    is open until that is 0. `attempts` is raised before each try and cleared by success, so that a
    crash counts.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index(
            "ix_batches_open",
            "campaign_no",
            "attempts",
            "batch_no",
            sqlite_where=text("pending > 0"),
            postgresql_where=text("pending > 0"),
        ),
        {"sqlite_with_rowid": False},
    )

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    batch_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    first_target: str = Field(sa_type=TextType)
    last_target: str = Field(sa_type=TextType)
    targets: int
    pending: int
    sent: int = Field(default=0)
    skipped: int = Field(default=0)
    failed: int = Field(default=0)
    messages_sent: int = Field(default=0)
    channels_created: int = Field(default=0)
    users_sent: int = Field(default=0)
    attempts: int = Field(default=0, sa_type=SmallInteger)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class BatchTargets(SQLModel, table=True):
    """The ids that an open batch still holds, ascending, in one row; deleted when the batch is settled."""

    __tablename__ = "batch_targets"

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    batch_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    target_ids: list[str] = Field(sa_type=JsonType)


class BatchReason(SQLModel, table=True):
    """How many of a batch were skipped or failed for one reason, with up to three of their ids."""

    __tablename__ = "batch_reasons"
    __table_args__ = {"sqlite_with_rowid": False}

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    reason: int = Field(primary_key=True, sa_type=SmallInteger, sa_column_kwargs={"autoincrement": False})
    batch_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    count: int
    samples: list[str] = Field(sa_type=JsonType)


class BatchRead(SQLModel, table=True):
    """How many users have read the messages of a batch, each of them once a message.

    Beside the batch's row and never on it: that row's lock is a worker's lease.
    """

    __tablename__ = "batch_reads"
    __table_args__ = {"sqlite_with_rowid": False}

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    batch_no: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    users_read: int = Field(sa_type=BigInteger)


class Recipient(SQLModel, table=True):
    """A settled target within one campaign: the ledger row, inserted once, with its outcome.

    Targets that are still PENDING stand in `BatchTargets`. No foreign keys: they cost a factor of two to
    three here, and the transaction that writes the row writes its message. A message that was deleted since
    leaves its row SENT, without `message_id` and with a `detail` that says so. `read_at` is the first read by
    the receiver, or by any member of a channel that is the target.
    """

    __tablename__ = "recipients"
    __table_args__ = (
        Index(
            "ix_recipients_unsent",
            "campaign_no",
            "status",
            "target_id",
            sqlite_where=text("reason IS NOT NULL"),
            postgresql_where=text("reason IS NOT NULL"),
        ),
        Index(
            "ix_recipients_read",
            "campaign_no",
            "target_id",
            "read_at",
            sqlite_where=text("read_at IS NOT NULL"),
            postgresql_where=text("read_at IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    campaign_no: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    target_id: str = Field(primary_key=True, sa_type=TextType)
    status: int = Field(sa_type=SmallInteger)
    reason: int | None = Field(default=None, sa_type=SmallInteger)
    detail: str | None = Field(default=None, sa_type=TextType)
    batch_no: int
    cid: str | None = Field(default=None, sa_type=TextType)
    message_id: str | None = Field(default=None, sa_type=TextType)
    settled_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    read_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Rate(SQLModel, table=True):
    """When the next message of a scope may go out: a campaign's number, or 0 for the whole server. The number
    made negative: when what the campaign has had of the server's limit is no more than its share."""

    __tablename__ = "rates"

    scope: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    next_at: datetime = Field(sa_type=UtcDateTime)
