"""What holds for rules and objects of any kind."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.dicom import Header
from hilum.events import InstanceAccepted
from hilum.settings import Rule
from hilum.testing import an_instance
from processors.route.compiled import compiled
from processors.route.language import EXAMPLES
from processors.route.names import Asked
from processors.route.rules import Rules
from processors.route.why import why

EVENT = InstanceAccepted.following(an_instance())
ALL = Rules(Rule(name=str(number), when=when, to=(str(number),)) for number, when in enumerate(EXAMPLES))

# Conditions of the attributes A to D, as (text, how they come out)
LETTERS = {"A": "Rows", "B": "Columns", "C": "InstanceNumber", "D": "BitsStored"}
TREES = st.recursive(
    st.sampled_from(sorted(LETTERS)),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner) | st.tuples(st.just("not"), inner),
    max_leaves=8,
)


def text_of(tree: Any) -> str:
    if isinstance(tree, str):
        return f"{LETTERS[tree]} == 1"
    if tree[0] == "not":
        return f"not ({text_of(tree[1])})"
    return f"({text_of(tree[1])}) {tree[0]} ({text_of(tree[2])})"


def outcome(tree: Any, values: dict[str, bool]) -> bool:
    if isinstance(tree, str):
        return values[tree]
    if tree[0] == "not":
        return not outcome(tree[1], values)
    left, right = outcome(tree[1], values), outcome(tree[2], values)
    return (left and right) if tree[0] == "and" else (left or right)


@given(TREES, st.fixed_dictionaries(dict.fromkeys(LETTERS, st.booleans())))
def test_a_rule_matches_as_its_words_say_and_would_if_what_was_in_the_way_came_out_otherwise(tree: Any, values: dict[str, bool]) -> None:
    event = InstanceAccepted.following(an_instance(**{LETTERS[name]: int(value) for name, value in values.items()}))

    reason = why(compiled(Rule(name="r", when=text_of(tree), to=())), Asked(event, event.instance.header))

    assert reason.matches == outcome(tree, values)
    in_the_way = {name for name in LETTERS for part in reason.missed if LETTERS[name] in part.text}
    if not reason.matches and all(text_of(tree).count(LETTERS[name]) <= 1 for name in LETTERS):  # no `A and not A`
        assert outcome(tree, {name: value != (name in in_the_way) for name, value in values.items()})


PLAIN = st.none() | st.text(max_size=5) | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
TAGS = ["00080060", "00080008", "00180050", "00080020", "00081030", "00080080", "00280010", "00081110", "00081032", "00090010", "00091002"]
ELEMENTS = st.recursive(
    st.fixed_dictionaries({"vr": st.sampled_from(["CS", "DS", "LO", "UN", "SQ"])}, optional={"Value": st.lists(PLAIN, max_size=3)}),
    lambda inner: st.fixed_dictionaries(
        {"vr": st.just("SQ"), "Value": st.lists(st.dictionaries(st.sampled_from(["00081155", "00080100"]), inner, max_size=2), max_size=2)}
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(TAGS), ELEMENTS))
def test_whatever_an_object_holds_rules_answer_or_set_it_aside(header: dict[str, Any]) -> None:
    reasons = [why(each, Asked(EVENT, Header(header))) for each in ALL.compiled]

    matched = ALL.matched(EVENT, Header(header))

    assert matched.destinations.keys() == {reason.rule for reason in reasons if reason.matches}
    assert [each.says for each in matched.failed] == [reason.fails for reason in reasons if reason.fails]
