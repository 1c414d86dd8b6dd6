"""Asking senders how many instances a study has: whom, when, how often; without a network and a database."""

from __future__ import annotations

from collections.abc import Sequence

from hilum.errors import TryAgain
from hilum.settings import Query, Sender, Settings
from ingest.query import MOST_ASKED, REST_S, Asker, OpenStudy

STUDY, OTHER = "2.25.1", "2.25.2"


class Site:
    """Open studies with what came of them, senders with what they say, and a clock."""

    def __init__(self, **senders: Query) -> None:
        self.time = 0.0
        #: By study: who sent what came last, when, and how many came.
        self.studies: dict[str, tuple[str, float, int]] = {}
        self.says: dict[str, int] = {}
        self.away: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.told: list[tuple[str, int]] = []
        self.database_is_away = False
        self.asker = Asker(Settings(senders={aet: Sender(query=query) for aet, query in senders.items()}), self, self.ask, self.now)

    def now(self) -> float:
        return self.time

    def open(self) -> Sequence[str]:
        if self.database_is_away:
            raise TryAgain("PostgreSQL does not answer.")
        return list(self.studies)

    def last(self, uids: Sequence[str], senders: Sequence[str]) -> Sequence[OpenStudy]:
        found = [(uid, *self.studies[uid]) for uid in uids]
        found = [(uid, sender if sender in senders else "", at, count) for uid, sender, at, count in found]
        return [OpenStudy(uid=uid, sender=sender, quiet_s=self.time - at, arrivals=count) for uid, sender, at, count in found]

    def tell(self, uid: str, instances: int) -> None:
        self.told.append((uid, instances))

    def ask(self, sender: str, query: Query, study: str) -> int:
        self.asked.append((sender, study))
        if sender in self.away:
            raise TryAgain(f"{query.host} cannot be reached.")
        return self.says.get(study, 0)

    def comes(self, study: str, sender: str = "CT1", count: int = 1) -> None:
        self.studies[study] = (sender, self.time, count)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.time += 1
            self.asker.step(in_threads=False)


def a_query(host: str = "192.0.2.1", **more: float | bool) -> Query:
    return Query(host=host, port=104, after_s=15, **more)  # type: ignore[arg-type]


def test_a_sender_is_asked_once_its_study_is_quiet_and_its_number_is_passed_on() -> None:
    site = Site(CT1=a_query())
    site.says[STUDY] = 12
    site.comes(STUDY)
    site.wait(14)
    assert site.asked == []

    site.wait(2)

    assert site.told == [(STUDY, 12)]


def test_a_study_that_grows_is_left_alone_until_it_rests() -> None:
    site = Site(CT1=a_query())
    for number in range(1, 5):
        site.comes(STUDY, count=number)
        site.wait(10)
    assert site.asked == []

    site.wait(6)

    assert len(site.asked) == 1


def test_it_is_asked_again_more_and_more_seldom_and_not_for_ever() -> None:
    site = Site(CT1=a_query())
    site.comes(STUDY)
    site.wait(60)
    assert 1 < len(site.asked) <= 3

    site.wait(3600)

    assert len(site.asked) == MOST_ASKED


def test_what_comes_later_is_asked_about_anew() -> None:
    site = Site(CT1=a_query())
    site.comes(STUDY)
    site.wait(3600)
    site.comes(STUDY, count=2)
    site.wait(20)

    assert len(site.asked) == MOST_ASKED + 1


def test_only_senders_that_allow_it_are_asked() -> None:
    site = Site(CT1=a_query(), CT2=a_query(allowed=False))
    site.comes(STUDY, "CT2")
    site.comes(OTHER, "MR1")
    site.wait(60)

    assert site.asked == []


def test_a_sender_that_is_away_changes_nothing_is_left_alone_for_a_while_and_delays_no_other() -> None:
    site = Site(CT1=a_query(), MR1=a_query("192.0.2.2"))
    site.away, site.says[OTHER] = {"CT1"}, 3
    site.comes(STUDY)
    site.comes(OTHER, "MR1")
    site.wait(20)

    assert site.told == [(OTHER, 3)]
    assert site.asked.count(("CT1", STUDY)) == 1
    assert site.asker.health().ready
    assert "CT1: 192.0.2.1 cannot be reached." in site.asker.health().says

    site.away, site.says[STUDY] = set(), 5
    site.wait(REST_S)
    assert (STUDY, 5) in site.told


def test_a_database_that_is_away_is_said() -> None:
    site = Site(CT1=a_query())
    site.database_is_away = True
    site.wait(1)
    assert not site.asker.health().ready

    site.database_is_away = False
    site.wait(1)
    assert site.asker.health().ready
