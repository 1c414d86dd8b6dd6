"""Find what a name in the settings or on the command line stands for: a role's module, a sink's module.

This is the composition root: the only place where the core reaches the stage packages, and only by name.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from hilum.errors import Misconfigured
from hilum.role import Role
from hilum.settings import Settings

#: Where a role's module may be, in this order.
PACKAGES = ("ingest", "processors", "hilum.runtime")
#: Roles of which any number may run beside each other, in any processes.
_WITHOUT_SLOT = ("dicom", "stow", "folder", "commitment", "query", "deliver", "expire", "index", "ledger", "hl7", "worklist", "notices")


def role_names() -> tuple[str, ...]:
    """Every role there is, in the order in which data flows."""
    return tuple(name for package in PACKAGES for name in _modules(package) if _offers_role(package, name))


def role_summaries() -> dict[str, str]:
    """What each role does, as the first sentence of its module says."""
    docs = {name: importlib.import_module(f"{_package_of(name)}.{name}").__doc__ or "" for name in role_names()}
    return {name: " ".join(doc.partition("\n\n")[0].split()) for name, doc in docs.items()}


def find_role(name: str, settings: Settings) -> Role:
    """The role `name`, made with `settings`. Raises `Misconfigured` that names the nearest role."""
    role: Role = importlib.import_module(f"{_package_of(name)}.{name}").role(settings)
    return role


def _package_of(name: str) -> str:
    for package in PACKAGES:
        if name in _modules(package) and _offers_role(package, name):
            return package
    near = difflib.get_close_matches(name, role_names(), n=1)
    fix = f"Did you mean {near[0]}?" if near else f"Roles are: {', '.join(role_names())}."
    raise Misconfigured("role-unknown", f"There is no role {name!r}.", fix=fix)


def check_roles(settings: Settings) -> None:
    """Raise `Misconfigured` if `roles.processes` names a role that does not exist."""
    for process in settings.roles.processes:
        for name in process.split(","):
            _package_of(name.strip())


def role_doubts(settings: Settings) -> list[str]:
    """What `roles.processes` allows and hardly means, one sentence each."""
    if not settings.roles.processes:
        return ["roles.processes is empty: `hilum up` starts the servers, and nothing of Hilum."]
    processes = [[name.strip() for name in process.split(",")] for process in settings.roles.processes]
    found = []
    for role in role_names():
        having = [process for process in processes if role in process]
        if not having:
            if _is_missed(role, settings):  # the others are for who asks for them
                found.append(f"No process of roles.processes has the role {role}: what it does is not done, unless it runs elsewhere.")
        elif any(process.count(role) > 1 for process in having):
            found.append(f"A process of roles.processes has the role {role} twice.")
        elif role == "publish" and len(having) > 1:
            found.append("Several processes have the role publish: one publishes from a spool, the others wait to take over.")
        elif role == "hl7" and len(having) > 1:
            found.append("Several processes have the role hl7: one has the journal of messages and listens, the others wait to take over.")
        elif role not in _WITHOUT_SLOT and any(process != having[0] for process in having):
            found.append(
                f"Different processes have the role {role}: they take the same slot and end each other."
                " For several workers, repeat the whole entry in roles.processes."
            )
    return [*found, *_without_match(settings)]


def _without_match(settings: Settings) -> Iterator[str]:
    """What waits for a match that no process makes."""
    missing = [role for role in ("orders", "match") if role not in settings.role_names]
    if not missing:
        return
    lack = f"no process of roles.processes has the role {' or '.join(missing)}"
    effects = {"hold": "unless it runs elsewhere, nothing goes there", "warn": "unless it runs elsewhere, each object goes 30 seconds late"}
    for name, destination in settings.destinations.items():
        if effect := effects.get(str(destination.get("require_order"))):
            yield f'destinations.{name}.require_order is "{destination["require_order"]}", and {lack}: {effect}.'
    for aet, sender in settings.senders.items():
        if sender.coerce:
            yield f"senders.{aet}.coerce has attributes, and {lack}: unless it runs elsewhere, its objects go 30 seconds late as they are."


def _is_missed(role: str, settings: Settings) -> bool:
    """Whether something that `settings` ask for is not done where no process has the role."""
    if role in ("orders", "match"):
        return "hl7" in settings.role_names
    if role in ("hl7", "grammar", "worklist"):  # `hilum.settings.doubts` looks at these
        return False
    if role == "notices":
        return any(destination.get("type") in ("hl7", "mpps") for destination in settings.destinations.values())
    if role == "expire":
        return settings.retention.anything
    if role == "query":
        return any(sender.query is not None and sender.query.allowed for sender in settings.senders.values())
    return role in Settings().role_names


def modules_of(settings: Settings) -> list[str]:
    """The modules that the processes of `settings` need: of their roles, and of the types of destinations if one delivers."""
    names = settings.role_names
    sinks = {f"sinks.{destination['type']}" for destination in settings.destinations.values()} if "deliver" in names else set()
    return [*(f"{_package_of(name)}.{name}" for name in sorted(names)), *sorted(sinks)]


def stateful_processors() -> tuple[str, ...]:
    """The names of the processors that remember something: classes in `processors/` with a `State`. Each has a changelog topic."""
    names = []
    for module in _modules("processors"):
        found = importlib.import_module(f"processors.{module}")
        kinds = (value for value in vars(found).values() if isinstance(value, type) and value.__module__ == found.__name__)
        names += [str(vars(kind)["name"]) for kind in kinds if getattr(kind, "State", None) is not None and hasattr(kind, "handle")]
    return tuple(names)


def find_stage(path: str) -> ModuleType:
    """A stage module by its dotted path, such as `processors.route.rules`."""
    return importlib.import_module(path)


def _modules(package: str) -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def _offers_role(package: str, name: str) -> bool:
    """Whether the module defines `role`, read from its source so that listing roles imports none of them."""
    spec = importlib.util.find_spec(f"{package}.{name}")
    if spec is None or spec.origin is None:
        return False
    with open(spec.origin, encoding="utf-8") as source:  # noqa: PTH123  # `origin` is a plain string
        return any(line.startswith("def role(") for line in source)
