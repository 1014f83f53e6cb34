"""The text that every Python ships, split so that nothing held out has been trained on."""

from zaya_jax.data.python_docs import hold_out, python_topics, without_repetitions, without_tables


def paragraphs(documents):
    """Every paragraph with its spaces made one."""
    parts = (part.split() for text in documents.values() for part in text.split("\n\n"))
    return [" ".join(words) for words in parts if words]


def test_repeated_paragraphs_stay_only_where_they_come_first():
    pages = {"a": "one\n\ntwo\n", "b": "  two\n\nthree\n   more\n", "c": "\n\none\n\n", "d": "three more\n\nfour"}
    assert without_repetitions(pages) == {"a": "one\n\ntwo\n", "b": "three\n   more\n", "d": "four\n"}


def test_tables_are_left_out():
    assert (
        without_tables("one\n\n   +-----+---+\n   | a   | b |\n   +=====+===+\n\ntwo + -- three\n")
        == "one\n\ntwo + -- three\n"
    )


def test_hold_out_takes_the_middle_one_of_every_ten():
    pages = {str(i): "text" for i in range(27)}
    train, held_out = hold_out(pages)
    assert list(held_out) == ["5", "15", "25"]
    assert list(train) == [name for name in pages if name not in held_out]


def test_no_held_out_paragraph_has_been_trained_on():
    train, held_out = hold_out(python_topics())
    assert not set(paragraphs(train)) & set(paragraphs(held_out))


def test_few_held_out_lines_stand_in_the_training_text():
    # Paragraphs may be laid out anew: no long stretch of words may come again either.
    train, held_out = (" ".join(" ".join(paragraphs(part)).split()) for part in hold_out(python_topics()))
    pieces = [held_out[start : start + 60] for start in range(0, len(held_out), 60)]
    assert sum(piece in train for piece in pieces) < 0.02 * len(pieces)


def test_the_text_is_large_and_nothing_else_is_lost():
    from pydoc_data.topics import topics

    kept = python_topics()
    assert 250_000 < sum(map(len, kept.values())) < sum(map(len, topics.values()))
    assert set(paragraphs(kept)) == {part for part in paragraphs(topics) if "+--" not in part and "+==" not in part}
