"""The first schema: users, channels, messages, segments, campaigns, ledger, events, usage, keys."""

import sqlalchemy as sa
from alembic import op

from app.database import JsonType, TextType, UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", TextType, nullable=False),
        sa.Column("name", TextType, nullable=False),
        sa.Column("role", TextType, nullable=False),
        sa.Column("secret_hash", TextType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("last_used_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        sa.UniqueConstraint("secret_hash"),
    )
    op.create_table(
        "batch_reasons",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("batch_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("samples", JsonType, nullable=False),
        sa.PrimaryKeyConstraint("campaign_no", "reason", "batch_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "batch_targets",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target_ids", JsonType, nullable=False),
        sa.PrimaryKeyConstraint("campaign_no", "batch_no"),
    )
    op.create_table(
        "batches",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch_no", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_target", TextType, nullable=False),
        sa.Column("last_target", TextType, nullable=False),
        sa.Column("targets", sa.Integer(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("messages_sent", sa.Integer(), nullable=False),
        sa.Column("channels_created", sa.Integer(), nullable=False),
        sa.Column("users_sent", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("campaign_no", "batch_no"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["campaign_no", "attempts", "batch_no"],
        unique=False,
        sqlite_where=sa.text("pending > 0"),
        postgresql_where=sa.text("pending > 0"),
    )
    op.create_table(
        "campaign_segments",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("definition", JsonType, nullable=True),
        sa.PrimaryKeyConstraint("campaign_no", "segment_no"),
    )
    op.create_index(
        "ix_campaign_segments_segment", "campaign_segments", ["segment_no", "campaign_no"], unique=False
    )
    op.create_table(
        "campaign_targets",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target_id", TextType, nullable=False),
        sa.PrimaryKeyConstraint("campaign_no", "target_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "campaigns",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("campaign_id", TextType, nullable=False),
        sa.Column("name", TextType, nullable=True),
        sa.Column("description", TextType, nullable=True),
        sa.Column("status", TextType, nullable=False),
        sa.Column("status_reason", TextType, nullable=True),
        sa.Column("status_message", TextType, nullable=True),
        sa.Column("status_changed_at", UtcDateTime(), nullable=False),
        sa.Column("sender_id", TextType, nullable=False),
        sa.Column("sender_mode", TextType, nullable=True),
        sa.Column("sender_visibility", TextType, nullable=True),
        sa.Column("message_template", JsonType, nullable=False),
        sa.Column("channel_template", JsonType, nullable=True),
        sa.Column("create_channels", sa.Boolean(), nullable=False),
        sa.Column("show_channels", sa.Boolean(), nullable=False),
        sa.Column("skip_push", sa.Boolean(), nullable=False),
        sa.Column("skip_webhook", sa.Boolean(), nullable=False),
        sa.Column("max_messages_per_second", sa.Integer(), nullable=True),
        sa.Column("scheduled_for", UtcDateTime(), nullable=True),
        sa.Column("stop_at", UtcDateTime(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("completed_at", UtcDateTime(), nullable=True),
        sa.Column("final_stats", JsonType, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("campaign_no"),
    )
    op.create_index(
        "ix_campaigns_active",
        "campaigns",
        ["campaign_no"],
        unique=False,
        sqlite_where=sa.text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
        postgresql_where=sa.text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
    )
    op.create_index("ix_campaigns_created", "campaigns", ["created_at", "campaign_no"], unique=False)
    op.create_index(
        "ix_campaigns_live_id",
        "campaigns",
        ["campaign_id"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "channels",
        sa.Column("cid", TextType, nullable=False),
        sa.Column("type", TextType, nullable=False),
        sa.Column("channel_id", TextType, nullable=False),
        sa.Column("name", TextType, nullable=True),
        sa.Column("team", TextType, nullable=True),
        sa.Column("custom", JsonType, nullable=False),
        sa.Column("created_by_id", TextType, nullable=True),
        sa.Column("frozen", sa.Boolean(), nullable=False),
        sa.Column("member_count", sa.Integer(), nullable=False),
        sa.Column("members_key", TextType, nullable=True),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_message_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("cid"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_channels_members_key",
        "channels",
        ["members_key", "last_message_at"],
        unique=False,
        sqlite_where=sa.text("members_key IS NOT NULL"),
        postgresql_where=sa.text("members_key IS NOT NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", TextType, nullable=False),
        sa.Column("type", TextType, nullable=False),
        sa.Column("campaign_no", sa.BigInteger(), nullable=True),
        sa.Column("batch_no", sa.Integer(), nullable=True),
        sa.Column("data", JsonType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_created", "events", ["created_at", "id"], unique=False)
    op.create_table(
        "members",
        sa.Column("cid", TextType, nullable=False),
        sa.Column("user_id", TextType, nullable=False),
        sa.Column("channel_role", TextType, nullable=False),
        sa.Column("custom", JsonType, nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.Column("read_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_read_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("cid", "user_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_members_user", "members", ["user_id", "cid"], unique=False)
    op.create_table(
        "messages",
        sa.Column("id", TextType, nullable=False),
        sa.Column("cid", TextType, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sender_id", TextType, nullable=False),
        sa.Column("type", TextType, nullable=False),
        sa.Column("text", TextType, nullable=False),
        sa.Column("attachments", JsonType, nullable=False),
        sa.Column("custom", JsonType, nullable=False),
        sa.Column("poll_id", TextType, nullable=True),
        sa.Column("campaign_no", sa.BigInteger(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_messages_campaign",
        "messages",
        ["campaign_no"],
        unique=False,
        sqlite_where=sa.text("campaign_no IS NOT NULL"),
        postgresql_where=sa.text("campaign_no IS NOT NULL"),
    )
    op.create_index("ix_messages_channel", "messages", ["cid", "seq"], unique=True)
    op.create_table(
        "plans",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("cursor", TextType, nullable=True),
        sa.Column("planned", sa.Boolean(), nullable=False),
        sa.Column("last_batch_no", sa.Integer(), nullable=False),
        sa.Column("targets", sa.BigInteger(), nullable=False),
        sa.Column("period", TextType, nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_no"),
    )
    op.create_table(
        "rates",
        sa.Column("scope", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("scope"),
    )
    op.create_table(
        "recipients",
        sa.Column("campaign_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target_id", TextType, nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=True),
        sa.Column("detail", TextType, nullable=True),
        sa.Column("batch_no", sa.Integer(), nullable=False),
        sa.Column("cid", TextType, nullable=True),
        sa.Column("message_id", TextType, nullable=True),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.Column("read_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("campaign_no", "target_id"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_recipients_unsent",
        "recipients",
        ["campaign_no", "status", "target_id"],
        unique=False,
        sqlite_where=sa.text("status >= 2"),
        postgresql_where=sa.text("status >= 2"),
    )
    op.create_table(
        "segment_targets",
        sa.Column("segment_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("target_id", TextType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("segment_no", "target_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "segments",
        sa.Column("segment_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment_id", TextType, nullable=False),
        sa.Column("type", TextType, nullable=False),
        sa.Column("kind", TextType, nullable=False),
        sa.Column("name", TextType, nullable=False),
        sa.Column("description", TextType, nullable=False),
        sa.Column("filter", JsonType, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("size_as_of", UtcDateTime(), nullable=True),
        sa.Column("size_state", TextType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("segment_no"),
    )
    op.create_index(
        "ix_segments_computing",
        "segments",
        ["segment_no"],
        unique=False,
        sqlite_where=sa.text("size_state = 'COMPUTING'"),
        postgresql_where=sa.text("size_state = 'COMPUTING'"),
    )
    op.create_index("ix_segments_created", "segments", ["created_at", "segment_no"], unique=False)
    op.create_index(
        "ix_segments_live_id",
        "segments",
        ["segment_id"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "usage",
        sa.Column("period", TextType, nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("period"),
    )
    op.create_table(
        "users",
        sa.Column("id", TextType, nullable=False),
        sa.Column("name", TextType, nullable=True),
        sa.Column("role", TextType, nullable=False),
        sa.Column("language", TextType, nullable=True),
        sa.Column("image_url", TextType, nullable=True),
        sa.Column("teams", JsonType, nullable=False),
        sa.Column("custom", JsonType, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("last_active_at", UtcDateTime(), nullable=True),
        sa.Column("deactivated_at", UtcDateTime(), nullable=True),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_users_created", "users", ["created_at", "id"], unique=False)


def downgrade() -> None:
    """Back to an empty database."""
    op.drop_index("ix_users_created", table_name="users")
    op.drop_table("users")
    op.drop_table("usage")
    op.drop_index(
        "ix_segments_live_id",
        table_name="segments",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index("ix_segments_created", table_name="segments")
    op.drop_index(
        "ix_segments_computing",
        table_name="segments",
        sqlite_where=sa.text("size_state = 'COMPUTING'"),
        postgresql_where=sa.text("size_state = 'COMPUTING'"),
    )
    op.drop_table("segments")
    op.drop_table("segment_targets")
    op.drop_index(
        "ix_recipients_unsent",
        table_name="recipients",
        sqlite_where=sa.text("status >= 2"),
        postgresql_where=sa.text("status >= 2"),
    )
    op.drop_table("recipients")
    op.drop_table("rates")
    op.drop_table("plans")
    op.drop_index("ix_messages_channel", table_name="messages")
    op.drop_index(
        "ix_messages_campaign",
        table_name="messages",
        sqlite_where=sa.text("campaign_no IS NOT NULL"),
        postgresql_where=sa.text("campaign_no IS NOT NULL"),
    )
    op.drop_table("messages")
    op.drop_index("ix_members_user", table_name="members")
    op.drop_table("members")
    op.drop_index("ix_events_created", table_name="events")
    op.drop_table("events")
    op.drop_index(
        "ix_channels_members_key",
        table_name="channels",
        sqlite_where=sa.text("members_key IS NOT NULL"),
        postgresql_where=sa.text("members_key IS NOT NULL"),
    )
    op.drop_table("channels")
    op.drop_index(
        "ix_campaigns_live_id",
        table_name="campaigns",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index("ix_campaigns_created", table_name="campaigns")
    op.drop_index(
        "ix_campaigns_active",
        table_name="campaigns",
        sqlite_where=sa.text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
        postgresql_where=sa.text("status IN ('SCHEDULED', 'IN_PROGRESS', 'PAUSED')"),
    )
    op.drop_table("campaigns")
    op.drop_table("campaign_targets")
    op.drop_index("ix_campaign_segments_segment", table_name="campaign_segments")
    op.drop_table("campaign_segments")
    op.drop_index(
        "ix_batches_open",
        table_name="batches",
        sqlite_where=sa.text("pending > 0"),
        postgresql_where=sa.text("pending > 0"),
    )
    op.drop_table("batches")
    op.drop_table("batch_targets")
    op.drop_table("batch_reasons")
    op.drop_table("api_keys")
