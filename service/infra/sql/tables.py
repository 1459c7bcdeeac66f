"""The tables. Every change here comes with a migration; `alembic check` compares the two."""

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.core.auth import LONGEST_NAME
from service.infra.sql.clock import UtcDateTime, present


class Base(DeclarativeBase):
    """Names constraints, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # JSON, not JSONB, on PostgreSQL too: nothing is ever searched by the inside of these, and JSON
    # gives back what was written, in its order, as SQLite does.
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way to say this
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }

    def columns(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


def new_id() -> str:
    """32 hex digits that nobody guesses."""
    return secrets.token_hex(16)


def now() -> datetime:
    """The present, in UTC, by this process's clock: to be shown, never to be compared."""
    return datetime.now(UTC)


def seconds_since(then: datetime) -> float:
    return (now() - then).total_seconds()


def _refers_to(column: str, *, index: bool = True, **options: Any) -> Any:
    """Goes with the row that it refers to."""
    return mapped_column(ForeignKey(column, ondelete="CASCADE"), index=index, **options)


def _lost_with(column: str) -> Any:
    """Forgets what it refers to when that goes, and stays."""
    return mapped_column(ForeignKey(column, ondelete="SET NULL"), index=True)


class ApiKey(Base):
    """A key's SHA-256; the key itself is shown once and kept nowhere. `scope`: client, admin."""

    __tablename__ = "api_keys"

    pk: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(16), default="client")
    name: Mapped[str] = mapped_column(String(128))
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=present())
    revoked_at: Mapped[datetime | None]


class User(Base):
    """A person of one tenant, or a further taste of one, which is no person of its own.

    `pk` is ours; an erased and re-created user gets another. A taste has the person's row as its
    `owner_pk`, and as `user_id` what `service.core.auth.named` makes of both names. Answers,
    versions and readings hang on the taste; jobs, pictures and all that is counted on the person.
    """

    __tablename__ = "users"
    __table_args__ = (UniqueConstraint("tenant", "user_id"), Index(None, "tenant", "lane"))

    pk: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str] = mapped_column(String(LONGEST_NAME))
    created_at: Mapped[datetime] = mapped_column(default=present())
    seen_at: Mapped[datetime | None] = mapped_column(default=now)
    """When something was last asked in this person's name, to the day."""
    lane: Mapped[str | None] = mapped_column(String(16))
    """Of a browser's person the address that it began at, as a hash."""
    answers_since: Mapped[datetime | None]
    """Answers given before are left out of this person's profile."""
    contributes_since: Mapped[datetime | None]
    """When this person decided to give their answers for training; null: they do not."""
    owner_pk: Mapped[str | None] = _refers_to("users.pk")
    taste: Mapped[str | None] = mapped_column(String(64))

    @property
    def person_pk(self) -> str:
        """Whose taste this is, on whose account everything goes."""
        return self.owner_pk or self.pk


class Choice(Base):
    """An answer to a pair of the pool (`pair_id`), to the client's own (two image ids), or to two
    pictures that the service made (copies of them, and `made`: see `service.api.made_pairs`). Or a
    picture that is liked without another: `image_0_id` alone, and once it is read, `against` which
    of the pool's it was set (`service.core.likes`).

    `pk` grows, so it orders pairs by when they were first answered; an answer given again stays in
    its place, and `created_at` is when it was given last.
    `swapped`: the quiz shows image 1 of this pair first to this user.
    """

    __tablename__ = "choices"
    __table_args__ = (UniqueConstraint("user_pk", "pair_id"), {"sqlite_autoincrement": True})

    pk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    user_pk: Mapped[str] = _refers_to("users.pk")
    pair_id: Mapped[str | None] = mapped_column(String(128))
    caption: Mapped[str] = mapped_column(Text)
    image_0_id: Mapped[str | None] = _refers_to("images.id")
    image_1_id: Mapped[str | None] = _refers_to("images.id")
    preferred: Mapped[int | None] = mapped_column(Integer)
    swapped: Mapped[bool] = mapped_column(Boolean, default=False)
    made: Mapped[dict[str, Any] | None]
    against: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=present())


class BlindChoice(Base):
    """An answer between a picture in a person's taste and the same one in nobody's, given blind.

    `won`: whether the picture in their taste is the one preferred; null is a tie. Asked again, two
    pictures (of one row in `choices`) have another row here. `adapter_version` made the picture in
    their taste, `pinned_version` is what its job was pinned to; null is the adapter shipped.
    """

    __tablename__ = "blind_choices"
    __table_args__ = (Index(None, "user_pk", "pk"), {"sqlite_autoincrement": True})

    pk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    user_pk: Mapped[str] = _refers_to("users.pk", index=False)
    choice_pk: Mapped[int] = _refers_to("choices.pk")
    adapter_version: Mapped[str] = mapped_column(String(64))
    pinned_version: Mapped[str | None] = mapped_column(String(64))
    won: Mapped[bool | None] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(default=present())


class Profile(Base):
    """One version of a user's profile. `choices`: the answers that it is of, oldest first;
    `answers_used`: how many of them could be read, None as long as nobody has counted.

    `status`: encoding, ready, failed, superseded. `source`: generated, edited, reencoded, written
    (without choices). `embedding`: little-endian float32. `unread`: words of the text that the
    model does not know.
    """

    __tablename__ = "profiles"
    __table_args__ = (UniqueConstraint("user_pk", "version"),)

    pk: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    user_pk: Mapped[str] = _refers_to("users.pk")
    version: Mapped[int] = mapped_column(Integer)
    source: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    choices: Mapped[list[Any]]
    answers_used: Mapped[int | None] = mapped_column(Integer)
    seed: Mapped[int] = mapped_column(Integer)
    text: Mapped[str | None] = mapped_column(Text)
    likes: Mapped[list[Any] | None]
    dislikes: Mapped[list[Any] | None]
    unread: Mapped[list[Any] | None]
    confidence: Mapped[float | None] = mapped_column(Float)
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)
    encoder_version: Mapped[str | None] = mapped_column(String(256))
    error_code: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=present())
    ready_at: Mapped[datetime | None]

    @property
    def given_text(self) -> str | None:
        """The text that the encoder reads in the place of one of its own; None lets it write."""
        return self.text if self.source != "generated" else None


class Reading(Base):
    """What an encoder of this version made of one set of four answers, or of a text with it."""

    __tablename__ = "readings"

    user_pk: Mapped[str] = _refers_to("users.pk", index=False, primary_key=True)
    encoder_version: Mapped[str] = mapped_column(String(256), primary_key=True)
    reading_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    likes: Mapped[list[Any]]
    dislikes: Mapped[list[Any]]
    unread: Mapped[list[Any]]
    confidence: Mapped[float] = mapped_column(Float)
    embedding: Mapped[bytes] = mapped_column(LargeBinary)


_RUNS = text("status = 'running'")


class Job(Base):
    """Something the worker is to do. The row is the truth about it.

    `kind`: encode, generate. `priority`: of one person's, lower runs first; `turn` is of older
    code. `lane`: of a browser's job its address, as a hash. `attempt` fences: only the
    attempt that the row names may finish it. `losses`: how many attempts ended with the loss of
    their worker. `user_pk`: the user whom the job belongs to, if any.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "status", "turn", "priority", "created_at"),
        Index(None, "user_pk", "status"),
        Index(None, "user_pk", "created_at"),
        Index(None, "tenant", "created_at"),
        Index(None, "request_sha256", "status"),
        Index(
            "uq_jobs_running_request_sha256",
            "request_sha256",
            unique=True,
            sqlite_where=_RUNS,
            postgresql_where=_RUNS,
        ),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(Integer)
    turn: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    tenant: Mapped[str] = mapped_column(String(64))
    lane: Mapped[str | None] = mapped_column(String(16))
    user_pk: Mapped[str | None] = _refers_to("users.pk", index=False)
    profile_pk: Mapped[str | None] = _refers_to("profiles.pk")
    status: Mapped[str] = mapped_column(String(16), default="queued")
    seq: Mapped[int] = mapped_column(Integer, default=1)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    losses: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    request: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=present())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    adapter_version: Mapped[str | None] = mapped_column(String(64))
    """The adapter that was in service when the job came; None is the one shipped with the base."""
    worker_id: Mapped[str | None] = mapped_column(String(64))
    """Who runs it, or ran it last."""
    request_sha256: Mapped[str | None] = mapped_column(String(64))
    """The same for equal requests, of which one runs at a time. Null for one whose pictures are
    given to no other: it asked to be computed afresh, or was given an earlier one's."""


class TurnRow(Base):
    """Somebody's turn, among tenants, addresses or people (`service.core.turns`), by a hash.

    Rows of those who were not served for an hour go.
    """

    __tablename__ = "turns"

    who: Mapped[str] = mapped_column(String(32), primary_key=True)
    next: Mapped[float] = mapped_column(Float)
    serving: Mapped[float] = mapped_column(Float)
    served_at: Mapped[datetime] = mapped_column(default=present())


class JobSubject(Base):
    """A taste that a generate job uses, with the profile version pinned for it.

    `shared`: by a code, so it is another's; the job and its pictures stay when that person goes.
    """

    __tablename__ = "job_subjects"

    job_id: Mapped[str] = _refers_to("jobs.id", index=False, primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_pk: Mapped[str] = _refers_to("users.pk")
    profile_pk: Mapped[str | None] = _refers_to("profiles.pk")
    weight: Mapped[float] = mapped_column(Float)
    shared: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())


class TasteShare(Base):
    """A code under which others make pictures in this taste; a hash of it alone is kept.

    `service.infra.secrets.share_code` makes the code of the `id` again.
    """

    __tablename__ = "taste_shares"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    user_pk: Mapped[str] = _refers_to("users.pk")
    code_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=present())


class Image(Base):
    """A stored picture, made by a job or uploaded. `key` finds its bytes in the image store."""

    __tablename__ = "images"
    __table_args__ = (
        Index(None, "user_pk", "kind", "created_at"),
        Index(None, "tenant", "size_bytes"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(64))
    user_pk: Mapped[str | None] = _refers_to("users.pk", index=False)
    job_id: Mapped[str | None] = _refers_to("jobs.id")
    kind: Mapped[str] = mapped_column(String(16))
    position: Mapped[int] = mapped_column(Integer, default=0)
    key: Mapped[str] = mapped_column(String(255), unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(Integer)
    width_px: Mapped[int] = mapped_column(Integer)
    height_px: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(default=present())


class ImageToDelete(Base):
    """Bytes in the image store that are to go. Written with what makes them go, in one commit."""

    __tablename__ = "images_to_delete"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    asked_at: Mapped[datetime] = mapped_column(default=present(), index=True)


class ErasedUser(Base):
    """A person who was erased, by the number that nothing else knows any more.

    `forgotten_at`: when the cache dropped what it held. The row stays until no job that ran then
    can run any more, and the cache is asked once again.
    """

    __tablename__ = "erased_users"

    user_pk: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    erased_at: Mapped[datetime] = mapped_column(default=present())
    forgotten_at: Mapped[datetime | None]


class EndedSession(Base):
    """A browser session that ended with its person: its cookie, wherever it is, opens nothing.

    Kept as long as such a cookie would be valid, as a hash of the random name that it holds.
    """

    __tablename__ = "ended_sessions"

    user_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    ended_at: Mapped[datetime] = mapped_column(default=present(), index=True)


class Report(Base):
    """Somebody's word that a picture should not be here. It goes with the picture's job or person.

    `status`: open, dismissed, taken_down. `reported_by` as `AuditEntry.who`. The picture's row goes
    when it is taken down; the report says that it was.
    """

    __tablename__ = "reports"
    __table_args__ = (Index(None, "status", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_id)
    tenant: Mapped[str] = mapped_column(String(64))
    image_id: Mapped[str] = mapped_column(String(32), index=True)
    job_id: Mapped[str | None] = _refers_to("jobs.id")
    user_pk: Mapped[str | None] = _refers_to("users.pk")
    reason: Mapped[str] = mapped_column(Text)
    reported_by: Mapped[str] = mapped_column(String(160))
    status: Mapped[str] = mapped_column(String(16), default="open")
    created_at: Mapped[datetime] = mapped_column(default=present())
    decided_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what to which object, and when. Holds no person's name and nothing that was sent.

    `who`: key:ID, session, operator:LOGIN of the command line, or service. `object`: a kind and our
    id of it; of what was refused before it had one, the id of the request.
    """

    __tablename__ = "audit_entries"
    __table_args__ = ({"sqlite_autoincrement": True},)

    pk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=present(), index=True)
    who: Mapped[str] = mapped_column(String(160))
    what: Mapped[str] = mapped_column(String(64))
    object: Mapped[str] = mapped_column(String(160))
    tenant: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]


class Chore(Base):
    """Work that one process of all is to do now and then; `begun_at` is when one last did."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    begun_at: Mapped[datetime]


class IdempotencyKey(Base):
    """What a POST with this key led to, committed together with it.

    A POST without a key, of a client that says when it tries again, has one of our own and a
    `tries`: how often its client had tried before. Without a `job_id` it was refused.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "fingerprint", "caller"),)

    caller: Mapped[str] = mapped_column(String(256), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    user_pk: Mapped[str | None] = _refers_to("users.pk")
    job_id: Mapped[str | None] = _refers_to("jobs.id")
    accepted: Mapped[dict[str, Any]]
    tries: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(default=present(), index=True)


class WorkerRow(Base):
    """A process that runs jobs, as it last said. One not seen for long is gone.

    `kinds`: the kinds of job it takes. `not_ready`: why it can run none, or null.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kinds: Mapped[list[Any]]
    not_ready: Mapped[str | None] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(256))
    adapter_version: Mapped[str | None] = mapped_column(String(64))
    encoder_version: Mapped[str | None] = mapped_column(String(256))
    adapter_overrides: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether its adapter serves the jobs that are pinned to another one, too."""
    jobs_at_once: Mapped[int] = mapped_column(Integer, default=1, server_default="1")
    step_s: Mapped[float | None] = mapped_column(Float)
    """Measured there: the model's seconds for a step of a picture, decoding included."""
    reading_s: Mapped[float | None] = mapped_column(Float)
    """Measured there: the model's seconds for a reading of four answers."""
    image_store: Mapped[str | None] = mapped_column(String(32))
    """The mark of the image store that it sees: one of another mark keeps pictures elsewhere."""
    started_at: Mapped[datetime] = mapped_column(default=present())
    seen_at: Mapped[datetime] = mapped_column(default=present())


class SchemaFloor(Base):
    """One row: the oldest revision whose code can live with this schema (its own newest one)."""

    __tablename__ = "schema_floor"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)


class Adapter(Base):
    """An adapter that was put into service once. `key` finds its bytes in the image store."""

    __tablename__ = "adapters"

    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    key: Mapped[str] = mapped_column(String(255))
    base_model: Mapped[str] = mapped_column(String(256))
    encoder_id: Mapped[str] = mapped_column(String(256))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=present())


class AdapterActivation(Base):
    """From `activated_at` on this adapter is served, until a later row; null is the shipped one.

    `trial_version`: the adapter that a `share` of people, in (0, 1), is served in its place; null
    where all are served the one. `back_to`: the row whose state a rollback restored (0: that before
    the first); null for what was activated anew.
    """

    __tablename__ = "adapter_activations"

    pk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    version: Mapped[str | None] = mapped_column(ForeignKey("adapters.version"))
    trial_version: Mapped[str | None] = mapped_column(ForeignKey("adapters.version"))
    share: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    back_to: Mapped[int | None] = mapped_column(Integer)
    activated_at: Mapped[datetime] = mapped_column(default=present())


class Export(Base):
    """A folder that contributed answers were exported to. Its `mark` stands there too.

    `number`: how often it was completed.
    """

    __tablename__ = "exports"
    __table_args__ = ({"sqlite_autoincrement": True},)

    pk: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    mark: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    number: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(default=present())
    finished_at: Mapped[datetime | None]


class ExportedPerson(Base):
    """Under which random number an export names a person.

    Once the person is erased or has withdrawn, the row has lost them, and stays: `gone_in` is the
    number of the export that told so.
    """

    __tablename__ = "exported_people"
    __table_args__ = (UniqueConstraint("export_pk", "user_pk"),)

    export_pk: Mapped[int] = _refers_to("exports.pk", index=False, primary_key=True)
    person: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    user_pk: Mapped[str | None] = _lost_with("users.pk")
    gone_in: Mapped[int | None] = mapped_column(Integer)


class ExportedAnswer(Base):
    """Under which random number an export names an answer, in which of its files.

    Once the answer is gone, for whatever reason, the row has lost it, and stays.
    """

    __tablename__ = "exported_answers"
    __table_args__ = (UniqueConstraint("export_pk", "choice_pk"), Index(None, "export_pk", "file"))

    export_pk: Mapped[int] = _refers_to("exports.pk", index=False, primary_key=True)
    answer: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    person: Mapped[int] = mapped_column(BigInteger)
    file: Mapped[int] = mapped_column(Integer)
    choice_pk: Mapped[int | None] = _lost_with("choices.pk")
    gone_in: Mapped[int | None] = mapped_column(Integer)
