"""Writing texts from texts, from rows to what is written: the loss, generation, metrics, a whole run, what is saved."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shortruns import rows
from tunesmith.cli.main import run
from tunesmith.data.columns import Asked
from tunesmith.data.encode import IGNORED, collate
from tunesmith.data.table import Table
from tunesmith.errors import DataError, ModelError
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.seq2seq import Seq2Seq

if TYPE_CHECKING:
    from tunesmith.models.network import Network

Folder = Callable[[str], Path]
FAMILIES = ("t5", "bart")
NONE = Labels((), (), longest=9)
TEXTS = [text for text, _ in rows(7)]
TARGETS = [" ".join(reversed(text.split()[: 1 + 2 * place])) for place, text in enumerate(TEXTS)]


def network_of(folder: Path, task: Seq2Seq, labels: Labels = NONE) -> Network:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return task.head(load_backbone(resolve(str(folder))), labels, False, 0)


def table(columns: dict[str, list[Any]], path: str = "rows.csv") -> Table:
    return Table(path, columns, tuple(range(2, 2 + len(next(iter(columns.values()))))))


def package(name: str) -> Any:
    """A module of the extra `gen`. Where it is not installed the test skips; where CI is set it fails."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        said = f"needs {name}: pip install 'tunesmith[gen]'"
        pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    return importlib.import_module(name)


def encoder_decoder() -> str:
    return "encoder-decoder"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers(family: str, smoothing: float, model_folder: Folder) -> None:
    """AutoModelForSeq2SeqLM given labels= with -100 for filler; smoothed as transformers' own trainer does it."""
    import torch
    from transformers import AutoModelForSeq2SeqLM
    from transformers.trainer_pt_utils import LabelSmoother

    task = Seq2Seq(label_smoothing=smoothing)
    network = network_of(model_folder(family), task)
    examples = task.encode(TEXTS, TARGETS, NONE, network.text, 60)
    batch = collate(examples, network.processor.pad)
    oracle = AutoModelForSeq2SeqLM.from_pretrained(model_folder(family), dtype=torch.float32).eval()
    given = network.text.tokenizer(TEXTS, text_target=TARGETS, padding=True, return_tensors="pt")
    labels = given["labels"].masked_fill(given["labels"] == network.processor.pad["input_ids"], IGNORED)
    said = oracle(input_ids=given["input_ids"], attention_mask=given["attention_mask"], labels=labels)
    theirs = LabelSmoother(smoothing)({"logits": said.logits}, labels) if smoothing else said.loss
    theirs.backward()
    output = network(batch.inputs)
    assert output.shape == said.logits.shape and (labels == IGNORED).any()
    assert torch.allclose(output[labels != IGNORED], said.logits[labels != IGNORED], atol=1e-6)
    found = task.loss(output, batch)
    assert float(found.weight) == (labels != IGNORED).sum()
    (found.total / found.weight).backward()
    assert float((found.total / found.weight).detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    ours = dict(network.get_submodule("model").named_parameters())
    for name, parameter in oracle.named_parameters():
        here, there = ours[name].grad, parameter.grad
        assert here is not None and there is not None, name
        assert torch.allclose(here, there, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("family", FAMILIES)
def test_judged_is_each_rows_own_loss_and_hits(family: str, model_folder: Folder) -> None:
    import torch

    task = Seq2Seq(label_smoothing=0.3)  # which is of training alone
    network = network_of(model_folder(family), task)
    examples = task.encode(TEXTS, TARGETS, NONE, network.text, 60)
    with torch.no_grad():
        together = collate(examples, network.processor.pad)
        found = task.judged(network(together.inputs), together, NONE)
        for example, item in zip(examples, found, strict=True):
            batch = collate([example], network.processor.pad)
            logits, wanted = network(batch.inputs)[0], torch.tensor(example.target)
            assert item.evidence[0] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, wanted)), rel=1e-5)
            assert item.counts == (len(wanted), int((logits.argmax(-1) == wanted).sum()))


def _greedy(network: Network, source: list[int], most: int) -> list[int]:
    """The definition: the likeliest token after all that was written so far, computed anew each time."""
    import torch

    model: Any = network.get_submodule("model")
    ids, written = torch.tensor([source]), [model.config.decoder_start_token_id]
    with torch.no_grad():
        while len(written) <= most and written[1:][-1:] != [network.text.end]:
            given = torch.tensor([written])
            written.append(int(model(input_ids=ids, decoder_input_ids=given).logits[0, -1].argmax()))
    return written[1:]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_a_time_are_what_transformers_writes_one_by_one(
    family: str, beams: int, model_folder: Folder, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from tunesmith.models.generation import write_from

    network = network_of(model_folder(family), Seq2Seq(beams=beams))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        for parameter in network.parameters():  # else a tiny random model says one token whatever it reads
            parameter += 0.3 * torch.randn_like(parameter)
    draw = random.Random(3)
    sources = [[draw.randint(5, 190) for _ in range(draw.randint(1, 30))] for _ in range(23)]
    network.save(tmp_path / "saved", (), 40)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    found = write_from(network, sources)
    for source, (ids, ended) in zip(sources, found, strict=True):
        alone = theirs.generate(torch.tensor([source]))[0, 1:].tolist()
        assert ids == alone
        assert ended == (ids[-1] == network.text.end) and len(ids) <= NONE.longest
        if beams == 1:
            assert ids == _greedy(network, source, NONE.longest)
    assert len({tuple(ids) for ids, _ in found}) > 3, "not all alike"


def test_control_filler_that_is_seen_would_be_noticed(model_folder: Folder) -> None:
    from tunesmith.models.generation import write_from

    network = network_of(model_folder("bart"), Seq2Seq())
    draw = random.Random(3)
    sources = [[draw.randint(5, 190) for _ in range(draw.randint(1, 30))] for _ in range(23)]
    spoiled = [[*source, *[1] * (30 - len(source))] for source in sources]
    assert write_from(network, spoiled) != write_from(network, sources)


def test_the_bases_own_settings_of_writing_are_left_away(model_folder: Folder, tmp_path: Path) -> None:
    """Penalties and lengths of another task; a forced first token stays only where every target begins with it."""
    folder = tmp_path / "base"
    shutil.copytree(model_folder("bart"), folder)
    path = folder / "generation_config.json"
    own = json.loads(path.read_text(encoding="utf-8"))
    more = {"num_beams": 4, "no_repeat_ngram_size": 3, "min_length": 30, "max_length": 142, "forced_bos_token_id": 0}
    path.write_text(json.dumps(own | more), encoding="utf-8")
    config: Any = network_of(folder, Seq2Seq(answer_tokens=7)).get_submodule("model").generation_config
    assert (config.num_beams, config.max_new_tokens) == (1, 7)
    assert not config.no_repeat_ngram_size and not config.min_length
    assert config.forced_bos_token_id == 0  # <s>, with which this tokenizer begins every text
    path.write_text(json.dumps(own | {"forced_bos_token_id": 9}), encoding="utf-8")
    config = network_of(folder, Seq2Seq()).get_submodule("model").generation_config
    assert config.forced_bos_token_id is None and config.max_new_tokens == NONE.longest


def test_targets_end_with_the_end_of_text_and_their_cuts_are_counted(model_folder: Folder) -> None:
    task = Seq2Seq(prefix="say: ")
    network = network_of(model_folder("t5"), task)
    text, limit = network.text, 8
    examples = task.encode(TEXTS, TARGETS, NONE, text, limit)
    for example, read, write in zip(examples, TEXTS, TARGETS, strict=True):
        assert (
            example.inputs["input_ids"]
            == text.tokenizer(f"say: {read}", truncation=True, max_length=limit)["input_ids"]
        )
        whole = text.tokenizer(text_target=write)["input_ids"]
        cut = text.tokenizer(text_target=write, truncation=True, max_length=limit)["input_ids"]
        assert example.target == cut and cut[-1] == text.tokenizer.eos_token_id
        assert example.second_cut == len(whole) - len(cut)
    lost = [example.second_cut for example in examples if example.second_cut]
    assert 0 < len(lost) < len(examples)
    said = task.remarks({"train": examples, "validation": [], "test": []}, limit)
    assert any(f"{len(lost)} of 7 targets are longer than 8 tokens: {sum(lost)} tokens" in line for line in said)
    assert any("written of 8 tokens at most: the longest training target has as many" in line for line in said)
    assert task.sized(Labels((), ()), examples).longest == limit


def test_what_is_cut_is_stored_too(model_folder: Folder, tmp_path: Path) -> None:
    from tunesmith.data.stored import can_store, stored

    network = network_of(model_folder("t5"), Seq2Seq())
    examples = Seq2Seq().encode(TEXTS, TARGETS, NONE, network.text, 8)
    examples[2] = replace(examples[2], unknown=4)
    assert all(map(can_store, examples)) and any(example.second_cut for example in examples)
    assert list(stored(tmp_path / "kept", TEXTS, lambda: [examples])) == examples


def test_letters_that_cannot_be_written_are_told() -> None:
    from families import _wordpiece
    from tunesmith.models.text import TextProcessor

    text = TextProcessor(_wordpiece(), 64, "for tests", {"input_ids": 0, "attention_mask": 0}, 64)
    examples = Seq2Seq().encode(["{a}"] * 3, ["the { film }", "the film", "{"], NONE, text, 20)
    assert [example.unknown for example in examples] == [2, 0, 1]
    message, told = Seq2Seq().unlearned(examples, [])
    assert told == [0, 2] and "which the model can never write" in message


def test_a_tokenizer_without_an_end_gets_one(model_folder: Folder) -> None:
    network = network_of(model_folder("t5"), Seq2Seq())
    text = network.text
    text.tokenizer.backend_tokenizer.post_processor = None  # which would put marks around a text
    ((ids, cut),) = text.targets([TEXTS[2]], 60)
    bare = text.tokenizer(TEXTS[2], add_special_tokens=False)["input_ids"]
    assert (ids, cut) == ([*bare, text.end], 0)
    assert text.targets([TEXTS[2]], 5) == [([*bare[:4], text.end], len(bare) - 4)]
    text.tokenizer.eos_token = text.tokenizer.sep_token = None
    with pytest.raises(ModelError, match="the tokenizer has no end of text"):
        text.targets(["a"], 5)


@pytest.mark.parametrize(
    ("columns", "pair"),
    [
        ({"document": TEXTS, "summary": TARGETS, "id": list(range(7))}, ("document", "summary")),
        ({"highlights": TARGETS, "Article": TEXTS}, ("Article", "highlights")),
        ({"de": TEXTS, "en": TARGETS, "id": list(range(7))}, ("de", "en")),
        ({"input": TEXTS, "output": TARGETS}, ("input", "output")),
        ({"input": TEXTS, "target": TARGETS}, ("input", "target")),
        ({"text": TEXTS, "summary": TARGETS, "label": ["a"] * 7}, None),
        ({"instruction": TEXTS, "input": TEXTS, "output": TARGETS}, None),
        ({"question": TEXTS, "answer": TEXTS}, None),
        ({"source": TEXTS, "target": ["yes", "no"] * 3 + ["no"]}, None),
    ],
)
def test_usual_columns_are_recognised(columns: dict[str, list[Any]], pair: tuple[str, str] | None) -> None:
    longer = {name: [*values, *(f"{value} too" for value in values)] for name, values in columns.items()}
    if "target" in longer and pair is None:
        longer["target"] = columns["target"] * 2
    if "label" in longer:
        longer["label"] = ["a", "b"] * 7
    given = table(longer)
    why = Seq2Seq.recognises(given, Asked(base=encoder_decoder))
    assert (why is not None) == (pair is not None)
    assert Seq2Seq.recognises(given, Asked(base=lambda: "encoder")) is None
    if pair is not None:
        found = Seq2Seq().find(given, Asked(base=encoder_decoder))
        assert (found.text, found.label) == pair


def test_columns_by_name() -> None:
    given = table({"question": TEXTS, "answer": TARGETS, "en": TEXTS, "de": TARGETS, "body": TEXTS})
    named = Asked("body", "de", base=encoder_decoder)
    assert Seq2Seq.recognises(given, named) is None or Seq2Seq().find(given, named).text == "body"
    found = Seq2Seq().find(given, Asked(base=encoder_decoder))
    assert (found.text, found.label) == ("question", "answer"), (
        "what other tasks read too is taken where it is asked for"
    )
    languages = table({"en": TEXTS, "de": TARGETS})
    assert "the first column is read" in Seq2Seq().find(languages, Asked()).why
    assert "the first column is read" not in Seq2Seq().find(languages, Asked("de", "en")).why
    assert Seq2Seq().find(languages, Asked(label="en")).text == "de"
    for asked, said in (
        (Asked("body"), "name the one to read with --text and the one to write with --label"),
        (Asked("body", "sumary"), 'there is no column "sumary"'),
        (Asked("body", ("en", "de")), "2 columns are named"),
        (Asked("body", "de", None, "en"), 'data.pair: "en" is not read by task seq2seq'),
        (Asked("body", "body"), "cannot be both the text and the label"),
    ):
        with pytest.raises(DataError, match=said):
            Seq2Seq().find(given, asked)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "vision"])
def test_another_base_is_told_what_fits(kind: str) -> None:
    with pytest.raises(ModelError, match=rf'and m is of kind "{kind}"; .* encoder-decoder \(t5.*--task instruction'):
        Seq2Seq.check_base("m", kind)


def test_a_base_that_is_only_known_when_read_is_told_too(model_folder: Folder) -> None:
    with pytest.raises(ModelError, match='no sequence-to-sequence model for "bert"; choose an encoder-decoder'):
        network_of(model_folder("bert"), Seq2Seq())


def test_rows_without_a_text_are_named() -> None:
    given = table({"source": ["a b", " ", None, "c d"], "target": ["b a", "x", "y", ["z"]]})
    columns = Seq2Seq().find(given, Asked(base=encoder_decoder))
    with pytest.raises(DataError) as error:
        Seq2Seq().read(given, columns)
    assert [problem.split(";")[0] for problem in error.value.problems] == [
        'rows.csv:3: "source" is empty', 'rows.csv:4: "source" is empty',
        "rows.csv:5: \"target\" holds a list where a text was expected: ['z']",
    ]  # fmt: skip
    assert "fill these rows" in error.value.problems[-1]
    many = table({"source": ["a"] * 30, "target": [""] * 30})
    with pytest.raises(DataError, match="30 rows in all; fill these rows") as error:
        Seq2Seq().read(many, Seq2Seq().find(many, Asked()))
    assert len(error.value.problems) == 10


def test_a_prefix_is_read_as_it_was_meant() -> None:
    from tunesmith.recipe import Recipe

    plain = {"model": "m", "data": "d", "task": {"name": "seq2seq", "prefix": {"translate English to German": None}}}
    task = Recipe.parse(plain).task
    assert isinstance(task, Seq2Seq) and task.prefix == "translate English to German: "


SAID = ["the cat sat on the mat .", "a good film !", "", "Wir sind hier", "no word in common"]
WANTED = ["the cat is on the mat .", "a good film !", "the bank", "Wir waren alle hier", "Etwas ganz anderes hier"]


def scored(said: list[str | None], wanted: list[str], task: Seq2Seq | None = None) -> Any:
    found = [Prediction(row, text, (1.0,), counts=(3, 1, 0)) for row, text in enumerate(said)]
    return (Seq2Seq() if task is None else task).score(found, wanted, NONE)


def test_bleu_and_chrf_are_sacrebleus() -> None:
    sacrebleu = package("sacrebleu")
    scores = scored([*SAID, None], [*WANTED, "not written"])
    assert scores.value("bleu") == pytest.approx(sacrebleu.corpus_bleu(SAID, [WANTED]).score, abs=1e-9)
    assert scores.value("chrf") == pytest.approx(sacrebleu.corpus_chrf(SAID, [WANTED]).score, abs=1e-9)
    assert 0 < scores.value("bleu") < 100 and scores.written["bleu"] == 5
    taken = {name: values[[1, 3, 3]] for name, values in scores.columns.items()}
    again = [SAID[row] for row in (1, 3, 3)], [[WANTED[row] for row in (1, 3, 3)]]
    assert scores.metrics["bleu"](taken) == pytest.approx(sacrebleu.corpus_bleu(*again).score, abs=1e-9)
    assert scores.metrics["chrf"](taken) == pytest.approx(sacrebleu.corpus_chrf(*again).score, abs=1e-9)


def test_rouge_is_rouge_scores() -> None:
    theirs = package("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = scored([*SAID], WANTED)
    for ours, name in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        each = [theirs.score(wanted, said)[name].fmeasure for said, wanted in zip(SAID, WANTED, strict=True)]
        assert scores.value(ours) == pytest.approx(sum(each) / len(each), abs=1e-9)
    assert scored(["кот сидит"], ["кот спит"]).value("rouge_1") == 0.5  # its own words are Latin letters alone


def test_metrics_without_their_packages_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.tasks._written.find_spec", lambda name: None)
    scores = scored([*SAID], WANTED)
    assert set(scores.written) == {"exact_match", "rouge_l"} and scores.value("exact_match") == 0.2
    (line,) = [line for line in Seq2Seq().remarks({"train": []}, 8) if "left out" in line]
    assert line == "ROUGE-1, ROUGE-2, BLEU, chrF of written texts are left out: pip install 'tunesmith[gen]' adds them"
    assert not any("left out" in line for line in Seq2Seq(sample=0).remarks({"train": []}, 8))


def length_of(said: str, wanted: str) -> float:
    """A metric for tests: letters written."""
    return float(len(said))


def test_a_metric_of_the_users() -> None:
    scores = scored(["abc", "a"], ["x", "y"], Seq2Seq(metric="test_seq2seq:length_of"))
    assert scores.value("length_of") == 2.0


def test_rivals_say_the_first_words_or_the_most_frequent_target(model_folder: Folder) -> None:
    import math

    task = Seq2Seq(sample=2)
    network = network_of(model_folder("t5"), task)
    learned = ["you his", "you his", "at one two"]
    train = task.encode(["a", "b", "c"], learned, NONE, network.text, 60)
    test = task.encode(["how hot is water now", "we were there", "x"], ["you", "at", "me"], NONE, network.text, 60)
    found = task.floors(train, learned, test, 220)
    assert [item.value for item in found["lead"]] == ["how hot", "we were", None]  # two of three rows, evenly
    assert [item.value for item in found["frequent_target"]] == ["you his", "you his", None]
    seen = [token for example in train for token in example.target]
    cost = [-math.log((seen.count(token) + 1) / (len(seen) + 220)) for token in test[0].target]
    for name in found:
        assert found[name][0].evidence[0] == pytest.approx(sum(cost) / len(cost))


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_those_of_the_encoder_and_then_of_the_decoder(family: str, model_folder: Folder) -> None:
    from tunesmith.methods.base import Rates
    from tunesmith.methods.layers import Layers

    network = network_of(model_folder(family), Seq2Seq())
    layout = network.layout
    sides = [name.partition("coder.")[0][-2:] for name in layout.blocks]
    assert sides == ["en"] * 3 + ["de"] * (2 if family == "t5" else 3)
    plan = Layers(layers=1).attach(network, Rates(1e-3, 1e-3, ""), 0)
    allowed = (f"{layout.blocks[-1]}.", *(f"{name}." for name in layout.tail))
    assert plan.trainable and all(name.startswith(allowed) for name in plan.trainable)
    assert not any("encoder." in name.replace("encoder_attn", "") for name in plan.trainable)
    whole = Layers(layers=1, embeddings=True).attach(network, Rates(1e-3, 1e-3, ""), 0)
    model: Any = network.get_submodule("model")
    tables = [name for name, value in network.named_parameters() if value is model.get_input_embeddings().weight]
    assert len(tables) == 1 and tables[0] in whole.trainable and tables[0] in plan.frozen


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_opens_the_adapter_and_writes_the_same(family: str, model_folder: Folder, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel, PeftModelForSeq2SeqLM
    from transformers import AutoModelForSeq2SeqLM

    from tunesmith.methods.base import Rates
    from tunesmith.methods.lora import Lora

    task, method = Seq2Seq(), Lora(rank=4)
    network = network_of(model_folder(family), task)
    plan = method.attach(network, Rates(1e-3, 1e-3, ""), 0)
    with torch.no_grad():
        for name in plan.trainable:
            network.get_parameter(name).normal_(std=0.1)
    method.save(network, plan, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(model_folder(family)), str(tmp_path / "adapter")
    )
    assert isinstance(theirs, PeftModelForSeq2SeqLM)
    batch = collate(task.encode(TEXTS[:1], TARGETS[:1], NONE, network.text, 60), network.processor.pad)
    ids, labels = batch.inputs["input_ids"][:1], batch.target
    with torch.no_grad():
        output = theirs.eval()(input_ids=ids, attention_mask=batch.inputs["attention_mask"][:1], labels=labels)
        assert float((output.logits[:, : len(TARGETS[0])] - network(batch.inputs)).abs().max()) < 1e-5


OTHERS = {"pegasus": "Pegasus", "marian": "Marian", "mbart": "MBart", "m2m_100": "M2M100", "blenderbot": "Blenderbot"}


@pytest.mark.parametrize("family", [*OTHERS, "mt5"])
def test_other_families_read_what_transformers_gives_their_decoders(family: str) -> None:
    """Some have a rule of their own for it, some have none; and their blocks are found on both sides."""
    import torch
    import transformers as t

    from tunesmith.models.sequence import _shifted, sequence_layout

    if family == "mt5":
        config: Any = t.MT5Config(
            d_model=16, num_layers=2, num_heads=2, d_kv=8, d_ff=24, vocab_size=60, decoder_start_token_id=0
        )
    else:
        sizes = {
            f"{side}_{name}": size
            for side in ("encoder", "decoder")
            for name, size in {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()
        }
        config = getattr(t, f"{OTHERS[family]}Config")(
            d_model=16, vocab_size=60, max_position_embeddings=40, pad_token_id=1, eos_token_id=2, bos_token_id=0,
            decoder_start_token_id=2, **sizes,
        )  # fmt: skip
    model = t.AutoModelForSeq2SeqLM.from_config(config).eval()
    labels = torch.tensor([[5, 6, 7, 2, 9], [8, 2, 9, -100, -100]])
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    with torch.no_grad():
        theirs = model(input_ids=ids, labels=labels).logits
        ours = model(input_ids=ids, decoder_input_ids=_shifted(model, labels), use_cache=False).logits
    assert torch.equal(theirs, ours)
    layout = sequence_layout(model)
    assert len(layout.blocks) == 4 and len(set(layout.embeddings)) == len(layout.embeddings)


WORDS, EPOCHS = ("the", "of", "to", "in", "is"), 60


def reversed_rows() -> list[dict[str, str]]:
    """Every one to three words, and the same words from the last to the first, in a fixed random order."""
    made = [
        {"source": " ".join(words), "target": " ".join(reversed(words))}
        for count in (1, 2, 3)
        for words in itertools.product(WORDS, repeat=count)
    ]
    random.Random(0).shuffle(made)
    return made


def trained(folder: Path, given: list[dict[str, str]], out: Path, epochs: int) -> dict[str, Any]:
    """The report of a run on those rows with a tiny random t5; none of the test rows' texts is trained on."""
    import tunesmith

    settings = {
        "training.rate": 3e-3, "training.epochs": epochs, "training.dropout": 0.0, "training.patience": 0,
        "training.precision": "float32", "training.device": "cpu", "data.test": 0.15, "evaluation.resamples": 100,
    }  # fmt: skip
    tunesmith.finetune(str(folder), given, settings=settings, task="seq2seq", out=str(out))
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reverser(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to say words in reverse, in about 10 seconds."""
    out = tmp_path_factory.mktemp("reverser") / "run"
    trained(model_folder("t5"), reversed_rows(), out, EPOCHS)
    return out


def test_it_learns_to_reverse_words_it_has_not_seen_together(reverser: Path) -> None:
    report = json.loads((reverser / "report.json").read_text(encoding="utf-8"))
    rivals = {item["name"]: item["metrics"] for item in report["baselines"]}
    assert set(rivals) == {"base", "frequent_target", "lead"}
    assert rivals["base"]["exact_match"]["value"] == 0.0 and rivals["lead"]["exact_match"]["value"] < 0.3
    assert report["metrics"]["exact_match"]["value"] >= 0.7
    assert report["metrics"]["loss"]["value"] < 0.4 < 2 < rivals["frequent_target"]["loss"]["value"]
    assert report["verdict"]["helped"] is True and report["primary"] == "loss"
    assert report["written"]["written"] == report["rows_tested"]
    for wrong in report["mistakes"]:
        assert wrong["text"] and wrong["truth"] and wrong["predicted"] != wrong["truth"]
    page = (reverser / "report.html").read_text(encoding="utf-8")
    assert "Written texts" in page and "ROUGE-L" in page
    assert not any(item["kind"] == "nearer" for item in report["findings"])


def test_control_targets_of_other_rows_teach_nothing(model_folder: Folder, tmp_path: Path) -> None:
    """The same rows with the targets exchanged: what is written is then no better than the lead, and that is said."""
    given = reversed_rows()
    moved = [{**row, "target": given[place - 1]["target"]} for place, row in enumerate(given)]
    report = trained(model_folder("t5"), moved, tmp_path / "run", EPOCHS)
    assert report["metrics"]["exact_match"]["value"] <= 0.2
    assert any(
        item["kind"] == "nearer" and "the input's own first words" in item["message"] for item in report["findings"]
    )


def test_what_is_saved_writes_the_same_in_transformers(reverser: Path) -> None:
    """Greedy text of AutoModelForSeq2SeqLM with the folder's own settings, beside `load(run).predict`."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    import tunesmith

    model = AutoModelForSeq2SeqLM.from_pretrained(reverser / "model")
    tokenizer = AutoTokenizer.from_pretrained(reverser / "model")
    texts = ["the of", "is", "in the to", "to is is"]
    theirs = [
        tokenizer.decode(model.generate(**tokenizer(text, return_tensors="pt"))[0], skip_special_tokens=True)
        for text in texts
    ]
    ours = tunesmith.load(reverser).predict(texts)
    assert ours == theirs and len(set(ours)) == 4
    assert ours[0].split() == ["of", "the"]
    with pytest.raises(DataError, match="writes texts, which have no probabilities"):
        tunesmith.load(reverser).predict_proba(texts)


def test_the_command_line_writes_texts(
    reverser: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["tunesmith", *arguments])
        with pytest.raises(SystemExit) as end:
            run()
        out = capsys.readouterr()
        assert end.value.code in (0, None), out.err
        return out.out

    assert said("predict", str(reverser), "the of").split() == ["of", "the"]
    path = tmp_path / "new.csv"
    path.write_text("source\nthe of\nto in\n", encoding="utf-8")
    lines = said("predict", str(reverser), str(path)).splitlines()
    assert [line.strip() for line in lines] == ["source,output", "the of,of the", "to in,in to"]
    path.write_text("source,target\nthe of,of the\nto in,to in\n", encoding="utf-8")
    assert "exact match 0.500" in said("evaluate", str(reverser), str(path))


GOOD = "source,target\n" + "".join(f"{word} a,a {word}\n" for word in "bcdefghijklmn")


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ("source,target\nthe of,\n,to\n" + "a b,b a\n" * 9, (), '"target" is empty'),
        (GOOD, ("--label", "wanted"), 'there is no column "wanted"'),
        ("text,stars\n" + "a b,5\n" * 9, (), "no columns to read and to write"),
        ("source,target\n", (), "no"),
        (GOOD, ("--method", "head"), "there is no head to train"),
        (GOOD, ("--method", "full", "--set", "training.max_length=4000"), None),
        (GOOD, ("--set", "task.beams=0"), "task.beams"),
        (GOOD, ("--set", "task.metric=no.such:thing"), 'cannot import "no.such:thing"'),
    ],
)
def test_bad_input_is_told_in_words(
    content: str,
    more: tuple[str, ...],
    said: str | None,
    model_folder: Folder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, out = tmp_path / "rows.csv", tmp_path / "run"
    path.write_text(content, encoding="utf-8")
    model = str(model_folder("bart" if said is None else "t5"))
    given = ["train", str(path), "--model", model, "--task", "seq2seq", "--out", str(out), *more]
    monkeypatch.setattr("sys.argv", ["tunesmith", *given])
    with pytest.raises(SystemExit) as end:
        run()
    told = " ".join(capsys.readouterr().err.split())
    assert end.value.code not in (0, None) and told.startswith("error: ") and "Traceback" not in told
    assert ("are more than the 80 this model has positions for" if said is None else said) in told
    assert not out.exists()


def test_a_long_text_is_warned_of(reverser: Path) -> None:
    import tunesmith
    from tunesmith.errors import TunesmithWarning

    with pytest.warns(TunesmithWarning, match="1 of 2 texts cut to"):
        assert len(tunesmith.load(reverser).predict(["the of", "the of " * 100])) == 2


def test_preview_shows_what_is_read_and_what_is_learned(model_folder: Folder, tmp_path: Path) -> None:
    from tunesmith.cli.preview import preview_lines
    from tunesmith.previewing import preview
    from tunesmith.recipe import Recipe

    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, reversed_rows())), encoding="utf-8")
    task = {"name": "seq2seq", "prefix": "to "}
    plain = {"model": str(model_folder("t5")), "data": {"path": str(path)}, "task": task}
    found = preview(Recipe.parse({**plain, "training": {"max_length": 4}}), 100)
    row = next(row for row in found.rows if len(row.target.split()) == 3)
    tokenizer = network_of(model_folder("t5"), Seq2Seq()).text.tokenizer
    source = f"to {' '.join(reversed(row.target.split()))}"
    read, write = (tokenizer.tokenize(text, add_special_tokens=True) for text in (source, row.target))
    assert row.tokens == (*read[:3], "</s>", *write[:3], "</s>")
    assert row.trained == (False,) * 4 + (True,) * 4 and row.learned == "4 of 8 tokens"
    assert row.cut_count == len(read) + len(write) - 8 and sorted(row.cut) == sorted(read[3:-1] + write[3:-1])
    lines = preview_lines(found, False)
    assert any(f"{' '.join(row.tokens[:4])} {{{' '.join(row.tokens[4:])}}}" in line for line in lines)
    assert any("targets are longer than 4 tokens" in line for line in lines)


def test_a_rival_that_expects_the_tokens_more_is_told() -> None:
    """By the same metrics as `test_a_rival_that_writes_nearer_is_told`, one number each."""
    import numpy as np

    from tunesmith.assembly import Baseline
    from tunesmith.result import _surer
    from tunesmith.tasks.base import Scores

    def scores(loss: float, primary: str = "token_accuracy") -> Scores:
        metrics = {"token_accuracy": lambda columns: 0.5, "loss": lambda columns: loss}
        return Scores({"x": np.zeros(7)}, metrics, primary, lower=frozenset({"loss"}))

    rivals = [Baseline("base", "the untouched base", scores(6.0), 0.0), Baseline("lead", "others", scores(4.5), 0.0)]
    (finding,) = _surer(scores(5.7), rivals)
    assert finding.message == "the loss a token is higher than a rival's: 5.700, against 4.500 for others"
    assert _surer(scores(4.4), rivals) == []
    assert _surer(scores(5.7, "loss"), rivals) == [], "the verdict says it"


def test_a_rival_that_writes_nearer_is_told() -> None:
    from tunesmith.evaluation.baselines.base import Baseline
    from tunesmith.result import _nearer

    own, better = scored(["a b"], ["a c"]), scored(["a c"], ["a c"])
    rivals = [Baseline("lead", "the first words", better, 0.0), Baseline("base", "the base", own, 0.0)]
    (finding,) = _nearer(own, rivals)
    assert "ROUGE-L 0.500, against 1.000 for the first words" in finding.message
    assert _nearer(better, rivals) == []
