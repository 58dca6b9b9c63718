"""Tokenizers with chat templates of the kinds there are, and random conversations, for tests."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from families import WORDS
from tunesmith.data.conversation import Call, Conversation, Turn

if TYPE_CHECKING:
    from tunesmith.models.text import TextProcessor

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] }}"
    "{% for c in m.get('tool_calls') or [] %}{{ '<tool_call>' + (c['function'] | tojson) }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INST = (  # as of Llama 2: no word for where an answer begins, and a space on both sides of the mark
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' </s>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{{ m['role'] + ':\n' + m['content'] + '</s>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
THINKING = (  # as of Qwen 3: thoughts of the last answer alone are kept
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (  # rewrites earlier turns too, and says with marks where the answers are
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}{% if loop.last %}{{ '<|im_end|>' }}{% endif %}{% endgeneration %}{% else %}{{ m['content'] }}"
    "{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPACED = (  # the prompt ends in a space, which many tokenizers join with the answer's first letters
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{{ '</s>' if m['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
PREFIXED = {"chatml": CHATML, "inst": INST, "strict": STRICT}  # templates that only ever append


def tokenizer(template: str | None) -> Any:
    """Byte-level BPE, which knows every sign and joins spaces with words, with the marks of the templates as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([" ".join(WORDS), " ".join(WORDS).upper()], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=template,
        additional_special_tokens=special[3:], model_max_length=4096,
    )  # fmt: skip


def sentencepiece(kind: str, template: str | None) -> Any:
    """Spaces are letters of words: "llama" as of Llama 2, without words of its own, "unigram" as of T5 and its kin."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "<pad>", "</s>"]
    texts = [" ".join(WORDS), " ".join(WORDS).upper(), "user: a\nassistant: b\nsystem: c ABCDEFGHIJKLMNOPQRSTUVWXYZ-.,"]
    core: Any
    if kind == "llama":
        # Trained on words apart, then used without: a merge across words would swallow what this is to show.
        core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        )
        core.pre_tokenizer = None
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        core.decoder = decoders.Sequence(strip)
    else:
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        core.train_from_iterator(
            texts,
            trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False),
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        chat_template=template, model_max_length=4096,
    )  # fmt: skip


def processor(template: str | None) -> TextProcessor:
    from tunesmith.models.text import TextProcessor

    pad = {"input_ids": 1, "attention_mask": 0}
    return TextProcessor(tokenizer(template), 4096, "for tests", pad, 4096)


def conversations(count: int, seed: int, tools: bool = False) -> list[Conversation]:
    """One to four exchanges; what assistants say is in capital letters, and nothing else is.

    Texts begin and end with white space and signs at times, which tokenizers like to join with what is beside them.
    """
    draw = random.Random(seed)

    def words(upper: bool) -> str:
        said = " ".join(draw.choices(WORDS, k=draw.randint(1, 9)))
        said = draw.choice(["", "", "\n", " ", "- "]) + said + draw.choice(["", "", ".", "\n", " "])
        return said.upper() if upper else said

    made = []
    for _ in range(count):
        turns: list[Turn] = []
        for _ in range(draw.randint(1, 4)):
            turns.append(Turn("user", words(False)))
            if tools and draw.random() < 0.3:
                call = Call("LOOK", '{"AT": "THIS"}')
                turns += [Turn("assistant", "", int(draw.random() < 0.7), (call,)), Turn("tool", words(False))]
            turns.append(Turn("assistant", words(True), int(draw.random() < 0.8)))
        if not any(turn.weight for turn in turns if turn.role == "assistant"):
            turns[-1] = turns[-1]._replace(weight=1)
        made.append(Conversation(tuple(turns)))
    return made
