"""What a de-identified object says of itself (PS3.15 E.1.1, PS3.3 C.12.1.1.1): that it is one, by which policy, options and key."""

from __future__ import annotations

from collections.abc import Set

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from processors.anonymize.about import METHOD, REMOVED, About
from processors.anonymize.options import BASIC_CODE, Option
from processors.anonymize.policy import Policy
from processors.anonymize.table import EDITION

#: Said only of pixels that were cleaned, and by whoever cleaned them.
OF_PIXELS = frozenset({Option.CLEAN_PIXEL_DATA, Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES})


def stamp(policy: Policy, key_id: str, cleaned: Set[Option]) -> Dataset:
    """The elements that are written anew into the top level, in place of any that are there.

    `cleaned` are the options about pixels that were carried out on every frame of this object.
    """
    said = Dataset()
    said.PatientIdentityRemoved = "YES"
    said.DeidentificationMethod = [EDITION, f"Hilum policy {policy.name}", f"version {policy.version}", f"key {key_id}"]
    options = sorted((option.code, option.meaning) for option in (policy.chosen - OF_PIXELS) | (OF_PIXELS & cleaned))
    codes = []
    for value, meaning in (BASIC_CODE, *options):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        codes.append(item)
    said.DeidentificationMethodCodeSequence = Sequence(codes)
    said.LongitudinalTemporalInformationModified = "REMOVED"
    if Option.RETAIN_FULL_DATES in policy.chosen:
        said.LongitudinalTemporalInformationModified = "UNMODIFIED"
    elif Option.RETAIN_MODIFIED_DATES in policy.chosen:
        said.LongitudinalTemporalInformationModified = "MODIFIED"
    if Option.CLEAN_PIXEL_DATA in cleaned:
        said.BurnedInAnnotation = "NO"
    return said


def keys_named(seen: About) -> frozenset[str]:
    """The ids of the keys by which Hilum de-identified an object, as it says of itself; none if it does not say so."""
    if seen.text(REMOVED) != "YES":
        return frozenset()
    return frozenset(each.removeprefix("KEY ").lower() for each in seen.values(METHOD) if each.startswith("KEY "))


def encoded(said: Dataset, *, explicit: bool) -> tuple[tuple[int, bytes], ...]:
    """Each element of `stamp` in little endian, by its tag."""
    found = []
    for element in said:
        one = Dataset()
        one.add(element)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, not explicit
        write_dataset(buffer, one)
        found.append((int(element.tag), buffer.getvalue()))
    return tuple(found)
