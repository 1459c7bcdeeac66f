"""Tastes by their person

Revision ID: 0023
Revises: 0022
"""

from alembic import op

from service.infra.sql.migrate import index_while_served

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    index_while_served("ix_users_owner_pk", "users", ["owner_pk"])


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_users_owner_pk"), table_name="users")
