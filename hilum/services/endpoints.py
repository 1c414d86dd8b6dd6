"""Where Kafka, PostgreSQL and S3 are, be they embedded or the site's own."""

from __future__ import annotations

from typing import Any

import msgspec

from hilum.errors import NotFound
from hilum.settings import Settings


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to reach the three services. Holds passwords: never log it."""

    kafka_bootstrap: str  #: `host:port`
    kafka_login: dict[str, str] = {}  #: settings of `[kafka]` by which an embedded broker lets in, by name; empty: as the settings say
    postgres_dsn: str  #: `postgresql://user:password@host:port/database`
    s3_endpoint: str  #: `http://host:port`
    s3_access_key: str
    s3_secret_key: str
    s3_sync_path: str = ""  #: directory of the embedded store, whose disk is synced before an object counts as durable

    def __repr__(self) -> str:
        return f"Endpoints({self.kafka_bootstrap}, {self.s3_endpoint}, …)"

    def environment(self) -> dict[str, str]:
        """The environment variables by which a role's process learns its settings (`hilum.settings`)."""
        return {
            "HILUM_KAFKA__BOOTSTRAP": self.kafka_bootstrap,
            **{f"HILUM_KAFKA__{name.upper()}": value for name, value in self.kafka_login.items()},
            "HILUM_POSTGRES__DSN": self.postgres_dsn,
            "HILUM_S3__ENDPOINT": self.s3_endpoint,
            "HILUM_S3__ACCESS_KEY": self.s3_access_key,
            "HILUM_S3__SECRET_KEY": self.s3_secret_key,
            **({"HILUM_S3__SYNC_PATH": self.s3_sync_path} if self.s3_sync_path else {}),
        }

    def filled_into(self, settings: Settings) -> Settings:
        """The same settings with these endpoints in them."""
        replace = msgspec.structs.replace
        return replace(
            settings,
            kafka=replace(settings.kafka, bootstrap=self.kafka_bootstrap, **self.kafka_login),
            postgres=replace(settings.postgres, dsn=self.postgres_dsn),
            s3=replace(
                settings.s3,
                endpoint=self.s3_endpoint,
                access_key=self.s3_access_key,
                secret_key=self.s3_secret_key,
                sync_path=self.s3_sync_path,
            ),
        )


def embedded_names(settings: Settings) -> list[str]:
    """Which of the three run here: those for which the settings name no server of the site's own."""
    external = {"kafka": settings.kafka.bootstrap, "postgres": settings.postgres.dsn, "s3": settings.s3.endpoint}
    return [name for name, where in external.items() if not where]


def endpoints_of(settings: Settings, embedded: dict[str, dict[str, str]]) -> Endpoints:
    """Join what the settings name with what runs here (`embedded`: per service what its `endpoint()` said)."""
    kafka: dict[str, Any] = embedded.get("kafka", {"bootstrap": settings.kafka.bootstrap})
    postgres: dict[str, Any] = embedded.get("postgres", {"dsn": settings.postgres.dsn})
    own_s3 = {name: getattr(settings.s3, name) for name in ("endpoint", "access_key", "secret_key", "sync_path")}
    s3: dict[str, Any] = embedded.get("s3", own_s3)
    return Endpoints(
        kafka_bootstrap=kafka["bootstrap"],
        kafka_login={name: value for name, value in kafka.items() if name != "bootstrap"},
        postgres_dsn=postgres["dsn"],
        s3_endpoint=s3["endpoint"],
        s3_access_key=s3["access_key"],
        s3_secret_key=s3["secret_key"],
        s3_sync_path=s3["sync_path"],
    )


def with_endpoints(settings: Settings) -> Settings:
    """Settings in which all three services are named: embedded ones as the Hilum that runs on `settings.data_dir` has them.

    Raises `NotFound` if one is embedded and no Hilum runs there.
    """
    from hilum.services.runstate import read_run_state

    if not embedded_names(settings):
        return settings
    state = read_run_state(settings.data_dir)
    if state is None or state.endpoints is None or not state.is_alive():
        raise NotFound(
            f"No Hilum is running on {settings.data_dir}.", fix="Start it with `hilum up`, or name its data directory with --data."
        )
    return state.endpoints.filled_into(settings)
