"""Two adapters side by side; blind choices

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("adapter_activations") as activations:
        activations.add_column(sa.Column("trial_version", sa.String(length=64), nullable=True))
        activations.add_column(sa.Column("share", sa.Float(), server_default="0", nullable=False))
        activations.create_foreign_key(
            op.f("fk_adapter_activations_trial_version"), "adapters", ["trial_version"], ["version"]
        )
    op.create_table(
        "blind_choices",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("choice_pk", sa.Integer(), nullable=False),
        sa.Column("adapter_version", sa.String(length=64), nullable=False),
        sa.Column("pinned_version", sa.String(length=64), nullable=True),
        sa.Column("won", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_blind_choices_user_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["choice_pk"],
            ["choices.pk"],
            name=op.f("fk_blind_choices_choice_pk"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_blind_choices")),
        sqlite_autoincrement=True,
    )
    for columns in (("user_pk", "pk"), ("choice_pk",)):
        op.create_index(
            op.f(f"ix_blind_choices_{'_'.join(columns)}"), "blind_choices", list(columns)
        )


def downgrade() -> None:
    """Undo. Whom a trial serves is served the first again."""
    op.drop_table("blind_choices")
    with op.batch_alter_table("adapter_activations") as activations:
        activations.drop_constraint(
            op.f("fk_adapter_activations_trial_version"), type_="foreignkey"
        )
        activations.drop_column("share")
        activations.drop_column("trial_version")
