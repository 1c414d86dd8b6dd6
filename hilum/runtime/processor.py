"""What a processor is: plain functions of events, state and time; it knows no Kafka.

A stateless processor is one function, and its signature is its wiring::

    @processor
    def validate(event: InstanceReceived) -> InstanceAccepted: ...

One that is made with what it needs, or that remembers something, is a class with `name` and `handle`::

    class Route:
        name = "route"
        State = Seen
        def handle(self, event: InstanceAccepted, memory: Memory[Seen]) -> Iterable[InstanceRouted]: ...

What else it may have:

`configure(self, settings)`
    Called with the settings in force before the first event, and between two batches whenever `hilum apply` has published others
    (`hilum/bundle.py`). Raises `Misconfigured`, with nothing changed, if it cannot run them.
`prepare(self, events)`
    Called with the events of a batch before they are handled, for look-ups that are cheaper together. May raise `TryAgain`.
`work(self, event) -> W`, with `handle(self, event, ..., work: W)`
    Slow work on one event (HTTP, objects, pixels). It runs in threads before the transaction, one event of an object after
    the other; a Kafka client keeps being served meanwhile. Whatever it raises is the event's fate, as in `handle`.
`due(self, key, memory, now)`
    Called once the time given to `memory.put(..., due=)` has come. Returns events as `handle` does.

The events of several input types (`event: A | B`) that share a key come to the same worker, in order within each type.
`handle` gives one event, several (an iterable) or none (None). If it raises `Quarantine`, or anything unforeseen, nothing
that it said or remembered about this event counts, and the event waits for a person; if it raises `TryAgain`, the event is
handled again later. Only what it says beyond its first 2,000 events is written before it has returned (`stage.CHUNK`).
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import update_wrapper
from typing import Any, Generic, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

from hilum.events import Event

S = TypeVar("S")
E = TypeVar("E", bound=Event)
R = TypeVar("R")


class Memory(Protocol[S]):
    """What a stateful processor remembers, for the partition of the event at hand.

    Rows are values: `get` gives a fresh copy each time, and what a handler changed counts only once it has returned
    (if it raises, nothing was changed).
    """

    def get(self, key: str) -> S | None:
        """The row of `key`, None if there is none."""
        ...

    def put(self, key: str, row: S, *, due: datetime | None = None) -> None:
        """Remember `row`; with `due`, have the processor's `due` called for `key` once that time has come."""
        ...

    def forget(self, key: str) -> None:
        """Drop the row of `key` and its timer."""
        ...


class Processor(Protocol):
    """What `ProcessorRole` runs."""

    @property
    def name(self) -> str:
        """As in `hilum run NAME`; part of the consumer group, the changelog topic and the ids of what it says."""
        ...

    @property
    def handle(self) -> Callable[..., Any]:
        """What it does with one event."""
        ...


class FunctionProcessor(Generic[E, R]):
    """A function that is a processor; it can still be called."""

    def __init__(self, function: Callable[[E], R]) -> None:
        update_wrapper(self, function)
        self.name = function.__name__
        self.handle = function

    def __call__(self, event: E) -> R:
        """Handle one event."""
        return self.handle(event)


def processor(function: Callable[[E], R]) -> FunctionProcessor[E, R]:
    """Make a function of one event a processor of the function's name."""
    return FunctionProcessor(function)


class Wiring(Struct, frozen=True, kw_only=True):
    """How a processor is connected, read from the type hints of its `handle`."""

    name: str
    inputs: tuple[type[Event], ...]
    outputs: tuple[type[Event], ...]
    #: The class of its rows; None if it remembers nothing.
    state: type[Struct] | None
    takes_work: bool
    prepare: Callable[[Sequence[Event]], None] | None
    work: Callable[[Event], Any] | None
    due: Callable[..., Any] | None

    @classmethod
    def of(cls, processor: Processor) -> Wiring:
        """Raises `TypeError` in words if the processor does not say what it reads and gives."""
        handle = processor.handle
        hints = get_type_hints(handle)
        gives = hints.pop("return", inspect.Parameter.empty)
        names = list(inspect.signature(handle).parameters)
        state = getattr(processor, "State", None)
        work = getattr(processor, "work", None)
        due = getattr(processor, "due", None)
        inputs = _events_in(hints.get(names[0])) if names else ()
        expected = [*names[:1], *(["memory"] if state else []), *(["work"] if work else [])]
        if not inputs or gives is inspect.Parameter.empty:
            raise TypeError(f"{processor.name}: `handle` must say in type hints which events it takes and gives.")
        if names != expected:
            raise TypeError(f"{processor.name}: `handle` takes ({', '.join(names)}), but its class asks for ({', '.join(expected)}).")
        if due and not state:
            raise TypeError(f"{processor.name}: `due` needs a `State`, for timers are kept with rows.")
        outputs = dict.fromkeys(_events_in(gives) + (_events_in(get_type_hints(due).get("return")) if due else ()))
        return cls(
            name=processor.name,
            inputs=inputs,
            outputs=tuple(outputs),
            state=state,
            takes_work=work is not None,
            prepare=getattr(processor, "prepare", None),
            work=work,
            due=due,
        )


def said(result: Any) -> Iterable[Event]:
    """What `handle` or `due` gave, as an iterable."""
    if result is None:
        return ()
    if isinstance(result, Event):
        return (result,)
    events: Iterable[Event] = result
    return events


def _events_in(hint: Any) -> tuple[type[Event], ...]:
    """The event classes in a hint such as `A`, `A | B`, `A | None`, `Iterable[A | B]`."""
    if isinstance(hint, type) and not get_origin(hint):
        return (hint,) if issubclass(hint, Event) else ()
    if get_origin(hint) in (Union, types.UnionType) or (isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Iterable)):
        return tuple(event for argument in get_args(hint) for event in _events_in(argument))
    return ()
