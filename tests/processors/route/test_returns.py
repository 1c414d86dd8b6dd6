from __future__ import annotations

from typing import Any

import pytest

from hilum.events import Source
from processors.route.returns import Origins

DESTINATIONS: dict[str, dict[str, Any]] = {
    "a": {"type": "dicom", "aet": "ARCHIVE_A"},
    "b": {"type": "dicom", "aet": "ARCHIVE_B"},
    "archive": {"type": "group", "members": ["a", "b", "gone"]},
    "other": {"type": "folder"},
}


@pytest.mark.parametrize(("title", "names"), [("ARCHIVE_A", ("a", "archive")), ("ARCHIVE_B", ("b", "archive")), ("CT1", ())])
def test_who_is_a_member_of_a_group_is_the_group_too(title: str, names: tuple[str, ...]) -> None:
    assert Origins(DESTINATIONS).of_source(Source(adapter="dicom", calling_aet=title)) == names
