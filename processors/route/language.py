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
    'ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2.3"': "An attribute of a sequence's first item.",
    '$any([each.CodeValue == "RPID16" for each in ProcedureCodeSequence])': "A code in any item of a sequence.",
    'tag("0009,1002", "GEMS_IDEN_01") == "CT01"': "A private element, in whichever block its creator has reserved.",
}

#: Conditions on a complete study, and what each means.
STUDY_EXAMPLES: Mapping[str, str] = {
    "true": "Every study.",
    '"CT" in modalities and instances > 1': "Studies with CT, of more than one instance.",
    "revision == 1": "Each study once: what comes later is not sent.",
    "matching == instances": "Studies of which `when` holds for every instance.",
}

#: The page, with a place for the table of examples and the one of facts about the arrival.
PAGE = """
# Rules

A rule sends objects to destinations: those for which its `when` is true. Every rule is asked about every object; a destination
that several rules name gets the object once, with the highest of their priorities. An object that no rule wants is kept and
indexed, with the decision `no-rule`. Rules that cannot be evaluated, and those that are the same for every object, are refused.

Rules are in the settings file, or in files of their own that `hilum apply` puts in force
([configuration](../operations/configuration.md)).

```toml
[destinations.workstation]
type = "dicom"
host = "192.0.2.40"
port = 104
aet = "WORKSTATION"

[[rules]]
name = "thin-ct"
when = 'Modality == "CT" and SliceThickness <= 1.5'
to = ["workstation"]
priority = 10

  [[rules.tests]]
  matches = true
  header = {{ Modality = "CT", SliceThickness = 1.25 }}

  [[rules.tests]]
  matches = false
  says = "thick slices stay"
  header = {{ Modality = "CT", SliceThickness = 5 }}
```

| Key | Means |
| --- | --- |
{keys}

A test describes an object, what it does not say is absent. Its keys:

| Key | Means |
| --- | --- |
{test_keys}

The language is that of the Python library [rule-engine](https://zerosteiner.github.io/rule-engine/syntax.html).

## Examples

{examples}

## Names

**Attributes** by their DICOM keyword (PS3.6), such as `Modality`: any that is not binary. What is inside of a sequence is named by
its path: `RequestAttributesSequence[0].ScheduledProcedureStepID`, over any number of levels. An item that is not there is absent.

**Elements by number**: `tag("0008,0060")`; a private one with its creator, which says in which block it is (PS3.5 7.8.1):
`tag("0009,1002", "GEMS_IDEN_01")`. Its value is text, a number or a list of them, by the VR with which it came; what came in
Implicit VR is text: `tag("0009,1002", "GEMS_IDEN_01").to_flt > 2`. It must stand in the rule as text, so that Hilum knows to keep it.

And **facts about the arrival**:

{facts}

## Complete studies

A rule with `on = "study"` is asked about each object when it arrives, and once more when the study is complete: if its `when`
held for any object, and its `study` holds for the study, then all of the study goes to its destinations. What comes later makes the
study complete once more: then only what is new goes, or, with `send = "whole"`, the study again. With `send = "matching"` only the
objects for which `when` held go.

{study_examples}

In `study` there are these names, and no attributes:

{study_facts}

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
- The first value of an empty list, and an item that a sequence does not have, are absent too.
- Rules have an end: no text longer than 65,536 characters is searched, and no more than 20,000 values of lists are gone through
  for one object; beyond that the rule fails on it. `$range`, `<<` and `>>` are not known.
- A rule that fails on an object (`ImageType[7]` of a shorter list, a division by zero) takes it from no other rule: what these say
  goes. What the rule failed on is listed by `hilum status`, `hilum study show` and `hilum reconcile`, and is decided on by itself once
  other rules are in force: at once after `hilum apply`, within ten minutes after a restart with other settings. A division by a
  literal zero, and a `study` that fails on any study, are refused beforehand.

## Words

`==` `!=` `<` `<=` `>` `>=`, `and` `or` `not`, `in` and `not in` a list or text, `=~` (a regular expression matches at the
beginning) and `=~~` (anywhere), their opposites `!~` and `!~~`, `??` (the right side where the left one is `null`), `+` `-` `*`
`/` `%`, `a ? b : c`, `[x for x in ImageType if x != "PRIMARY"]`. Text stands in single or double quotes; after `#` comes a
comment. Each comparison stands for itself: `Modality == "CT" or "MR"` is refused.

**Regular expressions** are those of [RE2](https://github.com/google/re2/wiki/Syntax), which takes time in proportion to the text,
whatever the expression. So there is no look-ahead, no look-behind and no `\\1`; `{{n}}` goes to 1,000; `\\w`, `\\d` and `\\b` mean
ASCII (`\\pL` is a letter of any alphabet); `(?i)` knows the upper and lower case of all letters; `$` and `\\z` are the end of the
text. The expression must stand in the rule as text.
"""
