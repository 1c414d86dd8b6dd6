"""Ask a DICOM node which instances it has, or how many, by C-FIND in the Study Root model (PS3.4 C.4.1, C.6.2.1)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]  # made when it is imported

from hilum.asking import associated, ready
from hilum.errors import TryAgain
from hilum.peer import Peer

_PENDING = (0xFF00, 0xFF01)
#: So many answers to `count_of_study` are read at most: there are peers that answer with all that they have.
MOST_ANSWERS = 20_000


def instances_of(peer: Peer, study_instance_uid: str, series_instance_uids: Collection[str]) -> frozenset[str]:
    """The SOPInstanceUIDs that `peer` has of these series of a study: one C-FIND at the level IMAGE for each series.

    Raises `TryAgain` that says what the peer refuses or does not answer.
    """
    with _asking(peer) as association:
        found: set[str] = set()
        for series in series_instance_uids:
            found |= _instances(_Conversation(peer, association), study_instance_uid, series)
        return frozenset(found)


def count_of_study(peer: Peer, study_instance_uid: str, *, within_s: float = 20.0) -> int:
    """How many instances `peer` says that the study has; 0 if it does not know the study, or does not say.

    It is asked for NumberOfStudyRelatedInstances (0020,1208); if it has none, for NumberOfSeriesRelatedInstances (0020,1209) of each
    series; and where these lack too, its instances are counted (PS3.4 C.3.4: all three are for it to support or not).

    Raises `TryAgain` that says what the peer refuses, or that its answers are not through after `within_s` or `MOST_ANSWERS`.
    """
    with _asking(peer) as association:
        conversation = _Conversation(peer, association, time.monotonic() + within_s, MOST_ANSWERS)
        asked = _asked("STUDY", StudyInstanceUID=study_instance_uid, NumberOfStudyRelatedInstances=None)
        found = [each for each in conversation.answers(asked) if str(each.get("StudyInstanceUID", "")) == study_instance_uid]
        if not found:
            return 0
        if count := _number(found[0], "NumberOfStudyRelatedInstances"):
            return count
        series: dict[str, int] = {}
        asked = _asked("SERIES", StudyInstanceUID=study_instance_uid, SeriesInstanceUID="", NumberOfSeriesRelatedInstances=None)
        for each in conversation.answers(asked):
            if str(each.get("StudyInstanceUID", study_instance_uid)) == study_instance_uid:
                series[str(each.get("SeriesInstanceUID", ""))] = _number(each, "NumberOfSeriesRelatedInstances")
        series.pop("", None)
        return sum(count or len(_instances(conversation, study_instance_uid, uid)) for uid, count in series.items())


def _asked(level: str, **keys: str | None) -> Dataset:
    """An identifier: the keys of this level, empty ones to be told (PS3.4 C.2.2.2)."""
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


def _number(answer: Dataset, keyword: str) -> int:
    """A number of an answer; 0 if there is none, or none that can be read."""
    try:
        return max(0, int(str(answer.get(keyword) or 0)))
    except (ValueError, TypeError, OverflowError):
        return 0


def _asking(peer: Peer) -> AbstractContextManager[Association]:
    return associated(
        peer,
        StudyRootQueryRetrieveInformationModelFind,
        "C-FIND in the Study Root model",
        admit=f"Ask its administrator to let {peer.calling_aet} query, or set where it is queried: `query_aet`, `query_port`.",
        take="Set `query_aet` or `query_port`, if it is queried elsewhere.",
    )


class _Conversation:
    """What one peer is asked on one association, within its bounds."""

    def __init__(self, peer: Peer, association: Association, deadline: float | None = None, most: int | None = None) -> None:
        self._peer = peer
        self._association = association
        self._deadline = deadline
        self._left = most

    def answers(self, asked: Dataset) -> Iterator[Dataset]:
        """The identifiers that the peer answers with. Raises `TryAgain` for whatever is not a whole answer."""
        peer = self._peer
        ready(self._association)
        for answer, identifier in self._association.send_c_find(asked, StudyRootQueryRetrieveInformationModelFind):
            if "Status" not in answer:
                raise TryAgain(
                    f"{peer.aet} did not answer a C-FIND within {peer.response_timeout_s:g} s.", fix="Ask again, or look at its log."
                )
            if answer.Status in _PENDING:
                self._count()
                if identifier is not None:
                    yield identifier
            elif answer.Status:
                raise TryAgain(
                    f"{peer.aet} answered 0x{answer.Status:04X} to a C-FIND (PS3.4 C.4.1.1.4).", fix="The peer's own log says why."
                )

    def _count(self) -> None:
        """One more answer. Raises `TryAgain`, and ends the association, if it is one too many."""
        if self._left is not None:
            self._left -= 1
        if self._deadline is not None and time.monotonic() > self._deadline:
            says = "takes too long over its answers to a C-FIND"
        elif self._left is not None and self._left < 0:
            says = f"gives more than {MOST_ANSWERS:,} answers to a C-FIND for one study"
        else:
            return
        self._association.abort()
        raise TryAgain(f"{self._peer.aet} {says}.", fix="Look at its log, or do not have it asked.")


def _instances(conversation: _Conversation, study_instance_uid: str, series_instance_uid: str) -> set[str]:
    asked = _asked("IMAGE", StudyInstanceUID=study_instance_uid, SeriesInstanceUID=series_instance_uid, SOPInstanceUID="")
    # Some peers answer with more than was asked for; what is of another series was not.
    answers = conversation.answers(asked)
    of_series = (each for each in answers if str(each.get("SeriesInstanceUID", series_instance_uid)) == series_instance_uid)
    return {str(each.get("SOPInstanceUID", "")) for each in of_series} - {""}
