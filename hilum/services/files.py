"""Small files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace `path` by `text`: whoever reads sees the old text or the new, also after a power cut."""
    private_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def secret(path: Path, size_bytes: int = 24) -> str:
    """The secret kept in `path` (mode 0600), made on first use: URL-safe characters."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        write_atomically(path, secrets.token_urlsafe(size_bytes))
        return path.read_text().strip()
