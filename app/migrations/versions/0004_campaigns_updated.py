"""An index of campaigns by their last change: for sorting, and for whoever follows changes."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From the third schema."""
    op.create_index("ix_campaigns_updated", "campaigns", ["updated_at", "campaign_no"], unique=False)


def downgrade() -> None:
    """Back to the third schema."""
    op.drop_index("ix_campaigns_updated", table_name="campaigns")
