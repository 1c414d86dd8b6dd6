"""What Hilum tells its operators: every metric, and JSON log lines that cannot hold patient data.

Metrics are declared here and nowhere else. Their labels name stages, destinations and codes, never a UID, an AE title or
anything that grows without bound.

A log line is `{"time", "level", "part", "event", …fields}`. `event` is a fixed name; a field must be declared in `FIELDS`,
and its value must look like what is declared there. Anything else is left out and named in `withheld`.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
from confluent_kafka import KafkaException
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from hilum.errors import HilumError
from hilum.settings import Settings

# Metrics

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

EVENTS_CONSUMED = Counter("hilum_events_consumed", "Events that a stage has dealt with.", ["stage"])
EVENTS_PRODUCED = Counter("hilum_events_produced", "Events that a stage has said.", ["stage"])
EVENTS_QUARANTINED = Counter("hilum_events_quarantined", "Events that a stage has set aside for a person.", ["stage", "reason"])
BATCH_SECONDS = Histogram("hilum_batch_seconds", "From the first event of a batch to its commit.", ["stage"], buckets=_SECONDS)
TRANSACTION_SECONDS = Histogram(
    "hilum_transaction_seconds", "From the begin of a Kafka transaction to its commit.", ["stage"], buckets=_SECONDS
)
LAG_EVENTS = Gauge("hilum_lag_events", "Events on a stage's input that it has not dealt with yet.", ["stage"])
LAG_SECONDS = Gauge("hilum_lag_seconds", "Age of the newest event that a stage has dealt with, 0 if none waits.", ["stage"])
RETRIES = Counter("hilum_retries", "Batches that a stage had to try again because something was down.", ["stage"])
RESTARTS = Counter("hilum_restarts", "Times a stage began anew from what is committed.", ["stage"])
ROWS = Gauge("hilum_state_rows", "Rows that a stateful stage remembers in this process.", ["stage"])
RESTORE_SECONDS = Histogram(
    "hilum_restore_seconds", "From the assignment of partitions to their state being restored.", ["stage"], buckets=_SECONDS
)

OBJECTS_RECEIVED = Counter("hilum_objects_received", "C-STORE requests answered, by status.", ["status"])
ASSOCIATIONS_REFUSED = Counter(
    "hilum_associations_refused",
    "Associations that were refused, and connections that were closed without one: to make room for others, for instance; by reason.",
    ["reason"],
)
ATTEMPTS_NOT_RECORDED = Counter(
    "hilum_attempts_not_recorded",
    "Connections without a usable request, beyond those a minute that are recorded; they are refused as well.",
)
SENDERS_SLOWED_SECONDS = Counter("hilum_senders_slowed_seconds", "How long senders were made to wait since they were over their rate.")
STOW_OBJECTS = Counter("hilum_stow_objects", "Instances answered over STOW-RS, by warning or failure reason.", ["status"])
STOW_REFUSED = Counter("hilum_stow_refused", "STOW-RS requests of which nothing was taken, by reason.", ["reason"])
OBJECTS_PUBLISHED = Counter("hilum_objects_published", "Objects that are in the object store and on Kafka.")
SPOOL_OBJECTS = Gauge("hilum_spool_objects", "Objects in the spool that are not published yet.")
SPOOL_DAMAGED = Gauge("hilum_spool_damaged", "Files in the spool that cannot be published, because they are damaged or no spool files.")
SPOOL_FREE_BYTES = Gauge("hilum_spool_free_bytes", "Space left on the spool's disk.")
HL7_ACKNOWLEDGED = Counter(
    "hilum_hl7_acknowledged", "HL7 messages answered, by acknowledgement code of the original mode; `none` for no answer.", ["status"]
)
HL7_REFUSED = Counter("hilum_hl7_refused", "HL7 messages that were not taken, by reason.", ["reason"])
HL7_REPEATS = Counter("hilum_hl7_repeats", "HL7 messages that had come before with the same content, and were acknowledged again.")
HL7_SECONDS = Histogram("hilum_hl7_seconds", "From a whole HL7 message to its acknowledgement.", buckets=_SECONDS)
HL7_CONNECTIONS = Gauge("hilum_hl7_connections", "HL7 connections that are open.")
HL7_CONNECTIONS_REFUSED = Counter("hilum_hl7_connections_refused", "HL7 connections that were closed at once, by reason.", ["reason"])
HL7_PUBLISHED = Counter("hilum_hl7_published", "HL7 messages that are on Kafka.")
HL7_WAITING = Gauge("hilum_hl7_waiting", "HL7 messages in the journal that are not on Kafka yet.")
FOLDER_FILES = Counter("hilum_folder_files", "Files in watched folders that were dealt with: taken, failed or left.", ["outcome"])
FOLDER_OBJECTS = Counter("hilum_folder_objects", "Objects from watched folders that were put into the spool.")
FOLDER_WAITING = Gauge("hilum_folder_waiting", "Files in watched folders that are not dealt with yet.")
DELIVERIES = Counter("hilum_deliveries", "Deliveries that have their final state.", ["destination", "state"])
DELIVERY_RETRIES = Counter("hilum_delivery_retries", "Attempts after which an object is to be tried again.", ["destination"])
DELIVERY_READS = Counter(
    "hilum_delivery_reads", "Small objects read for a delivery, by where they were found first: spool or store.", ["kind"]
)
DELIVERY_SECONDS = Histogram(
    "hilum_delivery_seconds",
    "From the reception of an object to the final state of its delivery.",
    ["destination"],
    buckets=(*_SECONDS, 300, 3600),
)
DELIVERIES_PENDING = Gauge("hilum_deliveries_pending", "Deliveries without a final state.", ["destination"])
DELIVERIES_PARKED = Gauge("hilum_deliveries_parked", "Deliveries that wait for a person.", ["destination"])
DELIVERIES_PENDING_SECONDS = Gauge("hilum_deliveries_pending_seconds", "Age of the oldest of them.", ["destination"])

ORIGINALS_EXPIRED = Counter("hilum_originals_expired", "Originals whose retention has passed and whose bytes were deleted.")
EXPIRED_BYTES = Counter("hilum_expired_bytes", "Size of these originals.")

COMMITMENTS_OPEN = Gauge(
    "hilum_commitments_open", "Storage commitment requests: `asked` wait for objects, `decided` for their SCU.", ["state"]
)
COMMITMENTS_ENDED = Counter("hilum_commitments_ended", "Storage commitment requests that have ended: `reported` or `given-up`.", ["state"])
COMMITMENT_OBJECTS = Counter(
    "hilum_commitment_objects", "Objects that storage commitment was decided on: `committed`, or the failure reason.", ["outcome"]
)
COMMITMENT_REPORTS_FAILED = Counter("hilum_commitment_reports_failed", "Reports that did not arrive, or were refused: tried again.")

ORDERS_CHANGED = Counter("hilum_orders_changed", "Times an order became another one, by what changed.", ["kind"])
MATCHES_CHANGED = Counter(
    "hilum_matches_changed",
    "Times a study or an order (`kind`) got another outcome when both were held against each other.",
    ["kind", "outcome"],
)
NOTICES = Counter("hilum_notices", "Messages that were entered into the ledger for HL7 and MPPS destinations, by what they tell.", ["kind"])
WORKLIST_STEPS = Gauge("hilum_worklist_steps", "Scheduled steps that modalities may be told of.")
WORKLIST_QUERIES = Counter("hilum_worklist_queries", "Worklist queries, by the status of the last answer.", ["status"])
PROCEDURE_STEPS = Counter("hilum_procedure_steps", "N-CREATE and N-SET requests of performed steps, by status.", ["status"])
PROCEDURE_STEPS_WAITING = Gauge("hilum_procedure_steps_waiting", "Changes of performed steps that are not on Kafka yet.")
STUDIES_STUCK = Gauge("hilum_studies_stuck", "Studies whose time has come and of which a rule cannot be evaluated.")
STUDIES_BY_MATCH = Gauge("hilum_studies_by_match", "Studies by how they fit their orders, as that became in the last 30 days.", ["outcome"])
QUERIES = Counter(
    "hilum_queries", "Times a sender was asked how many instances a study has: `answered`, `unknown` to it, or `failed`.", ["outcome"]
)
FEED_LOGINS_FAILED = Counter("hilum_feed_logins_failed", "Logins that failed at the door of research feeds: `kafka` or `s3`.", ["kind"])
FEED_REFUSED = Counter(
    "hilum_feed_connections_refused",
    "Connections that the door of research feeds ended at once, by reason: `failed-logins` of its address, or too many `connections` "
    "of it or of all.",
    ["reason"],
)


def metrics() -> list[MetricWrapperBase]:
    """Every metric of Hilum, in the order of their declaration."""
    return [value for value in globals().values() if isinstance(value, MetricWrapperBase)]


# Logs

_UID = re.compile(r"[0-9.]{0,64}")
_ID = re.compile(r"[0-9A-Za-z_][0-9A-Za-z._/:@+-]{0,127}|")
_PROCESS = re.compile(r"[0-9A-Za-z_,#-]{1,127}")
_AET = re.compile(r"[ -\[\]-~]{0,16}")
_EVENT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ADDRESS = re.compile(r"[0-9A-Za-z.:\[\]_-]{0,255}")

#: What a log line may say besides its event: a pattern for text, None for a sentence that Hilum itself wrote (an error's, never
#: another program's). Numbers, truth values, dates and None are allowed in each.
FIELDS: Mapping[str, re.Pattern[str] | None] = {
    **dict.fromkeys(("study", "series", "instance", "sop_class", "transfer_syntax", "uid"), _UID),
    **dict.fromkeys(
        ("role", "roles", "stage", "topic", "topics", "group", "slot", "setting", "destination", "rule", "table", "bucket"), _ID
    ),
    **dict.fromkeys(
        ("receipt", "event_id", "delivery", "association", "sha256", "object", "reason", "status", "state", "version", "kind"), _ID
    ),
    **dict.fromkeys(("partition", "partitions", "offset", "count", "size_bytes", "attempt", "attempts", "rows", "lag"), _ID),
    **dict.fromkeys(("seconds", "after_s", "duration_s", "port", "probe_port", "pid", "signal", "line", "due"), _ID),
    **dict.fromkeys(("calling_aet", "called_aet"), _AET),
    **dict.fromkeys(("host", "peer", "library"), _ADDRESS),
    "process": _PROCESS,
    "says": None,
    "error": None,
}

_levels = logging.getLevelNamesMapping()
_threshold = [logging.INFO]


def configure(settings: Settings) -> None:
    """Log from `log.level` on, and let libraries that log through Python's `logging` say where they did, but not what."""
    _threshold[0] = _levels.get(settings.log.level.upper(), logging.INFO)
    logging.basicConfig(handlers=[_FromLibraries()], level=max(_threshold[0], logging.WARNING), force=True)
    logging.getLogger("hilum.kafka").setLevel(_threshold[0])


def logger(part: str, file: Path | None = None) -> structlog.typing.FilteringBoundLogger:
    """The logger of one part of Hilum. An event's name is a fixed word: `log.info("batch_committed", count=3)`.

    Lines go to stderr, or to the end of `file`, in a folder that exists.
    """
    return cast(
        "structlog.typing.FilteringBoundLogger",
        structlog.wrap_logger(
            _End(file) if file else _Stderr(),
            processors=[_drop_below_threshold, _only_safe, _as_line],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            context_class=dict,
            part=part,
        ),
    )


def described(error: BaseException) -> str:
    """`error` in words that hold no data: a sentence if it is Hilum's own, else its type and the lines of code it came through.

    The texts and local variables of other programs' exceptions may hold values of a patient's object; they are left out.
    """
    if isinstance(error, HilumError):
        return str(error)
    name = type(error).__name__
    if isinstance(error, KafkaException):
        name += f" {error.args[0].name()}"
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in reversed(frames))
    return f"{name} at {where}" if where else name


class _Stderr:
    """Writes a line at once, to what is stderr at that moment."""

    def msg(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _End:
    """Writes a line to the end of a file. On a disk that is full, what writes it goes on."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def msg(self, line: str) -> None:
        with suppress(OSError), self._file.open("a") as file:
            file.write(line + "\n")

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def _drop_below_threshold(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _levels.get(method.upper(), logging.ERROR) < _threshold[0]:
        raise structlog.DropEvent
    return event


def _only_safe(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    name = str(event.pop("event", ""))
    failure = event.pop("exc_info", None)
    safe: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": method,
        "part": event.pop("part", ""),
        "event": name if _EVENT.fullmatch(name) else "unnamed",
    }
    withheld = [] if _EVENT.fullmatch(name) else ["event"]
    for field, value in event.items():
        if isinstance(value, BaseException):
            value = described(value)
        if field in FIELDS and _fits(FIELDS[field], value):
            safe[field] = value
        else:
            withheld.append(field if _EVENT.fullmatch(field) else "unnamed")
    if failure:
        error = failure if isinstance(failure, BaseException) else sys.exc_info()[1]
        safe["error"] = described(error) if error else "unknown"
    if withheld:
        safe["withheld"] = withheld
    return safe


def _fits(pattern: re.Pattern[str] | None, value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | datetime):
        return True
    if isinstance(value, list | tuple | set | frozenset):
        return all(_fits(pattern, item) for item in value)
    return isinstance(value, str) and (pattern is None or pattern.fullmatch(value) is not None)


def _as_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event).decode()


class _FromLibraries(logging.Handler):
    """Says that a library logged, and where; its text may hold anything. librdkafka's holds brokers and topics, and is kept.

    While a broker is away librdkafka says so many times a second: one line in `QUIET_S` for each kind of thing is enough.
    """

    QUIET_S = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "hilum.kafka":
            tell = logger("library").error if record.levelno >= logging.ERROR else logger("library").warning
            tell("library_logged", library=record.name, line=record.lineno)
            return
        text = record.getMessage()
        kind = text.partition(" ")[0]
        if record.created - self._said.get(kind, -self.QUIET_S) >= self.QUIET_S:
            self._said[kind] = record.created
            logger("library").warning("kafka_client", says=text)
