"""Webhooks: endpoints, what waits for them, deliveries; and events that are handed to whoever wants them."""

import sqlalchemy as sa
from alembic import op

from app.database import JsonType, TextType, UtcDateTime

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From the fourth schema. What happened before counts as told: there was nobody to tell."""
    op.drop_column("events", "batch_no")
    op.add_column("events", sa.Column("size", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("events", sa.Column("dispatched_at", UtcDateTime(), nullable=True))
    op.execute("UPDATE events SET dispatched_at = created_at")
    op.create_index(
        "ix_events_undispatched",
        "events",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("dispatched_at IS NULL"),
        postgresql_where=sa.text("dispatched_at IS NULL"),
    )
    op.create_table(
        "event_listeners",
        sa.Column("event_type", TextType, nullable=False),
        sa.Column("listener_id", TextType, nullable=False),
        sa.PrimaryKeyConstraint("event_type", "listener_id"),
        sqlite_with_rowid=False,
    )
    _create_endpoints()
    op.create_table(
        "webhook_queue",
        sa.Column("endpoint_id", TextType, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", TextType, nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("gives_up_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_webhook_queue_event", "webhook_queue", ["event_id"], unique=False)
    _create_deliveries()


def _create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("endpoint_id", TextType, nullable=False),
        sa.Column("url", TextType, nullable=False),
        sa.Column("event_types", JsonType, nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", TextType, nullable=True),
        sa.Column("secret", TextType, nullable=False),
        sa.Column("previous_secret", TextType, nullable=True),
        sa.Column("previous_secret_until", UtcDateTime(), nullable=True),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", UtcDateTime(), nullable=True),
        sa.Column("rests_until", UtcDateTime(), nullable=True),
        sa.Column("leased_by", TextType, nullable=True),
        sa.Column("leased_until", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("endpoint_id"),
    )


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", TextType, nullable=False),
        sa.Column("endpoint_id", TextType, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event_type", TextType, nullable=False),
        sa.Column("holds", JsonType, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", TextType, nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("delivered_at", UtcDateTime(), nullable=True),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=True),
        sa.Column("gives_up_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    for name, columns in (
        ("seq", ["endpoint_id", "seq"]),
        ("status", ["endpoint_id", "status", "seq"]),
        ("type", ["endpoint_id", "event_type", "seq"]),
    ):
        op.create_index(f"ix_webhook_deliveries_{name}", "webhook_deliveries", columns, unique=False)
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at", "seq"],
        unique=False,
        sqlite_where=sa.text("status = 0"),
        postgresql_where=sa.text("status = 0"),
    )


def downgrade() -> None:
    """Back to the fourth schema: endpoints and what waited for them are gone, and so are the events that only
    they were written for."""
    op.drop_table("webhook_deliveries")
    op.drop_table("webhook_queue")
    op.drop_table("webhook_endpoints")
    op.drop_table("event_listeners")
    op.execute("DELETE FROM events WHERE type NOT LIKE 'campaign.%'")
    op.drop_index("ix_events_undispatched", table_name="events")
    op.drop_column("events", "dispatched_at")
    op.drop_column("events", "size")
    op.add_column("events", sa.Column("batch_no", sa.Integer(), nullable=True))
