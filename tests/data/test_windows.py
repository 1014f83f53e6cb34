"""Windows over a stream of documents. A token is its own place in the stream: a batch tells what it was cut from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zaya_jax.data.windows import covering_windows, cut_windows, join_documents, random_windows, whole_rows
from zaya_jax.errors import UserError

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def numbered(document_lengths):
    """A stream whose tokens count from 0, and the document of each token."""
    stops = np.cumsum(document_lengths)
    parts = np.split(np.arange(stops[-1]), stops[:-1])
    return join_documents(parts), [number for number, n in enumerate(document_lengths, 1) for _ in range(n)]


def counted(batch):
    """(place of the target, how far back its window reaches) of everything that counts."""
    rows, columns = np.nonzero(batch.mask_BT)
    return [(int(batch.targets_BT[r, c]), int(c) + 1) for r, c in zip(rows, columns)]


@given(lengths, st.integers(1, 4), st.integers(1, 12), st.data())
def test_every_token_but_the_first_of_a_document_counts_exactly_once(document_lengths, rows, length, data):
    stream, document = numbered(document_lengths)
    context = data.draw(st.integers(0, length - 1))
    batches = list(covering_windows(stream, rows, length, context))
    assert all(batch.tokens_BT.shape == (rows, length) for batch in batches)
    found = [pair for batch in batches for pair in counted(batch)]
    expected = [i for i in range(1, len(document)) if document[i] == document[i - 1]]
    assert sorted(place for place, _ in found) == expected
    assert all(seen > context or seen == place for place, seen in found)


@given(lengths, st.integers(1, 12), st.lists(st.integers(0, 200), min_size=1, max_size=4))
def test_cut_rows_are_the_stream_and_no_target_crosses_a_document(document_lengths, length, starts):
    stream, document = numbered(document_lengths)
    batch = cut_windows(stream, np.array(starts), length)
    for r, start in enumerate(starts):
        for t in range(length):
            place = start + t
            if place >= len(document):
                assert (batch.segments_BT[r, t], batch.mask_BT[r, t], batch.positions_BT[r, t]) == (0, 0, 0)
                continue
            before = document[start : place + 1]
            assert batch.tokens_BT[r, t] == place
            assert batch.segments_BT[r, t] == len(set(before))
            assert batch.positions_BT[r, t] == before.count(document[place]) - 1
            same = place + 1 < len(document) and document[place + 1] == document[place]
            assert batch.mask_BT[r, t] == same
            if same:
                assert batch.targets_BT[r, t] == place + 1


def test_random_windows_depend_on_seed_and_step_alone_and_begin_everywhere():
    stream, _ = numbered([12, 9])
    a, b = (random_windows(stream, 200, 4, 3, 7) for _ in range(2))
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)
    assert set(a.tokens_BT[:, 0].tolist()) == set(range(17))
    np.testing.assert_array_equal(a.targets_BT, a.tokens_BT + 1)
    for other in ((4, 7), (3, 8)):
        assert np.any(random_windows(stream, 200, 4, *other).tokens_BT != a.tokens_BT)


def test_text_shorter_than_a_window_is_a_users_mistake():
    stream, _ = numbered([4, 4])
    assert random_windows(stream, 1, 7, 0, 0).tokens_BT.tolist() == [list(range(7))]
    with pytest.raises(UserError, match="over 8 tokens; found 8"):
        random_windows(stream, 1, 8, 0, 0)


@given(lengths, st.integers(1, 12))
def test_whole_rows_lie_in_one_document_and_leave_only_short_rests(document_lengths, length):
    stream, document = numbered(document_lengths)
    rows = whole_rows(stream, length)
    assert rows.shape == (sum(n // length for n in document_lengths), length)
    for row in rows:
        assert row.tolist() == list(range(row[0], row[0] + length))
        assert document[row[0]] == document[row[-1]]
    assert len(np.unique(rows)) == rows.size
