"""A file on this machine as rules are asked about it, as if it had just come in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Raw

from hilum.dicom import Header
from hilum.dicom.dataset import read_header
from hilum.dicom.modules import KEPT_TAGS
from hilum.errors import Misconfigured
from hilum.events import Instance, InstanceAccepted, ObjectRef, Source
from hilum.scu import outgoing

from .names import Asked


def asked_about(path: Path, tags: frozenset[str], calling_aet: str, called_aet: str, peer: str) -> Asked:
    """What rules that name `tags` are asked about, for a Part 10 file. Raises a `HilumError` if it is none, or cannot be read."""
    found = outgoing(path)
    content = path.read_bytes()
    header = read_header(content, found.transfer_syntax_uid, start=found.offset, keep=KEPT_TAGS | tags)
    if header.fault and not header.truncated:
        raise Misconfigured("object-unreadable", f"{path} cannot be read as DICOM: {header.fault}.", fix="Give another file.")
    instance = Instance(
        receipt="",
        study_instance_uid=header.uid("0020000D"),
        series_instance_uid=header.uid("0020000E"),
        sop_instance_uid=header.uid("00080018"),
        sop_class_uid=header.uid("00080016"),
        transfer_syntax_uid=found.transfer_syntax_uid,
        object=ObjectRef(bucket="", key="", size_bytes=len(content), sha256=""),
        source=Source(adapter="dicom", calling_aet=calling_aet, called_aet=called_aet, peer=peer),
        received_at=datetime.now(UTC),
        header_json=Raw(msgspec.json.encode(header.json)),
    )
    return Asked(InstanceAccepted(instance=instance), Header(header.json, cut=frozenset(header.cut)))
