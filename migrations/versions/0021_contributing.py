"""Who gives their answers for training; what exports of them named, and what of that is gone

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
oldest_code = "0010"


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "users", sa.Column("contributes_since", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_table(
        "exports",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_exports")),
        sa.UniqueConstraint("mark", name=op.f("uq_exports_mark")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "exported_people",
        sa.Column("export_pk", sa.Integer(), nullable=False),
        sa.Column("person", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_pk", sa.String(32), nullable=True),
        sa.Column("gone_in", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["export_pk"],
            ["exports.pk"],
            name=op.f("fk_exported_people_export_pk"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_exported_people_user_pk"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("export_pk", "person", name=op.f("pk_exported_people")),
        sa.UniqueConstraint(
            "export_pk", "user_pk", name=op.f("uq_exported_people_export_pk_user_pk")
        ),
    )
    op.create_index(op.f("ix_exported_people_user_pk"), "exported_people", ["user_pk"])
    op.create_table(
        "exported_answers",
        sa.Column("export_pk", sa.Integer(), nullable=False),
        sa.Column("answer", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person", sa.BigInteger(), nullable=False),
        sa.Column("file", sa.Integer(), nullable=False),
        sa.Column("choice_pk", sa.Integer(), nullable=True),
        sa.Column("gone_in", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["export_pk"],
            ["exports.pk"],
            name=op.f("fk_exported_answers_export_pk"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["choice_pk"],
            ["choices.pk"],
            name=op.f("fk_exported_answers_choice_pk"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("export_pk", "answer", name=op.f("pk_exported_answers")),
        sa.UniqueConstraint(
            "export_pk", "choice_pk", name=op.f("uq_exported_answers_export_pk_choice_pk")
        ),
    )
    op.create_index(op.f("ix_exported_answers_choice_pk"), "exported_answers", ["choice_pk"])
    op.create_index(
        op.f("ix_exported_answers_export_pk_file"), "exported_answers", ["export_pk", "file"]
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("exported_answers")
    op.drop_table("exported_people")
    op.drop_table("exports")
    op.drop_column("users", "contributes_since")
