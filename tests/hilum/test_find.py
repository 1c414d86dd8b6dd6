"""Asking peers what they have, by C-FIND and QIDO-RS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from bench.peers import free_port
from hilum import find, qido
from hilum.errors import TryAgain
from hilum.peer import Peer

Found = Iterator[tuple[int, Dataset | None]]


@contextmanager
def archive(answer: Callable[[Dataset], Found], *, takes: Any = StudyRootQueryRetrieveInformationModelFind) -> Iterator[Peer]:
    """A C-FIND SCP with this answer."""
    ae = AE("ARCHIVE")
    ae.add_supported_context(takes)
    handlers = [(evt.EVT_C_FIND, lambda event: answer(event.identifier))]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its own tuples
    assert server is not None
    try:
        yield Peer(host="127.0.0.1", port=server.server_address[1], aet="ARCHIVE", calling_aet="HILUM", response_timeout_s=60.0)
    finally:
        server.shutdown()


def an_answer(series: str, uid: str) -> Dataset:
    found = Dataset()
    found.QueryRetrieveLevel = "IMAGE"
    found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID = "2.25.1", series, uid
    return found


def has(**series: list[str]) -> Callable[[Dataset], Found]:
    """An archive with these instances, by series (`s2` is 2.25.2)."""
    known = {f"2.25.{name[1:]}": uids for name, uids in series.items()}

    def answer(asked: Dataset) -> Found:
        assert (asked.QueryRetrieveLevel, asked.StudyInstanceUID) == ("IMAGE", "2.25.1")
        for uid in known.get(asked.SeriesInstanceUID, []):
            yield 0xFF00, an_answer(asked.SeriesInstanceUID, uid)

    return answer


class TestFind:
    def test_what_is_there_of_each_series_is_told(self) -> None:
        with archive(has(s2=["2.25.21", "2.25.22"], s3=["2.25.31"], s4=["2.25.41"])) as peer:
            assert find.instances_of(peer, "2.25.1", ["2.25.2", "2.25.3", "2.25.9"]) == {"2.25.21", "2.25.22", "2.25.31"}

    def test_what_nobody_asked_for_does_not_count(self) -> None:
        def answer(_: Dataset) -> Found:
            yield 0xFF01, an_answer("2.25.2", "2.25.21")
            yield 0xFF00, an_answer("2.25.8", "2.25.81")

        with archive(answer) as peer:
            assert find.instances_of(peer, "2.25.1", ["2.25.2"]) == {"2.25.21"}

    def test_a_refusal_is_never_taken_for_nothing_there(self) -> None:
        def answer(_: Dataset) -> Found:
            yield 0xFF00, an_answer("2.25.2", "2.25.21")
            yield 0xA700, None

        with archive(answer) as peer, pytest.raises(TryAgain, match="answered 0xA700 to a C-FIND"):
            find.instances_of(peer, "2.25.1", ["2.25.2"])

    def test_a_peer_that_takes_no_query_is_named(self) -> None:
        with archive(has(), takes=Verification) as peer, pytest.raises(TryAgain, match="query_aet"):
            find.instances_of(peer, "2.25.1", ["2.25.2"])

    def test_a_peer_that_is_not_there_is_told_in_words(self) -> None:
        with pytest.raises(TryAgain, match="cannot be reached"):
            find.instances_of(Peer(host="127.0.0.1", port=free_port(), aet="A", calling_aet="HILUM"), "2.25.1", ["2.25.2"])


@contextmanager
def service(answer: Callable[[dict[str, list[str]]], tuple[int, Any]]) -> Iterator[str]:
    """A DICOMweb service with this answer to a query: its URL."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert urlsplit(self.path).path == "/dicom-web/studies/2.25.1/instances"
            status, found = answer(parse_qs(urlsplit(self.path).query))
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def listed(*uids: str) -> list[Any]:
    return [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids]


class TestQido:
    @pytest.fixture
    def http(self) -> urllib3.PoolManager:
        return urllib3.PoolManager()

    def test_all_pages_are_read(self, http: urllib3.PoolManager) -> None:
        everything = [f"2.25.{n}" for n in range(5)]

        def answer(query: dict[str, list[str]]) -> tuple[int, Any]:
            offset = int(query["offset"][0])
            return (200, listed(*everything[offset : offset + 2])) if offset < 5 else (204, b"")

        with service(answer) as url:
            assert qido.instances_of(url, "2.25.1", http=http) == set(everything)

    def test_a_service_that_gives_everything_at_each_page_ends(self, http: urllib3.PoolManager) -> None:
        with service(lambda _: (200, listed("2.25.1", "2.25.2"))) as url:
            assert qido.instances_of(url, "2.25.1", http=http) == {"2.25.1", "2.25.2"}

    def test_a_study_that_is_not_there_has_nothing(self, http: urllib3.PoolManager) -> None:
        with service(lambda _: (404, b"")) as url:
            assert qido.instances_of(url, "2.25.1", http=http) == set()

    @pytest.mark.parametrize(("status", "body"), [(401, b""), (500, b""), (200, b"<html>"), (200, {"error": "no"}), (200, [{}])])
    def test_a_refusal_is_never_taken_for_nothing_there(self, http: urllib3.PoolManager, status: int, body: Any) -> None:
        with service(lambda _: (status, body)) as url, pytest.raises(TryAgain, match="answered"):
            qido.instances_of(url, "2.25.1", http=http)

    def test_a_service_that_is_not_there_is_told_in_words(self, http: urllib3.PoolManager) -> None:
        with pytest.raises(TryAgain, match="does not answer"):
            qido.instances_of(f"http://127.0.0.1:{free_port()}/dicom-web", "2.25.1", http=http)


def counts(*, study: str = "", series: dict[str, str] | None = None, images: int = 0) -> Callable[[Dataset], Found]:
    """An archive that tells these numbers of its study 2.25.1, as far as they are not empty; others it tells of, too."""

    def answer(asked: Dataset) -> Found:
        for uid in ("2.25.9", "2.25.1"):
            found = Dataset()
            found.QueryRetrieveLevel, found.StudyInstanceUID = asked.QueryRetrieveLevel, uid
            if asked.QueryRetrieveLevel == "STUDY":
                if study:
                    found.NumberOfStudyRelatedInstances = study if uid == "2.25.1" else "77"
                yield 0xFF00, found
            elif asked.QueryRetrieveLevel == "SERIES":
                for name, number in (series or {}).items():
                    of_series = Dataset()
                    of_series.update(found)
                    of_series.SeriesInstanceUID = name
                    if number:
                        of_series.NumberOfSeriesRelatedInstances = number
                    yield 0xFF00, of_series
            elif uid == "2.25.1":
                for image in range(images):
                    yield 0xFF00, an_answer(asked.SeriesInstanceUID, f"2.25.4.{image}")

    return answer


class TestCount:
    def test_a_study_has_as_many_as_the_peer_says_of_it(self) -> None:
        with archive(counts(study="12")) as peer:
            assert find.count_of_study(peer, "2.25.1") == 12

    def test_where_it_says_nothing_of_studies_its_series_are_added_and_where_it_counts_nothing_its_images_are_counted(self) -> None:
        with archive(counts(series={"2.25.2": "5", "2.25.3": ""}, images=3)) as peer:
            assert find.count_of_study(peer, "2.25.1") == 8

    def test_a_study_that_the_peer_does_not_know_has_no_number(self) -> None:
        with archive(lambda _: iter(())) as peer:
            assert find.count_of_study(peer, "2.25.1") == 0

    def test_a_peer_that_answers_without_end_is_not_listened_to_for_ever(self) -> None:
        def answer(_: Dataset) -> Found:
            while True:
                yield 0xFF00, an_answer("2.25.2", "2.25.21")

        with archive(answer) as peer, pytest.raises(TryAgain, match="takes too long over its answers"):
            find.count_of_study(peer, "2.25.1", within_s=0.2)

    def test_a_refusal_is_no_number(self) -> None:
        with archive(lambda _: iter([(0xC001, None)])) as peer, pytest.raises(TryAgain, match="answered 0xC001"):
            find.count_of_study(peer, "2.25.1")
