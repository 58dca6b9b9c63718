"""Text to token numbers: the base's own tokenizer, its limits and its filler."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tunesmith.errors import ModelError
from tunesmith.models.processor import Processor

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "tekken.json",
)
NO_LIMIT = 1_000_000  # tokenizers without a limit of their own give 1e30
FALLBACK_LENGTH = 512
LEAST = 4  # tokens of a text that must have positions


class Joined(NamedTuple):
    """Two texts as one row of tokens, uncut. Each part holds every model input."""

    before: dict[str, list[int]]  # the first text, and the marks around it
    body: dict[str, list[int]]  # the second text
    after: dict[str, list[int]]  # the marks behind it
    first: tuple[int, int]  # tokens [first, last) of `before` are the first text's own
    spans: tuple[tuple[int, int], ...]  # of each token of `body` its first character, and the one after its last


class TextProcessor(Processor):
    """Text to token numbers, in the order and with the special tokens that the base was trained with.

    `max_length` is how many tokens the model was made for, special tokens included, and `why` says where that is from;
    `positions` is the most that it can take at all.
    `pad` is the filler of each model input; filler stands on the right, hidden by the attention mask.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        why: str,
        pad: dict[str, int],
        positions: int,
        lower: bool = False,
        apart: bool = False,
        skipped: int | None = None,
        bag: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.positions = self._whole = positions
        self.why = why
        self.pad = pad
        self.apart = apart  # whether two texts of a row are read each on its own, as sentence encoders are trained to
        self.lower = lower  # sentence encoders may ask for lower case ahead of their tokenizer
        self.skipped = skipped  # the token of unknown words, where these are hidden from the model
        self.bag = bag  # whether the model takes a mean over tokens, so that a text may be left with none
        self._frame: tuple[list[int], list[int]] | None = None  # looked up once: the marks before and after a text
        self.added: Mapping[int, list[int]] = {}  # words made tokens of their own: what each was before

    def reserve(self, count: int) -> None:
        """Leaves so many of the model's positions to what is no text. Raises ModelError where hardly any is left."""
        if self._whole >= NO_LIMIT:
            return
        left = self._whole - count
        if count > 0 and left < LEAST:
            raise ModelError(
                f"{count} places before a text leave it {left} of this model's {self._whole} positions; set a smaller "
                "method.length"
            )
        self.positions = left
        if self.max_length > left:
            self.max_length, self.why = left, f"what is left of {self._whole} positions"

    def fingerprint(self) -> str:
        """sha256, in hex, of all that decides which numbers a text becomes."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            whole: Any = json.loads(tokenizer.backend_tokenizer.to_str())
            whole |= {"truncation": None, "padding": None}  # as the last call left them
        else:
            whole = sorted(tokenizer.get_vocab().items())
        marks = sorted((name, str(mark)) for name, mark in tokenizer.special_tokens_map.items())
        kind = [type(tokenizer).__name__, tokenizers.__version__, transformers.__version__]
        own = [self.pad, self.lower, self.apart, self.skipped, self.bag, tokenizer.chat_template]
        said = json.dumps([kind, whole, marks, *own], default=str)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, text: str | tuple[str, ...], max_length: int) -> tuple[dict[str, list[int]], int]:
        """One row of each model input, and how many of the text's own tokens did not fit into `max_length`."""
        return self.encode_all([text], max_length)[0]

    def encode_all(
        self, texts: Sequence[str | tuple[str, ...]], max_length: int
    ) -> list[tuple[dict[str, list[int]], int]]:
        """`encode` of many texts, faster than one by one.

        Two texts become one row as the tokenizer joins them, with its own marks between; of two that are too long
        together, the longer one loses tokens first.
        """
        if not texts:
            return []
        rows = self._tokenize(texts, None)
        long = [index for index, row in enumerate(rows) if len(row["input_ids"]) > max_length]
        short = self._tokenize([texts[index] for index in long], max_length) if long else []
        cut = dict.fromkeys(range(len(rows)), 0)
        for index, row in zip(long, short, strict=True):
            cut[index] = len(rows[index]["input_ids"]) - len(row["input_ids"])
            rows[index] = row
        return [(row if row["input_ids"] else self._one_filler(), cut[index]) for index, row in enumerate(rows)]

    def tokens(self, inputs: dict[str, list[int]]) -> list[str]:
        """The tokens of one row as `encode` gives it, in the tokenizer's own spelling; terminal codes are escaped."""
        found = self.tokenizer.convert_ids_to_tokens(inputs["input_ids"])
        return [token if token.isprintable() else ascii(token)[1:-1] for token in found]

    def ready(self, inputs: dict[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        return inputs

    def save(self, folder: Path, limit: int) -> None:
        own = self.tokenizer.model_max_length
        self.tokenizer.model_max_length = limit
        try:
            # A fast tokenizer writes the cut of its last call into tokenizer.json, whatever text that was for.
            self.tokenizer("", truncation=True)
            self.tokenizer.save_pretrained(folder)
        finally:
            self.tokenizer.model_max_length = own

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """The token numbers of each word by itself, at least one, without the marks that go around a text.

        A word may begin with a space, as it stood in the text. Where the tokenizer would make that a token of its own the
        space is left away: a word's first token must be of the word.
        """
        if not words:
            return []
        alone, spaced = self._bare(["a", " a"])
        given = [word.lstrip() for word in words] if len(spaced) > len(alone) else list(words)
        unknown = self.tokenizer.unk_token_id
        filler = unknown if isinstance(unknown, int) else self.pad["input_ids"]
        return [found if found else [filler] for found in self._bare(given)]

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of each whole text, without the marks that go around it."""
        return self._bare(texts) if texts else []

    def marks(self) -> tuple[list[int], list[int]]:
        """The token numbers that go before a text and after it."""
        before, after = self._marks()
        return list(before), list(after)

    @property
    def mask(self) -> int:
        """The token that stands for a hidden one. Raises ModelError where the tokenizer has none."""
        found = self.tokenizer.mask_token_id
        if not isinstance(found, int):
            raise ModelError(
                f"{self.tokenizer.name_or_path}: the tokenizer has no mask token, so tokens cannot be hidden; choose a base "
                "that was pretrained with masks (bert, roberta, modernbert)"
            )
        return found

    @property
    def folds_case(self) -> bool:
        """Whether capitals make no difference."""
        one, other = self._bare(["word", "WORD"])
        return one == other

    def forget(self) -> None:
        """What was looked up of a tokenizer that has changed since."""
        self._frame = None
        for name in ("special_tokens", "ordinary_tokens"):
            vars(self).pop(name, None)

    @cached_property
    def special_tokens(self) -> list[int]:
        """Numbers of the tokens that are no text."""
        return sorted({int(number) for number in self.tokenizer.all_special_ids})

    @cached_property
    def ordinary_tokens(self) -> list[int]:
        """Numbers of all other tokens."""
        return sorted(set(range(len(self.tokenizer))) - set(self.special_tokens))

    def joined(self, pairs: Sequence[tuple[str, ...]]) -> list[Joined]:
        """Pairs of texts as the tokenizer joins them, with the characters of the second text that each token stands for.

        White space at a token's edges is not counted to it. Raises ModelError where the tokenizer cannot tell places.
        """
        if not self.tokenizer.is_fast:
            raise ModelError(
                f"{type(self.tokenizer).__name__}: does not tell which characters a token stands for; use a base with a "
                "tokenizer.json"
            )
        if not pairs:
            return []
        cased = [_cased_map(text[1], self.lower) for text in pairs]
        given = self.tokenizer(
            [self._cased(text[0]) for text in pairs],
            [text for text, _ in cased],
            padding=False,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in self.pad,
            return_offsets_mapping=True,
            verbose=False,
        )
        found = []
        for row, (text, places) in enumerate(cased):
            inputs = {name: list(given[name][row]) for name in self.pad}
            parts = given.sequence_ids(row)
            body = _extent(parts, 1, len(parts))
            offsets = [_trimmed(text, *given["offset_mapping"][row][place]) for place in range(*body)]
            spans = offsets if places is None else [(places[start], places[end]) for start, end in offsets]
            before = {name: numbers[: body[0]] for name, numbers in inputs.items()}
            found.append(
                Joined(
                    before if body[0] > 0 else self._one_filler(),
                    {name: numbers[body[0] : body[1]] for name, numbers in inputs.items()},
                    {name: numbers[body[1] :] for name, numbers in inputs.items()},
                    _extent(parts, 0, body[0]),
                    tuple(spans),
                )
            )
        return found

    def targets(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], int]]:
        """Texts to be written, each as tokens with an end of text, and how many did not fit into `max_length`.

        A text that is cut ends all the same, as the tokenizers of encoder-decoders cut. Raises ModelError where the
        tokenizer has no token for the end of a text.
        """
        if not texts:
            return []
        end = self.end
        given = self.tokenizer(text_target=[self._cased(text) for text in texts], padding=False, verbose=False)
        found = []
        for numbers in given["input_ids"]:
            ids = [*numbers] if end in numbers else [*numbers, end]
            cut = max(0, len(ids) - max_length)
            tail = len(ids) - 1 - ids[::-1].index(end)  # some families put a language behind the end
            found.append(([*ids[: tail - cut], *ids[tail:]] if cut else ids, cut))
        return found

    def written(self, ids: Sequence[int]) -> str:
        """Tokens that a model wrote as text, without the tokenizer's marks."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def end(self) -> int:
        """The token that ends a text. Raises ModelError where the tokenizer has none."""
        ends = (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)
        found = next((token for token in ends if isinstance(token, int)), None)
        if found is None:
            raise ModelError(
                f"{self.tokenizer.name_or_path}: the tokenizer has no end of text, so a model could not learn where to stop; "
                "set eos_token in tokenizer_config.json"
            )
        return found

    @property
    def special(self) -> int:
        """How many marks go around a text."""
        before, after = self._marks()
        return len(before) + len(after)

    def wrapped(self, ids: Sequence[int]) -> tuple[dict[str, list[int]], int]:
        """One row of each model input from the tokens of a text, in the tokenizer's own marks, and how many come first."""
        before, after = self._marks()
        whole = [*before, *ids, *after]
        if not whole:
            return self._one_filler(), 0
        rows = {"input_ids": whole, "attention_mask": [1] * len(whole), "token_type_ids": [0] * len(whole)}
        return {name: rows[name] for name in self.pad}, len(before)

    def _bare(self, texts: Sequence[str]) -> list[list[int]]:
        given = self.tokenizer([self._cased(text) for text in texts], add_special_tokens=False, verbose=False)
        return [list(ids) for ids in given["input_ids"]]

    def _marks(self) -> tuple[list[int], list[int]]:
        if self._frame is None:
            bare, whole = self._bare(["a"])[0], list(self.tokenizer("a")["input_ids"])
            starts = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
            start = starts[0] if starts else 0
            self._frame = (whole[:start], whole[start + len(bare) :])
        return self._frame

    def _tokenize(self, texts: Sequence[str | tuple[str, ...]], max_length: int | None) -> list[dict[str, list[int]]]:
        first = [self._cased(text if isinstance(text, str) else text[0]) for text in texts]
        second = [self._cased(text[1]) for text in texts if not isinstance(text, str)]
        given = self.tokenizer(
            first,
            second or None,
            padding=False,
            truncation=max_length is not None,
            max_length=max_length,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in self.pad,
            verbose=False,  # else it warns of every text that is longer than the model takes; they are counted here
        )
        rows = [{name: list(given[name][index]) for name in self.pad} for index in range(len(texts))]
        if self.skipped is not None:
            for row in rows:
                row["attention_mask"] = [int(token != self.skipped) for token in row["input_ids"]]
        return rows

    def _cased(self, text: str) -> str:
        return text.lower() if self.lower else text

    def _one_filler(self) -> dict[str, list[int]]:
        # A tokenizer without special tokens gives nothing at all for an empty text, and a row needs one token.
        shown = 0 if self.bag else 1
        return {name: [shown if name == "attention_mask" else filler] for name, filler in self.pad.items()}


def _extent(parts: Sequence[int | None], which: int, otherwise: int) -> tuple[int, int]:
    """First token of a text and the one after its last; both `otherwise` where it has none."""
    places = [place for place, part in enumerate(parts) if part == which]
    return (places[0], places[-1] + 1) if places else (otherwise, otherwise)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _cased_map(text: str, lower: bool) -> tuple[str, list[int] | None]:
    """The text as the tokenizer is to read it, and the place in the given text of each of its characters, and of its end.

    None where they stand at the same places: few letters become two in lower case.
    """
    small = text.lower() if lower else text
    if len(small) == len(text):
        return small, None
    letters = [(piece, place) for place, letter in enumerate(text) for piece in letter.lower()]
    return "".join(piece for piece, _ in letters), [*(place for _, place in letters), len(text)]


def load_processor(folder: Path, module: PreTrainedModel) -> TextProcessor:
    """The tokenizer of `folder`, set up for `module`. Raises ModelError when it cannot be read or does not fit."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer class raises its own kinds for the same damaged file
        raise ModelError(
            f"{folder}: the tokenizer cannot be read ({first_line(error)}); fetch its files again"
        ) from None
    embeddings: Any = module.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"{folder}: the tokenizer knows {tokenizer.vocab_size:,} tokens and the model {rows:,}; "
            "they are not from the same model: copy the tokenizer files that belong to these weights"
        )
    sentence = _sentence_config(folder)
    max_length, why, positions = _limit(tokenizer, module, sentence.get("max_seq_length"))
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length
    filler = _filler(tokenizer, rows)
    taken = inspect.signature(module.forward).parameters
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in taken:
        names.append("token_type_ids")
    pad = {name: filler if name == "input_ids" else 0 for name in names}
    return TextProcessor(tokenizer, max_length, why, pad, positions, lower=sentence.get("do_lower_case") is True)


def _limit(tokenizer: PreTrainedTokenizerBase, module: PreTrainedModel, declared: Any) -> tuple[int, str, int]:
    """The length to work at, where it is from, and the most positions that the model has."""
    limits: list[tuple[int, str]] = []
    if declared is not None:
        limits.append((int(declared), "max_seq_length in sentence_bert_config.json"))
    if tokenizer.model_max_length < NO_LIMIT:
        limits.append((int(tokenizer.model_max_length), "model_max_length in tokenizer_config.json"))
    positions = getattr(module.config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        # roberta and its kin number positions from after the filler's own, so that many places are never used
        starts = [
            part.padding_idx + 1
            for key, part in module.named_modules()
            if key.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None
        ]
        offset = max(starts, default=0)
        less = f", less {offset} that it keeps for filler" if offset else ""
        limits.append((positions - offset, f"max_position_embeddings in config.json{less}"))
    if not limits:
        return FALLBACK_LENGTH, "neither the tokenizer nor config.json names a limit", NO_LIMIT
    most = limits[-1][0] if positions else NO_LIMIT
    return (*min(limits, key=lambda limit: limit[0]), most)


def _filler(tokenizer: PreTrainedTokenizerBase, rows: int) -> int:
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if isinstance(pad, int) and pad < rows:
        return pad
    # The attention mask hides filler, so any known token does; the end of text is what transformers' examples take.
    if not isinstance(end, int) or end >= rows:
        raise ModelError(
            "the tokenizer has neither a padding token nor an end of text; set pad_token in tokenizer_config.json"
        )
    tokenizer.pad_token = tokenizer.eos_token
    return end


def _sentence_config(folder: Path) -> dict[str, Any]:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: is not JSON ({error}); fetch the file again") from None


def first_line(error: Exception) -> str:
    """The kind and first line of an error of another package, short enough for one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
