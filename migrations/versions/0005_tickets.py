"""How often a job lost its worker; Procrastinate's own tables, on PostgreSQL

Procrastinate's schema is that of the installed version, which pyproject.toml pins; a comment on its
table says which. docs/service.md says how a newer version is taken up.

Revision ID: 0005
Revises: 0004
"""

from importlib.metadata import version

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
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
    op.add_column("jobs", sa.Column("losses", sa.Integer(), server_default="0", nullable=False))
    if _on_postgresql():
        from procrastinate.schema import SchemaManager

        _run(SchemaManager.get_schema())
        _run(f"COMMENT ON TABLE procrastinate_jobs IS 'procrastinate {version('procrastinate')}'")


def downgrade() -> None:
    """Undo. Tickets go; the rows of the jobs are the truth, and get new ones after an upgrade."""
    if _on_postgresql():
        _run(_REMOVE)
    op.drop_column("jobs", "losses")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _run(script: str) -> None:
    """Run statements as they are: SQLAlchemy would read their colons and percent signs."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    connection.execute(script)
