"""A larger vocabulary: what the model says of all other tokens stays, and a new one begins as the mean of its pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import FAMILIES
from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from tunesmith.models.text import TextProcessor

DECODERS = ("llama", "qwen3", "gpt2")
KINDS = [name for name in FAMILIES if name not in ("t5", "bart")]  # no encoder-decoders
TEXT = "the banking film, and a banking-card of filmstar: is ebanking that?"
LETTERS = "abcdefghilmnoprstuvwy"
MANY = tuple(f"gv{one}{two}lm" for one in "bcdf" for two in LETTERS)  # more than the spare rows of a tiny model


def _processor(folder: Path) -> TextProcessor:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve
    from tunesmith.models.text import TextProcessor

    found = load_backbone(resolve(str(folder))).processor
    assert isinstance(found, TextProcessor)
    return found


def _model(kind: str, folder: Path) -> Any:
    import torch
    import transformers

    from tunesmith.models.backbone import quiet

    family: Any = transformers.AutoModelForCausalLM if kind in DECODERS else transformers.AutoModelForMaskedLM
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = family.from_pretrained(folder).eval()
        output = model.get_output_embeddings()
        if output.bias is not None:
            torch.nn.init.normal_(output.bias)  # zero would hide one that is not carried over
    return model


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("words", [("banking", "filmstar"), ("banking", "filmstar", *MANY)], ids=["spare", "resized"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_tokens_are_said_as_before(
    kind: str, words: tuple[str, ...], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    from tunesmith.models.new_tokens import add_words, widen

    processor, model = _processor(model_folder(kind)), _model(kind, model_folder(kind))
    old = processor.tokenizer(TEXT)["input_ids"]
    given = processor.tokenizer
    before = _logits(model, old)
    pieces = add_words(processor, words)
    widen(model, pieces)
    after = _logits(model, old)
    kept = [number for number in range(before.shape[1]) if number not in pieces]
    assert torch.equal(after[:, kept], before[:, kept])
    assert len(pieces) == len(words)
    for number, of in pieces.items():
        assert len(of) >= 2
        assert torch.allclose(after[:, number], before[:, list(of)].mean(-1), atol=1e-5), "the mean of its pieces"
    assert (len(words) > 2) == (after.shape[1] > before.shape[1])
    new = processor.tokenizer(TEXT)["input_ids"]
    assert [number for number in new if number in pieces] == [*pieces][:1] * 2 + [*pieces][1:2], "not inside ebanking"
    assert processor.tokenizer.decode(new) == given.decode(old)
    model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"] == new
    assert torch.equal(_logits(again, new), _logits(model, new))


def test_the_words_that_cost_most_tokens(model_folder: Callable[[str], Path]) -> None:
    from tunesmith.models.new_tokens import worth_adding

    texts = ["banking banking Filmstar the the the the the"] * 3 + ["filmstar zebra a1234567"] * 4
    cased, folded = _processor(model_folder("gpt2")), _processor(model_folder("bert"))
    assert worth_adding(texts, cased, 9) == ["banking"], (
        "Filmstar and filmstar are two words here, each seen too seldom"
    )
    assert worth_adding(texts, folded, 9) == ["filmstar", "banking"]
    assert worth_adding(texts, folded, 1) == ["filmstar"]


def test_no_word_is_taken_out_of_a_mark(model_folder: Callable[[str], Path]) -> None:
    """Of the tokenizer's own, or of another's: corpora hold <unk> too."""
    from tunesmith.models.new_tokens import worth_adding

    processor = _processor(model_folder("gpt2"))
    assert processor.tokenizer.all_special_tokens == ["<|endoftext|>"]
    texts = ["a <|endoftext|> b <unknown> [MASKED] <|startoftext|> </document> banking < filmstar >"] * 6
    assert worth_adding(texts, processor, 9) == ["banking", "filmstar"]


def test_a_tokenizer_that_would_not_give_the_text_back_is_refused(model_folder: Callable[[str], Path]) -> None:
    """llama 2's kind puts a space before each part of a text, so that one would follow every new token."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    from tunesmith.models.new_tokens import add_words

    processor = _processor(model_folder("llama"))
    letters = ["▁", *LETTERS, *LETTERS.upper(), "k", ",", "."]
    core = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # type: ignore
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])  # type: ignore
    processor.tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    with pytest.raises(ModelError, match=r"cannot take whole words: .*leave task.new_tokens out, or choose a base"):
        add_words(processor, ["banking"])
    assert len(processor.tokenizer) == len(letters), "nothing has changed"
