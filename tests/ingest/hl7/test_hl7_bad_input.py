"""Each row of the table in `docs/reference/hl7.md`, sent to a listener."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.events import MessageReceived
from hilum.hl7.message import Message, parse
from hilum.testing import eventually
from ingest.hl7.example import Example
from ingest.hl7.examples import EXAMPLES

from .listening import Peer, listening


def answers_to(example: Example, port: int) -> list[Message]:
    """The acknowledgements that come, each with its MSA and ERR."""
    with Peer(port) as peer:
        for piece in example.sent():
            peer.send(piece)
        found: list[Message] = []
        ended = example.stays
        while True:
            if not ended and len(found) >= len(example.answers):
                peer.end()  # so that the connection ends once there are no further answers
                ended = True
            try:
                raw = peer.raw_answer()
            except ConnectionResetError:  # as the listener ends connections that say nothing
                raw = None
            if raw is None:
                return found
            found += [parse("MSH|" + each) for each in raw.decode("latin-1").split("MSH|")[1:]]


def place_of(answer: Message) -> str:
    """ERR-2 as a path."""
    return "-".join(filter(None, (answer.get("ERR-2.1"), answer.get("ERR-2.3"))))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.replace(" ", "-"))
def test_each_has_its_acknowledgement_and_outcome(example: Example, tmp_path: Path) -> None:
    with listening(tmp_path, **example.settings) as running:
        answers = answers_to(example, running.port)
        kept = eventually(lambda: found if len(found := running.kept()) >= len(example.kept) else None)
    assert kept is not None
    last = kept[-1]

    assert tuple(answer.get("MSA-1") for answer in answers) == example.answers
    assert tuple("received" if isinstance(each, MessageReceived) else each.reason for each in kept) == example.kept
    if example.condition:
        assert (answers[-1].get("ERR-3.1"), place_of(answers[-1])) == (example.condition, example.place)
    if isinstance(last, MessageReceived):
        assert tuple(finding.code for finding in last.findings) == example.findings


def test_no_row_is_there_twice() -> None:
    titles = [example.title for example in EXAMPLES if example.title != "The same, strict"]

    assert len(set(titles)) == len(titles)
