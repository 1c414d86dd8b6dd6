"""The statuses with which worklist queries (PS3.4 K.4.1.1.4) and performed procedure steps (PS3.4 F.7.2, PS3.7 C) are answered."""

from __future__ import annotations

from .answers import ACTION_TOO_LARGE, CANCELLED, TOO_MANY_REQUESTS, Answer

MATCH = Answer(
    status=0xFF00,
    when="A step matches, and every key of the query is supported.",
    means="More answers follow.",
)
MATCH_WITH_UNSUPPORTED_KEYS = Answer(
    status=0xFF01,
    when="A step matches, and the query has optional keys that Hilum does not know.",
    means="More answers follow. The unknown keys matched everything, and are not in the answer.",
)
FOUND = Answer(
    status=0x0000,
    when="There is no further match.",
    means="The answer is whole.",
)
TOO_MANY_MATCHES = Answer(
    status=0xA700,
    comment="Out of resources: too many steps match; narrow the query",
    when="More steps match than `worklist.max_answers`.",
    means="There are more steps than were sent. The modality should ask for its own station or modality, or for a day.",
)
NO_WORKLIST_YET = Answer(
    status=0xA700,
    comment="Out of resources: the worklist is not there yet",
    when="The role `worklist` has not run on this machine since the orders came, or its file cannot be read.",
    means="Nothing is said of whether there are steps. The modality should ask again; see `hilum status`.",
)
BAD_IDENTIFIER = Answer(
    status=0xA900,
    comment="Identifier does not match SOP Class",
    when="The identifier cannot be read, a date or time is none, or a sequence of keys has several items.",
    means="Nothing is found. The log says which attribute it is.",
)
CANNOT_ANSWER = Answer(
    status=0xC001,
    comment="Unable to process",
    when="Hilum fails at a query.",
    means="The log says why.",
)

PERFORMED = Answer(
    status=0x0000,
    when="What was said is on the disk, synced.",
    means="It reaches Kafka also after a restart or a power cut.",
)
NOT_ALL_TAKEN = Answer(
    status=0x0107,
    comment="Attributes that N-SET must not change were left as they were",
    when="An N-SET has attributes that only an N-CREATE may have (PS3.4 Table F.7.2-1).",
    means="A warning: the others were set.",
)
NO_MORE_UPDATES = Answer(
    status=0x0110,
    comment="Performed Procedure Step Object may no longer be updated",
    error_id=0xA710,
    when="An N-SET comes after the step was completed or discontinued (PS3.4 F.7.2.2).",
    means="Nothing changes.",
)
STEP_GARBLED = Answer(
    status=0x0110,
    comment="Processing failure: the data set cannot be read",
    when="The data set of an N-CREATE or N-SET cannot be parsed.",
    means="Nothing changes.",
)
STEP_NOT_KEPT = Answer(
    status=0x0110,
    comment="Processing failure: it could not be kept",
    when="The spool's disk fails.",
    means="Nothing changes. The modality should say it again.",
)
INVALID_VALUE = Answer(
    status=0x0106,
    comment="Performed Procedure Step Status is none that may be here",
    when="An N-CREATE has another status than IN PROGRESS, or an N-SET none of IN PROGRESS, COMPLETED and DISCONTINUED.",
    means="Nothing changes.",
)
DUPLICATE_STEP = Answer(
    status=0x0111,
    comment="Duplicate SOP Instance",
    when="There was an N-CREATE for this SOP instance before.",
    means="Nothing changes.",
)
NO_SUCH_STEP = Answer(
    status=0x0112,
    comment="No such SOP Instance",
    when="There was no N-CREATE for the SOP instance on this machine, or it is longer ago than `worklist.remember_days`.",
    means="Nothing changes.",
)
BAD_INSTANCE = Answer(
    status=0x0117,
    comment="Affected SOP Instance UID is missing or no UID",
    when="The SOP instance UID of the request is none.",
    means="Nothing changes.",
)
NO_SUCH_CLASS = Answer(
    status=0x0118,
    comment="SOP Class must be Modality Performed Procedure Step",
    when="The SOP class of the request is another than that of its presentation context.",
    means="Nothing changes.",
)
MISSING_ATTRIBUTE = Answer(
    status=0x0120,
    comment="Missing Attribute",
    when="An attribute is absent that must have a value: of an N-CREATE those of type 1 in PS3.4 Table F.7.2-1, at the end of a step those"
    " that it demands in the final state. The comment names it.",
    means="Nothing changes.",
)
MISSING_VALUE = Answer(
    status=0x0121,
    comment="Missing Attribute Value",
    when="Such an attribute is there without a value. The comment names it.",
    means="Nothing changes.",
)

#: In the order of the reference page.
WORKLIST_ANSWERS = (
    MATCH,
    MATCH_WITH_UNSUPPORTED_KEYS,
    FOUND,
    CANCELLED,
    TOO_MANY_MATCHES,
    NO_WORKLIST_YET,
    BAD_IDENTIFIER,
    CANNOT_ANSWER,
    ACTION_TOO_LARGE,
)
PERFORMED_ANSWERS = (
    PERFORMED,
    NOT_ALL_TAKEN,
    INVALID_VALUE,
    NO_MORE_UPDATES,
    STEP_GARBLED,
    STEP_NOT_KEPT,
    DUPLICATE_STEP,
    NO_SUCH_STEP,
    BAD_INSTANCE,
    NO_SUCH_CLASS,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    ACTION_TOO_LARGE,
    TOO_MANY_REQUESTS,
)
