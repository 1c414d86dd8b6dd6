"""What the reference page says of the rule language; a test evaluates its examples."""

from __future__ import annotations

from collections.abc import Mapping

#: Rules as sites write them, and what each means.
EXAMPLES: Mapping[str, str] = {
    "true": "Everything.",
    'Modality in ["CT", "MR"]': "CT and MR.",
    'Modality not in ["SR", "PR", "KO"]': "Everything but reports, presentation states and key object selections.",
    '"DERIVED" in ImageType': "Derived images: an attribute that may have several values is a list.",
    'ImageType&[2] == "LOCALIZER"': "Localizers, by the third value: `&[2]` is `null` where a list is shorter, `[2]` fails there.",
    "SliceThickness <= 1.5": "Thin slices, in mm. What has no `SliceThickness` is left alone.",
    'StudyDate >= "20240101"': "Studies since 2024: dates and times are text as DICOM writes it, and text is compared letter by letter.",
    'StudyDescription =~~ "(?i)chest|thorax"': "A regular expression, found anywhere, in upper or lower case.",
    'calling_aet == "CT1" and Modality == "CT"': "CT images of one sender, without its dose reports.",
    'InstitutionName == null or InstitutionName.as_upper == "NORTH CLINIC"': "Images of one clinic, and those that name none.",
    'Modality == "MG" or (Modality == "DX" and Rows > 2000)': "Mammograms, and large projection images.",
    '"uid-leading-zero" in findings': "What validation noted something about.",
}

#: The page, with a place for the table of examples and the one of facts about the arrival.
PAGE = """
# Rules

A rule of the settings sends objects to destinations: those for which its `when` is true. Every rule is asked about every
object; a destination that several rules name gets the object once. An object that no rule wants is kept and indexed, with the
decision `no-rule`. `hilum config check` refuses rules that cannot be evaluated, and those that are the same for every object.

The language is that of the Python library [rule-engine](https://zerosteiner.github.io/rule-engine/syntax.html).

## Examples

{examples}

## Names

**Attributes** by their DICOM keyword (PS3.6), such as `Modality`: any that is not a sequence and not binary, from the top level
of the data set. What is inside of sequences has no name. And facts about the arrival:

{facts}

## Values

- **Numbers** are attributes with the VR DS, IS, FL, FD, SL, SS, SV, UL, US or UV: `Rows == 512`. Everything else is **text**,
  dates, times and ages too: `PatientAge == "042Y"`. Spaces at the ends are gone. Upper and lower case differ; `.as_upper` and
  `.as_lower` make them equal.
- A **person name** is text as DICOM writes it: `PatientName == "TEST^PHANTOM"`. Ideographic and phonetic groups follow after `=`.
- An attribute that may have several values (its VM in PS3.6 is not 1) is a **list**, even where it has one value:
  `"PRIMARY" in ImageType`, `ImageType[0] == "ORIGINAL"`, `ImageType.length > 2`. A list is never equal to a text.
- What is **absent or empty** is `null`, and a list is empty then: `ImageType.is_empty`. `null` differs from every text and number,
  so `StudyDescription != "x"` is true where there is none, and matches no regular expression.
- A rule that compares something absent by `<`, `<=`, `>` or `>=`, or looks for something in it, does not match at all, unless
  what stands before has decided: write `Modality == "MR" or SliceThickness < 2`, not the other way round, or put a value in its
  place: `(SliceThickness ?? 99) < 2`.
- A rule that fails on an object (`ImageType[7]` of a shorter list, a division by zero) sends the object to
  [quarantine](reasons.md) with the reason `rule-failed`.

## Words

`==` `!=` `<` `<=` `>` `>=`, `and` `or` `not`, `in` and `not in` a list or text, `=~` (a regular expression matches at the
beginning) and `=~~` (anywhere), their opposites `!~` and `!~~`, `??` (the right side where the left one is `null`), `+` `-` `*`
`/` `%`, `a ? b : c`, `[x for x in ImageType if x != "PRIMARY"]`. Text stands in single or double quotes; after `#` comes a
comment. Each comparison stands for itself: `Modality == "CT" or "MR"` is refused.
"""
