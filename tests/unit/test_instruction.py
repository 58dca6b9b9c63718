"""Instruction tuning from rows to answers: the loss, a whole run, what is saved, what is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatting import CHATML, conversations
from shortruns import rows
from tunesmith.cli.main import run
from tunesmith.cli.preview import preview_lines
from tunesmith.data.conversation import Conversation, Turn, as_messages, as_text, from_text, prompt_of
from tunesmith.data.encode import IGNORED, collate
from tunesmith.data.table import table_of
from tunesmith.errors import DataError, ModelError, RecipeError, TunesmithWarning
from tunesmith.result import _of_a_sample
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.instruction import Instruction

NONE = Labels((), ())
PLAIN = {"name": "instruction", "template": "plain", "sample": 5, "answer_tokens": 6}


def length_of(said: str, wanted: str) -> float:
    """A metric for tests: how long the answer is."""
    return float(len(said))


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """60 short exchanges as OpenAI chat."""
    path = tmp_path / "chat.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}
        for text, label in rows(60)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def settings(**more: Any) -> dict[str, Any]:
    usual = {"training.epochs": 2, "training.precision": "float32", "evaluation.resamples": 100, "data.test": 0.2}
    return {**usual, "training.device": "cpu", **more}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_loss_and_gradients_are_those_of_transformers(family: str, model_folder: Callable[[str], Path]) -> None:
    """AutoModelForCausalLM given labels=, in which -100 stands wherever no assistant speaks."""
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    task = Instruction(template="plain")
    backbone = load_backbone(resolve(str(model_folder(family))))
    network = task.head(backbone, NONE, False, 0)
    made = conversations(6, 2)
    texts = [as_text(prompt_of(row)) for row in made]
    examples = task.encode(texts, made, NONE, network.text, 60)
    batch = collate(examples, network.processor.pad)
    oracle = AutoModelForCausalLM.from_pretrained(model_folder(family), dtype=torch.float32).eval()
    oracle.load_state_dict(network.get_submodule("model").state_dict())
    assert batch.target is not None and (batch.target != IGNORED).any() and (batch.target == IGNORED).any()
    theirs = oracle(**batch.inputs, labels=batch.target).loss
    theirs.backward()
    theirs = theirs.detach()
    found = task.loss(network(batch.inputs), batch)
    (found.total / found.weight).backward()
    assert float((found.total / found.weight).detach()) == pytest.approx(float(theirs), rel=1e-6)
    ours = dict(network.get_submodule("model").named_parameters())
    for name, parameter in oracle.named_parameters():
        here, there = ours[name].grad, parameter.grad
        assert here is not None and there is not None
        assert torch.allclose(here, there, rtol=1e-4, atol=1e-6), name
    judged = task.judged(network(batch.inputs), batch, NONE)
    each = [
        oracle(**one.inputs, labels=one.target).loss
        for one in (collate([row], network.processor.pad) for row in examples)
    ]
    assert [item.evidence[0] for item in judged] == pytest.approx([float(value) for value in each], rel=1e-4)
    assert [item.counts[0] for item in judged] == [sum(at != IGNORED for at in row.target[1:]) for row in examples]
    scores = task.score(judged, made, NONE)
    assert scores.value("loss") == pytest.approx(float(theirs), rel=1e-5)
    assert scores.value("perplexity") == pytest.approx(float(theirs.exp()), rel=1e-5)
    logits = oracle(**batch.inputs).logits[:, :-1].argmax(-1)
    right = (logits == batch.target[:, 1:])[batch.target[:, 1:] != IGNORED].float().mean()
    assert scores.value("token_accuracy") == pytest.approx(float(right))


def test_control_a_loss_over_prompts_too_would_be_noticed(model_folder: Callable[[str], Path]) -> None:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    backbone = load_backbone(resolve(str(model_folder("llama"))))
    made = conversations(6, 2)
    values = []
    for task in (Instruction(template="plain"), Instruction(template="plain", learn="all")):
        network = task.head(backbone, NONE, False, 0)
        examples = task.encode([as_text(prompt_of(row)) for row in made], made, NONE, network.text, 60)
        batch = collate(examples, network.processor.pad)
        loss = task.loss(network(batch.inputs), batch)
        values.append(float(loss.total / loss.weight))
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("method", ["full", {"name": "lora", "rank": 4}])
def test_a_run_learns_writes_and_is_saved_with_its_template(
    method: Any, chats: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import tunesmith

    base = tmp_path / "base"
    shutil.copytree(model_folder("llama"), base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)  # one that does not happen to say the end of a text
        AutoModelForCausalLM.from_pretrained(base).save_pretrained(base)  # with a head: only such a base is a rival
    made = tunesmith.finetune(
        base,
        chats,
        method,
        task=PLAIN,
        metric=length_of,
        settings=settings(**{"training.rate": 1e-3}),
        out=tmp_path / "r",
    )
    report = made.report
    assert set(report["metrics"]) == {"token_accuracy", "loss", "perplexity", "exact_match", "rouge_l", "length_of"}
    assert [item["name"] for item in report["baselines"]] == ["base", "frequent_answer"]
    untouched = report["baselines"][0]["metrics"]["loss"]["value"]
    assert report["metrics"]["loss"]["value"] < untouched
    assert report["answers"]["written"] == 5 and report["rows_tested"] == 12
    assert report["answers"]["cut"] == 5, "an untrained model writes on for all of its 6 tokens"
    assert report["mistakes"] and {"text", "truth", "predicted", "place"} <= report["mistakes"][0].keys()
    model = tunesmith.load(made.path)
    asked = [{"role": "user", "content": "hot word"}]
    with pytest.warns(tunesmith.errors.TunesmithWarning, match="3 of 3 answers were not at their end after 6 tokens"):
        alone, chat, held = model.predict(
            ["hot word", asked, {"messages": [*asked, {"role": "assistant", "content": "a"}]}]
        )
    assert alone == chat == held
    tokenizer = AutoTokenizer.from_pretrained(made.path / "model")
    opened: Any = AutoModelForCausalLM.from_pretrained(made.path / "model").eval()
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        said = opened.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).strip() == alone
    measured = tunesmith.evaluate(made.path, chats)
    assert measured["rows"] == 60 and measured["metrics"]["loss"]["value"] > 0
    again = tunesmith.evaluate(made.path, [json.loads(line) for line in chats.read_text().splitlines()])
    assert again["metrics"] == measured["metrics"]
    with pytest.raises(DataError, match="writes texts"):
        model.predict_proba(["a"])
    with pytest.raises(DataError, match='message 1 has the unknown role "x"'):
        model.predict([[{"role": "x", "content": "a"}]])


def test_a_conversation_is_asked_alike_from_python_and_from_a_table() -> None:
    """As messages, with tools, and with an answer of its own, which is not shown."""
    task, tools = Instruction(), [{"name": "far", "parameters": {}}]
    chat = [{"role": "user", "content": "hot word"}, {"role": "assistant", "content": "a"}]
    again = [*chat, {"role": "user", "content": "and"}]
    for messages, given in ((chat, chat[:1]), (chat[:1], chat[:1]), (again, again), ([*again, chat[1]], again)):
        for with_tools in (None, tools):
            row = {"messages": messages} | ({"tools": with_tools} if with_tools else {})
            (wanted,) = task.asked_in(table_of([row], "t"), ("messages", "tools"), None) or [None]
            assert wanted is not None and task.given(row) == wanted
            found = from_text(wanted)
            assert as_messages(found.turns) == given
            assert (json.loads(found.tools) if found.tools else None) == with_tools
        assert task.given(messages) == task.given({"messages": messages}) == task.given(tuple(messages))
    with pytest.raises(DataError, match="predict: holds no messages"):
        task.given({"messages": []})
    assert task.given({"text": "a"}) == {"text": "a"}, "refused where the rows are checked"


def test_answers_that_fill_the_model_are_counted_as_cut_too(model_folder: Callable[[str], Path]) -> None:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    task = Instruction(template="plain", answer_tokens=6)
    network = task.head(load_backbone(resolve(str(model_folder("gpt2")))), NONE, False, 0)
    positions = network.text.positions
    short, words = "hot word", 1
    while (examples := task.encode(["hot " * words, short], None, NONE, network.text, positions))[0].length < 75:
        words += 1
    assert examples[0].cut == 0 and 0 < positions - examples[0].length < 6
    found = [Prediction(row, None, (0.0,), counts=(0, 0)) for row in (0, 1)]
    said = (
        f"2 of 2 answers were not at their end: 1 after 6 tokens, .*; 1 where prompt and answer filled the {positions} "
    )
    with pytest.warns(TunesmithWarning, match=said):
        given = task.answered(found, examples, network)
    assert [item.counts[2:] for item in given] == [(1, 1), (1, 0)]
    rows = [Conversation((Turn("user", text), Turn("assistant", "a"))) for text in ("hot", short)]
    told = _of_a_sample(task.score([replace(item, counts=(1, *item.counts[1:])) for item in given], rows, NONE), 2)
    assert told[0].endswith(
        "; 2 of them were cut: 1 at the most tokens that may be written, 1 where the model takes no more tokens"
    )


def test_the_command_line_prints_an_answer_and_fills_a_table(
    chats: Path, tmp_path: Path, model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import tunesmith

    out = tmp_path / "r"
    tunesmith.finetune(model_folder("llama"), chats, task=PLAIN, settings=settings(), out=out)
    expected = tunesmith.load(out).predict(["hot word"])[0]

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as end:
            run([str(word) for word in words])
        printed = capsys.readouterr()
        assert end.value.code == 0, printed.err
        return printed.out

    assert said("predict", str(out), "hot word").strip() == expected
    assert said("predict", str(out), '[{"role": "user", "content": "hot word"}]').strip() == expected
    table = tmp_path / "ask.jsonl"
    table.write_text('{"messages": [{"role": "user", "content": "hot word"}]}\n', encoding="utf-8")
    lines = said("predict", str(out), str(table), "--json").splitlines()
    assert [json.loads(line)["answer"] for line in lines] == [expected]
    told = said("evaluate", str(out), str(chats))
    assert "token accuracy" in told and "on 5 written answers" in told


def test_the_wrong_base_and_impossible_options_are_told_before_anything_runs(
    chats: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    import tunesmith

    with pytest.raises(ModelError, match=r'kind decoder, and .* is of kind "encoder"; choose a decoder'):
        tunesmith.finetune(model_folder("bert"), chats, task=PLAIN, out=tmp_path / "a")
    with pytest.raises(ModelError, match=r"no chat template.* say how: --set task\.template=plain \("):
        tunesmith.finetune(model_folder("llama"), chats, out=tmp_path / "b")
    with pytest.raises(ModelError, match="method head: every part"):
        tunesmith.finetune(model_folder("gpt2"), chats, "head", task=PLAIN, out=tmp_path / "c")
    with pytest.raises(RecipeError, match=r"task.metric: cannot import"):
        tunesmith.finetune(model_folder("llama"), chats, task={**PLAIN, "metric": "no.such:f"}, out=tmp_path / "d")
    with pytest.raises(RecipeError, match="holds functions by name"):
        tunesmith.finetune(model_folder("llama"), chats, task=PLAIN, metric=lambda a, b: 1.0, out=tmp_path / "e")
    with pytest.raises(RecipeError, match='no metric "rouge_l"'):
        told = settings(**{"evaluation.metric": "rouge_l"})
        tunesmith.finetune(model_folder("llama"), chats, task=PLAIN, settings=told, out=tmp_path / "f")
    assert not any((tmp_path / name).exists() for name in "abcdef")


def test_a_base_without_a_template_is_refused_by_its_files_alone(
    chats: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    from tunesmith.preparing import prepare
    from tunesmith.recipe import Recipe

    base = tmp_path / "base"
    shutil.copytree(model_folder("llama"), base)
    (base / "model.safetensors").write_bytes(b"")  # not read: that takes seconds of imports
    plain = {"model": str(base), "data": {"path": str(chats)}}
    with pytest.raises(ModelError, match="no chat template"):
        prepare(Recipe.parse(plain))
    assert len(prepare(Recipe.parse({**plain, "task": {"name": "instruction", "template": "plain"}})).splits.train)
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": CHATML}), encoding="utf-8")
    assert len(prepare(Recipe.parse(plain)).splits.train)
    (base / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    assert len(prepare(Recipe.parse(plain)).splits.train)


def test_rows_that_cannot_be_learned_are_refused_by_line_or_left_out_and_counted(
    chats: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    import tunesmith

    long = {"messages": [{"role": "user", "content": "hot " * 300}, {"role": "assistant", "content": "good"}]}
    chats.write_text(f"{chats.read_text(encoding='utf-8')}\n{json.dumps(long)}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"chat.jsonl:61: no token to learn: \d+ tokens come before"):
        tunesmith.finetune(model_folder("llama"), chats, task=PLAIN, settings=settings(), out=tmp_path / "a")
    several = [
        json.dumps({"messages": [{**long["messages"][0], "content": "hot " * n}, long["messages"][1]]})
        for n in (290, 280)
    ]
    kept = chats.read_text(encoding="utf-8")
    chats.write_text("\n".join([kept.strip(), *several]) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        tunesmith.finetune(model_folder("llama"), chats, task=PLAIN, settings=settings(), out=tmp_path / "a")
    (line,) = caught.value.problems
    assert line.startswith("3 rows (") and ", of the first: no token to learn: " in line
    assert {f"{chats}:{row}" for row in (61, 62, 63)} == set(line[8 : line.index(")")].split(", "))
    chats.write_text(kept, encoding="utf-8")
    events: list[Any] = []
    task = {**PLAIN, "unfit": "drop"}
    made = tunesmith.finetune(
        model_folder("llama"), chats, task=task, settings=settings(), out=tmp_path / "b", listen=events.append
    )
    lines = [line for event in events for line in getattr(event, "lines", (getattr(event, "message", ""),))]
    assert any("1 row left out" in line and "chat.jsonl:61" in line for line in lines)
    assert any("tokens are learned" in line for line in lines)
    assert sum(split["rows"] for split in made.report["data"]["splits"]) == 60


def test_preview_marks_what_is_learned_and_what_is_cut(chats: Path, model_folder: Callable[[str], Path]) -> None:
    import re

    from tunesmith.previewing import preview
    from tunesmith.recipe import Recipe

    recipe = Recipe.parse({"model": str(model_folder("llama")), "data": str(chats), "task": PLAIN})
    short = recipe.model_copy(update={"training": recipe.training.model_copy(update={"max_length": 24})})
    short = short.model_copy(update={"task": Instruction(template="plain", unfit="drop")})
    for found in (preview(recipe, 4), preview(short, 40)):
        plain = preview_lines(found, colours=False)
        assert "legend: {learned} read only [cut]" in plain
        bodies = [
            line.strip() for line in plain[plain.index("legend: {learned} read only [cut]") :] if line[:2] == "  "
        ]
        shown = [line for line in bodies if not re.match(r"\d+ of \d+ tokens learned", line)]
        assert len(shown) == len(found.rows)
        for row, line in zip(found.rows, shown, strict=True):
            inside, state = [], False
            for word in line.split(" "):
                state = state or word.startswith("{")
                inside += [state] if len(inside) < len(row.tokens) else []
                state = state and not word.endswith("}")
            assert tuple(inside) == row.trained
            assert ("[" in line) == (row.cut_count > 0)
        narrow = preview_lines(found, colours=True, width=40)
        bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in narrow]
        start = next(at for at, line in enumerate(bare) if line.startswith("legend:"))
        assert max(map(len, [line for line in bare[start:] if line.startswith("  ")])) <= 40
        assert any("\x1b[1;32m" in line for line in narrow) and all(
            line.count("\x1b[0m") == len(re.findall(r"\x1b\[[^0]", line)) for line in narrow
        )
        words = [line.split() for line in bare[start:] if line.startswith("  ") and "tokens learned" not in line]
        assert [word for line in words for word in line] == [
            re.sub(r"^[{\[]|[}\]]$", "", word) if len(word) > 1 else word for line in shown for word in line.split()
        ]


def test_most_frequent_tokens_and_answers_are_the_floor() -> None:
    import math

    from chatting import processor

    turns = [("a", "YES"), ("b", "YES"), ("c", "NO")]
    made = [Conversation((Turn("user", one), Turn("assistant", two))) for one, two in turns]
    task = Instruction(sample=2)
    examples = task.encode([as_text(prompt_of(row)) for row in made], made, NONE, processor(CHATML), 64)
    tokens = [token for row in examples for token in row.target if token != IGNORED]
    floor = task.floor(examples, made, examples, 400)
    for item, row in zip(floor, examples, strict=True):
        own = [token for token in row.target if token != IGNORED]
        cost = -sum(math.log((tokens.count(token) + 1) / (len(tokens) + 400)) for token in own) / len(own)
        assert item.evidence[0] == pytest.approx(cost)
    assert [item.value for item in floor].count("YES") == 2 and [item.value for item in floor].count(None) == 1
    assert as_messages(made[0].turns)[1] == {"role": "assistant", "content": "YES"}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_packed_conversations_teach_what_single_ones_do(family: str, model_folder: Callable[[str], Path]) -> None:
    import torch

    from tunesmith.data.packing import PAD, packed
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    task = Instruction(template="plain", packing=True)
    assert task.packs() and not Instruction().packs()
    network = task.head(load_backbone(resolve(str(model_folder(family)))), NONE, False, 0)
    made = conversations(8, 3)
    texts = [as_text(prompt_of(row)) for row in made]
    examples = task.encode(texts, made, NONE, network.text, 60)
    windows = packed(examples, 60)
    assert len(windows) < len(examples)
    pad = {**network.processor.pad, **PAD}

    def measured(batch: Any, joined: bool = False) -> tuple[float, float, torch.Tensor]:
        network.zero_grad()
        given = {name: value for name, value in batch.inputs.items() if not (joined and name in PAD)}
        loss = task.loss(network(given), batch)
        loss.total.backward()
        grads = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
        return float(loss.total.detach()), float(loss.weight), torch.cat(grads)

    single, weight, wanted = measured(collate(examples, pad))
    together, same, found = measured(collate(windows, pad))
    assert same == weight, "as many tokens are learned"
    assert together == pytest.approx(single, rel=1e-5)
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert measured(collate(windows, pad), joined=True)[0] != pytest.approx(single, rel=1e-4), "the control"


def test_a_packed_run_counts_its_steps_by_windows(
    chats: Path, tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    import math
    import re

    from tunesmith import finetune

    said: list[str] = []
    finetune(
        model_folder("llama"),
        chats,
        method="lora",
        task={**PLAIN, "packing": True},
        settings={**settings(), "training.batch_size": 2, "training.rate": "auto"},
        out=tmp_path / "run",
        listen=lambda event: said.append(str(event)),
    )
    rows, windows = re.search(r"(\d+) rows in (\d+) windows .* each row as if alone", "\n".join(said)).groups()  # type: ignore[union-attr]
    derived = (tmp_path / "run" / "resolved.yaml").read_text(encoding="utf-8")
    epochs = settings()["training.epochs"]
    assert math.ceil(int(windows) / 2) < math.ceil(int(rows) / 2)
    assert f"for LoRA ({epochs * math.ceil(int(windows) / 2)} steps)" in derived


def test_a_conversation_is_read_in_the_report_as_it_was_said() -> None:
    turns = (Turn("system", "Be kind."), Turn("user", "Hi?"), Turn("assistant", "Hello."), Turn("user", "Bye?"))
    task = Instruction()
    assert task.readable(as_text(Conversation(turns))) == "system: Be kind.\nuser: Hi?\nassistant: Hello.\nuser: Bye?"
    assert task.readable(as_text(Conversation(turns[1:2]))) == "Hi?"
    assert task.readable("Why is the sky blue?") == "Why is the sky blue?"
