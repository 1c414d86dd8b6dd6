"""The SQL views: what Hilum promises to SQL users. A release may add a view, or columns at the end of one; nothing else."""

from __future__ import annotations

import psycopg


def create_views(connection: psycopg.Connection) -> None:
    """Make or bring up to date every view."""
