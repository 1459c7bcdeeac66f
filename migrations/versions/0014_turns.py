"""Whose turn it is among tenants, addresses and people

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
    """Apply. Older code goes by jobs.turn, which is 0 from now on: who came first is first."""
    op.add_column("jobs", sa.Column("lane", sa.String(length=16), nullable=True))
    op.create_table(
        "turns",
        sa.Column("who", sa.String(length=32), nullable=False),
        sa.Column("next", sa.Float(), nullable=False),
        sa.Column("serving", sa.Float(), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("who", name=op.f("pk_turns")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("turns")
    op.drop_column("jobs", "lane")
