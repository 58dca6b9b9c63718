"""Prompts and prefixes: PEFT's own and ours give the same, both ways; what they start from; writing behind them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from shortruns import METHODS, recipe_for, rows
from tunesmith.catalog import build
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods._before_text import BeforeText, words
from tunesmith.methods.base import Rates
from tunesmith.models.backbone import load_backbone
from tunesmith.models.embedding import embedding_network
from tunesmith.models.generation import generate
from tunesmith.models.language import causal_network
from tunesmith.models.network import Network, sequence_network, token_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import start
from tunesmith.training.loop import set_mode

Folder = Callable[[str], Path]
RATES = Rates(1e-2, 1e-2, "")
LENGTH = 5
KINDS = ("prompt", "p_tuning", "prefix")
TEXTS = ["the card was lost", "a great film", "no money in the bank account at all", "good"]
READERS = [("prompt", kind) for kind in ("bert", "roberta", "distilbert", "electra", "llama", "gpt2", "modernbert")]
READERS += [("prefix", kind) for kind in ("bert", "roberta", "llama", "gpt2", "qwen3")]


def _method(name: str, **options: Any) -> BeforeText:
    made = build("methods", {"name": name, "length": LENGTH, **options})
    assert isinstance(made, BeforeText)
    return made


def _bare(folder: Path) -> Network:
    """The base alone: what PEFT wraps."""
    return embedding_network(load_backbone(resolve(str(folder))))


def _batch(network: Network) -> dict[str, torch.Tensor]:
    encoded = [inputs for inputs, _ in network.text.encode_all(TEXTS, 30)]
    longest = max(len(inputs["input_ids"]) for inputs in encoded)
    pad = network.processor.pad
    return {
        name: torch.tensor([inputs[name] + [pad[name]] * (longest - len(inputs[name])) for inputs in encoded])
        for name in encoded[0]
    }


def _moved(network: Network, trained: tuple[str, ...]) -> None:
    """Away from where it starts, so that the place of every number counts."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for name in trained:
            network.get_parameter(name).add_(0.3 * torch.randn_like(network.get_parameter(name)))


def _hidden(network: Network, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """[rows, tokens, width] of the text's own tokens, filler as 0."""
    body = network.get_submodule(network.layout.body)
    with torch.no_grad():
        found = body(**given).last_hidden_state
    return found * given["attention_mask"][..., None]


def _in_peft(folder: Path, bare: Path, given: dict[str, torch.Tensor], behind: int) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModel

    model = PeftModel.from_pretrained(AutoModel.from_pretrained(bare, dtype=torch.float32), folder).eval()
    with torch.no_grad():
        found = model(**given).last_hidden_state[:, behind:]
    return found * given["attention_mask"][..., None]


@pytest.mark.parametrize(("kind", "family"), READERS)
def test_what_we_write_peft_opens(kind: str, family: str, model_folder: Folder, tmp_path: Path) -> None:
    network, method = _bare(model_folder(family)), _method(kind)
    untouched = _hidden(network, _batch(network))
    plan = method.attach(network, RATES, 0)
    _moved(network, plan.trainable)
    method.save(network, plan, tmp_path)
    given = _batch(network)
    ours = _hidden(network, given)
    assert (ours - untouched).abs().max() > 1e-2, "it is read"
    theirs = _in_peft(tmp_path, model_folder(family), given, LENGTH if kind == "prompt" else 0)
    assert torch.allclose(ours, theirs, atol=1e-5)
    method.take_off(network)
    assert torch.equal(_hidden(network, given), untouched), "off, it is the base bit for bit"


@pytest.mark.parametrize(
    ("kind", "family"), [("prompt", "bert"), ("p_tuning", "llama"), ("prefix", "bert"), ("prefix", "qwen3")]
)
def test_what_peft_writes_we_go_on_from(kind: str, family: str, model_folder: Folder, tmp_path: Path) -> None:
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModel

    made = {"prompt": PromptTuningConfig, "p_tuning": PromptEncoderConfig, "prefix": PrefixTuningConfig}[kind]
    base = AutoModel.from_pretrained(model_folder(family), dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        get_peft_model(base, made(task_type="FEATURE_EXTRACTION", num_virtual_tokens=LENGTH)).save_pretrained(tmp_path)
    network = _bare(model_folder(family))
    plan = _method(kind, start=str(tmp_path)).attach(network, RATES, 0)
    assert not plan.started, "the base alone has no head"
    given = _batch(network)
    theirs = _in_peft(tmp_path, model_folder(family), given, 0 if kind == "prefix" else LENGTH)
    assert torch.allclose(_hidden(network, given), theirs, atol=1e-5)
    with pytest.raises(ModelError, match=r"prompt_embeddings has shape .*, expected \(7, .*set method.length"):
        _method(kind, start=str(tmp_path), length=7).attach(_bare(model_folder(family)), RATES, 0)
    other = "prompt" if kind == "prefix" else "prefix"
    with pytest.raises(ModelError, match="is of another kind"):
        _method(other, start=str(tmp_path)).attach(_bare(model_folder(family)), RATES, 0)


def test_it_starts_from_the_labels_or_from_the_words_given(model_folder: Folder) -> None:
    backbone = load_backbone(resolve(str(model_folder("bert"))))
    table: Any = backbone.module.get_input_embeddings().weight
    network = sequence_network(backbone, ("bad_film", "good"), "single_label_classification", False, 0)
    numbers: Any = network.text.tokenizer.convert_tokens_to_ids(["bad", "film", "good", "bad", "film"])
    for kind in ("prompt", "p_tuning"):
        again = copy.deepcopy(network)
        method = _method(kind)
        method.attach(again, RATES, 0)
        assert torch.equal(method.table(again), table[numbers])
    given: Any = network.text.tokenizer.convert_tokens_to_ids(["great", "card"])
    taken, (note,), warned = words("great card", 3, network, 0)
    assert taken == [given[0], given[1], given[0]] and warned == ()
    assert note == "3 places before every text start from method.text: great card great"
    taken, _, (warned,) = words("great card", 1, network, 0)
    assert taken == given[:1] and warned.startswith("method.text make 2 tokens, of which the first 1 are taken")
    for text in (" ", "\u16a0\u16c7 \u16d2"):
        with pytest.raises(ModelError, match="has no token that this base knows"):
            words(text, 3, network, 0)
    nameless = sequence_network(backbone, ("0", "1"), "single_label_classification", False, 0)
    drawn, (note,), _ = words(None, 3, nameless, 0)
    assert "start from tokens drawn by seed" in note
    assert drawn == words(None, 3, nameless, 0)[0] != words(None, 3, nameless, 1)[0]
    assert not set(drawn) & set(network.text.special_tokens)


def test_a_prefix_starts_as_the_words_themselves(model_folder: Folder) -> None:
    """What a decoder says behind the prefix is what it says behind the words: their keys and values are the prefix."""
    network = _bare(model_folder("llama"))
    said, _, _ = words("the bank lost", LENGTH, network, 0)
    text = network.text.tokenizer("a great film", add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[*said, *text]])  # type: ignore[misc]
    wanted = _hidden(network, {"input_ids": whole, "attention_mask": torch.ones_like(whole)})[:, LENGTH:]
    _method("prefix", text="the bank lost").attach(network, RATES, 0)
    alone = torch.tensor([text])
    found = _hidden(network, {"input_ids": alone, "attention_mask": torch.ones_like(alone)})
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_writing_with_kept_keys_equals_writing_without(kind: str, family: str, model_folder: Folder) -> None:
    network = causal_network(load_backbone(resolve(str(model_folder(family)))), 0)
    before = network.text.positions
    plan = _method(kind).attach(network, RATES, 0)
    assert network.text.positions == before - LENGTH
    _moved(network, plan.trainable)
    prompts = [[7, 9, 30, 41], [12], [55, 3, 8, 90, 17, 60], [44, 20]]
    wanted = []
    with torch.no_grad():
        for prompt in prompts:
            ids = list(prompt)
            for _ in range(8):
                now = torch.tensor([ids])
                ids.append(int(network({"input_ids": now, "attention_mask": torch.ones_like(now)})[0, -1].argmax()))
            wanted.append(ids[len(prompt) :])
    assert generate(network, prompts, 8, set()) == wanted


def test_a_pooler_reads_the_text(model_folder: Folder) -> None:
    """BERT's makes its vector of the first token, which is the text's own and not a learned one."""
    backbone = load_backbone(resolve(str(model_folder("bert"))))
    network = sequence_network(backbone, ("bad", "good"), "single_label_classification", False, 0)
    seen = []
    given = _batch(network)
    _method("prompt").attach(network, RATES, 0)
    pooler = network.get_submodule(f"{network.layout.body}.pooler")
    pooler.register_forward_hook(lambda *given: seen.append(given[1][0]))
    network(given)
    (hidden,) = seen
    assert torch.equal(hidden, network.get_submodule(network.layout.body)(**given).last_hidden_state)
    assert hidden.shape[1] == given["input_ids"].shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_have_the_positions_that_are_left(
    kind: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    method = {**METHODS[kind], "length": 60}
    recipe = recipe_for(model_folder("bert"), table_file, method, {"training.max_length": "auto"})
    said = " ".join(str(event) for event in start(recipe, tmp_path / "run").events())
    assert "training.max_length = 20: what is left of 80 positions" in said
    with pytest.raises(RecipeError, match="21 tokens are more than the 20 this model has positions for"):
        list(
            start(
                recipe_for(model_folder("bert"), table_file, method, {"training.max_length": 21}), tmp_path / "b"
            ).events()
        )


def test_a_text_must_have_positions_left(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, {"name": "prompt", "length": 78})
    with pytest.raises(
        ModelError, match=r"78 places before a text leave it 2 of this model's 80 positions; .*method.length"
    ):
        list(start(recipe, tmp_path / "run").events())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_opens_it(kind: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    list(start(recipe_for(model_folder("bert"), table_file, METHODS[kind]), tmp_path / "run").events())
    model = tunesmith.load(tmp_path / "run")
    texts = [text for text, _ in rows(6, seed=4)]
    wanted = model.predict_proba(texts)
    packed = tmp_path / "model.pickle"
    packed.write_bytes(pickle.dumps((model.network.eval(), _batch(model.network))))
    with torch.no_grad():
        output = model.network(_batch(model.network))
    code = (
        "import pickle, sys, json, torch\n"
        f"network, given = pickle.load(open({str(packed)!r}, 'rb'))\n"
        "import tunesmith\n"
        f"model = tunesmith.load({str(tmp_path / 'run')!r})\n"
        "with torch.no_grad(): said = network(given).tolist()\n"
        f"print(json.dumps([said, [list(map(float, row)) for row in model.predict_proba({texts!r})]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, found = json.loads(done.stdout)
    assert torch.allclose(torch.tensor(said), output, atol=1e-6)
    assert torch.allclose(torch.tensor(found), torch.tensor(wanted, dtype=torch.float32), atol=1e-6)


def test_packed_rows_are_read_one_by_one(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("llama"), table_file, METHODS["prefix"], {"task": "causal_lm"})
    said = [str(event) for event in start(recipe, tmp_path / "run").events()]
    assert any("not packed: what is learned to stand before a text" in line for line in said)


def test_tokens_keep_their_places(model_folder: Folder) -> None:
    """An output for every token of the text, and none for what is learned."""
    network = token_network(load_backbone(resolve(str(model_folder("bert")))), ("O", "B-x", "I-x"), 0)
    given = _batch(network)
    for kind in KINDS:
        again = copy.deepcopy(network)
        _method(kind).attach(again, RATES, 0)
        assert again(given).shape == (*given["input_ids"].shape, 3)


def test_what_peft_would_read_otherwise_it_refuses(model_folder: Folder, tmp_path: Path) -> None:
    from peft import PeftConfig

    from tunesmith.models.sequence import sequence_network

    network = sequence_network(load_backbone(resolve(str(model_folder("bart")))), 8, 1, 0)
    method = _method("prompt")
    plan = method.attach(network, RATES, 0)
    method.save(network, plan, tmp_path)
    with pytest.raises((KeyError, ValueError)):
        PeftConfig.from_pretrained(str(tmp_path))
    again = sequence_network(load_backbone(resolve(str(model_folder("bart")))), 8, 1, 0)
    method.load(again, tmp_path)
    assert torch.equal(method.table(again), method.table(network))


def test_a_base_that_pools_its_first_vector_or_shares_its_blocks_is_refused(
    tmp_path: Path, model_folder: Folder
) -> None:
    from transformers import AlbertConfig, AlbertModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder("bert"))
    sizes: dict[str, Any] = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 2, "intermediate_size": 64}
    AlbertModel(AlbertConfig(vocab_size=len(tokenizer), num_hidden_layers=3, **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    labels = ("bad", "good")
    for kind, said in (("prompt", "makes its vector of the first token"), ("prefix", "its blocks share one attention")):
        network = sequence_network(
            load_backbone(resolve(str(tmp_path))), labels, "single_label_classification", False, 0
        )
        with pytest.raises(ModelError, match=said):
            _method(kind).attach(network, RATES, 0)


def test_put_on_again_it_is_read_once(model_folder: Folder) -> None:
    for kind in KINDS:
        network, method = _bare(model_folder("bert")), _method(kind)
        method.attach(network, RATES, 0)
        given = _batch(network)
        once = _hidden(network, given)
        method.take_off(network)
        method.attach(network, RATES, 0)
        assert torch.equal(_hidden(network, given), once)


def test_a_run_without_validation_rows_of_every_kind_of_score(model_folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    lines = [f"{text},{other}" for (text, _), (other, _) in zip(rows(30), rows(30, seed=1), strict=True)]
    path.write_text("anchor,positive\n" + "\n".join(lines) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {"task": "embedding", "data.validation": 0.0}
    list(start(recipe_for(model_folder("bert"), path, METHODS["prompt"], settings), tmp_path / "run").events())
    assert (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_pulled_back_where_nothing_can_be(
    kind: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        model_folder("bert"), table_file, METHODS[kind], {"retention.anchor": 1.0, "training.epochs": 1}
    )
    said = " ".join(str(event) for event in start(recipe, tmp_path / "run").events())
    assert "not used: retention.anchor = 1.0" in said and (tmp_path / "run" / "model").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_see_near_tokens_only_write_the_same_together_and_alone(
    kind: str, model_folder: Folder, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_folder("llama"))
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "sliding_window": 8}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        MistralForCausalLM(MistralConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    network = causal_network(load_backbone(resolve(str(tmp_path))), 0)
    plan = _method(kind).attach(network, RATES, 0)
    _moved(network, plan.trainable)
    prompts = [[7, 9, 30, 41, 12, 60], [12], [55, 3, 8, 90, 17, 60, 33, 21, 14], [44, 20], [9, 8, 7, 6]]
    assert generate(network, prompts, 8, set()) == [generate(network, [prompt], 8, set())[0] for prompt in prompts]


@pytest.mark.parametrize("kind", ["prompt", "p_tuning", "prefix"])
def test_several_threads_write_what_one_does(kind: str, model_folder: Folder) -> None:
    """Servers do: nothing that one forward finds out may be kept where another one reads it."""
    network = causal_network(load_backbone(resolve(str(model_folder("llama")))), 0)
    _moved(network, _method(kind).attach(network, RATES, 0).trainable)
    network.eval()
    prompt = [7, 9, 30, 41]
    (wanted,) = generate(network, [prompt], 8, set())
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: generate(network, [prompt], 8, set())[0], range(30)))
    assert found == [wanted] * 30


@pytest.mark.parametrize("kind", ["prompt", "p_tuning"])  # the blocks themselves hold a prefix's keys
def test_what_is_frozen_is_not_varied_by_dropout(kind: str, model_folder: Folder) -> None:
    backbone = load_backbone(resolve(str(model_folder("bert"))), 0.3)
    network = sequence_network(backbone, ("bad", "good"), "single_label_classification", False, 0)
    plan = _method(kind).attach(network, RATES, 0)
    set_mode(network, plan)
    given = _batch(network)
    body = network.get_submodule(network.layout.body)
    with torch.no_grad():
        one, two = (body(**given).last_hidden_state for _ in range(2))
        assert torch.equal(one, two)
        body.train()
        assert not torch.equal(body(**given).last_hidden_state, one), "the control: there is dropout"


@pytest.mark.parametrize("kind", KINDS)
def test_the_untouched_base_is_measured_without_it(
    kind: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """What stands before a text at first has learned nothing: behind it the base is another rival, and a weaker one."""
    asked = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.baselines": True}
    asked |= {"task": {"name": "causal_lm"}, "training.max_length": 40}
    told = []
    for method in ("full", {"name": kind, "length": LENGTH}):
        recipe = recipe_for(model_folder("gpt2"), table_file, method, asked)
        out = tmp_path / (method if isinstance(method, str) else kind)
        for _ in start(recipe, out).events():
            pass
        report = json.loads((out / "report.json").read_text())
        (base,) = [item for item in report["baselines"] if item["name"] == "base"]
        kept = [item["message"] for item in report["findings"] if "before," in item["message"]]
        told.append((base["metrics"], [said.partition(" before,")[0] for said in kept]))
    assert told[0] == told[1] and told[0][1]
