"""Which activation a rollback restored

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("adapter_activations", sa.Column("back_to", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Undo."""
    op.drop_column("adapter_activations", "back_to")
