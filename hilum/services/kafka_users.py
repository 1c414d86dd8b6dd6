"""Users of the embedded broker beside Hilum, and what they may read. Kafka keeps both by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException

# Its annotations re-export none of these.
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from hilum import bus
from hilum.errors import TryAgain
from hilum.settings import Settings

_WITHIN_S = 20.0


def put(settings: Settings, user: str, password: str) -> None:
    """Let a user in with this password, and with no other. Raises `TryAgain`.

    One that must not come in any more is given a password that nobody knows: with a deleted SCRAM credential in its log, Kafka 4.3.1 comes
    back from a restart without those of the others, Hilum's among them.
    """
    wanted = UserScramCredentialUpsertion(user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), password.encode())
    _asked(settings, lambda admin: admin.alter_user_scram_credentials([wanted]))


def let_read(settings: Settings, user: str, topics: tuple[str, ...], group: str) -> None:
    """Let a user read these topics, in this group. May be repeated. Raises `TryAgain`."""

    def may_read(kind: Any, name: str) -> Any:
        return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", AclOperation.READ, AclPermissionType.ALLOW)

    rules = [*(may_read(ResourceType.TOPIC, topic) for topic in topics), may_read(ResourceType.GROUP, group)]
    _asked(settings, lambda admin: admin.create_acls(rules))


def let_nothing(settings: Settings, user: str) -> None:
    """Let a user read nothing any more, one that is logged in included. Raises `TryAgain`."""
    anything: Any = None
    whose = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, f"User:{user}", anything, AclOperation.ANY, AclPermissionType.ANY
    )
    _asked(settings, lambda admin: admin.delete_acls([whose]))


def _asked(settings: Settings, ask: Callable[[AdminClient], dict[Any, Any]]) -> None:
    admin = bus.admin(settings)  # answers come as long as it lives
    try:
        for answer in ask(admin).values():
            answer.result(_WITHIN_S)
    except (KafkaException, TimeoutError):
        fix = "See that it runs (`hilum status`), and repeat."
        raise TryAgain("Kafka did not take a user, or what it may read.", fix=fix) from None
