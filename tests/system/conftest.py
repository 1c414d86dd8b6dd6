from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.running import RunningHilum, running_hilum
from bench.wire import RawReceiver


@pytest.fixture(scope="session")
def pacs() -> Iterator[RawReceiver]:
    """The PACS that `one_hilum` delivers to."""
    receiver = RawReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def one_hilum(tmp_path_factory: pytest.TempPathFactory, pacs: RawReceiver) -> Iterator[RunningHilum]:
    """A Hilum that tests share; each sends objects of its own and asks about these only."""
    with running_hilum(tmp_path_factory.mktemp("hilum"), pacs.port) as running:
        yield running
