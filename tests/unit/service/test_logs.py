"""What may stand in a log line, and what is kept out of it."""

import io
import json
import logging
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from service.infra import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a logger of ours writes, as JSON lines."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonLines(["hunter2-of-redis"]))
    logger = logging.getLogger("ppd.test")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


log = logging.getLogger("ppd.test")


def test_lines_of_a_job_carry_its_id_and_attempt_and_later_ones_do_not(lines: io.StringIO) -> None:
    with logs.about(job_id="j1", attempt=2):
        log.warning("in it")
    log.warning("after it")
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["job_id"], first["attempt"], first["message"]) == ("j1", 2, "in it")
    assert "job_id" not in second


@pytest.mark.parametrize(
    "said",
    [
        "connecting to redis://:hunter2-of-redis@cache:6379/0",
        "postgresql://ppd:another@db/ppd does not answer",
        "Authorization: Bearer another",
        "key ppd_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789_another",
        "host=db password=another user=ppd",
    ],
)
def test_keys_and_passwords_are_in_no_line(lines: io.StringIO, said: str) -> None:
    log.error("%s", said)
    assert "another" not in lines.getvalue()
    assert "hunter2" not in lines.getvalue()


def test_within_a_job_an_exception_says_where_but_not_what(lines: io.StringIO) -> None:
    prompt = " ".join(["a", "fox", "for", "ada"])  # source lines may be shown, values not

    def fail() -> None:
        try:
            raise KeyError(prompt)
        except KeyError as error:
            raise ValueError(f"the prompt {prompt!r}") from error

    with logs.about(job_id="j1", attempt=1):
        try:
            fail()
        except ValueError:
            log.exception("the job failed")
    line = json.loads(lines.getvalue())
    assert prompt not in lines.getvalue()
    assert line["exception"].index("KeyError: (message") < line["exception"].index("ValueError: (m")
    assert "in fail" in line["exception"]


def test_what_is_about_the_machine_is_said_within_a_job_too(lines: io.StringIO) -> None:
    class OutOfMemoryError(RuntimeError):  # torch's own, by its name
        pass

    with logs.about(job_id="j1", attempt=1):
        for error in (OutOfMemoryError("tried 2 GiB"), OSError(28, "No space left on device")):
            log.error("failed", exc_info=error)
    assert "tried 2 GiB" in lines.getvalue()
    assert "No space left on device" in lines.getvalue()


def test_outside_of_requests_and_jobs_the_reason_is_said(lines: io.StringIO) -> None:
    log.error("the worker did not start", exc_info=ValueError("no weights at /weights"))
    assert "no weights at /weights" in lines.getvalue()


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("INSERT INTO people VALUES ('ada-lovelace', 1)", "SQLSTATE 23505: duplicate key"),
        ("INSERT INTO people VALUES ('ada-lovelace-2', NULL)", "SQLSTATE 23502: null value"),
        ("SELECT 'ada-lovelace'::int", "SQLSTATE 22P02"),
    ],
)
def test_an_error_of_postgresql_is_named_without_the_rows_that_it_quotes(
    postgres_url: str, lines: io.StringIO, statement: str, kept: str
) -> None:
    engine = create_engine(postgres_url.replace("://", "+psycopg://"), hide_parameters=True)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE people (id text PRIMARY KEY, n int NOT NULL)"))
            connection.execute(text("INSERT INTO people VALUES ('ada-lovelace', 0)"))
        with engine.connect() as connection:
            connection.execute(text(statement))
        raise AssertionError("it was to fail")
    except DBAPIError as error:
        caught = error
        log.error("the database does not answer", exc_info=error)
    finally:
        engine.dispose()
    assert isinstance(caught.orig, psycopg.Error)
    assert "ada-lovelace" in str(caught)
    assert kept in lines.getvalue()
    assert "ada-lovelace" not in lines.getvalue()


def test_a_lost_task_is_named_without_its_exception(lines: io.StringIO) -> None:
    record = logging.LogRecord(
        "asyncio", logging.ERROR, "", 0, "never retrieved\nfuture: ValueError('a fox')", (), None
    )
    assert "a fox" not in logs.TextLines([]).format(record)
