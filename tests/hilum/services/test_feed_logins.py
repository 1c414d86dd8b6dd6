"""Failed logins at the door of research feeds are seen, counted by address, and end in a refusal for a while."""

from __future__ import annotations

import struct

import pytest

from hilum.services.feed_logins import MOST_ADDRESSES, WITHIN_S, FailedLogins, KafkaWatch, S3Watch, Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logins(clock: Clock) -> FailedLogins:
    return FailedLogins(3, 300.0, clock)


class TestFailedLogins:
    def test_after_too_many_within_a_minute_an_address_is_refused_for_a_while(self, logins: FailedLogins, clock: Clock) -> None:
        assert [logins.failed("10.0.0.1") for _ in range(3)] == [False, False, True]
        assert logins.refuses("10.0.0.1")
        assert not logins.refuses("10.0.0.2")
        clock.now += 299
        assert logins.refuses("10.0.0.1")
        clock.now += 2
        assert not logins.refuses("10.0.0.1")

    def test_as_many_over_a_longer_time_are_not_too_many(self, logins: FailedLogins, clock: Clock) -> None:
        for _ in range(10):
            assert not logins.failed("10.0.0.1")
            clock.now += WITHIN_S / 2

    def test_failures_of_open_connections_prolong_nothing(self, logins: FailedLogins, clock: Clock) -> None:
        assert logins.failed("10.0.0.1", 3)
        clock.now += 299
        assert not logins.failed("10.0.0.1", 50)
        clock.now += 2
        assert not logins.refuses("10.0.0.1")

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("2001:db8::1", "2001:db8::2:3", True),
            ("2001:db8::1", "2001:db8:0:1::1", False),
            ("::ffff:10.0.0.1", "10.0.0.1", True),
            ("fe80::1%eth0", "fe80::1", True),
        ],
    )
    def test_of_ipv6_a_network_counts_as_one(self, logins: FailedLogins, one: str, other: str, same: bool) -> None:
        logins.failed(one, 3)

        assert logins.refuses(other) is same

    def test_what_is_remembered_is_bounded(self, logins: FailedLogins) -> None:
        logins.failed("10.0.0.1", 3)
        for n in range(MOST_ADDRESSES):
            logins.failed(f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}")

        assert len(logins._known) == MOST_ADDRESSES

    def test_no_refusal_ends_because_many_others_fail_once(self, logins: FailedLogins) -> None:
        logins.failed("10.0.0.1", 3)
        for n in range(MOST_ADDRESSES):
            logins.failed(f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}")

        assert logins.refuses("10.0.0.1")

    def test_without_a_limit_nobody_is_refused(self, clock: Clock) -> None:
        logins = FailedLogins(0, 300.0, clock)

        assert not logins.failed("10.0.0.1", 1000)
        assert not logins.refuses("10.0.0.1")


def request(key: int, version: int = 1, body: bytes = b"what a client says") -> bytes:
    return framed(struct.pack(">hhi", key, version, 7) + body)


def response(error: int, *, tagged: bool = False, body: bytes = b"what a broker says") -> bytes:
    return framed(struct.pack(">i", 7) + b"\0" * tagged + struct.pack(">h", error) + body)


def framed(what: bytes) -> bytes:
    return struct.pack(">i", len(what)) + what


#: ApiVersions, SaslHandshake, SaslAuthenticate, Metadata.
VERSIONS, HANDSHAKE, AUTHENTICATE, METADATA = 18, 17, 36, 3


def failures(watch: Watch, *conversation: tuple[bytes, bytes], cut: int = 10**6) -> int:
    """What is counted of requests and their answers, in pieces of so many bytes."""
    found = 0
    for asked, answered in conversation:
        for at in range(0, len(asked), cut):
            watch.asked(asked[at : at + cut])
        found += sum(watch.answered(answered[at : at + cut]) for at in range(0, len(answered), cut))
    return found


@pytest.mark.parametrize("cut", [1, 3, 10**6])
class TestKafkaWatch:
    BEGIN = ((request(VERSIONS, 3), response(0)), (request(HANDSHAKE), response(0)))

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_refused_password_is_one_failure(self, cut: int, version: int) -> None:
        rounds = [(request(AUTHENTICATE, version), response(error, tagged=version == 2)) for error in (0, 58)]
        watch = KafkaWatch()

        assert failures(watch, *self.BEGIN, *rounds, cut=cut) == 1
        assert watch.ended() == 0

    def test_whoever_is_logged_in_fails_no_more(self, cut: int) -> None:
        login = [(request(AUTHENTICATE), response(0))] * 2
        denied = (request(METADATA, 9), response(29) + response(58))
        watch = KafkaWatch()

        assert failures(watch, *self.BEGIN, *login, denied, cut=cut) == 0
        assert watch.ended() == 0

    def test_a_login_that_the_broker_ends_without_an_answer_is_a_failure(self, cut: int) -> None:
        for last in (request(AUTHENTICATE), framed(b"n,,n=somebody,r=nonce"), request(METADATA)):
            watch = KafkaWatch()
            assert failures(watch, *self.BEGIN, (last, b""), cut=cut) == 0
            assert watch.ended() == 1

    def test_whoever_comes_and_goes_without_a_login_is_none(self, cut: int) -> None:
        watch = KafkaWatch()

        assert failures(watch, *self.BEGIN, cut=cut) == 0
        assert watch.ended() == 0


@pytest.mark.parametrize("lengths", [struct.pack(">i", -1), struct.pack(">i", 0), b"\xff" * 64, b"\0" * 64])
def test_what_is_no_frame_of_kafka_harms_nothing(lengths: bytes) -> None:
    watch = KafkaWatch()

    assert failures(watch, (lengths, lengths), (b"GET / HTTP/1.1\r\n\r\n", lengths)) == 0


def http(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def refusal(code: str, status: str = "403 Forbidden") -> bytes:
    return http(status, f"<Error><Code>{code}</Code></Error>")


GET = b"GET /bucket/1/2/3.dcm HTTP/1.1\r\nHost: store\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        (refusal("SignatureDoesNotMatch"), 1),
        (refusal("InvalidAccessKeyId", "401 Unauthorized"), 1),
        (refusal("InvalidAccessKeyId").replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
        (http("100 Continue") + refusal("InvalidAccessKeyId"), 1),
        (refusal("AccessDenied"), 0),
        (refusal("RequestTimeTooSkewed"), 0),
        (http("403 Forbidden"), 0),  # of a HEAD
        (http("200 OK", refusal("InvalidAccessKeyId").decode()), 0),
        (b"\0" * 2**16, 0),
    ],
)
def test_of_s3_status_and_code_tell_a_wrong_key(answers: bytes, count: int) -> None:
    assert failures(S3Watch(), (GET, answers)) == count


@pytest.mark.parametrize(("code", "count"), [("AccessDenied", 0), ("SignatureDoesNotMatch", 1)])
@pytest.mark.parametrize("cut", [20, 60, 64])
def test_of_a_refusal_in_several_reads_the_code_tells_as_well(code: str, count: int, cut: int) -> None:
    assert failures(S3Watch(), (GET, refusal(code)), cut=cut) == count


def test_what_an_object_says_is_no_answer_though_a_read_begins_with_it() -> None:
    watch = S3Watch()

    assert failures(watch, (GET, http("200 OK", "an object")), (b"", refusal("SignatureDoesNotMatch"))) == 0


def test_each_of_several_requests_in_one_piece_has_its_answer() -> None:
    answers = [refusal(code) for code in ("InvalidAccessKeyId", "AccessDenied", "InvalidAccessKeyId")]

    assert failures(S3Watch(), (GET * 3, b"".join(answers))) == 2


def test_a_refused_head_is_not_told_by_what_is_answered_next() -> None:
    assert failures(S3Watch(), (b"HEAD" + GET[3:], http("403 Forbidden")), (GET, http("200 OK", "<Code>InvalidAccessKeyId</Code>"))) == 0


def test_who_was_answered_is_known_and_who_was_refused_is_not() -> None:
    def known(answer: bytes) -> bool:
        watch = S3Watch()
        failures(watch, (GET, answer))
        return watch.known

    assert [known(each) for each in (b"", refusal("InvalidAccessKeyId"), http("200 OK"))] == [False, False, True]
