"""Lists of jobs; retries of clients that send no key; how fast workers are

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_INDEXES = (
    ("jobs", ("user_pk", "created_at")),
    ("jobs", ("tenant", "created_at")),
    ("idempotency_keys", ("fingerprint", "caller")),
)


def upgrade() -> None:
    """Apply. Nothing is known of how fast workers are until they say so."""
    op.add_column("idempotency_keys", sa.Column("tries", sa.Integer(), nullable=True))
    op.add_column(
        "workers", sa.Column("jobs_at_once", sa.Integer(), server_default="1", nullable=False)
    )
    op.add_column("workers", sa.Column("step_s", sa.Float(), nullable=True))
    op.add_column("workers", sa.Column("reading_s", sa.Float(), nullable=True))
    for table, columns in _INDEXES:
        op.create_index(_name(table, columns), table, list(columns))


def downgrade() -> None:
    """Undo."""
    for table, columns in reversed(_INDEXES):
        op.drop_index(_name(table, columns), table_name=table)
    op.drop_column("workers", "reading_s")
    op.drop_column("workers", "step_s")
    op.drop_column("workers", "jobs_at_once")
    op.drop_column("idempotency_keys", "tries")


def _name(table: str, columns: tuple[str, ...]) -> str:
    return op.f(f"ix_{table}_{'_'.join(columns)}")
