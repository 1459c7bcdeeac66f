"""Rows that a statement is given as one value, so that its text is the same however many they are.

A statement with as many parameters as rows is another one for each number of rows: the driver reads
its text anew each time.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from sqlalchemy import String, TableValuedAlias, bindparam, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


class _JsonRows(FunctionElement[Any]):
    fields: ClassVar[Mapping[str, TypeEngine[Any]]]
    inherit_cache = True


def json_rows(name: str, **fields: TypeEngine[Any]) -> TableValuedAlias:
    """Rows to be selected from; the statement takes `as_text` of them under this name."""
    kind: type[_JsonRows] = type(
        f"JsonRows_{name}", (_JsonRows,), {"fields": fields, "inherit_cache": True}
    )
    columns = (column(field, type_) for field, type_ in fields.items())
    return kind(bindparam(name, type_=String)).table_valued(*columns, name=name)


def as_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows in the form in which a statement takes them."""
    return as_json(list(rows))


def as_json(value: Any) -> str:
    """As short as its text: an emoji takes four bytes, escaped it would take twelve."""
    return json.dumps(value, ensure_ascii=False)


@compiles(_JsonRows, "postgresql")
def _on_postgresql(element: _JsonRows, compiler: SQLCompiler, **how: Any) -> str:
    given = compiler.process(element.clauses, **how)
    types = compiler.dialect.type_compiler_instance
    fields = ", ".join(f"{name} {types.process(kind)}" for name, kind in element.fields.items())
    return f"(SELECT * FROM json_to_recordset(CAST({given} AS JSON)) AS given ({fields}))"  # noqa: S608 - names of ours


@compiles(_JsonRows, "sqlite")
def _on_sqlite(element: _JsonRows, compiler: SQLCompiler, **how: Any) -> str:
    given = compiler.process(element.clauses, **how)
    fields = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in element.fields)
    return f"(SELECT {fields} FROM json_each({given}))"  # noqa: S608 - names of ours
