"""Keys under which clients repeat a request."""

import sqlalchemy as sa
from alembic import op

from app.database import TextType, UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From 0002."""
    op.create_table(
        "idempotency_keys",
        sa.Column("name", TextType, nullable=False),
        sa.Column("request_hash", TextType, nullable=False),
        sa.Column("claim", TextType, nullable=False),
        sa.Column("leased_until", UtcDateTime(), nullable=False),
        sa.Column("outcomes", TextType, nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created_at"], unique=False)


def downgrade() -> None:
    """Back to 0002: a request that is repeated afterwards is executed again."""
    op.drop_table("idempotency_keys")
