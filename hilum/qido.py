"""Ask a DICOMweb service which instances it has of a study, by QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from hilum.errors import TryAgain

#: Instances asked for at once; a service may give fewer.
PAGE = 1000
_SOP_INSTANCE_UID = "00080018"


def instances_of(
    url: str, study_instance_uid: str, *, http: urllib3.PoolManager, headers: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> frozenset[str]:
    """The SOPInstanceUIDs that the service at `url` (the one that has `/studies`) has of a study.

    `http` brings what TLS needs, `headers` who asks. Raises `TryAgain` that says what the service refuses or does not answer.
    """
    where = urlsplit(url).netloc
    found: set[str] = set()
    while True:
        query = urlencode({"includefield": _SOP_INSTANCE_UID, "limit": PAGE, "offset": len(found)})
        try:
            answer = http.request(
                "GET",
                f"{url.rstrip('/')}/studies/{study_instance_uid}/instances?{query}",
                headers={"Accept": "application/dicom+json", **(headers or {})},
                timeout=urllib3.Timeout(timeout_s),
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise TryAgain(f"{where} does not answer ({type(error).__name__}).", fix="Check that the service runs, and its URL.") from None
        if answer.status in (204, 404):
            return frozenset(found)
        if answer.status != 200:
            fix = "Check that it speaks QIDO-RS there, and that Hilum may ask."
            raise TryAgain(f"{where} answered {answer.status} to a search for instances.", fix=fix)
        page = _uids(answer.data, where)
        if page <= found:  # the end, or a service that gives everything whatever is asked
            return frozenset(found)
        found |= page


def _uids(body: bytes, where: str) -> set[str]:
    try:
        listed: Any = json.loads(body)
        return {str(each[_SOP_INSTANCE_UID]["Value"][0]) for each in listed}
    except (ValueError, TypeError, KeyError, IndexError):
        raise TryAgain(f"{where} answered a search with something that is no DICOM JSON.", fix="Check the service's URL.") from None
