"""Alembic's entry: runs the migrations on the connection that `app.migrations` hands over."""

from alembic import context
from sqlmodel import SQLModel

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
