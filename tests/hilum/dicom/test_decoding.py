"""The process that decodes: whatever becomes of it, this one goes on."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, RLELossless

from hilum.dicom import decoding
from hilum.dicom.decoding import Decoder, DecoderLost, decoded, frame_compressed
from hilum.dicom.lossless import LOSSLESS, Samples
from hilum.dicom.recode import CannotRecode

RLE = Path(str(get_testdata_file("SC_rgb_rle_2frame.dcm")))


def a_program(text: str, frame_s: float = 30.0) -> Decoder:
    return Decoder([sys.executable, "-c", text], frame_s)


def decode_all(decoder: Decoder, whole: bytes) -> list[bytes]:
    assert not decoder.decode(whole, RLELossless).error
    return list(decoder.frames())


def test_a_process_serves_one_object_after_the_other() -> None:
    whole = RLE.read_bytes()
    frames = [b"".join(decoded(whole, RLELossless).frames) for _ in range(3)]

    assert len(set(frames)) == 1
    assert len(frames[0]) == 2 * 100 * 100 * 3


def test_frames_that_nobody_reads_to_their_end_hold_up_nobody() -> None:
    whole = RLE.read_bytes()
    begun = decoded(whole, RLELossless).frames
    next(begun)
    begun.close()  # type: ignore[attr-defined]  # a generator

    assert len(list(decoded(whole, RLELossless).frames)) == 2


def test_a_process_that_was_killed_meanwhile_is_replaced() -> None:
    whole = RLE.read_bytes()
    list(decoded(whole, RLELossless).frames)
    [idle] = decoding._idle
    idle._process.kill()
    idle._process.wait()

    assert len(list(decoded(whole, RLELossless).frames)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import sys; sys.stdin.buffer.read(1000); raise SystemExit(1)",
        "import sys; sys.stdin.buffer.readline(); print('{\"changes\": {}}', flush=True)",
    ],
    ids=["crashes at once", "ends amid the object", "ends before the first frame"],
)
def test_a_codec_that_crashes_costs_the_object_only(text: str) -> None:
    decoder = a_program(text)

    with pytest.raises(CannotRecode, match=r"cannot be decoded \(the decoder ended\)"):
        decode_all(decoder, RLE.read_bytes() * 10)
    assert not decoder.lives


FRAME, SAMPLES = bytes(range(200)) * 8, Samples(40, 40, 1, 8, 8, False, "MONOCHROME2")


@pytest.mark.parametrize("syntax", sorted(set(LOSSLESS.values())))
def test_frames_are_compressed_by_a_process_that_is_kept_and_replaced(syntax: str) -> None:
    made = frame_compressed(FRAME, syntax, SAMPLES)
    [idle] = decoding._idle_encoders
    assert frame_compressed(FRAME, syntax, SAMPLES) == made
    assert decoding._idle_encoders == [idle]
    idle._process.kill()
    idle._process.wait()

    assert frame_compressed(FRAME, syntax, SAMPLES) == made


def test_an_encoder_that_crashes_costs_the_frame_only() -> None:
    encoder = a_program("import os, signal, sys; sys.stdin.buffer.readline(); os.kill(os.getpid(), signal.SIGSEGV)")

    with pytest.raises(DecoderLost, match=r"cannot be compressed \(the decoder ended\)"):
        encoder.compress_frame(FRAME * 1000, LOSSLESS[RLELossless], SAMPLES)
    assert not encoder.lives


def test_a_frame_that_no_encoder_takes_is_refused_in_words() -> None:
    with pytest.raises(CannotRecode, match="cannot be compressed again without loss"):
        frame_compressed(FRAME[:-1], LOSSLESS[RLELossless], SAMPLES)


def test_a_codec_that_hangs_is_ended() -> None:
    decoder = a_program("import sys, time; sys.stdin.buffer.readline(); sys.stdin.buffer.read(10**6) or 0; time.sleep(60)", frame_s=0.2)

    with pytest.raises(CannotRecode, match=r"did not answer within 0\.2 s"):
        decoder.decode(RLE.read_bytes(), RLELossless)
    assert not decoder.lives


@pytest.mark.parametrize("answer", ["no answer", '{"changes": 1}'])
def test_a_process_whose_answer_cannot_be_read_is_ended(answer: str) -> None:
    decoder = a_program(f"import sys; sys.stdin.buffer.readline(); print({answer!r}, flush=True); sys.stdin.buffer.read()")

    with pytest.raises(DecoderLost, match="answered what is no answer"):
        decoder.decode(b"an object", RLELossless)
    assert not decoder.lives


def test_nobody_waits_for_an_encoder_that_another_has_taken() -> None:
    frame_compressed(FRAME, LOSSLESS[RLELossless], SAMPLES)
    taken = decoding._taken(decoding._idle_encoders)
    try:
        assert frame_compressed(FRAME, LOSSLESS[RLELossless], SAMPLES)
    finally:
        decoding._give_back(taken, decoding._idle_encoders)
    assert len(decoding._idle_encoders) == 1
    assert not taken.lives


def test_what_is_no_object_is_refused_in_words() -> None:
    with pytest.raises(CannotRecode, match="cannot be decoded"):
        decoded(b"no object", JPEG2000Lossless)


def test_a_frame_that_would_take_all_memory_is_refused() -> None:

    ds = pydicom.dcmread(RLE)
    ds.Rows = ds.Columns = 65_535
    out = BytesIO()
    ds.save_as(out)

    with pytest.raises(CannotRecode, match="larger than 1 GiB"):
        decoded(out.getvalue(), RLELossless)
