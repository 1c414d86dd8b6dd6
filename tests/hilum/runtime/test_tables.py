"""The loop from Kafka into PostgreSQL, on both. The handler of these tests writes one row an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import psycopg
import pytest
from confluent_kafka import TopicPartition
from conftest import Log, Running

from hilum import bus
from hilum.database import connect
from hilum.errors import Misconfigured, Quarantine, Reason, Stopped
from hilum.events import InstanceReceived, InstanceRouted
from hilum.runtime.positions import Overtaken, Positions
from hilum.runtime.tables import TOO_MANY_FAILED, Envelope, TableRole, events_of
from hilum.settings import Postgres, Settings
from hilum.testing import an_instance, eventually

pytestmark = pytest.mark.system
TOPIC = InstanceReceived.topic.name
