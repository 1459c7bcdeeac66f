"""The address at which a browser's person began

Revision ID: 0018
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("users", sa.Column("lane", sa.String(length=16), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("users", "lane")
