"""A conversation with a model, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zaya_jax.errors import mistake
from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.sampling.generate import Session
from zaya_jax.sampling.request import Request, Sampling, derive_seed
from zaya_jax.text.thinking import Piece, ThinkingStream, opens_thinking, split_thinking_tokens
from zaya_jax.text.tokenizer import Tokenizer


class Chat:
    """Keeps the messages and answers the next one.

    Attributes:
        messages: the conversation, as the chat template reads it; a system message first if there is one.
        thinking: whether the template is asked for reasoning.

    Raises:
        UserError: the checkpoint has no tokenizer or no chat template.
    """

    def __init__(
        self,
        model: Zaya,
        variables: Variables,
        tokenizer: Tokenizer | None,
        *,
        sampling: Sampling,
        max_new_tokens: int = 2048,
        seed: int = 0,
        system: str | None = None,
        thinking: bool = True,
        chunk: int = 4,
    ):
        if tokenizer is None:
            fix = "copy tokenizer.json into the checkpoint"
            raise mistake("a chat needs a tokenizer", expected="tokenizer.json in the checkpoint", fix=fix)
        tokenizer.render_chat([{"role": "user", "content": "Hello"}])  # a missing template shows before the first word
        self.thinking = thinking
        self._context = model.config.max_position_embeddings
        self._tokenizer, self._sampling, self._max_new_tokens, self._seed = tokenizer, sampling, max_new_tokens, seed
        self._session = Session(model, variables, chunk=chunk)
        self._turns = 0
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Begins a new conversation, with a system message if one is given."""
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._session.reset()

    def reply(self, text: str) -> Iterator[Piece]:
        """Answers a message and yields the answer as it comes, its reasoning marked.

        An answer that is left unfinished (the iterator is closed, or an interrupt passes through) is kept as far as it
        has come. One that has not begun leaves the conversation as it was.

        Raises:
            UserError: the template refuses the message, or the conversation has reached the end of the context.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        prompt = self._tokenizer.encode_chat(asked, enable_thinking=self.thinking)
        stream = ThinkingStream(self._tokenizer, in_thinking=opens_thinking(prompt, self._tokenizer))
        tokens: list[int] = []
        try:
            for delta in self._session.reply(self._request(prompt)):
                for token in delta.tokens.tolist():
                    if token not in self._tokenizer.stop_ids:
                        tokens.append(token)
                        yield stream.push(token)
            yield stream.flush()
        finally:
            if tokens:
                self.messages = [*asked, self._message(prompt, tokens)]

    def _request(self, prompt: list[int]) -> Request:
        room = self._context - len(prompt)
        if room < 1:
            found = f"{len(prompt)} in the conversation"
            raise mistake("the context is full", expected=f"at most {self._context} tokens", found=found, fix="/reset")
        self._turns += 1
        return Request(
            id=f"turn {self._turns}",
            tokens=prompt,
            seed=derive_seed(self._seed, self._turns),
            sampling=self._sampling,
            max_new_tokens=min(self._max_new_tokens, room),
            stop_ids=self._tokenizer.stop_ids,
        )

    def _message(self, prompt: list[int], tokens: list[int]) -> dict[str, Any]:
        """The assistant's message: templates put the line breaks around reasoning and answer themselves."""
        parts = split_thinking_tokens(tokens, self._tokenizer, in_thinking=opens_thinking(prompt, self._tokenizer))
        thinking, answer = (self._tokenizer.decode(part).strip("\n") for part in (parts.thinking, parts.answer))
        return {"role": "assistant", "content": answer} | ({"reasoning_content": thinking} if thinking else {})
