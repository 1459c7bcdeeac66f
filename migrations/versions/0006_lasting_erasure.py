"""Pictures to delete, people who were erased, chores; when a person was last seen

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. People who are there count as seen now: nobody is inactive because of an upgrade."""
    op.create_table(
        "images_to_delete",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_images_to_delete")),
    )
    op.create_index(op.f("ix_images_to_delete_asked_at"), "images_to_delete", ["asked_at"])
    op.create_table(
        "erased_users",
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("user_pk", name=op.f("pk_erased_users")),
    )
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    op.execute(
        "INSERT INTO chores (name, begun_at) VALUES "
        "('retention', '1970-01-01 00:00:00.000000'), ('orphans', '1970-01-01 00:00:00.000000')"
    )
    op.add_column("users", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
    users = sa.table("users", sa.column("seen_at", sa.DateTime(timezone=True)))
    op.execute(users.update().values(seen_at=sa.func.current_timestamp()))


def downgrade() -> None:
    """Undo. What was still to be deleted is found again by `ppd images sweep`."""
    op.drop_column("users", "seen_at")
    op.drop_table("chores")
    op.drop_table("erased_users")
    op.drop_index(op.f("ix_images_to_delete_asked_at"), table_name="images_to_delete")
    op.drop_table("images_to_delete")
