"""Language models asked in words: likelihoods equal plain transformers' row by row, and the rival is made of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from families import DECODERS_WITH_HEADS, ENCODERS_WITH_HEADS, with_head
from shortruns import HINTS, recipe_for, rows
from tunesmith.errors import ModelError
from tunesmith.evaluation.verdict import CHEAPER, OF_BASE, PHRASES, PROMPT, ZERO_SHOT
from tunesmith.models.backbone import load_backbone
from tunesmith.models.language import causal_network, masked_network
from tunesmith.models.likelihood import (
    _shared,
    _tree,
    ending_likelihoods,
    keeps_exactly,
    masked_likelihoods,
    tokens_read,
)
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start
from tunesmith.zero_shot import common, prompting, questions
from tunesmith.zero_shot.prompting import Likely, calibrated, informed

Folder = Callable[[str], Path]
WITH = {"evaluation.baselines": True, "retention.measure": False, "evaluation.quick": True, "training.epochs": 1}
NAMES = {"money": "bank_card", "praise": "good", "blame": "very bad film"}  # of one token and of several


def _oracle(model: Any, prompt: Sequence[int], ending: Sequence[int]) -> float:
    """As anyone would write it: the whole text at once, and the log-probability of each token of its end."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ending]])).logits[0].double().log_softmax(-1)
    return float(sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(ending)))


def _masked_oracle(model: Any, inputs: dict[str, list[int]], masks: Sequence[int], word: Sequence[int]) -> float:
    with torch.no_grad():
        logits = model(**{name: torch.tensor([value]) for name, value in inputs.items()}).logits[0]
    logits = logits.double().log_softmax(-1)
    return float(sum(logits[place, token] for place, token in zip(masks, word, strict=True)))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("family", DECODERS_WITH_HEADS)
def test_endings_are_as_likely_as_transformers_says(
    model_folder: Folder, tmp_path: Path, family: str, kept: bool
) -> None:
    folder = with_head(model_folder(family), tmp_path)
    network = causal_network(load_backbone(resolve(str(folder))), 0)
    prompts = [[5, 9, 4, *range(20, 20 + place % 4), 30 + place] for place in range(9)]
    endings = [[7], [7, 8], [7, 8, 9], [11, 12], [11, 12, 13, 14], [3, 3]]
    found = ending_likelihoods(network, prompts, endings, kept)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = [[_oracle(model, prompt, ending) for ending in endings] for prompt in prompts]
    assert found.numpy() == pytest.approx(np.array(wanted), abs=1e-3)
    assert keeps_exactly(network, prompts[:3], endings)
    assert network.model.config.use_cache is False, "as it was"


def test_few_tokens_are_read_at_once_without_another_result(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import likelihood

    network = causal_network(load_backbone(resolve(str(with_head(model_folder("llama"), tmp_path)))), 0)
    prompts = [[5, 9, 4, *range(20, 20 + place % 3)] for place in range(8)]
    endings = [[place, *range(40, 40 + place % 4)] for place in range(7)]
    whole = ending_likelihoods(network, prompts, endings)
    monkeypatch.setattr(likelihood, "CPU_TOKENS", 9)
    monkeypatch.setattr(likelihood, "AT_ONCE", 220)
    monkeypatch.setattr(likelihood, "KEPT_BYTES", 1)
    assert torch.allclose(whole, ending_likelihoods(network, prompts, endings), atol=1e-4)


@pytest.mark.parametrize("family", ENCODERS_WITH_HEADS)
def test_words_at_masks_are_as_likely_as_transformers_says(model_folder: Folder, tmp_path: Path, family: str) -> None:
    folder = with_head(model_folder(family), tmp_path)
    backbone = load_backbone(resolve(str(folder)))
    network = masked_network(backbone, 0)
    assert not network.fresh
    texts = questions.masked_of(backbone.text, ["good film", "", "a bad year in the bank"], 2, 40)
    words = [[30, 31], [32, 32], [40, 9]]
    found = masked_likelihoods(network, texts, words)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = [[_masked_oracle(model, text.inputs, text.masks, word) for word in words] for text in texts]
    assert found.numpy() == pytest.approx(np.array(wanted), abs=1e-3)
    assert all(text.inputs["input_ids"][place] == backbone.text.mask for text in texts for place in text.masks)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=8))
def test_what_is_read_after_a_prompt_holds_every_ending_once(endings: list[list[int]]) -> None:
    tree = _tree(endings)
    for ending, place in zip(endings, tree.start, strict=True):
        assert (place == -1) == (len(ending) == 1)
        assert place == -1 or list(tree.starts[place][: len(ending) - 1]) == ending[:-1]
    assert not any(one != other and other[: len(one)] == one for one in tree.starts for other in tree.starts), (
        "no one is the beginning of another"
    )


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6))
def test_what_prompts_share_is_counted_once(prompts: list[list[int]]) -> None:
    shared = _shared(prompts)
    assert len({tuple(prompt[:shared]) for prompt in prompts}) == 1
    assert all(len(prompt) > shared for prompt in prompts)
    longer = {tuple(prompt[: shared + 1]) for prompt in prompts}
    assert len(longer) > 1 or any(len(prompt) == shared + 1 for prompt in prompts), "and no more could be"
    assert tokens_read(prompts, [[1], [2]]) == shared + sum(len(prompt) - shared for prompt in prompts)
    assert tokens_read(prompts, [[1, 2], [3, 4]], kept=False) == sum(2 * len(prompt) + 2 for prompt in prompts)


def test_what_it_costs_is_told_truly_of_several_labels_too() -> None:
    """Whose thresholds are settled on labelled validation rows."""
    for rival in (PROMPT, ZERO_SHOT):
        assert "labelled" not in CHEAPER[rival] and CHEAPER[rival].endswith("without any training")


def test_what_is_likely_anyway_is_taken_out() -> None:
    draw = np.random.default_rng(0)
    asked, usual, free = (torch.tensor(draw.normal(size=(count, 4)) * 5 - 20) for count in (6, 30, 3))
    shares = {name: np.exp(item.numpy()) for name, item in (("asked", asked), ("usual", usual), ("free", free))}
    shares = {name: item / item.sum(1, keepdims=True) for name, item in shares.items()}
    anyway = np.sqrt(shares["usual"].mean(0) * shares["free"].mean(0))
    wanted = shares["asked"] / anyway
    found = calibrated(Likely(asked, usual, free))
    assert found.numpy() == pytest.approx(wanted / wanted.sum(1, keepdims=True))
    skewed = [item + torch.tensor([0.0, 30.0, -4.0, 7.0]) for item in (asked, usual, free)]
    favoured = calibrated(Likely(*skewed))
    assert skewed[0].argmax(1).tolist() == [1] * 6, "one label is likely whatever the text says"
    even = calibrated(Likely(asked, torch.zeros(2, 4), torch.zeros(2, 4)))
    assert even.numpy() == pytest.approx(shares["asked"])
    assert favoured.argmax(1).tolist() != [1] * 6
    odds = informed(Likely(asked, usual, free)).numpy()
    raw = np.exp(asked.numpy()) / np.sqrt(np.exp(usual.numpy()).mean(0) * np.exp(free.numpy()).mean(0))
    assert odds == pytest.approx(raw / (1 + raw))


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "roberta"])
@given(text=st.text(alphabet="good bank film lost\n", max_size=300), pair=st.booleans(), limit=st.integers(4, 60))
@settings(max_examples=20, deadline=None)
def test_questions_fit_whatever_the_text(model_folder: Folder, family: str, text: str, pair: bool, limit: int) -> None:
    processor = load_backbone(resolve(str(model_folder(family)))).text
    asked = [(text, "a film" * 30) if pair else text, ("short", text) if pair else "short"]
    most = min(processor.max_length, processor.positions)
    if family in ("llama", "gpt2"):
        found = questions.prompts_of(processor, asked, ["good", "very bad"], limit)
        assert all(len(prompt) + max(map(len, found.endings)) <= most for prompt in found.prompts)
        tail = processor.bare([f"\n{questions.ASKED}"])[0]
        assert all(prompt[-len(tail) :] == tail for prompt in found.prompts), "the question is whole"
    else:
        for item in questions.masked_of(processor, asked, 3, limit):
            ids = item.inputs["input_ids"]
            assert len(ids) <= most and [ids[place] for place in item.masks] == [processor.mask] * 3
            assert item.masks[-1] - item.masks[0] == 2


def test_a_text_is_asked_about_as_a_person_would_write_it(model_folder: Folder) -> None:
    decoder, encoder = (load_backbone(resolve(str(model_folder(family)))).text for family in ("gpt2", "bert"))
    one = questions.prompts_of(decoder, ["good film"], ["bank card", "lost"], 40)
    assert one.prompts[0] == decoder.tokenizer("good film\nThis is about").input_ids
    assert [decoder.written(ending) for ending in one.endings] == [" bank card", " lost"]
    two = questions.prompts_of(decoder, [("good film", "bad bank")], ["lost", "good"], 40)
    assert two.prompts[0] == decoder.tokenizer("Text 1: good film\nText 2: bad bank\nThis is about").input_ids
    (masked,) = questions.masked_of(encoder, ["good film"], 2, 40)
    assert encoder.tokens(masked.inputs)[0] == "[CLS]" and encoder.tokens(masked.inputs)[-1] == "[SEP]"
    spelt = encoder.tokens(masked.inputs)[1:-1]
    assert "".join(spelt).replace("##", "") == "goodfilmthisisabout[MASK][MASK][UNK]", (
        "its tokenizer knows no full stop"
    )
    assert questions.content_free([("a", "b")], masks=True) == [("N/A", "N/A"), ("", "")]


def test_names_that_its_tokens_cannot_tell_apart_are_refused(model_folder: Folder) -> None:
    processor = load_backbone(resolve(str(model_folder("bert")))).text
    with pytest.raises(ModelError, match="are the same to its tokenizer"):
        questions.names_at_masks(processor, ["Good", "good"])
    with pytest.raises(ModelError, match="does not know all letters"):
        questions.names_at_masks(processor, ["good", "\u4e2d\u6587"])
    with pytest.raises(ModelError, match="of them are the question"):
        questions.prompts_of(load_backbone(resolve(str(model_folder("llama")))).text, ["a"], ["bank " * 60], 40)


def _table(path: Path, count: int = 120, pair: bool = False, several: bool = False) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        write = csv.writer(out)
        write.writerow(("text", "other", "label") if pair else ("text", "label"))
        for place, (text, kind) in enumerate(rows(count)):
            label = NAMES[kind] + ("|long" if several and place % 2 else "")
            write.writerow((text, f"{HINTS[kind][0]} number", label) if pair else (text, label))
    return path


def _run(
    model: Path, data: Path, out: Path, more: dict[str, Any] | None = None, method: str = "head"
) -> dict[str, Any]:
    list(start(recipe_for(model, data, method, {**WITH, **(more or {})}), out).events())
    found = json.loads((out / "report.json").read_text())["baselines"]
    return {item["name"]: item for item in found}


def _said(run: Path) -> str:
    return (run / "events.jsonl").read_text()


def test_in_a_run_it_says_what_a_plain_loop_says(model_folder: Folder, tmp_path: Path) -> None:
    """The whole rival again: strings, transformers' own tokenizer and model, one row and one label at a time."""
    import pandas as pd
    from safetensors.numpy import load_file

    from tunesmith.preparing import prepare

    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder("gpt2"), tmp_path / "base"), _table(tmp_path / "rows.csv")
    rivals = _run(folder, data, tmp_path / "run")
    assert rivals[PROMPT]["what"] == PHRASES[PROMPT] and PROMPT in CHEAPER and PROMPT in OF_BASE
    kept = load_file(tmp_path / "run" / "predictions" / "rivals" / "prompt.safetensors")
    prepared = prepare(recipe_for(folder, data, "head", WITH))
    assert sorted(pd.read_parquet(tmp_path / "run" / "predictions" / "test.parquet")["text"]) == sorted(
        map(str, prepared.texts("test"))
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    names = [name.replace("_", " ") for name in prepared.labels.names]

    def shares(text: str) -> np.ndarray:
        prompt = tokenizer(f"{text}\nThis is about").input_ids
        whole = [tokenizer(f"{text}\nThis is about {name}").input_ids for name in names]
        assert all(ids[: len(prompt)] == prompt for ids in whole)
        told = np.exp([_oracle(model, prompt, ids[len(prompt) :]) for ids in whole])
        return told / told.sum()

    free = np.mean([shares(text) for text in ("N/A", "", "[MASK]")], axis=0)
    train = [str(text) for text in prepared.texts("train")]
    assert len(train) <= prompting.USUAL, "so that all of them are read"
    usual = np.mean([shares(text) for text in train], axis=0)
    wanted = np.array([shares(str(text)) / np.sqrt(free * usual) for text in prepared.texts("test")])
    assert kept["column:predicted"].tolist() == wanted.argmax(1).tolist()
    assert kept["column:probability"] == pytest.approx((wanted / wanted.sum(1, keepdims=True)).max(1), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "bert", "roberta"])
@pytest.mark.parametrize("kind", ["pair", "several"])
def test_pairs_and_several_labels_are_asked_too(model_folder: Folder, tmp_path: Path, family: str, kind: str) -> None:
    (tmp_path / "base").mkdir()
    folder = with_head(model_folder(family), tmp_path / "base")
    data = _table(tmp_path / "rows.csv", pair=kind == "pair", several=kind == "several")
    more = {"data.pair": "other"} if kind == "pair" else {"task": "multilabel"}
    rivals = _run(folder, data, tmp_path / "run", more)
    assert PROMPT in rivals, _said(tmp_path / "run")
    assert (tmp_path / "run" / "predictions" / "rivals" / "prompt.safetensors").exists()
    value = rivals[PROMPT]["metrics"]["micro_f1" if kind == "several" else "accuracy"]
    assert value["low"] <= value["value"] <= value["high"]


@pytest.mark.parametrize("family", ["llama", "bert", "sentence", "t5", "model2vec"])
def test_a_base_without_a_head_is_not_asked_and_nothing_is_said(
    model_folder: Folder, tmp_path: Path, family: str
) -> None:
    rivals = _run(model_folder(family), _table(tmp_path / "rows.csv"), tmp_path / "run")
    assert PROMPT not in rivals
    assert "asked in words" not in _said(tmp_path / "run")


def test_what_prompts_share_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.models import likelihood

    asked = []
    monkeypatch.setattr(likelihood, "_shared", lambda prompts: asked.append(len(prompts)) or 1)
    assert tokens_read([[5, place, 7] for place in range(50)], [[1], [2, 3]]) == 1 + 50 * 3
    assert asked == [50], "once, and not once a prompt"


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize(("method", "epochs"), [("head", 9), ("full", 1), ("full", 9)])
def test_it_reads_a_tenth_of_what_training_reads_at_most(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, method: str, epochs: int
) -> None:
    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder(family), tmp_path / "base"), _table(tmp_path / "rows.csv", 700)
    monkeypatch.setattr(prompting, "CPU_WORK", 1.0)
    rooms, afford = list[int](), prompting._affordable
    monkeypatch.setattr(prompting, "_affordable", lambda *given: (rooms.append(given[1]), afford(*given)))
    run = tmp_path / "run"
    rivals = _run(folder, data, run, {"training.epochs": epochs, "data.test": 0.05}, method)
    (own,) = [split["rows"] for split in json.loads((run / "report.json").read_text())["data"]["splits"][:1]]
    reads = 3 * epochs if method == "full" else 1
    assert 3 * own * reads / 10 < rooms[0] < 20 * own * reads / 10, "rows of 3 to 20 tokens"
    assert (PROMPT in rivals) == (epochs * (method == "full") == 9), _said(run)
    assert ("where a rival may read" in _said(run)) == (PROMPT not in rivals)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_one_that_reads_too_much_is_refused_before_texts_are_tokenised(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder(family), tmp_path / "base"), _table(tmp_path / "rows.csv")
    made = list[str]()
    for name in ("prompts_of", "masked_of"):
        whole = getattr(prompting, name)
        monkeypatch.setattr(prompting, name, lambda *given, whole=whole: (made.append("texts"), whole(*given))[1])
    assert PROMPT in _run(folder, data, tmp_path / "read")
    assert made, "the control"
    made.clear()
    monkeypatch.setattr(prompting, "CPU_WORK", 1.0)
    assert PROMPT not in _run(folder, data, tmp_path / "dear")
    assert not made and "tokens to read or more" in _said(tmp_path / "dear")


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("pair", [False, True])
def test_the_bound_before_tokenising_is_no_more_than_what_is_read(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, pair: bool
) -> None:
    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder(family), tmp_path / "base"), _table(tmp_path / "rows.csv", pair=pair)
    told = list[int]()
    monkeypatch.setattr(prompting, "_affordable", lambda tokens, *given: told.append(tokens))
    assert PROMPT in _run(folder, data, tmp_path / "run", {"data.pair": "other"} if pair else {})
    assert told[0] <= told[1]
    assert told[0] > 120, "and says more than how many rows there are"


def test_why_a_base_is_not_asked(model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder("llama"), tmp_path / "base"), _table(tmp_path / "rows.csv", 700)
    monkeypatch.setattr(common, "MEMORY_SHARE", 0.0)
    assert PROMPT not in _run(folder, data, tmp_path / "large")
    assert "GB of memory" in _said(tmp_path / "large")
    (told,) = json.loads((tmp_path / "large" / "report.json").read_text())["uncompared"][
        1:
    ]  # the first: of its vectors
    assert told.startswith("the base is not asked in words: read once more") and told in _said(tmp_path / "large")
    assert told.removeprefix("the base") in (tmp_path / "large" / "report.html").read_text()
    monkeypatch.undo()
    numbered = tmp_path / "numbered.csv"
    numbered.write_text(data.read_text().replace("bank_card", "class 7"))
    assert PROMPT not in _run(folder, numbered, tmp_path / "numbered")
    assert r"not all labels are words, such as \"class 7\"" in _said(tmp_path / "numbered")


def test_one_that_fails_costs_the_run_nothing_else(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import likelihood

    def broken(*given: Any) -> Any:
        raise KeyError("past")

    (tmp_path / "base").mkdir()
    monkeypatch.setattr(likelihood, "ending_likelihoods", broken)
    folder = with_head(model_folder("llama"), tmp_path / "base")
    assert "probe" in _run(folder, _table(tmp_path / "rows.csv"), tmp_path / "run")
    assert "the base asked in words: could not be measured (KeyError" in _said(tmp_path / "run")


HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "num_experts": 2}


def _as_network(family: str, own: dict[str, Any]) -> Any:
    """As much of a network as is asked, of any of transformers' families."""
    from types import SimpleNamespace

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(family, **{**sizes, **own})
        whole = transformers.AutoModelForCausalLM.from_config(config).eval()
    layout = SimpleNamespace(blocks=("one", "two"), width=32)
    return SimpleNamespace(
        body=whole.base_model,
        sample=next(whole.parameters()),
        layout=layout,
        vocabulary=64,
        project=whole.get_output_embeddings(),
    )


@pytest.mark.parametrize(
    ("family", "own", "keeps"),
    [
        ("mistral", HEADS, True),
        ("mamba", {"state_size": 4}, False),
        ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4}, False),
        ("jamba", {**HEADS, **JAMBA, "mamba_d_state": 4}, False),
    ],
)
def test_families_that_keep_nothing_are_known_by_what_they_give(family: str, own: dict[str, Any], keeps: bool) -> None:
    prompts = [[5, 9, 4, *range(20, 20 + count)] for count in (2, 7)]
    assert keeps_exactly(_as_network(family, own), prompts, [[7], [7, 8], [11, 12, 13]]) == keeps


def test_a_window_that_only_long_prompts_leave_is_tried_by_the_longest(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import likelihood

    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder("llama"), tmp_path / "base"), _table(tmp_path / "rows.csv")
    tried, exactly = list[list[int]](), likelihood.keeps_exactly
    read = list[int]()

    def watched(network: Any, prompts: Any, endings: Any) -> bool:
        tried.append(sorted(map(len, prompts)))
        return exactly(network, prompts, endings)

    whole = likelihood.ending_likelihoods
    monkeypatch.setattr(likelihood, "keeps_exactly", watched)
    monkeypatch.setattr(
        likelihood,
        "ending_likelihoods",
        lambda network, prompts, *more: (read.extend(map(len, prompts)), whole(network, prompts, *more))[1],
    )
    _run(folder, data, tmp_path / "run")
    assert tried == [[min(read), max(read)]]


@pytest.mark.parametrize("error", [KeyError, RuntimeError, TypeError, ValueError])
def test_a_bug_is_not_taken_for_a_family_that_keeps_nothing(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    from tunesmith.models import likelihood

    def broken(self: Any, ids: Any, past: Any) -> Any:
        raise error("a bug")

    network = causal_network(load_backbone(resolve(str(with_head(model_folder("llama"), tmp_path)))), 0)
    monkeypatch.setattr(likelihood._Kept, "_run", broken)
    with pytest.raises(error, match="a bug"):
        keeps_exactly(network, [[5, 9], [5, 7]], [[7]])


def test_a_family_whose_cache_is_another_is_read_anew(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import likelihood

    (tmp_path / "base").mkdir()
    folder, data = with_head(model_folder("llama"), tmp_path / "base"), _table(tmp_path / "rows.csv")
    usual = _run(folder, data, tmp_path / "kept")[PROMPT]

    def broken(self: Any, ids: Any, past: Any) -> Any:
        raise likelihood.NotKept

    monkeypatch.setattr(likelihood._Kept, "_run", broken)
    assert _run(folder, data, tmp_path / "anew")[PROMPT]["metrics"] == usual["metrics"]
