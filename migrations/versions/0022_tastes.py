"""Several tastes of a person, and codes under which one is shared

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
oldest_code = "0010"

_NAMED = "(SELECT pk FROM users WHERE user_id LIKE '%:%')"
_READ = f"(SELECT pk FROM profiles WHERE user_pk IN {_NAMED})"  # noqa: S608 - names of ours
_OF_TASTES = (
    f"jobs WHERE profile_pk IN {_READ}",
    f"job_subjects WHERE user_pk IN {_NAMED}",
    f"choices WHERE user_pk IN {_NAMED}",
    f"readings WHERE user_pk IN {_NAMED}",
    f"profiles WHERE user_pk IN {_NAMED}",
    "users WHERE user_id LIKE '%:%'",
)


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("owner_pk", sa.String(length=32), nullable=True))
        users.add_column(sa.Column("taste", sa.String(length=64), nullable=True))
        users.create_foreign_key(
            op.f("fk_users_owner_pk"), "users", ["owner_pk"], ["pk"], ondelete="CASCADE"
        )
    op.add_column(
        "job_subjects",
        sa.Column("shared", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_table(
        "taste_shares",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_taste_shares_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_taste_shares")),
        sa.UniqueConstraint("code_sha256", name=op.f("uq_taste_shares_code_sha256")),
    )
    op.create_index(op.f("ix_taste_shares_user_pk"), "taste_shares", ["user_pk"])


def downgrade() -> None:
    """Undo. Named tastes go with all that hangs on them: older code would take them for people."""
    op.drop_table("taste_shares")
    op.drop_column("job_subjects", "shared")
    for rows in _OF_TASTES:
        op.execute(f"DELETE FROM {rows}")  # noqa: S608 - names of ours
    with op.batch_alter_table("users") as users:
        users.drop_constraint(op.f("fk_users_owner_pk"), type_="foreignkey")
        users.drop_column("taste")
        users.drop_column("owner_pk")
