"""A Hilum whose receiver takes reports on commitments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hilum.settings import Dicom as DicomSettings
from hilum.settings import Settings
from hilum.settings import Spool as SpoolSettings
from tests.ingest.dicom.running import Running


@pytest.fixture
def hilum(tmp_path: Path) -> Settings:
    return Settings(data=str(tmp_path), dicom=DicomSettings(port=0), spool=SpoolSettings(min_free_bytes=0, spare_bytes=0))


@pytest.fixture
def receiver(hilum: Settings) -> Iterator[Running]:
    """Hilum's own receiver on the same spool."""
    receiver = Running(hilum)
    yield receiver
    receiver.end()
