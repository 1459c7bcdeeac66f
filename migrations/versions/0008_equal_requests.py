"""Which requests for pictures are equal; whether a worker's adapter overrides

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ONE_RUNS = "uq_jobs_running_request_sha256"
_RUNS = sa.text("status = 'running'")


def upgrade() -> None:
    """Apply. Jobs that are there equal none."""
    op.add_column("jobs", sa.Column("request_sha256", sa.String(length=64), nullable=True))
    op.create_index(op.f("ix_jobs_request_sha256_status"), "jobs", ["request_sha256", "status"])
    op.add_column(
        "workers",
        sa.Column("adapter_overrides", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_index(
        _ONE_RUNS,
        "jobs",
        ["request_sha256"],
        unique=True,
        sqlite_where=_RUNS,
        postgresql_where=_RUNS,
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index(_ONE_RUNS, table_name="jobs")
    op.drop_column("workers", "adapter_overrides")
    op.drop_index(op.f("ix_jobs_request_sha256_status"), table_name="jobs")
    op.drop_column("jobs", "request_sha256")
