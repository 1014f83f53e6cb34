"""Continuous batching: requests over a fixed number of slots, a finished one's slot given to the next at once.

    engine = Engine(model, variables, slots=16, capacity=4096)
    completions = engine.run(requests)

or request by request: `submit`, then `step` while `busy`, each of which reads waiting prompts and decodes a burst of
tokens. What is drawn for a request depends on nothing but the request, the weights, and the programs that `slots` and
`capacity` stand for: neither on the other requests, nor on when it came, nor on which slot it got, nor on what was
already known of its prompt.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import one_per_layer
from zaya_jax.parallel import check_rows
from zaya_jax.sampling import decode, decode_by_layer
from zaya_jax.sampling import slots as device
from zaya_jax.sampling.answers import Answer
from zaya_jax.sampling.decode import Batch, bucket
from zaya_jax.sampling.prefixes import ROOT, Node, Prefixes, cuts
from zaya_jax.sampling.request import Completion, Delta, Request, check_request
from zaya_jax.text.tokenizer import Tokenizer

FEWEST_SLOTS = 2  # one row alone is computed by other programs, with other bits
_NOBODY = Request("", (), max_new_tokens=1)


@dataclasses.dataclass
class Stats:
    """What an engine has done.

    Attributes:
        read_tokens, known_tokens: of prompts, read and found among what was known.
        decoded_tokens, decode_steps: drawn by decoding steps, and those steps. A request's first token comes from its
            prompt and is not among them.
        read_seconds, decode_seconds: spent in reading prompts and in decoding, the host's work for them included.
        host_seconds: of `decode_seconds`, what the device was not computing.
    """

    read_tokens: int = 0
    known_tokens: int = 0
    decoded_tokens: int = 0
    decode_steps: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    host_seconds: float = 0.0


@dataclasses.dataclass
class _Row:
    """A request in a slot, and what is left to read of its prompt."""

    answer: Answer
    tokens: np.ndarray
    pieces: collections.deque[tuple[int, int]]
    parent: int = ROOT
    routes: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def piece(self) -> np.ndarray:
        """The tokens to be read next."""
        start, stop = self.pieces[0]
        return self.tokens[start:stop]


class Engine:
    """Answers requests over a fixed number of slots.

    Args of the constructor:
        slots: rows decoded together, at least 2; on a mesh a multiple of the devices that rows are spread over.
        capacity: tokens a row has room for, prompt and answer; rounded up.
        tokenizer: decodes the answers; needed for stop strings, costs time.
        chunk: tokens of a prompt read at a time.
        burst: decoding steps between two looks at the answers, at most.
        known_tokens: how many tokens of prompts are remembered, for others that begin alike; by default as many as
            the slots hold.
        read_limit: tokens of prompts after which a step reads no more of them; None for all that wait.
        version: of the weights.

    Raises:
        UserError: too few slots, or a number of them that does not divide evenly.
    """

    def __init__(
        self,
        model: Zaya,
        variables: Variables,
        *,
        slots: int = 8,
        capacity: int = 2048,
        tokenizer: Tokenizer | None = None,
        chunk: int = 256,
        burst: int = 32,
        known_tokens: int | None = None,
        read_limit: int | None = None,
        version: int = 0,
    ):
        self._model, self._variables, self._tokenizer = model, variables, tokenizer
        self.slots, self.capacity, self.version = _checked_slots(model, slots), bucket(capacity), version
        self._chunk, self._burst, self._read_limit = chunk, burst, read_limit
        self.stats = Stats()
        self._by_layer = one_per_layer(model.config, model.execution)
        self._waiting: collections.deque[Answer] = collections.deque()
        self._rows: list[_Row | None] = [None] * self.slots
        self._ids: set[str] = set()
        self._submitted = 0
        self._known = Prefixes(self.slots * self.capacity if known_tokens is None else known_tokens)
        self._batch = decode.make_batch([_NOBODY] * self.slots)
        self._state = device.empty(model, self.slots, self.capacity)
        self._together = device.rows_read_together(model)
        self._stopped_B = np.zeros(self.slots, bool)

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._waiting) or any(self._rows)

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        """Takes a request; it gets a slot when those before it have.

        Raises:
            UserError: the model or the engine has no room for it, its id is that of an unfinished one, or it has stop
                strings and there is no tokenizer.
        """
        self.check(request)
        if request.id in self._ids:
            raise mistake("an unfinished request has this id", where=f"request {request.id}", fix="take another id")
        self._ids.add(request.id)
        self._waiting.append(Answer(self._submitted, request, self._tokenizer))
        self._submitted += 1

    def check(self, request: Request) -> None:
        """Raises what `submit` would, but for the id."""
        where, room = f"request {request.id}", len(request.tokens) + request.max_new_tokens
        check_request(request, self._model.config)
        if room > self.capacity:
            expected, found = f"at most {self.capacity} tokens", f"{room} of prompt and answer"
            fix = "make the engine's capacity larger, or the request shorter"
            raise mistake("the engine has no room for it", where=where, expected=expected, found=found, fix=fix)
        if request.stop_strings and self._tokenizer is None:
            raise mistake("stop strings need a tokenizer", where=where, fix="give stop_ids instead")

    def cancel(self, request_id: str) -> bool:
        """Drops an unfinished request; returns whether there was one."""
        for answer in self._waiting:
            if answer.request.id == request_id:
                self._waiting.remove(answer)
                self._ids.remove(request_id)
                return True
        for slot, row in enumerate(self._rows):
            if row is not None and row.answer.request.id == request_id:
                self._leave(slot)
                return True
        return False

    def update_weights(self, variables: Variables, version: int) -> None:
        """Takes new weights, from the next token on. What unfinished requests have read stays as it was read."""
        self._variables, self.version = variables, version
        self._known.clear()

    def snapshot(self) -> list[Request]:
        """The unfinished requests, in the order in which they came. Submitted again, they are answered the same."""
        answers = [row.answer for row in self._rows if row is not None] + list(self._waiting)
        return [answer.request for answer in sorted(answers, key=lambda answer: answer.index)]

    def run(
        self, requests: Iterable[Request], *, progress: Callable[[int, int, int], None] | None = None
    ) -> list[Completion]:
        """Answers requests; the completions are in their order. Those submitted before are answered on the way.

        Args:
            requests: checked before the first is read.
            progress: is told after every burst how many are finished, how many there are, and the tokens drawn.
        """
        requests = list(requests)
        for request in requests:
            self.check(request)
        first, done, tokens = self._submitted, {}, 0
        for request in requests:
            self.submit(request)
        while len(done) < len(requests):
            deltas = self.step()
            tokens += sum(len(delta.tokens) for delta in deltas)
            done |= {d.index: d.completion for d in deltas if d.completion is not None and d.index >= first}
            if progress:
                progress(len(done), len(requests), tokens)
        return [done[index] for index in sorted(done)]

    def step(self, steps: int | None = None) -> list[Delta]:
        """Gives free slots to waiting requests, reads prompts, and decodes up to `steps` tokens a row.

        Returns:
            What each answer has gained, in the order in which it was gained. A request may have two: its first token
            comes from its prompt.
        """
        start = time.perf_counter()
        deltas = self._read_prompts()
        middle = time.perf_counter()
        if self._decoding():
            deltas += self._decode(min(steps or self._burst, self._burst))
        self.stats.read_seconds += middle - start
        self.stats.decode_seconds += time.perf_counter() - middle
        return deltas

    def _decoding(self) -> list[tuple[int, _Row]]:
        return [(slot, row) for slot, row in enumerate(self._rows) if row is not None and not row.pieces]

    def _reading(self) -> list[tuple[int, _Row]]:
        """Rows whose prompts are not read yet, the oldest first."""
        rows = [(slot, row) for slot, row in enumerate(self._rows) if row is not None and row.pieces]
        return sorted(rows, key=lambda both: both[1].answer.index)

    def _enter(self) -> None:
        """Gives the free slots to those who wait."""
        for slot in range(self.slots):
            if self._waiting and self._rows[slot] is None:
                answer = self._waiting.popleft()
                request = answer.request
                pieces = cuts(len(request.tokens), request.prefix, self._chunk)
                self._rows[slot] = _Row(answer, np.array(request.tokens, np.int32), collections.deque(pieces))
                self._batch = _with_row(self._batch, slot, decode.make_batch([request]))

    def _leave(self, slot: int) -> None:
        self._ids.remove(self._rows[slot].answer.request.id)
        self._rows[slot] = None
        self._stopped_B = _with_value(self._stopped_B, slot, True)  # the device may not know

    def _read_prompts(self) -> list[Delta]:
        deltas, before = [], self.stats.read_tokens
        limit = math.inf if self._read_limit is None else self._read_limit
        while True:
            self._enter()
            deltas += self._take_known()
            group = self._alike()
            if not group or self.stats.read_tokens - before >= limit:
                return deltas
            deltas += self._read(group)

    def _take_known(self) -> list[Delta]:
        """Puts what is known of prompts into their rows."""
        deltas = []
        for slot, row in self._reading():
            while row.pieces and (node := self._known.find(row.parent, row.piece)):
                (start, stop), where = row.pieces[0], np.array([slot], np.int32)
                cache = device.run_put(self._model, self._state.cache, where, np.array([start], np.int32), node.piece)
                self._state = self._state.replace(cache=cache)
                self.stats.known_tokens += stop - start
                row.answer.known_tokens += stop - start
                deltas += self._got(slot, row, node)
        return deltas

    def _alike(self) -> list[tuple[int, _Row]]:
        """Rows whose next pieces one program reads: that of the oldest row, and those that fill it up."""
        group, shape, keys = [], None, set()
        for slot, row in self._reading():
            own = self._shape(*row.pieces[0])
            key = (row.parent, row.piece.tobytes())
            if (shape is None or own == shape) and key not in keys and len(group) < self._together:
                group.append((slot, row))
                shape = own
                keys.add(key)
        return group

    def _shape(self, start: int, stop: int) -> tuple[int, int]:
        """Columns and room of the program that reads a piece: few of them, and the same for every such piece."""
        if start == 0:
            return bucket(stop), 0
        columns = self._chunk if stop - start > self._chunk // 4 else self._chunk // 4
        return columns, min(1 << (stop - 1).bit_length(), self.capacity)

    def _read(self, group: list[tuple[int, _Row]]) -> list[Delta]:
        """Reads the next piece of some rows."""
        columns, room = self._shape(*group[0][1].pieces[0])
        slot_R = np.full(self._together, self.slots, np.int32)
        tokens_RC, count_R = np.zeros((self._together, columns), np.int32), np.zeros(self._together, np.int32)
        for r, (slot, row) in enumerate(group):
            slot_R[r], count_R[r] = slot, len(row.piece)
            tokens_RC[r, : count_R[r]] = row.piece
        read = device.run_read_by_layer if self._by_layer else device.run_read
        cache, piece, logits_RV, routes_LRC = read(
            self._model, self._variables, self._state.cache, slot_R, tokens_RC, count_R, room=room
        )
        self._state = self._state.replace(cache=cache)
        self.stats.read_tokens += int(count_R.sum())
        routes_LRC, deltas = np.asarray(routes_LRC), []
        for r, (slot, row) in enumerate(group):
            own = device.one_row(self._model, piece, r)
            routes_LT = routes_LRC[:, r, : count_R[r]]
            node = self._known.add(row.parent, row.piece, own, logits_RV[r : r + 1], routes_LT)
            deltas += self._got(slot, row, node)
        return deltas

    def _got(self, slot: int, row: _Row, node: Node) -> list[Delta]:
        """A row's next piece stands in the cache; behind the last one, the first token is drawn."""
        row.pieces.popleft()
        row.parent = node.id
        row.routes.append(node.routes_LT)
        if row.pieces:
            return []
        row.answer.take_prompt(row.routes)
        own = jax.tree.map(lambda x: x[slot : slot + 1], self._batch)
        where, state = np.array([slot], np.int32), self._state.replace(cache=None)
        state, column = device.run_begin(own, state, where, node.logits_1V, node.routes_LT[:, -1:])
        self._state = state.replace(cache=self._state.cache)
        self._stopped_B = _with_value(self._stopped_B, slot, False)
        return [self._take(slot, row, [part[..., 0, :] for part in decode.fetch(column)])]

    def _decode(self, steps: int) -> list[Delta]:
        """Takes a burst of steps, cut short when a row ends and another request waits for it."""
        rows = self._decoding()
        run = (decode_by_layer if self._by_layer else decode).run_decode
        start = time.perf_counter()
        state, self._state = self._state, None  # about to be used up
        state, tape = run(
            self._model,
            self._variables,
            self._batch,
            state,
            self._stopped_B,
            steps,
            columns=bucket(self._burst),
            fewest=len(rows) if self._waiting else 1,
        )
        sent = time.perf_counter()
        parts = decode.fetch(tape)
        ready = time.perf_counter()
        self._state = state
        finish_B, step_B = np.asarray(state.finish_B), np.asarray(state.step_B)
        self.stats.decode_steps += max(int(step_B[slot]) - len(row.answer.drawn) for slot, row in rows)
        deltas = [
            self._take(slot, row, [part[..., slot, :] for part in parts], int(step_B[slot]), int(finish_B[slot]))
            for slot, row in rows
        ]
        self.stats.decoded_tokens += sum(len(delta.tokens) for delta in deltas)
        self.stats.host_seconds += (sent - start) + (time.perf_counter() - ready)
        return deltas

    def _take(self, slot: int, row: _Row, parts: list[np.ndarray], step: int = 1, finish: int | None = None) -> Delta:
        """Gives an answer its part of a tape; a finished one leaves its slot."""
        finish = int(self._state.finish_B[slot]) if finish is None else finish
        delta = row.answer.take(*parts, step=step, finish=finish, version=self.version)
        if delta.completion is not None:
            self._leave(slot)
        return delta


def _checked_slots(model: Zaya, slots: int) -> int:
    if not isinstance(slots, int) or slots < FEWEST_SLOTS:
        raise mistake("out of range", where="slots", expected=f"a count of at least {FEWEST_SLOTS}", found=slots)
    check_rows(model.execution.mesh, slots)
    return slots


def _with_row(batch: Batch, slot: int, one: Batch) -> Batch:
    """The batch with another request in a row. Copies: a program may still be reading the old arrays."""
    wider = max(batch.stop_ids_BS.shape[1], one.stop_ids_BS.shape[1])
    batch, one = (b.replace(stop_ids_BS=_widened(b.stop_ids_BS, wider)) for b in (batch, one))
    return jax.tree.map(lambda all_B, own_1: _with_value(all_B, slot, own_1[0]), batch, one)


def _widened(stop_ids_BS: np.ndarray, columns: int) -> np.ndarray:
    return np.pad(stop_ids_BS, ((0, 0), (0, columns - stop_ids_BS.shape[1])), constant_values=-1)


def _with_value(array: np.ndarray, index: int, value) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array
