"""Make the secrets of docker-compose.yml on its first start, each file readable by the one user who needs it.

    python make_secrets.py FOLDER

They are made all at once and then stay; removing the volumes (`docker compose down --volumes`) removes them with the data.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

# The users of the containers: the Dockerfile's, that of the image postgres, that of the image chrislusf/seaweedfs.
HILUM, POSTGRES, SEAWEED = 10001, 999, 1000
OF_SITE = "hilum/site-secret"


def make() -> dict[str, tuple[int, str]]:
    """Each secret's owner and text, by its path. The store's own comes last: it stands for all."""
    password = secrets.token_urlsafe(32)
    access_key, secret_key = secrets.token_hex(10), secrets.token_urlsafe(32)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    identity = {"name": "hilum", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    return {
        "hilum/postgres-dsn": (HILUM, f"postgresql://hilum:{password}@postgres:5432/hilum"),
        "hilum/s3-access-key": (HILUM, access_key),
        "hilum/s3-secret-key": (HILUM, secret_key),
        "postgres/password": (POSTGRES, password),
        "store/s3.json": (SEAWEED, json.dumps({"identities": [identity]})),
    }


def site_secret() -> tuple[int, str]:
    """Owner and text of what names of patients on Kafka are made with; it has nothing to do with the others, and came later."""
    return HILUM, secrets.token_hex(32)


def write(path: Path, owner: int, text: str) -> None:
    """Write `text` whole or not at all, for `owner` only, to stable storage."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.write(text)
        file.flush()
        if os.geteuid() == 0:
            os.fchown(file.fileno(), owner, owner)
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def main(folder: Path) -> None:
    """Make what is not there. Nothing has read a secret before the last of them is written, so an interrupted start begins anew."""
    made = {} if (folder / OF_SITE).exists() else {OF_SITE: site_secret()}
    bound = make()
    if not (folder / list(bound)[-1]).exists():
        made |= bound
    for name, (owner, text) in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, owner, text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
