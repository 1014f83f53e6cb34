"""Checkpoint directories to test on: a small tokenizer of ZAYA1's kind, and the files around it."""

import json
import pathlib

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

BOS, IM_START, IM_END = 2, 105, 106
LETTERS = "abcdefghijklmnopqrstuvwxyzHTW!?.,0123456789<>/"
MERGES = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]
FIRST_FALLBACK = 109
# What ZAYA1's chat template is known to do, in the shape that most ChatML templates have.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def zaya_like() -> tokenizers.Tokenizer:
    """BPE with byte fallback, ZAYA1's ids below 109 and its think tokens last; 2 and 106 around a text."""
    head = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<unused{index}>" for index in range(4, 105))]
    head += ["<|im_start|>", "<|im_end|>", "\n", "\n\n"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*head, *fallback, "▁", *LETTERS, *("".join(pair) for pair in MERGES), "<think>", "</think>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=[*MERGES, ("\n", "\n")], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = [*head[:4], "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in specials])
    backend.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    backend.post_processor = processors.TemplateProcessing(
        single=["<bos>", "$A", "<|im_end|>"], special_tokens=[("<bos>", BOS), ("<|im_end|>", IM_END)]
    )
    return backend


def write_checkpoint(
    directory: pathlib.Path, backend: tokenizers.Tokenizer | None = None, template: str | None = None, **files: object
) -> pathlib.Path:
    """Writes tokenizer.json, chat_template.jinja and NAME.json for each further argument."""
    (backend or zaya_like()).save(str(directory / "tokenizer.json"))
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory
