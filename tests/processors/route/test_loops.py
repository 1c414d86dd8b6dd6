"""Systems that forward everything to each other come to rest."""

from __future__ import annotations

import itertools
from collections import deque

import pytest

from hilum.events import InstanceRouted
from hilum.settings import Sender, Settings
from tests.processors.route.hospital import FixedRules, Hospital

#: More than enough for everybody to have told everybody once.
MOST = 60


class Network:
    """Two Hilums and an Orthanc. Everybody sends what comes to the two others; Orthanc writes it anew first, and knows no duplicates."""

    def __init__(self, *, orthanc_changes: str = "") -> None:
        self.hilums = {name: self._hilum(name) for name in ("A", "B")}
        self.under_way: deque[tuple[str, str, str, str]] = deque()
        self.sent = 0
        self.encodings = itertools.count(1)
        self.orthanc_changes = orthanc_changes

    def _hilum(self, name: str) -> Hospital:
        peers = sorted({"A", "B", "ORTHANC"} - {name})
        destinations = {peer: {"type": "dicom", "host": "192.0.2.1", "port": 104, "aet": peer} for peer in peers}
        return Hospital(FixedRules(now=peers), Settings(destinations=destinations, senders={"ORTHANC": Sender(corrections="take")}))

    def send(self, source: str, target: str, sop: str, digest: str) -> None:
        self.under_way.append((source, target, sop, digest))

    def run(self) -> None:
        """Until nothing is under way."""
        while self.under_way:
            source, target, sop, digest = self.under_way.popleft()
            self.sent += 1
            assert self.sent <= MOST, "it goes round and round"
            if target == "ORTHANC":
                anew = f"{digest[0]}{self.orthanc_changes or digest[1]}{next(self.encodings)}"
                for peer in ("A", "B"):
                    if peer != source:
                        self.send("ORTHANC", peer, sop, anew)
                continue
            for event in self.hilums[target].arrive(sop, calling_aet=source, sha256=digest):
                if isinstance(event, InstanceRouted):
                    for delivery in event.deliveries:
                        self.send(target, delivery.destination, sop, event.object.sha256[:3])


@pytest.mark.parametrize("first", ["A", "B", "ORTHANC"])
@pytest.mark.parametrize("orthanc_changes", ["", "z"])
def test_what_is_sent_to_any_of_them_comes_to_rest_and_reaches_all(first: str, orthanc_changes: str) -> None:
    network = Network(orthanc_changes=orthanc_changes)
    for number in range(3):
        network.send("CT1", first, f"2.25.3{number}", "aa0")

    network.run()

    assert all(len(hilum.index.accepted) + len(hilum.arrivals) >= 3 for hilum in network.hilums.values())
    assert not any(hilum.quarantined for hilum in network.hilums.values())
