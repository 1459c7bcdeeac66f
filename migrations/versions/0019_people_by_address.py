"""People of sessions by their address

Revision ID: 0019
Revises: 0018
"""

from alembic import op

from service.infra.sql.migrate import index_while_served

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    index_while_served("ix_users_tenant_lane", "users", ["tenant", "lane"])


def downgrade() -> None:
    """Undo."""
    op.drop_index(op.f("ix_users_tenant_lane"), table_name="users")
