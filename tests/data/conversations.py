"""Conversations to test on, and what ChatML makes of them, written a second time: piece by piece, from its rules."""

import tempfile

from hypothesis import strategies as st

from zaya_jax.text.byte_level import write_tokenizer
from zaya_jax.text.chat import ChatTemplate
from zaya_jax.text.tokenizer import require_tokenizer

# As zaya_jax/text/chatml.jinja, but reasoning stays wherever it is.
KEEPING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(template=None):
    """The byte-level tokenizer, with ChatML or another template."""
    template = template and ChatTemplate(template, "template.jinja")
    with tempfile.TemporaryDirectory() as directory:
        return require_tokenizer(write_tokenizer(directory, template=template))


def pieces(messages, weights, keep_reasoning=False):
    """(text, how much it counts) in order. Messages end with the assistant."""
    last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    found = []
    for i, (message, weight) in enumerate(zip(messages, weights)):
        reasoning = message.get("reasoning_content")
        dropped = reasoning is not None and i < last_user and not keep_reasoning
        found.append((f"<|im_start|>{message['role']}\n", 0))
        if reasoning is not None and not dropped:
            found.append((f"<think>\n{reasoning}\n</think>\n\n", weight))
        found += [(message["content"] + "<|im_end|>", 0 if dropped else weight), ("\n", 0)]
    return found


def flat(found, tokenizer):
    """Tokens and weights of pieces."""
    tokens, weights = [], []
    for text, weight in found:
        ids = tokenizer.encode(text, special=False)
        tokens += ids
        weights += [weight] * len(ids)
    return tokens, weights


# Text that a careless reader would take for marks of the template.
_TEXT = st.lists(st.text("ab \n", max_size=6) | st.sampled_from(["<|im_start|>assistant\n", "<|im_end|>", "<think>"]))
CONTENT = _TEXT.map("".join)
REASONING = st.text("xyz ", min_size=1, max_size=30).map(lambda text: f"r{text}r")


def _message(role):
    if role != "assistant":
        return st.fixed_dictionaries({"role": st.just(role), "content": CONTENT})
    optional = {"reasoning_content": REASONING, "train": st.booleans()}
    answer = st.text("ab \n", max_size=8).map(lambda text: f"A{text}Z")
    return st.fixed_dictionaries({"role": st.just(role), "content": answer}, optional=optional)


@st.composite
def conversations(draw):
    """Messages as a record holds them: some turns, replies of which at least the last counts."""
    messages = [draw(_message("system"))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        messages.append(draw(_message("user")))
        messages += draw(st.lists(_message("assistant"), min_size=1, max_size=2))
    messages[-1].pop("train", None)
    return messages
