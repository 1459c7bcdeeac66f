"""Answers between pictures that the service made

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("choices", sa.Column("made", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("choices", "made")
