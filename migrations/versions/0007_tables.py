"""All tables; Procrastinate's own, on PostgreSQL

Procrastinate's schema is that of the installed version, which pyproject.toml pins; a comment on its
table says which. docs/service.md says how a newer version is taken up. The first revision is 0007:
six before it led there and were never released.

Revision ID: 0007
Revises:
"""

from importlib.metadata import version

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = None
branch_labels = None
depends_on = None

_REMOVE = """
DO $$
DECLARE
    item record;
BEGIN
    DROP TABLE IF EXISTS procrastinate_events, procrastinate_periodic_defers,
        procrastinate_jobs, procrastinate_workers CASCADE;
    FOR item IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE starts_with(proname, 'procrastinate_')
            AND pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE 'DROP FUNCTION ' || item.name || ' CASCADE';
    END LOOP;
    DROP TYPE IF EXISTS procrastinate_job_to_defer_v1, procrastinate_job_event_type,
        procrastinate_job_status CASCADE;
END
$$
"""


def upgrade() -> None:
    """Apply."""
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
        "api_keys",
        sa.Column("pk", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_api_keys_key_sha256")),
    )
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    op.create_table(
        "erased_users",
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("user_pk", name=op.f("pk_erased_users")),
    )
    op.create_table(
        "images_to_delete",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_images_to_delete")),
    )
    op.create_index(op.f("ix_images_to_delete_asked_at"), "images_to_delete", ["asked_at"])

    op.create_table(
        "users",
        sa.Column("pk", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_users")),
        sa.UniqueConstraint("tenant", "user_id", name=op.f("uq_users_tenant_user_id")),
    )
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
        "adapter_activations",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=64), nullable=True),
        sa.Column("back_to", sa.Integer(), nullable=True),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["version"], ["adapters.version"], name=op.f("fk_adapter_activations_version")
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_adapter_activations")),
    )
    op.create_table(
        "profiles",
        sa.Column("pk", sa.String(length=32), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("choices", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("likes", sa.JSON(), nullable=True),
        sa.Column("dislikes", sa.JSON(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.Column("encoder_version", sa.String(length=256), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_profiles_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_profiles")),
        sa.UniqueConstraint("user_pk", "version", name=op.f("uq_profiles_user_pk_version")),
    )
    op.create_index(op.f("ix_profiles_user_pk"), "profiles", ["user_pk"])

    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=True),
        sa.Column("profile_pk", sa.String(length=32), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("adapter_version", sa.String(length=64), nullable=True),
        sa.Column("worker_id", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["profile_pk"], ["profiles.pk"], name=op.f("fk_jobs_profile_pk"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_jobs_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_profile_pk"), "jobs", ["profile_pk"])
    op.create_index(
        op.f("ix_jobs_status_turn_priority_created_at"),
        "jobs",
        ["status", "turn", "priority", "created_at"],
    )
    op.create_index(op.f("ix_jobs_user_pk_status"), "jobs", ["user_pk", "status"])

    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(length=256), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("accepted", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_idempotency_keys_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])
    op.create_index(op.f("ix_idempotency_keys_job_id"), "idempotency_keys", ["job_id"])
    op.create_index(op.f("ix_idempotency_keys_user_pk"), "idempotency_keys", ["user_pk"])

    op.create_table(
        "images",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=True),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_images_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_images_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("key", name=op.f("uq_images_key")),
    )
    op.create_index(op.f("ix_images_job_id"), "images", ["job_id"])
    op.create_index(
        op.f("ix_images_user_pk_kind_created_at"), "images", ["user_pk", "kind", "created_at"]
    )

    op.create_table(
        "job_subjects",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("profile_pk", sa.String(length=32), nullable=True),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_job_subjects_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["profile_pk"],
            ["profiles.pk"],
            name=op.f("fk_job_subjects_profile_pk"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_job_subjects_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_job_subjects")),
    )
    op.create_index(op.f("ix_job_subjects_profile_pk"), "job_subjects", ["profile_pk"])
    op.create_index(op.f("ix_job_subjects_user_pk"), "job_subjects", ["user_pk"])

    op.create_table(
        "choices",
        sa.Column("pk", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user_pk", sa.String(length=32), nullable=False),
        sa.Column("pair_id", sa.String(length=128), nullable=True),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("image_0_id", sa.String(length=32), nullable=True),
        sa.Column("image_1_id", sa.String(length=32), nullable=True),
        sa.Column("preferred", sa.Integer(), nullable=True),
        sa.Column("swapped", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_0_id"], ["images.id"], name=op.f("fk_choices_image_0_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_1_id"], ["images.id"], name=op.f("fk_choices_image_1_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_pk"], ["users.pk"], name=op.f("fk_choices_user_pk"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_choices")),
        sa.UniqueConstraint("user_pk", "pair_id", name=op.f("uq_choices_user_pk_pair_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_choices_image_0_id"), "choices", ["image_0_id"])
    op.create_index(op.f("ix_choices_image_1_id"), "choices", ["image_1_id"])
    op.create_index(op.f("ix_choices_user_pk"), "choices", ["user_pk"])
    op.execute(
        "INSERT INTO chores (name, begun_at) VALUES "
        "('retention', '1970-01-01 00:00:00.000000'), ('orphans', '1970-01-01 00:00:00.000000')"
    )
    if _on_postgresql():
        from procrastinate.schema import SchemaManager

        _run(SchemaManager.get_schema())
        _run(f"COMMENT ON TABLE procrastinate_jobs IS 'procrastinate {version('procrastinate')}'")


def downgrade() -> None:
    """Undo. Tickets go: the rows of the jobs are the truth."""
    if _on_postgresql():
        _run(_REMOVE)

    op.drop_table("choices")

    op.drop_table("job_subjects")

    op.drop_table("images")

    op.drop_table("idempotency_keys")

    op.drop_table("jobs")

    op.drop_table("profiles")
    op.drop_table("adapter_activations")
    op.drop_table("workers")
    op.drop_table("users")

    op.drop_table("images_to_delete")
    op.drop_table("erased_users")
    op.drop_table("chores")
    op.drop_table("api_keys")
    op.drop_table("adapters")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _run(script: str) -> None:
    """Run statements as they are: SQLAlchemy would read their colons and percent signs."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(script)
