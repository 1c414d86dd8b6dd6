"""Objects broken by a seed, with names and numbers planted in them: nothing of these leaves, and what leaves is read by others.

`./dev bench deid_fuzz` tries ten thousand of them.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from bench.deid_fuzz import originals, planted_in, run, trial
from bench.deid_mutations import FAMILY, IDEOGRAPHIC, OTHER_PHONE, mutated, patient
from processors.anonymize.held import Held
from tests.processors.anonymize.objects import a_context, a_file, a_policy, out_of, read

TRIALS = 150


@pytest.mark.peer("dcmdump")
def test_nothing_planted_leaves_and_others_read_what_does(tmp_path: Path) -> None:
    outcomes, failed = run(originals(), "test", TRIALS, tmp_path)

    assert [(each.seed, each.policy, each.changes, each.wrong) for each in failed] == []
    assert outcomes["left"] > TRIALS // 5  # or it tries little
    assert len(outcomes) > 4


def test_a_seed_breaks_an_object_in_one_way() -> None:
    file, changes = mutated(originals(), "test/1")

    assert mutated(originals(), "test/1") == (file, changes)
    assert trial(originals(), "test/1") == trial(originals(), "test/1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("planted", [FAMILY, FAMILY.upper(), OTHER_PHONE, IDEOGRAPHIC])
def test_what_is_planted_is_found(planted: str, encoding: str) -> None:
    assert planted_in(b"\1\2" + planted.encode(encoding) + b"\3")
    assert planted_in(patient())


@pytest.mark.parametrize("encoding", ["shift_jis", "iso2022_jp", "gb18030", "euc_jp"])
def test_ideographic_names_are_found_in_other_character_sets(encoding: str) -> None:
    assert planted_in(b" " + IDEOGRAPHIC.encode(encoding))


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert [name for name, file in originals().items() if planted_in(file)] == []
    assert dcmread(BytesIO(patient())).PatientName.family_name == FAMILY


@pytest.mark.parametrize("value", [b"1.2.5558672309", b"1.5\\1.2.5558672309", b"5558672309.1.2"])
@pytest.mark.parametrize("trace", [False, True])
def test_what_has_two_points_is_no_decimal_number(value: bytes, trace: bool) -> None:
    original = a_file([(0x00100020, "LO", b"P1"), (0x00181130, "DS", value), (0x00280030, "DS", b"1.5\\.5 ")])

    made = read(out_of(original, a_context(a_policy()), trace=trace))

    assert "TableHeight" not in made
    assert made.PixelSpacing == [1.5, 0.5]


@pytest.mark.parametrize(("vr", "value"), [("PN", b"Quaggler^Jane "), ("DA", b"20240229"), ("DT", b"20240229")])
@pytest.mark.parametrize("trace", [False, True])
def test_what_says_that_it_is_a_name_or_a_date_is_no_technical_text(vr: str, value: bytes, trace: bool) -> None:
    original = a_file([(0x00100020, "LO", b"P1"), (0x00181210, vr, value)])  # ConvolutionKernel, SH

    with pytest.raises(Held, match=f"It says that it is {vr}; in PS3.6 it is SH"):
        out_of(original, a_context(a_policy()), trace=trace)
