"""Which older code may live with the schema; which image store a worker sees

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
oldest_code = "0010"
"""Code of this revision and later ones runs on the schema that this one makes; the newest
migration's word is kept in `schema_floor`, for older code to read."""


def upgrade() -> None:
    """Apply."""
    op.create_table("schema_floor", sa.Column("revision", sa.String(length=32), primary_key=True))
    op.add_column("workers", sa.Column("image_store", sa.String(length=32), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("workers", "image_store")
    op.drop_table("schema_floor")
