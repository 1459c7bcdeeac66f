"""Rows that a statement is given as one value, so that its text is the same however many they are.

A statement with as many parameters as rows is another one for each number of rows: the driver reads
its text anew each time.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from sqlalchemy import JSON, Float, Integer, String, TableValuedAlias, bindparam, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

Fields = Mapping[str, TypeEngine[Any]]


class GivenRows(FunctionElement[Any]):
    """Rows out of a text of JSON, a list of objects with these fields."""

    fields: ClassVar[Fields]
    inherit_cache = True

    @classmethod
    def as_table(cls, name: str) -> TableValuedAlias:
        """To be selected from; the statement takes `as_text` of the rows under this name."""
        columns = (column(name, kind) for name, kind in cls.fields.items())
        return cls(bindparam(name, type_=String)).table_valued(*columns, name=name)


class GivenPeople(GivenRows):
    """People as their tenants name them."""

    fields: ClassVar[Fields] = {"tenant": String(), "user_id": String()}
    inherit_cache = True


class GivenJobs(GivenRows):
    """Jobs, as far as one differs from another."""

    fields: ClassVar[Fields] = {
        "id": String(),
        "tenant": String(),
        "user_pk": String(),
        "turn": Integer(),
        "request": JSON(),
        "request_sha256": String(),
    }
    inherit_cache = True


class GivenSubjects(GivenRows):
    """Whose tastes jobs use."""

    fields: ClassVar[Fields] = {
        "job_id": String(),
        "position": Integer(),
        "user_pk": String(),
        "profile_pk": String(),
        "weight": Float(),
    }
    inherit_cache = True


def as_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows in the form in which a statement takes them."""
    return json.dumps(list(rows))


@compiles(GivenRows, "postgresql")
def _on_postgresql(element: GivenRows, compiler: SQLCompiler, **how: Any) -> str:
    given = compiler.process(element.clauses, **how)
    types = compiler.dialect.type_compiler_instance
    fields = ", ".join(f"{name} {types.process(kind)}" for name, kind in element.fields.items())
    return f"(SELECT * FROM json_to_recordset(CAST({given} AS JSON)) AS given ({fields}))"  # noqa: S608 - names of ours


@compiles(GivenRows, "sqlite")
def _on_sqlite(element: GivenRows, compiler: SQLCompiler, **how: Any) -> str:
    given = compiler.process(element.clauses, **how)
    fields = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in element.fields)
    return f"(SELECT {fields} FROM json_each({given}))"  # noqa: S608 - names of ours
