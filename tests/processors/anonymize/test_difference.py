"""Which attributes are different between two objects of one original."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from processors.anonymize.difference import difference
from tests.hilum.test_anonymizing import PIXELS
from tests.processors.anonymize.objects import an_object, part10


def made(**attributes: Any) -> bytes:
    return part10(an_object(PatientName="A^B", PatientID="P1", **{**PIXELS, **attributes}))


def item(**attributes: Any) -> Sequence:
    inner = Dataset()
    for keyword, value in attributes.items():
        setattr(inner, keyword, value)
    return Sequence([inner])


def test_the_same_object_is_not_different() -> None:
    found = difference(made(), made())

    assert (found.stays, found.goes, found.differs) == ((), (), ())


def test_what_comes_goes_and_differs_is_told_by_keyword() -> None:
    found = difference(made(PatientAge="040Y", PatientComments="x"), made(PatientAge="041Y", PatientWeight=70))

    assert (found.stays, found.goes, found.differs) == (("PatientWeight",), ("PatientComments",), ("PatientAge",))


def test_nested_attributes_are_told_by_their_path() -> None:
    found = difference(made(RequestAttributesSequence=item(RequestedProcedureID="R1")), made(RequestAttributesSequence=item()))

    assert found.goes == ("RequestAttributesSequence/RequestedProcedureID",)


def test_pixels_are_compared() -> None:
    assert difference(made(), made(PixelData=b"\1\3")).differs == ("PixelData",)


def test_the_name_of_the_policys_version_is_no_difference() -> None:
    assert difference(made(DeidentificationMethod="version 1"), made(DeidentificationMethod="version 2")).differs == ()


def test_a_large_object_is_read_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_bytes(made(PatientComments="x"))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert difference(mapped, made()).goes == ("PatientComments",)


def test_what_cannot_be_read_is_said_without_its_text() -> None:
    with pytest.raises(ValueError, match="cannot be read") as error:
        difference(b"Vandermeulen" * 20, made())

    assert "Vandermeulen" not in str(error.value)
