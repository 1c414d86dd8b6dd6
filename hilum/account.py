"""The account of every object, as `hilum reconcile` gives it."""

from __future__ import annotations

from msgspec import Struct


class Account(Struct, frozen=True, kw_only=True):
    """What `hilum reconcile` says. Objects are counted by receipt: each arrival counts.

    Unless something is unaccounted, `expected_deliveries` is the sum of the six states; `parked` is a part of `pending`.
    """

    received: int
    accepted: int
    quarantined: int
    duplicates: int
    undecided: int
    #: Decided to be delivered somewhere.
    routed: int
    #: Decided to be delivered nowhere, because no rule asks for it.
    unrouted: int
    #: Waiting for their study to be complete.
    waiting: int = 0
    #: Of these, those whose study's time has come and a rule cannot be evaluated on it.
    stuck: int = 0
    #: Sent back by a destination that had got them.
    sent_back: int = 0
    #: Of another header than the same object before, and left aside as the settings say.
    ignored: int = 0
    #: Named by a rejection note.
    withdrawn: int = 0
    #: Sent nowhere so far, and a rule could not be evaluated on them.
    held: int = 0
    #: Objects on which a rule could not be evaluated; other rules may have sent them somewhere.
    failing: int = 0
    expected_deliveries: int
    delivered: int
    already_there: int
    returned: int
    rejected: int
    cancelled: int
    #: Without a final state.
    pending: int
    #: Of these, those that wait for a person.
    parked: int = 0
    unaccounted: int
    #: Whether index and ledger had passed the ends of their topics; if not, what is missing may merely be late.
    caught_up: bool
    #: Objects in this machine's spool: acknowledged, safe, and not on the log yet.
    spooled: int
    #: Originals in the object store.
    stored: int
    #: Originals that are no longer kept, since their retention has passed.
    expired: int = 0
    #: Of these, how many were read back: a piece of each, or with `verify` each whole, against its digest.
    read: int
    #: HL7 messages on the log: each was looked for in the index.
    messages: int = 0
    #: Messages to other systems (HL7, MPPS) without a final state, and of these those that wait for a person.
    messages_pending: int = 0
    messages_parked: int = 0
    #: One sentence for each gap, by UID or id; the first ones of each kind.
    details: tuple[str, ...] = ()
    #: Deliveries by destination and state.
    destinations: dict[str, dict[str, int]] = {}
    #: The same of messages to other systems.
    messages_to: dict[str, dict[str, int]] = {}

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for and decided on, so that `hilum reconcile` exits with 0."""
        return self.unaccounted == 0 and self.undecided == 0 and self.caught_up

    @property
    def at_rest(self) -> bool:
        """Whether nothing is on its way any more; what waits for a person is not."""
        return self.caught_up and self.undecided == 0 and self.pending == self.parked

    @property
    def verdict(self) -> str:
        """All of it in words, for people."""
        said = "Everything is accounted for." if self.ok else "Not everything is accounted for."
        if self.rejected:
            said += f" Rejected deliveries: {self.rejected:,} (see `hilum dest rejected`)."
        if self.parked:
            said += f" Deliveries that wait for a person: {self.parked:,} (see `hilum deliver list --state parked`)."
        if self.messages_parked:
            said += f" Messages that wait for a person: {self.messages_parked:,} (see `hilum deliver list --state parked`)."
        if self.stuck:
            said += f" Objects whose study waits for a rule that can be evaluated: {self.stuck:,} (see `hilum status`)."
        if self.failing:
            said += f" Objects on which a rule could not be evaluated: {self.failing:,} (see `hilum status`)."
        if self.unrouted:
            said += f" Objects that no rule sends anywhere: {self.unrouted:,}."
        return said

    @property
    def balance(self) -> str:
        """How the objects that were received divide, for people; what is rare is left out where there is none."""
        rare = (
            (self.waiting, "waiting for their study"),
            (self.sent_back, "sent back by a destination"),
            (self.ignored, "left aside"),
            (self.withdrawn, "withdrawn by a rejection note"),
            (self.held, "held for a rule that can be evaluated"),
        )
        parts = (
            (self.routed, "to be delivered"),
            (self.unrouted, "sent nowhere by any rule"),
            (self.duplicates, "duplicates"),
            *((count, what) for count, what in rare if count),
            (self.quarantined, "quarantined"),
            (self.undecided, "undecided"),
        )
        return f"{self.received:,} received = " + " + ".join(f"{count:,} {what}" for count, what in parts) + "."

    def counts(self) -> dict[str, int]:
        """The numbers, in their order."""
        return {name: value for name in self.__struct_fields__ if type(value := getattr(self, name)) is int}
