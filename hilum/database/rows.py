"""Write many rows in one statement. A row is a Struct: its fields are the columns, their types those of the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
import psycopg
from msgspec import Raw, Struct
from psycopg import sql

R = TypeVar("R", bound=Struct)


class Insert(Generic[R]):
    """`INSERT INTO table … SELECT … FROM` the rows, which are called `new`, followed by `then`: a WHERE, an ON CONFLICT, or both.

    Of the rows of one call no two may have the same primary key. A NUL in a text is left out: PostgreSQL has none.
    """

    def __init__(self, table: str, row: type[R], then: str) -> None:
        kinds = get_type_hints(row)
        columns = row.__struct_fields__
        travels = [_TRAVELS[_not_none(kinds[column])] for column in columns]
        self._convert = [travel.convert for travel in travels]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        values = [sql.SQL(travel.expression).format(sql.Identifier("new", column)) for column, travel in zip(columns, travels, strict=True)]
        arrays = [sql.SQL("%b::" + travel.array) for travel in travels]
        self._statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM unnest({}) AS new ({}) {}").format(
            sql.Identifier(table), names, sql.SQL(", ").join(values), sql.SQL(", ").join(arrays), names, sql.SQL(then)
        )

    def __call__(self, connection: psycopg.Connection, rows: Sequence[R]) -> int:
        """Write `rows`; how many were inserted or changed."""
        if not rows:
            return 0
        columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
        arrays = [
            [None if value is None else convert(value) for value in column] if convert else list(column)
            for column, convert in zip(columns, self._convert, strict=True)
        ]
        return connection.execute(self._statement, arrays).rowcount


class _Travel(NamedTuple):
    """How the values of a column travel: as an array of this type, and through this expression into the column."""

    array: str
    expression: str = "{}"
    convert: Callable[[Any], object] | None = None


def _text(value: str) -> str:
    return value.replace("\0", "") if "\0" in value else value


def _names(values: tuple[str, ...]) -> str:
    """One text, because arrays in an array would have to be of one length."""
    return _text("\x1f".join(values))


def _json(raw: Raw) -> str:
    text = bytes(raw).decode()
    return msgspec.json.encode(_without_nul(msgspec.json.decode(text))).decode() if "\\u0000" in text else text


def _without_nul(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(each) for key, each in value.items()}
    return value


_TRAVELS: dict[object, _Travel] = {
    str: _Travel("text[]", convert=_text),
    int: _Travel("int8[]"),
    bool: _Travel("bool[]"),
    bytes: _Travel("bytea[]"),
    datetime: _Travel("timestamptz[]"),
    Raw: _Travel("text[]", "{}::jsonb", _json),
    tuple[str, ...]: _Travel("text[]", r"string_to_array({}, E'\x1f')", _names),
}


def _not_none(kind: object) -> object:
    """`str` of `str | None`."""
    return next(each for each in get_args(kind) if each is not NoneType) if NoneType in get_args(kind) else kind
