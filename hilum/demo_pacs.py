"""The demo's PACS: a pynetdicom storage SCP on the loopback address that keeps each data set as it comes.

    python -m hilum.demo_pacs PORT FOLDER DATA

It never decodes what it is sent: what it keeps is what was sent, and an object that pydicom cannot write again is no fault of the
demo's. It ends once the Hilum on the data directory DATA has run and stopped, or on SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time there

from hilum.services.runstate import read_run_state

OUT_OF_RESOURCES = 0xA700


def main() -> None:
    """Run the storage SCP and watch over it."""
    port, folder, data = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ae = AE("PACS")
    ae.maximum_pdu_size = 0
    ae.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, _keep, [folder])])
    seen = False
    while not stop.wait(0.5):
        state = read_run_state(data)
        alive = state is not None and state.is_alive()
        if seen and not alive:
            break
        seen = seen or alive
    if server is not None:
        server.shutdown()


def _keep(event: evt.Event, folder: Path) -> int:
    """One file for each SOP instance."""
    name = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # a C-STORE has it
    unfinished = folder / f".{event.assoc.name}"
    try:
        unfinished.write_bytes(event.encoded_dataset())
        unfinished.rename(folder / f"{name}.dcm")
    except OSError:
        return OUT_OF_RESOURCES
    return 0x0000


if __name__ == "__main__":
    main()
