"""Jobs have a turn, by which people take turns in the queue

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. No table is made anew: on SQLite that would cascade to the rows that point to it."""
    op.add_column("jobs", sa.Column("turn", sa.Integer(), server_default="0", nullable=False))
    op.drop_index(op.f("ix_jobs_status_priority_created_at"), table_name="jobs")
    op.create_index(
        op.f("ix_jobs_status_turn_priority_created_at"),
        "jobs",
        ["status", "turn", "priority", "created_at"],
    )
    op.drop_index(op.f("ix_jobs_user_pk"), table_name="jobs")
    op.create_index(op.f("ix_jobs_user_pk_status"), "jobs", ["user_pk", "status"])


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_jobs_user_pk_status"), table_name="jobs")
    op.create_index(op.f("ix_jobs_user_pk"), "jobs", ["user_pk"])
    op.drop_index(op.f("ix_jobs_status_turn_priority_created_at"), table_name="jobs")
    op.create_index(
        op.f("ix_jobs_status_priority_created_at"), "jobs", ["status", "priority", "created_at"]
    )
    op.drop_column("jobs", "turn")
