"""Text that arrives in tokens, and strings that end it."""

from hypothesis import given
from hypothesis import strategies as st

from tests.sampling.models import tokenizer
from zaya_jax.sampling.stopping import AnswerText


def follow(data: bytes, stops) -> tuple[str, list[str], int]:
    """The text, the released pieces and the number of tokens taken until it ends."""
    answer, pieces, count = AnswerText(tokenizer(), stops), [], 0
    for byte in data:
        count += 1
        ended = answer.push(7 + byte)
        pieces.append(answer.release())
        if ended:
            return answer.text, pieces, count
    answer.flush()
    pieces.append(answer.release(final=True))
    return answer.text, pieces, count


letters = st.text("ab\né€", max_size=30)


@given(letters, st.lists(st.text("ab\né€", min_size=1, max_size=4), max_size=3))
def test_an_answer_ends_before_the_first_stop_string(text, stops):
    found, pieces, count = follow(text.encode(), stops)
    ends = [n for n in range(len(text) + 1) if any(stop in text[:n] for stop in stops)]
    if not ends:
        assert found == text
    else:
        seen = text[: ends[0]]
        assert found == seen[: min(seen.find(stop) for stop in stops if stop in seen)]
        assert count == len(seen.encode())
    assert "".join(pieces) == found


def test_the_beginning_of_a_stop_string_is_held_back():
    _, pieces, _ = follow(b"one \n\ntwo\n\n\n", ["\n\n\n"])
    assert pieces == ["o", "n", "e", " ", "", "", "\n\nt", "w", "o", "", "", ""]


def test_special_tokens_have_no_text_and_broken_characters_are_shown_at_the_end():
    answer = AnswerText(tokenizer(), ["x"])
    for token in (4, 7 + ord("a"), 0, 7 + 0xC3):
        assert not answer.push(token)
    assert not answer.flush()
    assert answer.release(final=True) == answer.text == "a�"
