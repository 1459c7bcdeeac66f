"""Indexes for what an erasure follows: without them each deleted row reads a whole table

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEXES = (
    ("choices", "image_0_id"),
    ("choices", "image_1_id"),
    ("job_subjects", "profile_pk"),
)


def upgrade() -> None:
    """Apply."""
    for table, column in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def downgrade() -> None:
    """Undo."""
    for table, column in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{column}"), table_name=table)
