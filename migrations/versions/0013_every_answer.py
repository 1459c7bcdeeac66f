"""Readings of four answers, kept; since when a person's answers count

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column("users", sa.Column("answers_since", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "readings",
        sa.Column("user_pk", sa.String(32), nullable=False),
        sa.Column("encoder_version", sa.String(256), nullable=False),
        sa.Column("reading_sha256", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("likes", sa.JSON(), nullable=False),
        sa.Column("dislikes", sa.JSON(), nullable=False),
        sa.Column("unread", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_readings_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "user_pk", "encoder_version", "reading_sha256", name=op.f("pk_readings")
        ),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("readings")
    op.drop_column("users", "answers_since")
