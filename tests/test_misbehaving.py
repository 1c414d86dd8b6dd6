"""The test SCP as a process of its own, as a person runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hilum.association import Association
from hilum.peer import Peer
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, Context
from tests.misbehaving import BEHAVIOURS, words_of

ROOT = Path(__file__).parent.parent
CT = Context(abstract_syntax="1.2.840.10008.5.1.4.1.1.2", transfer_syntax=EXPLICIT_VR_LITTLE_ENDIAN)
ELEMENT = b"\x08\x00\x60\x00CS\x02\x00CT"


def test_it_plays_the_behaviour_that_it_is_told() -> None:
    command = [sys.executable, "-m", "tests.misbehaving", "answers", "0xA700", "0xC000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"PACS on 127\.0\.0\.1:(\d+): answers\.", process.stdout.readline())
            assert found
            peer = Peer(host="127.0.0.1", port=int(found[1]), aet="PACS", calling_aet="TEST")
            association = Association(peer, [CT])
            said = [association.c_store(CT, uid, lambda _: iter([ELEMENT])) for uid in ("2.25.1", "2.25.2", "2.25.1")]
            association.release()
        finally:
            process.terminate()

    assert [(answer.status, answer.comment) for answer in said] == [(code, words_of(code)) for code in (0xA700, 0xC000, 0xA700)]


def test_its_help_tells_of_every_behaviour() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.misbehaving", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert [name for name in BEHAVIOURS if f"{name}(" not in done.stdout] == []
