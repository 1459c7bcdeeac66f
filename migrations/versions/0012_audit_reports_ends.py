"""Who did what; reports of pictures; sessions that ended with their person

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

from service.infra.sql.migrate import index_while_served

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    index_while_served("ix_images_tenant_size_bytes", "images", ["tenant", "size_bytes"])
    op.create_table(
        "audit_entries",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=160), nullable=False),
        sa.Column("what", sa.String(length=64), nullable=False),
        sa.Column("object", sa.String(length=160), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_audit_entries")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_audit_entries_at"), "audit_entries", ["at"])
    op.create_table(
        "reports",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("user_pk", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reported_by", sa.String(length=160), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_reports_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_reports_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
    )
    for columns in (("status", "created_at"), ("image_id",), ("job_id",), ("user_pk",)):
        op.create_index(op.f(f"ix_reports_{'_'.join(columns)}"), "reports", list(columns))
    op.create_table(
        "ended_sessions",
        sa.Column("user_sha256", sa.String(length=64), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_sha256", name=op.f("pk_ended_sessions")),
    )
    op.create_index(op.f("ix_ended_sessions_ended_at"), "ended_sessions", ["ended_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_images_tenant_size_bytes"), table_name="images")
    op.drop_table("ended_sessions")
    op.drop_table("reports")
    op.drop_table("audit_entries")
