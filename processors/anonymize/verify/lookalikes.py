"""Words with letters of Cyrillic or Greek that look like Latin ones, or the other way round: a keyboard in the wrong layout writes them."""

from __future__ import annotations

import re
import unicodedata

#: Pairs of UTS #39 (confusables.txt, as confusable-homoglyphs 3.3.1 has it) in letters that alphabets of today have; capitals and small
#: letters by themselves, since they look like different ones (`Η`, `η`). By hand: kappa and Cyrillic ka, which it has as the Latin kra.
_GREEK = ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹαικνορυϲ", "ABEZHIKMNOPTYXCaikvopuc")
_CYRILLIC = ("АВЕЅІЈКМНОРСТУХҮӀԌԚԜаеѕіјкорсухүһӏԁԛԝ", "ABESIJKMHOPCTYXYIGQWaesijkopcyxyhldqw")
_LATIN_OF = {ord(one): other for script in (_GREEK, _CYRILLIC) for one, other in zip(*script, strict=True)}
#: Of several that look alike, the first: `У` for `Y`, not `Ү`.
_GREEK_OF, _CYRILLIC_OF = ({ord(b): a for a, b in reversed([*zip(*script, strict=True)])} for script in (_GREEK, _CYRILLIC))
_FOREIGN = re.compile("[\u0370-\u052f]")
_WORD = re.compile(r"[^\W_]*[\u0370-\u052f][^\W_]*")


def of_one_script(text: str) -> str:
    """`text` with each word in one script, if it can be: in Latin letters if all others look like some, otherwise in the other script."""
    if text.isascii() or _FOREIGN.search(text) is None:
        return text
    apart = unicodedata.normalize("NFKD", text)
    return _WORD.sub(_of_one_script, "".join([each for each in apart if not unicodedata.combining(each)]))


def _of_one_script(found: re.Match[str]) -> str:
    word = found[0]
    others = set(_FOREIGN.findall(word))
    if all(ord(each) in _LATIN_OF for each in others):
        return word.translate(_LATIN_OF)
    return word.translate(_CYRILLIC_OF if any(each >= "\u0400" and ord(each) not in _LATIN_OF for each in others) else _GREEK_OF)
