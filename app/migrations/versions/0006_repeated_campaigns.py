"""Many campaigns to the same users: channels lie in the order in which they were made, and only distinct ones
are found by their members."""

import sqlalchemy as sa
from alembic import op

from app.database import JsonType, TextType, UtcDateTime

revision = "0006"
down_revision = "0005"

# As `app.channels.models` has them: what PostgreSQL and SQLite must find in a query word for word.
_DISTINCT_ON_SQLITE = "members_key IS NOT NULL AND substr(channel_id, 1, 9) = '!members-'"
_DISTINCT_ON_POSTGRESQL = "members_key IS NOT NULL AND starts_with(channel_id, '!members-')"


def upgrade() -> None:
    """From the fifth schema. On SQLite all channels are copied: some 10 s for each million."""
    op.drop_index("ix_channels_members_key", table_name="channels")
    if op.get_bind().dialect.name == "sqlite":
        _copy_channels(with_rowid=True, order="created_at, cid")
    else:
        op.execute("ALTER TABLE channels SET (fillfactor = 50)")
    op.create_index(
        "ix_channels_distinct",
        "channels",
        ["members_key"],
        unique=False,
        sqlite_where=sa.text(_DISTINCT_ON_SQLITE),
        postgresql_where=sa.text(_DISTINCT_ON_POSTGRESQL),
    )


def downgrade() -> None:
    """Back to the fifth schema."""
    op.drop_index("ix_channels_distinct", table_name="channels")
    if op.get_bind().dialect.name == "sqlite":
        _copy_channels(with_rowid=False, order="cid")
    else:
        op.execute("ALTER TABLE channels RESET (fillfactor)")
    op.create_index(
        "ix_channels_members_key",
        "channels",
        ["members_key", "last_message_at"],
        unique=False,
        sqlite_where=sa.text("members_key IS NOT NULL"),
        postgresql_where=sa.text("members_key IS NOT NULL"),
    )


def _copy_channels(*, with_rowid: bool, order: str) -> None:
    table = op.create_table(
        "channels_copied",
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
        sa.Column("erased_seq", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("cid"),
        sqlite_with_rowid=with_rowid,
    )
    columns = ", ".join(column.name for column in table.columns)
    op.execute(f"INSERT INTO channels_copied ({columns}) SELECT {columns} FROM channels ORDER BY {order}")
    op.drop_table("channels")
    op.rename_table("channels_copied", "channels")
