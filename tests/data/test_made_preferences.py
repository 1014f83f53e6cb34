"""Preferences made on the spot: the chosen reply is the better one by a rule written anew, and the parts are apart."""

import re
from collections import Counter

import pytest

from zaya_jax.data.made_preferences import PARTS, merit, pairs
from zaya_jax.data.schema import parse_preference
from zaya_jax.data.sources import SourceConfig, read
from zaya_jax.errors import UserError


def rank(prompt, reply):
    """The rule: the right form, then thanks, then fewer words."""
    form = {
        "line.": "\n" not in reply,
        "list.": reply.startswith("- "),
        "capitals.": reply == reply.upper(),
    }[prompt.split(" ")[-1]]
    return form, reply.lower().endswith("thank you."), -len(re.findall(r"[A-Za-z]+", reply))


@pytest.mark.parametrize("part", PARTS)
def test_the_chosen_reply_is_the_better_one(part):
    decided = Counter()
    for _, record in pairs(part):
        pair = parse_preference(record)
        prompt = pair.chosen.messages[0]["content"]
        chosen, rejected = (rank(prompt, side.messages[1]["content"]) for side in (pair.chosen, pair.rejected))
        assert chosen > rejected
        assert len(prompt) < 50 and max(len(side.messages[1]["content"]) for side in (pair.chosen, pair.rejected)) < 90
        decided[next(name for name, a, b in zip(("form", "thanks", "words"), chosen, rejected) if a != b)] += 1
    assert sum(decided.values()) == PARTS[part]
    assert min(decided.values()) > 0.1 * PARTS[part]  # each of the three is needed


def test_the_rule_is_the_merit():
    prompts = [f"Tell me of the old sea, {form}." for form in ("in one line", "as a list", "in capitals")]
    replies = [
        "The sea.",
        "The sea. It is old.",
        "The sea. Thank you.",
        "- The sea.\n- Thank you.",
        "THE SEA. WE LIKE IT.",
    ]
    for prompt in prompts:
        by_merit = sorted(replies, key=lambda reply: merit(prompt, reply))
        assert [rank(prompt, reply) for reply in by_merit] == sorted(rank(prompt, reply) for reply in replies)
    assert merit(prompts[0], "The sea. Thank you.") == pytest.approx(4 + 2 + 1 - 4 / 20)
    assert merit(prompts[0], "") == 0 and merit(prompts[0], "go " * 50) == 4


def test_no_subject_is_in_both_parts():
    def subjects(part):
        return {re.search(r"the (\w+ \w+),", record["prompt"][0]["content"])[1] for _, record in pairs(part)}

    train, held_out = subjects("train"), subjects("held_out")
    assert not train & held_out and len(train) > 200 and len(held_out) > 40


def test_they_are_a_source():
    found = list(read(SourceConfig("made", "made_preferences", "held_out")))
    assert len(found) == 200 and found[0][0] == "held_out/0"
    assert found[0][1] == parse_preference(next(pairs("held_out"))[1])


def test_mistakes_are_told():
    with pytest.raises(UserError, match="no such part of the preferences; expected train or held_out; found 'test'"):
        list(pairs("test"))
    with pytest.raises(UserError, match="not a prompt of these preferences"):
        merit("What?", "this")
