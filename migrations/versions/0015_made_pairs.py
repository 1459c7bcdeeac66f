"""Answers between pictures that the service made

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("choices", sa.Column("made", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("choices", "made")
