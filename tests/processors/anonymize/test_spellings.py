"""A name is found however it is spelled, written apart or together; what is another word is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.anonymize.verify import Hit, second_look
from processors.anonymize.verify.folding import folded
from processors.anonymize.verify.hints import bared
from processors.anonymize.verify.spelling import hints_of, spellings
from tests.processors.anonymize.verifying import an_original, an_output, kinds_in, part10

#: Names, each to be found by each of them and by what is behind the bar.
SAME = [
    "MacDonaghy, Mac Donaghy, Mac-Donaghy, McDonaghy, Mc Donaghy, MCDONAGHY | mac_donaghy, Mac. Donaghy, MacDonaghys",
    "MacKnightly, McKnightly, Mc Knightly, MCKNIGHTLY, MACKNIGHTLY",
    "O'Brien, OBrien, O Brien, O\u2019Brien, O`Brien, O\u00b4Brien, O\u02bcBrien, O-Brien, OBRIEN | O' Brien",
    "D'Angelovic, DAngelovic, D Angelovic, DANGELOVIC",
    "van der Bergh, Vanderbergh, vander Bergh, van derBergh, VAN-DER-BERGH, VanDerBergh",
    "de la Cruzado, Delacruzado, DeLaCruzado, dela Cruzado",
    "El-Sayyidi, Elsayyidi, EL SAYYIDI, El Sayyidi",
    "Saint-Jamesby, Saintjamesby, Saint Jamesby",
    "Quist-Smithson, QuistSmithson, Quist Smithson | QUIST/SMITHSON, quistsmithson",
    "M\u00fcllerin, Muellerin, Mullerin, M\u00dcLLERIN, Mu\u0308llerin",
    "Gro\u00dfkopf, Grosskopf, GROSSKOPF, GRO\u1e9eKOPF",
    "S\u00f8rensen, Soerensen, Sorensen, S\u00d6RENSEN",
    "\u00c5g\u00e5rdh, Aagaardh | Agardh",
    "M\u00fcllerin | M?LLERIN, M??llerin, M\ufffdllerin, M\u00c3\u00bcllerin",
    "Gro\u00dfkopf | GRO?KOPF, Gro\u00c3\u0178kopf",
    "M\u00fcllerin | M&uuml;llerin, M&#252;llerin, M&#xFC;llerin, M%C3%BCllerin, m%fcllerin, M\\u00fcllerin, M\\'fcllerin",
    "L\u00f6fstr\u00f6mer | L?fstr?mer",
    "Smithson | DRSMITHSON, MrsSmithson, 2smithson, 20240101SMITHSON, smithson20240101.dcm",
    "Smithson | S\\r\\nM\\r\\nI\\r\\nT\\r\\nH\\r\\nS\\r\\nO\\r\\nN",
    "Smithson | S M I T H S O N, S.M.I.T.H.S.O.N, S-m-i-t-h-s-o-n, S. M. I. T. H. S. O. N., s_m_i_t_h_s_o_n",
    "Smithson | \uff33\uff4d\uff49\uff54\uff48\uff53\uff4f\uff4e, \U0001d412\U0001d426\U0001d422\U0001d42d\U0001d421son",
]


@pytest.mark.parametrize("row", SAME)
def test_a_name_is_found_in_each_of_its_spellings_by_each(row: str) -> None:
    names, *more = (part.split(", ") for part in row.split(" | "))
    texts = [*names, *(each.replace("\\r\\n", "\r\n") for part in more for each in part)]

    for name in names:
        found = kinds_in([f"seen by {text} today" for text in texts], f"{name}^Q")
        assert [text for text, kinds in zip(texts, found, strict=True) if kinds != {"name"}] == []


#: Letters of other scripts are written as such: they look the same here.
ALIKE = [
    ("Quaxler^Jo", "4711-0815", "Quаxler", "name"),  # Cyrillic a
    ("Quаxler^Jo", "4711-0815", "QUAXLER", "name"),
    ("PAPACHEK^Jo", "4711-0815", "РАРАСНЕК", "name"),  # all of it in Cyrillic
    ("NIKOPATIZ^Jo", "4711-0815", "ΝΙΚΟΡΑΤΙΖ", "name"),  # in Greek
    ("Nikopaviv^Jo", "4711-0815", "Νικοραvιν", "name"),
    ("Люксембургова^Анна", "4711-0815", "Люкceмбypгoвa", "name"),  # the other way round, as PS3.5 I.2 has it
    ("Люкceмбypгoвa^Анна", "4711-0815", "ЛЮКСЕМБУРГОВА", "name"),
    ("Παπαδοπούλου^Ελένη", "4711-0815", "Παπαδoπούλoυ", "name"),
    ("Doe^Jane", "ABX77123", "АВХ-77123", "id"),
    ("Doe^Jane", "АВХ77123", "abx 77123", "id"),
    ("Zhang^X=張^偉明", "4711-0815", "张伟明", "name"),  # traditional, simplified
    ("Zhang^X=张^伟明", "4711-0815", "患者 張 偉明", "name"),
    ("Watanabe^X=渡邊^龍", "4711-0815", "渡辺 竜", "name"),  # as it was, and as it is written since 1946
    ("Zhang^X=張^偉明", "4711-0815", "張　偉 明", "name"),
    ("Watanabe^X=渡辺^竜", "4711-0815", "渡邊 龍", "name"),
]


@pytest.mark.parametrize(("name", "patient_id", "text", "kind"), ALIKE)
def test_letters_that_look_alike_are_alike(name: str, patient_id: str, text: str, kind: str) -> None:
    assert kinds_in([f"* {text};"], name, patient_id) == [{kind}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Анна^Q", "Жанна"),
        ("Сора^Q", "Сорайда"),
        ("Quaxler^Jo", "Кuахler"),  # an X of another script than Cyrillic
        ("Νίκη^Q", "vikn"),
        ("Mussler^Jo", "12 μSv, 5 μm"),
        ("Zhang^X=張^偉明", "张伟朋"),
        ("Sait^X=斎藤", "斉藤"),
    ],
)
def test_letters_of_another_word_are_not(name: str, text: str) -> None:
    assert kinds_in([text], name) == [set()]


@pytest.mark.parametrize("text", ["Ng\tAl", "al|ng", "q=Ng+Al", "Al:Ng", "Ng\r\nAl"])
def test_a_short_name_is_found_by_both_of_its_words_whatever_stands_between(text: str) -> None:
    assert kinds_in([text], "Ng^Al") == [{"name"}]


@pytest.mark.parametrize("name", ["Иванов^Пётр", "Zhang^X=王^小东", "Παπαδοπούλου^Ελένη"])
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_letters_of_two_bytes_each_are_found_in_bytes_of_which_nobody_knows_what_they_are(name: str, codec: str) -> None:
    output = an_output()
    family, given_name = name.split("=")[-1].split("^")
    output.private_block(0x0029, "X", create=True).add_new(0x10, "OB", b"\x07\x01" + f"{family} {given_name}".encode(codec) + b"\x07\xff")

    assert second_look(part10(an_original(name)), part10(output)) == (Hit("(0029,1010)", "name"),)


def test_a_name_is_found_with_the_initial_of_the_other_in_one_word() -> None:
    texts = ["JQUAGGLER", "quagglerj", "jquaggler1", "C:/users/jquaggler/x"]

    assert kinds_in(texts, "Quaggler^Jane") == [{"name"}] * len(texts)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Maccoy^Q", "mc coil"),
        ("Dover^Q", "3-D over all"),  # the rest of it says nothing
        ("Kneebone^Q", "knee bone"),  # not in parts, since any two words would be
        ("Quaggler^Jane", "xquaggler"),
        ("Quag^Jane", "jquag"),  # short ones are parts of words
        ("Anna^Q", "a n n a"),
        ("Bone^Tom", "tbone"),
        ("Ridge^Bo", "bridge"),
        ("Vanlung^Q", "van lung"),
        ("Smithson^Q", "smith's on"),
        ("Smithson^Q", "s,m,i,t,h,s,o,n"),
        ("Du^Q", "due"),
        ("Sm\u00eeth^Q", "sm?ths"),  # too little is left of it
        ("Faced^Q", "3faced1f"),  # of letters that hexadecimal digits have
        ("Facade^Q", "3facade1f"),
    ],
)
def test_another_word_is_no_name(name: str, text: str) -> None:
    assert kinds_in([text], name) == [set()]


@given(st.sampled_from(["", "Mc", "Mac"]), st.text("aeioumncsl\u00e4\u00f6\u00fc\u00f8\u00e5\u00df", min_size=1, max_size=9))
@settings(deadline=None)
def test_each_spelling_has_a_hint_in_it(first: str, rest: str) -> None:
    word = first + rest
    hints = [bared(each.encode()) for each in hints_of(word)]

    for spelling in spellings(word):
        assert any(hint in bared(spelling.encode()) for hint in hints)
    assert folded(word) in spellings(word)
