"""Have pixel data decoded and compressed by another process (`hilum.dicom.decoder`): codecs are C and C++, objects come from anywhere.

What makes a codec crash, hang or take all memory costs that object its delivery, in words, and nothing else. A process is
kept for the next object, and one for frames that are compressed while others are decoded; each holds 100 MB.
"""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from mmap import mmap

import msgspec
from msgspec import Struct

from hilum.dicom.decoder import BROKEN, END, LENGTH, Found, Wanted
from hilum.dicom.lossless import Samples
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import DELIMITER, PIXEL_DATA, CannotRecode, Change
from hilum.making import making

COMMAND = (sys.executable, "-m", "hilum.dicom.decoder")
#: A frame takes seconds at most.
FRAME_S = 300.0
#: Of each kind. Nobody waits for one that is taken: whoever finds none idle starts one of their own (0.4 s of a core), which ends with what
#: it is for. More would save that where several workers paint compressed objects at once, and hold 100 MB each for good elsewhere.
_MOST_IDLE = 1
_PIECE_BYTES = 2**20
_INSTANCE = 0x00080018


class Decoded(Struct, frozen=True, kw_only=True):
    """What becomes of an object whose pixel data are decoded; see `hilum.dicom.decompress.Decompressed`."""

    changes: dict[int, Change | None]
    frames: Iterator[bytes]


class Derived(Struct, frozen=True, kw_only=True):
    """What becomes of an image that is compressed with loss."""

    sop_instance_uid: str
    changes: dict[int, Change | None]
    #: The value of its pixel data: items and delimiter (PS3.5 A.4), and how many bytes that is.
    frames: list[bytes]
    size_bytes: int


class DecoderLost(CannotRecode):
    """The process ended, or did not answer in time: the object may be the reason, and may not."""


class Decoder:
    """One such process, for one object at a time. Raises `DecoderLost` wherever it ends, or does not answer in time."""

    def __init__(self, command: Sequence[str] = COMMAND, frame_s: float = FRAME_S) -> None:
        self._frame_s = frame_s
        self._task = "decoded"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._ready = select.poll()
        self._ready.register(self._out, select.POLLIN)

    @property
    def lives(self) -> bool:
        """Whether it can be used."""
        return self._process.poll() is None

    def decode(self, part10: bytes | mmap, transfer_syntax_uid: str) -> Found:
        """The answer for a Part 10 file. `frames` follow if it has no error."""
        self._want(part10, Wanted(str(transfer_syntax_uid), len(part10)))
        return self._found()

    def compress(self, part10: bytes | mmap, transfer_syntax_uid: str, lossy: Lossy) -> tuple[list[bytes], Found]:
        """The frames of a Part 10 file compressed with loss, and the answer that tells of them."""
        self._want(part10, Wanted(str(transfer_syntax_uid), len(part10), lossy))
        return list(self.frames()), self._found()

    def compress_frame(self, frame: bytes, transfer_syntax_uid: str, samples: Samples) -> tuple[list[bytes], Found]:
        """A frame compressed without loss, unless the answer has an error."""
        self._task = "compressed"
        self._want(frame, Wanted(transfer_syntax_uid, len(frame), samples=samples))
        return list(self.frames()), self._found()

    def _want(self, part10: bytes | mmap, wanted: Wanted) -> None:
        try:
            self._in.write(msgspec.json.encode(wanted) + b"\n")
            view = memoryview(part10)
            while len(view):
                view = view[self._in.write(view[:_PIECE_BYTES]) :]
        except OSError:
            raise self._broken("ended") from None

    def frames(self) -> Iterator[bytes]:
        """The decoded frames of the file, each once."""
        while (size := LENGTH.unpack(self._read(LENGTH.size))[0]) >= 0:
            yield self._read(size)
        if size == BROKEN:
            raise CannotRecode(self._found().error)
        assert size == END

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()

    def _found(self) -> Found:
        line = b""
        while not line.endswith(b"\n"):
            line += self._read(1)
        try:
            return msgspec.json.decode(line, type=Found)
        except msgspec.DecodeError:
            raise self._broken("answered what is no answer") from None

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            if not self._ready.poll(self._frame_s * 1000):
                raise self._broken(f"did not answer within {self._frame_s:g} s")
            part = self._out.read(min(size, _PIECE_BYTES))
            if not part:
                raise self._broken("ended")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _broken(self, how: str) -> DecoderLost:
        self.close()
        return DecoderLost(f"its pixel data cannot be {self._task} (the decoder {how})")


#: Those that decode, and those that compress frames while another one decodes.
_idle: list[Decoder] = []
_idle_encoders: list[Decoder] = []
_lock = threading.Lock()


def decoded(part10: bytes | mmap, transfer_syntax_uid: str) -> Decoded:
    """Have a Part 10 file decoded; its first frame is, when this returns. Raises `CannotRecode`, and so may the frames.

    Frames that are not read to their end hold a process until they are let go of.
    """
    with making():
        decoder = _taken()
        found = decoder.decode(part10, transfer_syntax_uid)
    if found.error:
        _give_back(decoder)
        raise CannotRecode(found.error)
    return Decoded(changes=found.changes, frames=_frames(decoder))


def compressed(part10: bytes | mmap, transfer_syntax_uid: str, lossy: Lossy) -> Derived | None:
    """Have a Part 10 file, an image, compressed with loss; None if it is not to be. Raises `CannotRecode`."""
    with making():
        decoder = _taken()
        frames, found = decoder.compress(part10, transfer_syntax_uid, lossy)
    _give_back(decoder)
    if found.error:
        raise CannotRecode(found.error)
    if found.unsuited:
        return None
    instance = found.changes[_INSTANCE]
    assert instance is not None
    value = [_item(b""), *(_item(frame) for frame in frames), DELIMITER]
    size_bytes = sum(map(len, value))
    changes = {**found.changes, PIXEL_DATA: Change(b"OB", from_elsewhere_bytes=size_bytes, encapsulated=True)}
    return Derived(sop_instance_uid=instance.value.rstrip(b"\0").decode(), changes=changes, frames=value, size_bytes=size_bytes)


def frame_compressed(frame: bytes, transfer_syntax_uid: str, samples: Samples) -> bytes:
    """Have a frame compressed without loss; see `hilum.dicom.lossless.compressed`. Raises `CannotRecode`."""
    with making():
        encoder = _taken(_idle_encoders)
        made, found = encoder.compress_frame(frame, transfer_syntax_uid, samples)
    _give_back(encoder, _idle_encoders)
    if found.error or not made:
        raise CannotRecode(found.error or "a frame cannot be compressed again without loss")
    return made[0]


def _item(fragment: bytes) -> bytes:
    length = len(fragment) + len(fragment) % 2
    return b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little") + fragment.ljust(length, b"\0")


def _taken(idle: list[Decoder] = _idle) -> Decoder:
    with _lock:
        decoder = idle.pop() if idle else None
    return decoder if decoder is not None and decoder.lives else Decoder()


def _frames(decoder: Decoder) -> Iterator[bytes]:
    done = False
    try:
        frames = decoder.frames()
        while True:
            with making():  # whoever reads them sends the one before meanwhile
                frame = next(frames, None)
            if frame is None:
                break
            yield frame
        done = True
    finally:
        if done:
            _give_back(decoder)
        else:
            decoder.close()


def _give_back(decoder: Decoder, idle: list[Decoder] = _idle) -> None:
    with _lock:
        if len(idle) < _MOST_IDLE:
            idle.append(decoder)
            return
    decoder.close()
