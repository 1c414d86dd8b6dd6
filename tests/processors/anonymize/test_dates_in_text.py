"""A birth date is found in the forms in which people write dates; what is another number is not."""

from __future__ import annotations

from datetime import date

import pytest

from processors.anonymize.verify import second_look
from processors.anonymize.verify.dates import date_forms, day_key, days_said
from processors.anonymize.verify.scope import Scope
from tests.processors.anonymize.test_hints import matches
from tests.processors.anonymize.verifying import an_original, an_output, kinds_in, part10

FORMS = """130347|470313|031347|13-03-47|03-13-47|47-03-13|47/03/13|47.03.13|13/3/47|3/13/47|13.3.47|13. 3.1947|13 - 03 - 1947
    |13 . 03 . 1947|13 / 3 / 1947
    |13_03_1947|1947_03_13|1947:03:13|13,03,1947|SMITH_470313.dcm|13MAR47|13-Mar-47|13/MAR/1947|13_mar_1947|Mar/13/1947
    |Mar 13, '47|13. m\u00e4rz '47|13 de marzo del 1947|13.III.1947|13. III. 1947|13-iii-1947|13/III/1947|13 marca 1947|13. marts 1947"""
MONTHS = """
    January February March April May June July August September October November December
    Januar Februar M\u00e4rz April Mai Juni Juli August September Oktober November Dezember
    janvier f\u00e9vrier mars avril mai juin juillet ao\u00fbt septembre octobre novembre d\u00e9cembre
    janv. f\u00e9vr. mars avr. mai juin juil. ao\u00fbt sept. oct. nov. d\u00e9c.
    enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
    ene. feb. mar. abr. may. jun. jul. ago. set. oct. nov. dic.
    gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
    gen feb mar apr mag giu lug ago set ott nov dic
    janeiro fevereiro mar\u00e7o abril maio junho julho agosto setembro outubro novembro dezembro
    jan fev mar abr mai jun jul ago set out nov dez
    januari februari maart april mei juni juli augustus september oktober november december
    januari februari mars april maj juni juli augusti september oktober november december
    januar februar marts april mai juni juli august september oktober november desember
    stycznia lutego marca kwietnia maja czerwca lipca sierpnia wrze\u015bnia pa\u017adziernika listopada grudnia
"""


def test_a_birth_date_is_found_as_people_write_it() -> None:
    texts = [each.strip() for each in FORMS.split("|")]

    found = kinds_in([f"* {text};" for text in texts], born="19470313")
    assert [text for text, kinds in zip(texts, found, strict=True) if kinds != {"date"}] == []


@pytest.mark.parametrize("line", MONTHS.strip().splitlines())
def test_a_date_is_found_by_the_name_of_its_month(line: str) -> None:
    for month, name in enumerate(line.split(), 1):
        texts = [f"le 1er {name} 1947", f"1. {name} 47", f"1-{name.upper()}-1947", f"{name} 1, 1947", f"1\u00ba de {name} de 1947"]
        assert kinds_in(texts, born=f"1947{month:02d}01") == [{"date"}] * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "130348",
        "1130347",
        "0.130347",
        "130347.5",
        "13.03.4",
        "3.13.47",
        "13.2.47",
        "March 1347",
        "13 VI 1947",
        "13-03-475",
        "4.7.13.3",
        "13.IIII.1947",
        "dicom march 1947",
    ],
)
def test_another_number_is_no_birth_date(text: str) -> None:
    assert kinds_in([text], born="19470313") == [set()]


def test_a_time_of_day_is_no_birth_date_in_six_digits() -> None:
    original = part10(an_original(born="20470313", StudyDate="20260102"))
    output = an_output(ContentTime="130347", SeriesTime="130347.000", SeriesNumber="130347", KVP="130347", Exposure="470313")

    assert second_look(original, part10(output)) == ()


def test_dates_of_a_study_are_not_looked_for_in_forms_that_versions_have() -> None:
    original = part10(an_original(born="19470313", StudyDate="20170204", SeriesDate="20170204", ContentDate="20170204"))

    assert second_look(original, part10(an_output(SoftwareVersions=["4.2.17", "170204", "17.02.04"])), Scope()) == ()


_WITHIN = ["13 aout 1947", "aout 13 1947", "1947 aout 13", "5 maggio 1947", "marzoctober 5 2024", "13 marzoctober 2024"]


@pytest.mark.parametrize("text", _WITHIN)
def test_a_month_within_the_name_of_another_hides_no_day(text: str) -> None:
    for day in (date(1947, 8, 13), date(1947, 10, 13), date(1947, 5, 5), date(2024, 10, 5), date(2024, 10, 13)):
        if matches(date_forms(day, compact=True), text.encode()):
            assert day_key(day) in days_said(text.encode())
