"""Names in the letters of ASCII, for devices that know no others.

How an ideograph is read depends on the language, and in names on the person: a Japanese name read as Chinese is another name. So only
scripts that say how they sound are read: kana (by Hepburn, as in Japanese passports, with long vowels as they are spelled) and all others.
"""

from __future__ import annotations

import re
import unicodedata

from anyascii import anyascii

#: Han ideographs with those for compatibility, and marks that are used as one (々, 〆, 〇).
_IDEOGRAPH = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HALF_WIDTH_KANA = re.compile("[\uff65-\uff9f]+")
#: A kana with the small one that changes its vowel, or after one that doubles its consonant.
_KANA = re.compile("(っ?)([ぁ-ゖ])([ゃゅょぁぃぅぇぉ]?)")
_KATAKANA_TO_HIRAGANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}
_SMALL = dict(zip("ゃゅょぁぃぅぇぉ", "auoaiueo", strict=True))
_PALATAL = ("sh", "ch", "j")


def has_ideographs(text: str) -> bool:
    """Whether a text has characters of which nobody can tell how they are read."""
    return _IDEOGRAPH.search(text) is not None


def romanized(name: str) -> str:
    """A component group of a name without ideographs in ASCII, each of its words with a capital; what separates components stays."""
    text = _HALF_WIDTH_KANA.sub(lambda kana: unicodedata.normalize("NFKC", kana[0]), unicodedata.normalize("NFC", name))
    text = text.translate(_KATAKANA_TO_HIRAGANA)
    latin = _KANA.sub(_read, text)
    return re.sub(r"(?<![^\W_])[a-z]", lambda first: first[0].upper(), anyascii(latin))


def _read(kana: re.Match[str]) -> str:
    doubled, base, small = kana.groups()
    sound = anyascii(base)
    if small:
        stem = sound[:-1] or "w"
        glide = "y" if small in "ゃゅょ" and stem not in _PALATAL else ""
        sound = stem + glide + _SMALL[small]
    if doubled:
        sound = ("t" if sound.startswith("ch") else sound[0]) + sound
    return sound
