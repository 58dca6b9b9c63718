"""Learning what texts say: nothing is lost, nothing is seen that should not be, and the numbers are the reference's."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from shortruns import rows
from tunesmith import finetune, load
from tunesmith.choosing import choose
from tunesmith.cli.predict import Asked, predict_with
from tunesmith.data.encode import IGNORED, Batch, Example, collate
from tunesmith.data.packing import PAD, SEGMENTS, packed
from tunesmith.data.passages import MANY_FILES, PART, PARTS, PASSAGE, is_prose, read_passages
from tunesmith.data.readers import read_data
from tunesmith.data.stored import measures
from tunesmith.data.words import Window
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.models.backbone import Backbone, load_backbone
from tunesmith.models.language import causal_network, masked_network
from tunesmith.models.new_tokens import add_words, worth_adding
from tunesmith.models.resolve import resolve
from tunesmith.predictor import Predictor
from tunesmith.recipe import Recipe
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.masked_lm import MaskedLm

NONE = Labels((), ())
TEXTS = [text for text, _ in rows(12)]
LONG = " ".join(TEXTS)
WORD = "likemoneybadlook"  # of several pieces in every tokenizer of bytes


def base(model_folder: Callable[[str], Path], family: str) -> Backbone:
    return load_backbone(resolve(str(model_folder(family))))


def task_of(family: str) -> LanguageTask:
    return CausalLm() if family in ("llama", "qwen3", "gpt2") else MaskedLm()


# Reading


@given(st.text(alphabet="ab \n.", min_size=1, max_size=400).filter(str.strip), st.integers(20, 90))
@settings(max_examples=60, deadline=None)
def test_passages_hold_every_word_in_order(text: str, size: int) -> None:
    from tunesmith.data import passages as module

    whole, module.PASSAGE = module.PASSAGE, size
    try:
        table = read_passages(text.encode(), "t.txt")
    finally:
        module.PASSAGE = whole
    said = "".join("".join(passage.split()) for passage in table.columns["text"])
    assert said == "".join(text.split())
    assert all(len(passage) <= size for passage in table.columns["text"])
    lines = text.split("\n")
    for passage, line in zip(table.columns["text"], table.lines, strict=True):
        assert (
            lines[line - 1].strip().endswith(passage.split("\n")[0].strip())
            or passage.split("\n")[0].strip() in lines[line - 1]
        )


def test_a_file_of_prose_is_cut_where_lines_are_empty() -> None:
    blocks = [f"Block {place}. " + "word " * 100 for place in range(60)]
    table = read_passages("\n\n".join(blocks).encode(), "t.txt")
    assert all(text.startswith("Block") for text in table.columns["text"])
    assert max(map(len, table.columns["text"])) <= PASSAGE
    assert table.columns[PART] == sorted(table.columns[PART], key=lambda part: int(part.split()[2]))


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("EU B-ORG\nrejects O\n\nPeter B-PER\n", False),
        ("EU\tB-ORG\nthe European\tO\n", False),
        ("It was a dark night.\nThe rain fell in torrents, as it had for days.\nNobody came.\n", True),
        ("One long line of a text that goes on and on without any end at all", True),
        ("", False),
    ],
)
def test_words_with_tags_are_told_from_prose(text: str, prose: bool) -> None:
    if not text:
        with pytest.raises(DataError):
            is_prose(b"", "t.txt")
        return
    assert is_prose(text.encode(), "t.txt") is prose


def test_a_folder_of_texts_is_one_table(tmp_path: Path) -> None:
    for place in range(MANY_FILES + 1):
        (tmp_path / f"{place:02}.md").write_text(f"# Title {place}\n\nSome words of file number {place}, and more.\n")
    table = read_data(str(tmp_path))["train"]
    assert len(table) == len(set(table.columns[PART])) == MANY_FILES + 1
    for path in list(tmp_path.iterdir())[2:]:
        path.unlink()
    few = read_data(str(tmp_path))["train"]
    assert all(f"of {PARTS}" in part for part in few.columns[PART])


@pytest.mark.parametrize("files", [1, 2, MANY_FILES])
def test_rows_are_the_same_from_wherever_they_are_read(
    files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is resumed from the whole path of what it was given from where it began."""
    (tmp_path / "d" / "texts").mkdir(parents=True)
    for place in range(files):
        (tmp_path / "d" / "texts" / f"{place:02}.md").write_text(
            f"Some words of file number {place}, and more of them.\n"
        )
    asked = "texts/00.md" if files == 1 else "texts"
    whole = read_data(str(tmp_path / "d" / asked))["train"]
    monkeypatch.chdir(tmp_path / "d")
    assert read_data(asked)["train"].columns == whole.columns
    monkeypatch.chdir(tmp_path)
    assert read_data(f"d/{asked}")["train"].columns == whole.columns


@pytest.mark.parametrize(("family", "task"), [("llama", "causal_lm"), ("bert", "masked_lm")])
def test_plain_text_means_the_task_of_its_base(
    family: str, task: str, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    (tmp_path / "book.txt").write_text("A first sentence.\n\nAnd a second one, which is longer.\n" * 9)
    recipe = Recipe.parse({"model": str(model_folder(family)), "data": {"path": str(tmp_path / "book.txt")}})
    kind = {"llama": "decoder", "bert": "encoder"}[family]
    chosen = choose(recipe, read_data(recipe.data.path), lambda: kind)
    assert chosen.task.part_name() == task
    assert chosen.why.startswith("plain text, and a base that is a")
    assert chosen.columns.group == PART


@pytest.mark.parametrize(
    ("task", "kind"), [("causal_lm", "encoder"), ("masked_lm", "decoder"), ("masked_lm", "vision")]
)
def test_a_base_of_the_wrong_kind_is_refused_with_those_that_fit(task: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("A first sentence.\n\nAnd a second one, which is longer.\n" * 9)
    recipe = Recipe.parse({"model": "m", "task": task, "data": {"path": str(tmp_path / "book.txt")}})
    with pytest.raises(ModelError, match=f'{task} needs a base of kind .*, and m is of kind "{kind}"; choose an? '):
        choose(recipe, read_data(recipe.data.path), lambda: kind)


# Encoding


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta"])
@pytest.mark.parametrize("limit", [8, 17, 64])
def test_no_token_is_lost_and_each_is_in_one_place(
    family: str, limit: int, model_folder: Callable[[str], Path]
) -> None:
    processor, task = base(model_folder, family).processor, task_of(family)
    examples = task.encode([LONG, TEXTS[0]], [LONG, TEXTS[0]], NONE, processor, limit)
    assert max(example.length for example in examples) <= limit
    assert [example.row for example in examples] == list(range(len(examples)))
    ids = processor.bare([LONG])[0]
    mine = [example for example in examples if example.source == 0]
    if isinstance(task, CausalLm):
        before, _ = processor.marks()
        whole = [*before, *ids]
        learned = [token for example in mine for token in example.target if token != IGNORED]
        assert learned == whole[1:]  # each token but the first is learned once, in order
        for earlier, later in pairwise(mine):
            assert later.inputs["input_ids"][0] == earlier.inputs["input_ids"][-1]
    else:
        before, after = processor.marks()
        read = [
            true if true != IGNORED else shown
            for example in mine
            for shown, true in list(zip(example.inputs["input_ids"], example.target, strict=True))[
                len(before) : example.length - len(after)
            ]
        ]
        assert read == ids


def test_masks_are_fifteen_in_a_hundred_and_never_of_marks(model_folder: Callable[[str], Path]) -> None:
    processor, task = base(model_folder, "bert").processor, MaskedLm()
    texts = [f"{text} {LONG}" for text in TEXTS]
    examples = task.encode(texts, texts, NONE, processor, 64)
    hidden = [
        (shown, true)
        for example in examples
        for shown, true in zip(example.inputs["input_ids"], example.target, strict=True)
        if true != IGNORED
    ]
    total = sum(example.length - 2 for example in examples)
    assert len(hidden) / total == pytest.approx(0.15, abs=0.02)
    assert sum(shown == processor.mask for shown, _ in hidden) / len(hidden) == pytest.approx(0.8, abs=0.06)
    assert all(true not in processor.special_tokens for _, true in hidden)
    assert task.encode(texts, texts, NONE, processor, 64) == examples, "the same every time"


def test_other_tokens_are_hidden_in_every_epoch_by_seed_epoch_and_row(model_folder: Callable[[str], Path]) -> None:
    processor, task = base(model_folder, "bert").processor, MaskedLm()
    examples = task.encode(TEXTS, TEXTS, NONE, processor, 32)
    batch = collate(examples, processor.pad)

    def whole(some: Batch) -> torch.Tensor:
        assert some.target is not None
        return torch.where(some.target == IGNORED, some.inputs["input_ids"], some.target)

    one, two = (task.varied(batch, 0, epoch, processor) for epoch in (0, 1))
    assert torch.equal(whole(one), whole(batch)) and torch.equal(whole(two), whole(batch))
    assert not torch.equal(one.inputs["input_ids"], two.inputs["input_ids"])
    alone = task.varied(collate(examples[3:4], processor.pad), 0, 1, processor)
    length = examples[3].length
    assert alone.target is not None and two.target is not None
    assert torch.equal(alone.target[0, :length], two.target[3, :length]), "whatever else is in the batch"
    special = torch.tensor(processor.special_tokens)
    assert not torch.isin(one.target[one.target != IGNORED], special).any()  # type: ignore[index]


# Packing


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packed_windows_hold_every_row_once(sizes: list[int]) -> None:
    examples = [
        Example(row, {"input_ids": [row] * size}, [row] * size, window=Window(row, "", tuple(range(size))))
        for row, size in enumerate(sizes)
    ]
    windows = packed(examples, 30)
    assert all(window.length <= 30 for window in windows)
    assert sorted(token for window in windows for token in window.inputs["input_ids"]) == sorted(
        row for row, size in enumerate(sizes) for _ in range(size)
    )
    for window in windows:
        runs = [len([n for n in window.inputs[SEGMENTS] if n == number]) for number in set(window.inputs[SEGMENTS])]
        assert window.inputs["position_ids"] == [place for size in runs for place in range(size)]
    assert sum(example.length for example in windows) == sum(sizes)
    assert measures(windows).lengths.tolist() == [window.length for window in windows]
    held = [windows.sources_of(row) for row in range(len(windows))]
    assert [sorted(set(window.inputs["input_ids"])) for window in windows] == [sorted(sources) for sources in held]
    assert measures(windows).sources.tolist() == [sources[0] for sources in held] == [item.source for item in windows]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "bert", "roberta", "modernbert"])
def test_packed_loss_and_gradients_are_those_of_single_rows(family: str, model_folder: Callable[[str], Path]) -> None:
    backbone, task = base(model_folder, family), task_of(family)
    network = task.head(backbone, NONE, False, 0)
    examples = task.encode(TEXTS, TEXTS, NONE, network.processor, 60)
    pad = {**network.processor.pad, **PAD}

    def measured(some: list[Example], drop: bool = False) -> tuple[float, torch.Tensor]:
        network.zero_grad()
        batch = collate(some, pad)
        inputs = {name: value for name, value in batch.inputs.items() if not (drop and name in PAD)}
        loss = task.loss(network(inputs), batch)
        loss.total.backward()
        grads = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
        return float(loss.total.detach() / loss.weight), torch.cat(grads)

    windows = packed(examples, 60)
    assert len(windows) < len(examples)
    (single, wanted), (together, found) = measured(examples), measured(windows)
    assert together == pytest.approx(single, rel=1e-5)
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert measured(windows, drop=True)[0] != pytest.approx(single, rel=1e-4), "the control: joined without care"


# Reference


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "modernbert"])
def test_loss_and_gradients_are_transformers_own(family: str, model_folder: Callable[[str], Path]) -> None:
    backbone, task = base(model_folder, family), task_of(family)
    network = task.head(backbone, NONE, False, 0)
    examples = task.encode(TEXTS[:4], TEXTS[:4], NONE, network.processor, 60)
    batch = collate(examples, network.processor.pad)
    loss = task.loss(network(batch.inputs), batch)
    (loss.total / loss.weight).backward()
    mine = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
    network.zero_grad()
    theirs: Any = network.model(**batch.inputs, labels=batch.target)  # type: ignore[operator]
    theirs.loss.backward()
    assert float(loss.total.detach() / loss.weight) == pytest.approx(float(theirs.loss.detach()), rel=1e-6)
    assert mine
    for name, value in network.named_parameters():
        if value.grad is not None:
            assert torch.allclose(mine[name], value.grad, atol=1e-6), name


def test_scores_are_those_of_all_tokens_alike(model_folder: Callable[[str], Path]) -> None:
    backbone, task = base(model_folder, "llama"), CausalLm()
    network = task.head(backbone, NONE, False, 0)
    texts = [LONG, *TEXTS[:3]]
    from tunesmith.evaluation.infer import infer

    examples = task.encode(texts, texts, NONE, network.processor, 20)
    found, _ = infer(lambda batch: network(batch.inputs), task, examples, NONE, network.processor.pad, "cpu")
    scores = task.score(found, texts, NONE)
    total, tokens, hits = 0.0, 0, 0
    for example in examples:
        batch = collate([example], network.processor.pad)
        with torch.no_grad():
            logits = network(batch.inputs)[0, :-1]
        target = torch.tensor(example.target[1:])
        total += float(cross_entropy(logits, target, reduction="sum"))
        hits += int((logits.argmax(-1) == target).sum())
        tokens += len(target)
    assert len(found) == len(texts)
    assert scores.value("perplexity") == pytest.approx(math.exp(total / tokens), rel=1e-5)
    assert scores.value("token_accuracy") == pytest.approx(hits / tokens)
    assert scores.value("bits_per_byte") == pytest.approx(total / math.log(2) / len("".join(texts).encode()), rel=1e-5)
    assert {"perplexity", "loss", "bits_per_byte"} == scores.lower


# New words


@pytest.mark.parametrize("family", ["llama", "gpt2", "roberta", "modernbert"])
def test_new_words_start_as_the_mean_of_their_pieces(family: str, model_folder: Callable[[str], Path]) -> None:
    plain, wide = base(model_folder, family), base(model_folder, family)
    word = WORD
    pieces = wide.processor.pieces([word])[0]
    added = add_words(wide.processor, [word])
    assert len(pieces) > 1 and list(added.values()) == [pieces]
    wide.processor.added = added
    make = causal_network if family in ("llama", "gpt2") else masked_network
    before, after = make(plain, 0), make(wide, 0)
    number = next(iter(added))
    assert wide.processor.bare([f"a {word} b"])[0].count(number) == 1
    table = next(after.model.get_input_embeddings().parameters())
    assert torch.allclose(table[number], table[pieces].mean(0))
    ids = torch.tensor([plain.processor.bare([TEXTS[0]])[0]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        one, two = before(given), after(given)
    others = [token for token in range(one.shape[-1]) if token != number]  # its row may have been spare
    assert torch.allclose(one[..., others], two[..., others], atol=1e-6), "what was there says what it said"
    assert torch.allclose(two[..., number], two[..., pieces].mean(-1), atol=1e-5)


def test_the_words_worth_most_are_found(model_folder: Callable[[str], Path]) -> None:
    processor = base(model_folder, "llama").processor
    usual, second, rare = WORD, f"{WORD}{WORD}", f"{WORD}x"
    texts = [f"{usual} and more"] * 20 + [f"{second} once"] * 5 + [f"{rare} rare"] * 2
    assert len(processor.pieces([usual])[0]) >= 3
    found = worth_adding(texts, processor, 9)
    assert found[0] == usual and second in found and rare not in found
    assert worth_adding(texts, processor, 1) == [usual]


# Whole runs


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(f"{LONG} {WORD} {place} times." for place in range(60)))
    return path


def printed_by(model: Predictor, text: str) -> str:
    """What the terminal gets for one text."""
    stream = io.StringIO()
    predict_with(lambda: model, text, Asked(), SimpleNamespace(isatty=lambda: True), stream)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("family", ["gpt2", "bert"])  # gpt2's head is its embeddings; the tiny bert has none
def test_a_whole_run_learns_from_a_text_file(
    family: str, book: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    settings_of: dict[str, Any] = {"training.epochs": 2, "training.max_length": 48, "training.rate": 1e-2}
    settings_of |= {"task.new_tokens": [WORD]} if family == "gpt2" else {}
    task = task_of(family).part_name()
    run = finetune(model_folder(family), book, task=task, settings=settings_of, out=tmp_path / "run")
    report = run.report
    assert report["task"] == task
    names = {item["name"]: item["metrics"]["perplexity"]["value"] for item in report["baselines"]}
    known = [finding["message"] for finding in report["findings"] if finding["message"].startswith("perplexity on ")]
    if family == "gpt2":
        assert set(names) == {"base", "frequent_token"}
        assert report["metrics"]["perplexity"]["value"] < names["base"]
        assert report["gains"]["base"]["value"] > 0, "a fall is a gain"
        assert ["general text" in known[0], "the untouched base wrote" in known[1]] == [True, True]
    else:
        assert set(names) == {"frequent_token"}, "a head that was drawn at random is no rival"
        assert known == [], "nor can anything be forgotten that it never knew"
    model = load(tmp_path / "run")
    asked = f"{TEXTS[0]} [MASK]" if family == "bert" else TEXTS[0]
    assert isinstance(model.predict([asked])[0], str)
    if family == "bert":
        assert model.predict([TEXTS[0]]) == [None], "nothing is hidden"
        assert list(model.said([asked])) == ["said"], "and no token is judged"
        assert printed_by(model, asked) == f"{model.predict([asked])[0]}\n"
        both = model.said([asked, TEXTS[0]])
        assert both["loss"][0] is None and both["tokens"][0] == 0, "a loss of 0 would praise what nobody asked"
        assert both["loss"][1] > 0 and both["tokens"][1] > 0, "tokens of other texts are hidden to judge these"
    assert (WORD in model.network.processor.tokenizer.get_vocab()) is (family == "gpt2")
    family_of: Any = __import__("transformers")
    opened = getattr(family_of, "AutoModelForCausalLM" if family == "gpt2" else "AutoModelForMaskedLM")
    again = opened.from_pretrained(tmp_path / "run" / "model").eval()
    ids = torch.tensor([model.network.processor.bare([TEXTS[1]])[0]])
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        assert torch.equal(again(**given).logits, model.network(given))


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path, model_folder: Callable[[str], Path]) -> None:
    processor = base(model_folder, "llama").processor
    with pytest.raises(ModelError, match="has no mask token, so tokens cannot be hidden; choose a base"):
        MaskedLm().encode(TEXTS, TEXTS, NONE, processor, 20)


@pytest.mark.parametrize("wrong", [{"masked": 0}, {"masked": 1.5}, {"new_tokens": -1}, {"packing": "maybe"}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Recipe.parse({"model": "m", "data": "d.txt", "task": {"name": "masked_lm", **wrong}})
