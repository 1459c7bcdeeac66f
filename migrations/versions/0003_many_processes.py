"""Scopes of keys; who runs a job and with which adapter; workers; adapters in service

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Keys that are there could do everything so far, and still can."""
    op.add_column(
        "api_keys",
        sa.Column("scope", sa.String(length=16), server_default="admin", nullable=False),
    )
    op.add_column("jobs", sa.Column("adapter_version", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("worker_id", sa.String(length=64), nullable=True))
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("not_ready", sa.Text(), nullable=True),
        sa.Column("model", sa.String(length=256), nullable=True),
        sa.Column("adapter_version", sa.String(length=64), nullable=True),
        sa.Column("encoder_version", sa.String(length=256), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "adapters",
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("base_model", sa.String(length=256), nullable=False),
        sa.Column("encoder_id", sa.String(length=256), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_adapters")),
        sa.UniqueConstraint("sha256", name=op.f("uq_adapters_sha256")),
    )
    op.create_table(
        "adapter_activations",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=64), nullable=True),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version"], ["adapters.version"], name=op.f("fk_adapter_activations_version")
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_adapter_activations")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("adapter_activations")
    op.drop_table("adapters")
    op.drop_table("workers")
    op.drop_column("jobs", "worker_id")
    op.drop_column("jobs", "adapter_version")
    op.drop_column("api_keys", "scope")
