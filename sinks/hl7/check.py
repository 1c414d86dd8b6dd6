"""Try the way to an HL7 receiver."""

from __future__ import annotations

from collections.abc import Iterator

from hilum.errors import Misconfigured
from hilum.hl7.acknowledgement import new_control_id
from hilum.hl7.message import Field, build
from hilum.hl7.outgoing import now
from hilum.sink import Step, step

from .client import Client


def check(client: Client, *, with_object: bool) -> Iterator[Step]:
    """Connect; with `with_object` send a network management query (NMQ^N01, HL7 v2.5.1 14.3.1), which any receiver answers somehow."""
    try:
        with step("connect") as connecting:
            client.connect()
            connecting.says = f"{client.where} takes connections"
        yield connecting.done
        if not connecting.done.ok or not with_object:
            return
        with step("test message") as sending:
            control_id = new_control_id()
            header: list[str | Field] = ["HILUM", "", "", "", now(), "", [[["NMQ"], ["N01"], ["NMQ_N01"]]], control_id, "T", "2.5.1"]
            answer = client.send(control_id, build([("MSH", header), ("NST", ["N"])]).encode("ascii"))
            if not answer.code:
                raise Misconfigured("hl7-answer", f"{client.where} answers without a code.", fix="Look at the receiver.")
            sending.says = f"answered with {answer.code}: it reads HL7, whatever it says of a test"
        yield sending.done
    finally:
        client.close()
