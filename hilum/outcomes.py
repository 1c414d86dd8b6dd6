"""What a peer's status makes of a delivery, as the destination and its profile say: the one place where a sink asks for it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from hilum.profiles import GENERIC, Outcome, Profile, ReasonOutcome, profile
from hilum.sink import Later, Park, Settled


class Meanings(Struct, frozen=True, kw_only=True):
    """What a destination's answers mean: its profile, and where its own settings say otherwise."""

    profile: Profile
    own: Mapping[str, Outcome] = {}  # msgspec copies an empty one
    own_reasons: Mapping[str, ReasonOutcome] = {}

    def of_status(self, peer: str, status: int, comment: str) -> Settled:
        """What a C-STORE status means for the object (PS3.4 B.2.3, PS3.7 C).

        `peer` names the destination to people; `comment` are its own words, which go to the ledger only. Raises `Later` if the object
        may be taken another time, and `Park` if it will not be without a person.
        """
        outcome = self.profile.outcome(status, self.own)
        return self._settled(peer, outcome, f"0x{status:04X}", self.profile.words("statuses", status), comment)

    def of_reason(self, peer: str, code: int, comment: str = "", *, http: int = 0) -> Settled | None:
        """What a FailureReason (0008,1197) of a STOW-RS response means for its instance (PS3.18 I.2); as `of_status`.

        None: it is a conflict, of which the setting `conflict` says what to make. `http` is the status of the response.
        """
        outcome = self.profile.reason(code, self.own_reasons)
        if outcome == "conflict":
            return None
        status = f"{http} 0x{code:04X}" if http else f"0x{code:04X}"
        return self._settled(peer, outcome, status, self.profile.words("reasons", code), comment)

    def _settled(self, peer: str, outcome: Outcome, code: str, words: str, comment: str) -> Settled:
        if outcome in ("delivered", "already_there"):
            return Settled(state=outcome, peer_status=code, peer_comment=comment)
        if outcome == "permanent":
            return Settled(state="rejected", peer_status=code, comment=f"{peer}: {words}.", peer_comment=comment)
        sentence = f"{peer} answered {code} ({words})."
        if outcome == "person":
            fix = "Put that right there or here, then: hilum deliver retry."
            raise Park(sentence, fix=fix, peer_status=code, peer_comment=comment)
        raise Later(sentence, fix="The peer's own log says why; Hilum tries again.", peer_status=code, peer_comment=comment)


def meanings(
    profile_name: str, own: Mapping[str, Outcome] | None = None, own_reasons: Mapping[str, ReasonOutcome] | None = None
) -> Meanings:
    """The meanings of a destination's answers by the name of its profile, empty if it has none. Raises `Misconfigured`."""
    return Meanings(profile=profile(profile_name or GENERIC), own=own or {}, own_reasons=own_reasons or {})
