"""How many answers a profile version could be read from

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("profiles", sa.Column("answers_used", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("profiles", "answers_used")
