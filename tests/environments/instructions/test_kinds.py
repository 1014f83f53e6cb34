"""Generators of instructions: what the text says is what the check is given."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.environments.instructions.kinds import CONFLICTS, KINDS, conflict, draw, subjects
from zaya_jax.environments.instructions.response import limits, respond
from zaya_jax.grading.instructions import CHECKS, RELATIONS, check

SEEDS, SIZES = st.integers(0, 10**6), st.integers(0, 40)
NAMES = st.sampled_from(sorted(KINDS))


def test_every_generator_has_a_check_and_most_checks_a_generator():
    assert set(KINDS) <= set(CHECKS) and len(KINDS) >= 20
    assert set(CHECKS) - set(KINDS) == {"repeats_prompt"}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_the_text_says_what_the_check_is_given(name, strict):
    for seed in range(60):
        found = draw(random.Random(seed), name, seed % 15, strict)
        text, arguments = found.text, found.arguments
        assert text[0].isupper() or text[0] == '"' or text[0].isdigit()
        assert "number" not in arguments or str(arguments["number"]) in re.findall(r"\d+", text)
        relations = [relation for relation in RELATIONS if relation.replace("less", "fewer") in text.lower()]
        assert relations in ([arguments.get("relation")], []) and (
            relations or arguments.get("relation") in (None, "exactly")
        )
        quoted = re.findall(r'"([^"]*)"', text)
        said = [arguments[key] for key in ("word", "letter", "phrase") if key in arguments]
        assert {*said, *arguments.get("words", ()), *arguments.get("options", ())} <= set(quoted)


@given(NAMES, SEEDS, SIZES, st.booleans())
def test_one_instruction_alone_can_be_kept(name, seed, size, strict):
    found = draw(random.Random(seed), name, size, strict)
    text = respond("owl", [found])
    # A limit of a letter may be below what the topic has of it; nothing else stands in the way.
    assert name == "letter_frequency" or check(name, found.arguments, text)


@pytest.mark.parametrize("name", KINDS)
def test_there_are_several_wordings_and_what_is_drawn_is_about_something(name):
    drawn = [draw(random.Random(seed), name, 2, strict=True) for seed in range(60)]
    without = {re.sub(r'"[^"]*"|\d+|exactly|more than|fewer than|s\b', "", item.text.lower()) for item in drawn}
    assert len(without) > 1
    assert KINDS[name].repeats == any(subjects(item.arguments) for item in drawn if name != "paragraph_starts")


@pytest.mark.parametrize("relation", RELATIONS)
def test_limits_are_the_relations(relation):
    low, high = limits({"relation": relation, "number": 5})
    assert [count for count in range(12) if low <= count <= high] == [c for c in range(12) if RELATIONS[relation](c, 5)]


def test_conflicts_hold_both_ways_and_name_kinds():
    assert set(CONFLICTS) | {other for others in CONFLICTS.values() for other in others} <= set(KINDS)
    assert conflict("lowercase", "uppercase") and conflict("uppercase", "lowercase")
    assert conflict("words", "words") and not conflict("keywords", "keywords")
    assert not conflict("no_commas", "words")
