"""Pictures that are liked without a pair, and what each is set against

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("choices", sa.Column("against", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Undo. Older code could not read a picture without another: those answers go."""
    op.execute("DELETE FROM choices WHERE pair_id IS NULL AND image_1_id IS NULL")
    op.drop_column("choices", "against")
