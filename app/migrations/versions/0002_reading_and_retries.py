"""Reading, retries and erasing: first reads beside the batches, what a retry walks, who the audience is."""

import sqlalchemy as sa
from alembic import op

from app.database import JsonType, TextType, UtcDateTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From the first schema, or back from it: what can be told of audiences and reads from what it kept is
    filled in. Of channels only that somebody has read is known, not how many: their sums are a floor."""
    op.add_column("campaigns", sa.Column("audience", TextType, nullable=False, server_default="USER"))
    op.execute(
        "UPDATE campaigns SET audience = 'CHANNEL' WHERE campaign_no IN (SELECT cs.campaign_no"
        " FROM campaign_segments cs JOIN segments s ON s.segment_no = cs.segment_no WHERE s.type = 'CHANNEL')"
    )
    op.add_column("campaigns", sa.Column("faults", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("campaigns", sa.Column("resume_at", UtcDateTime(), nullable=True))
    op.add_column("plans", sa.Column("retry_reasons", JsonType, nullable=True))
    op.add_column("channels", sa.Column("erased_seq", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("messages", sa.Column("target_id", TextType, nullable=True))
    op.execute(
        "UPDATE messages SET target_id = r.target_id FROM recipients r"
        " WHERE r.message_id = messages.id AND r.campaign_no = messages.campaign_no"
    )
    op.drop_index("ix_recipients_unsent", table_name="recipients")
    op.create_index(
        "ix_recipients_unsent",
        "recipients",
        ["campaign_no", "status", "target_id"],
        unique=False,
        sqlite_where=sa.text("reason IS NOT NULL"),
        postgresql_where=sa.text("reason IS NOT NULL"),
    )
    op.create_index(
        "ix_recipients_read",
        "recipients",
        ["campaign_no", "target_id", "read_at"],
        unique=False,
        sqlite_where=sa.text("read_at IS NOT NULL"),
        postgresql_where=sa.text("read_at IS NOT NULL"),
    )
    op.create_table(
        "batch_reads",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("users_read", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_no", "batch_no"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO batch_reads (campaign_no, batch_no, users_read) SELECT campaign_no, batch_no, count(*)"
        " FROM recipients WHERE read_at IS NOT NULL GROUP BY campaign_no, batch_no"
    )
    op.create_table(
        "user_erasures",
        sa.Column("user_id", TextType, nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=False),
        sa.Column("messages", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )


def downgrade() -> None:
    """Back to the first schema. Who has read what is forgotten in the sums, not in the ledger.

    A retry in progress ends: recipients that it had not moved yet keep their outcome. Campaigns paused for a
    fault stay PAUSED until somebody resumes them. What deleted users had not lost yet they keep, and unread
    counts take erased messages for unread.
    """
    op.execute("UPDATE plans SET planned = true, cursor = NULL WHERE retry_reasons IS NOT NULL")
    op.drop_table("user_erasures")
    op.drop_table("batch_reads")
    op.drop_index("ix_recipients_read", table_name="recipients")
    op.drop_index("ix_recipients_unsent", table_name="recipients")
    op.create_index(
        "ix_recipients_unsent",
        "recipients",
        ["campaign_no", "status", "target_id"],
        unique=False,
        sqlite_where=sa.text("status >= 2"),
        postgresql_where=sa.text("status >= 2"),
    )
    op.drop_column("messages", "target_id")
    op.drop_column("channels", "erased_seq")
    op.drop_column("plans", "retry_reasons")
    op.drop_column("campaigns", "resume_at")
    op.drop_column("campaigns", "faults")
    op.drop_column("campaigns", "audience")
