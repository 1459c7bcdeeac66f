"""Which words of a profile the model does not know

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply. Of profiles that are there it is not known until they are read anew."""
    op.add_column("profiles", sa.Column("unread", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("profiles", "unread")
