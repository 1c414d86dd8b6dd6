"""Whether waveforms are what their headers say (PS3.3 C.10.9), and nothing else: what lies behind the last sample may be anything."""

from __future__ import annotations

import re
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from processors.anonymize.about import WAVEFORMS, About
from processors.anonymize.held import OR_LEAVE_OUT, Held, HeldReason, shown

_DATA, _PADDING, _MINIMUM, _MAXIMUM, _CHANNELS = 0x54001010, 0x5400100A, 0x54000110, 0x54000112, 0x003A0200
_BITS = frozenset({8, 16, 24, 32, 64})
#: Channels of sound: ChannelSource of PS3.16 CID 3000 (voice, narrative, room, Doppler, heart, body), and samples as telephones have them
#: (WaveformSampleInterpretation MB and AB, PS3.3 C.10.9.1.5), in each encoding.
_SOUND = re.compile(
    rb"(?<![0-9.])10911[0-5](?![0-9.])"
    rb"|\x00\x54\x06\x10(?:CS\x02\x00|\x02\x00\x00\x00)(?:MB|AB)|\x54\x00\x10\x06CS\x00\x02(?:MB|AB)"
)


def has_sound(seen: About) -> bool:
    """Whether a channel of its waveforms says that it is sound. Its bytes are searched, so that it is found however deep it is."""
    start, stop, _ = seen.places.get(WAVEFORMS, (0, 0, b""))
    return start < stop and _SOUND.search(seen.source.data, start, stop) is not None


def check_waveforms(seen: About) -> None:
    """Raise `Held` for waveforms that have more or fewer bytes than channels, samples and bits say; one byte may pad them."""
    if WAVEFORMS not in seen.places:
        return
    source = seen.source
    try:
        found = read_dataset(BytesIO(seen.element(WAVEFORMS)), not source.explicit, not source.big_endian)
        sizes = [each for item in found[WAVEFORMS].value for each in _sizes(item)]
    except Exception:  # whatever bytes may cause; its text might hold some of them
        raise _wrong("It cannot be read as waveforms (PS3.3 C.10.9).") from None
    for size, expected in sizes:
        if size != expected + expected % 2:
            raise _wrong("It has more or fewer bytes than channels, samples and bits say.")


def _sizes(item: Dataset) -> list[tuple[int, int]]:
    """How many bytes values of samples have, and how many they should."""
    if _DATA not in item:
        return []
    bits = int(item.WaveformBitsAllocated)
    if bits not in _BITS:
        raise ValueError("no size of samples")
    of_sample = bits // 8
    data = int(item.NumberOfWaveformChannels) * int(item.NumberOfWaveformSamples) * of_sample
    channels: list[Dataset] = list(item[_CHANNELS].value) if _CHANNELS in item else []
    singles = [of[tag].value for of in (item, *channels) for tag in (_PADDING, _MINIMUM, _MAXIMUM) if tag in of]
    return [(len(item[_DATA].value), data), *((len(value), of_sample) for value in singles if value)]


def _wrong(sentence: str) -> Held:
    fix = OR_LEAVE_OUT
    return Held(HeldReason.PIXELS, sentence, fix=fix, place=shown(WAVEFORMS))
