"""Answer-preserving trimming: its four steps, and what must hold of any conversation."""

from hypothesis import given, settings
from hypothesis import strategies as st

from zaya_jax.data.trimming import Turn, trim

ASKED = Turn((1,), answer=(10, 11))
FIRST = Turn((2,), (5,), (20, 21, 22), (6,), (30, 31))
LAST = Turn((2,), (5,), (40, 41, 42, 43), (6,), (50, 51))


def size(turns):
    return sum(len(turn.tokens) for turn in turns)


def test_what_fits_stays():
    turns = [ASKED, LAST]
    assert trim(turns, size(turns)) == turns


def test_the_last_reasoning_loses_its_end_by_exactly_as_much_as_is_too_long():
    turns = [ASKED, FIRST, ASKED, LAST]
    found = trim(turns, size(turns) - 3)
    assert found[:3] == turns[:3]
    assert found[3] == Turn((2,), (5,), (40,), (6,), (50, 51))


def test_earlier_think_blocks_go_when_that_is_not_enough():
    turns = [ASKED, FIRST, ASKED, LAST]
    found = trim(turns, size(turns) - 6)  # the earlier block has five tokens, the last one loses one
    assert found == [ASKED, Turn((2,), answer=(30, 31)), ASKED, Turn((2,), (5,), (40, 41, 42), (6,), (50, 51))]


def test_answers_that_are_too_long_drop_the_example():
    turns = [ASKED, FIRST, ASKED, LAST]
    least = size([ASKED, FIRST.without_thinking(), ASKED]) + len(LAST.tokens) - len(LAST.thinking)
    assert size(trim(turns, least)) == least
    assert trim(turns, least - 1) is None


TOKENS = st.lists(st.integers(0, 9), max_size=5).map(tuple)
ANSWER = st.builds(lambda header, answer: Turn(header, answer=answer), TOKENS, TOKENS)
THOUGHT = st.builds(lambda header, thought, answer: Turn(header, (7,), thought, (8,), answer), TOKENS, TOKENS, TOKENS)


@settings(max_examples=300)
@given(st.lists(st.one_of(ANSWER, THOUGHT), min_size=1, max_size=5), st.integers(0, 60))
def test_no_answer_is_cut_and_nothing_is_lost_in_vain(turns, budget):
    found = trim(turns, budget)
    bare = [*(turn.without_thinking() for turn in turns[:-1]), turns[-1]]
    if found is None:
        assert size(bare) - len(turns[-1].thinking) > budget
        return
    assert size(found) <= budget
    assert [(turn.header, turn.answer) for turn in found] == [(turn.header, turn.answer) for turn in turns]
    kept = found[-1].thinking
    assert kept == turns[-1].thinking[: len(kept)]
    assert (found[-1].opening, found[-1].closing) == (turns[-1].opening, turns[-1].closing)
    if kept != turns[-1].thinking:  # cut, so the budget is used up
        assert size(found) == budget
    if found[:-1] != turns[:-1]:  # earlier blocks are gone, so the last one alone could not make room
        assert size(turns) - len(turns[-1].thinking) > budget
