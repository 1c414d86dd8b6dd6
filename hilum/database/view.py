"""What a view for SQL users is: its name, its columns, and what each says."""

from __future__ import annotations

from msgspec import Struct


class View(Struct, frozen=True, kw_only=True):
    """One view. `columns` maps each name to its expression in SQL and to what it says, one line a column."""

    name: str
    says: str
    columns: str
    source: str

    def described(self) -> list[tuple[str, str, str]]:
        """Each column as (name, expression, what it says)."""
        parts = [[part.strip() for part in line.split("|")] for line in self.columns.strip().splitlines()]
        return [(name, expression or name, says) for name, expression, says in parts]
