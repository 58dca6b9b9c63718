"""benchmarks/gpu.py as far as a CPU can try it: rows, reckoning, checks that can fail, both sides, and the page."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from measured_on import NOW

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


def test_what_can_be_asked_for(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from _gpu.works import CHOICES, WORKS, turns, works

    assert gpu.parse([]).works == list(CHOICES)
    for words, said in (
        (["--works", "checks,llm_9b"], "--works: llm_9b: choose from checks, parts, encoder"),
        (["--minutes", "0"], "more than 0"),
        (["--trial"], "a trial takes no place of results"),
    ):
        with pytest.raises(SystemExit):
            gpu.parse(words)
        assert said in capsys.readouterr().err
    assert {turn.work for turn in turns(["llm_8b", "checks"])} == {"llm_8b"}
    assert len(turns(CHOICES)) == sum(len(job.contenders) for work in WORKS for job in work.jobs)
    for whole, tiny in zip(works(False), works(True), strict=True):  # a trial does the same work
        assert [(job.method, job.contenders) for job in whole.jobs] == [
            (job.method, job.contenders) for job in tiny.jobs
        ]
        assert all(job.amount.steps >= 1 and job.amount.warm >= 1 for job in tiny.jobs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_so(gpu: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "torch sees no GPU here" in said.err
    assert not list(tmp_path.iterdir())


def test_rows_are_as_long_as_said(gpu: Any) -> None:
    from _gpu import rows
    from _gpu.works import MINILM, TINY_DECODER, Amount

    mean = sum(length * count for length, count in enumerate(rows.LENGTHS, rows.SHORTEST)) / sum(rows.LENGTHS)
    assert sum(rows.LENGTHS) == 10_003 and mean == pytest.approx(16.21, abs=0.01)
    made = rows.examples(MINILM, Amount(128, 32, 0, 1), 3000)
    assert rows.real_tokens(made) / 3000 == pytest.approx(mean, rel=0.05)
    assert made == rows.examples(MINILM, Amount(128, 32, 0, 1), 3000)
    assert all(0 < token < MINILM.vocabulary for row in made for token in row.inputs["input_ids"])

    windows = rows.examples(TINY_DECODER, Amount(96, 4, 0, 1), 5)
    assert len(windows) == 5 and all(80 < window.length <= 96 for window in windows)
    for window in windows:
        starts = [place for place, number in enumerate(window.inputs["position_ids"]) if number == 0]
        assert len(starts) == max(window.inputs["segments"]) and all(window.target[place] == -100 for place in starts)
        ends = [*starts[1:], window.length]
        assert rows.squares([window]) == sum((end - start) ** 2 for start, end in zip(starts, ends, strict=True))
    assert rows.squares(made[:2]) == sum(row.length**2 for row in made[:2])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_operations_are_those_that_torch_counts(gpu: Any, kind: str) -> None:
    """Of full fine-tuning; torch's counter sees every matrix product, and both passes. Attention apart, by its formula."""
    from _gpu import models, parts, rows, works
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    shape = works.TINY_ENCODER if kind == "encoder" else works.TINY_TIED
    given = parts._rows(shape, 32, 3)
    network, task, batch = parts._ready(shape, given, "cpu")
    network.lazy = False
    network.float().train(kind == "decoder")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        parts._learn(network, task, batch)
    tokens, pairs = rows.real_tokens(given), rows.squares(given)
    ours = models.floating_operations(shape, "full", tokens, pairs)
    seen = pairs / 2 if kind == "decoder" else pairs  # the plain form computes what a decoder's mask hides
    missing = 3 * 4 * shape.blocks * shape.width * (pairs - seen)
    head = 0 if kind == "decoder" else 3 * 2 * rows.CLASSES * shape.width * len(given)
    # What a decoder's last token would go on with is not learned, and not in the sum.
    unlearned = 3 * 2 * shape.vocabulary * shape.width * len(given) if kind == "decoder" else 0
    assert counter.get_total_flops() == pytest.approx(ours + missing + head, abs=unlearned + 1)
    assert models.floating_operations(shape, "lora", tokens, 0) == pytest.approx(
        models.floating_operations(shape, "full", tokens, 0) * 2 / 3
    )


def test_shapes_have_the_sizes_that_they_are_named_for(gpu: Any) -> None:
    from _gpu import models, works

    counts = {}
    for name, shape in (("minilm", works.MINILM), ("half", works.HALF_BILLION), ("eight", works.EIGHT_BILLION)):
        model = models.model_of(shape, "meta", torch.float32)
        counts[name] = sum(value.numel() for value in model.parameters())
        blocks = next(part for _, part in model.named_modules() if isinstance(part, torch.nn.ModuleList))
        matrices = sum(value.numel() for value in blocks.parameters() if value.dim() == 2)
        assert matrices == models.block_weights(shape)
    assert counts["half"] == pytest.approx(0.494e9, rel=0.01) and counts["eight"] == pytest.approx(8.03e9, rel=0.001)
    assert counts["minilm"] == pytest.approx(22.7e6, rel=0.01)


@pytest.mark.skipif(find_spec("accelerate") is None or find_spec("peft") is None, reason="the peers are not installed")
@pytest.mark.parametrize(
    ("work", "job"), [("encoder", 0), ("encoder", 2), ("llm_0.5b", 0), ("llm_8b", 0), ("llm_8b", 1)]
)
def test_both_sides_do_the_same_work(gpu: Any, work: str, job: int) -> None:
    """Rows, steps, what trains; and a language model of the same random weights has the same loss, packed as it is."""
    from _gpu import measuring
    from _gpu.works import COMPILED, Turn, work_of

    contenders = [name for name in work_of(work, True).jobs[job].contenders if name != COMPILED]
    found = [measuring.one(Turn(work, job, name), True, "cpu") for name in contenders]
    assert len({(one["tokens"], one["steps"]) for one in found}) == 1
    assert all(one["seconds"] > 0 and one["tokens_a_second"] > 0 and one["tflops"] > 0 for one in found)
    losses = [one["mean_loss"] for one in found]
    if work == "encoder":
        assert losses == pytest.approx([losses[0]] * len(losses), rel=0.1)  # the Trainer's class pools in another way
        return
    assert losses == pytest.approx([losses[0]] * len(losses), rel=2e-3)
    assert len({one["trainable"] for one in found}) == 1


def test_checks_pass_and_can_fail(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from _gpu import checks

    found = {name: check for name, check in checks.checks(True, "cpu") if "compiled" not in name}
    done = {name: checks.done(name, check) for name, check in found.items()}
    assert len(done) >= 12 and [name for name, one in done.items() if not one["passed"]] == []
    assert json.loads(json.dumps(list(done.values()))) == list(done.values())

    decoder = checks.cases(True, "cpu")[1]
    leaky = [replace(row, inputs={**row.inputs, "position_ids": [*range(row.length)]}) for row in decoder.joined]
    wrong = checks.as_transformers(replace(decoder, joined=leaky))  # texts of a window see each other
    assert not wrong.passed and wrong.apart["gradients"][0] > 10 * checks.SAME_GRADIENT
    lost = checks.as_transformers(replace(decoder, joined=decoder.joined[:1]))
    assert not lost.passed
    assert not checks.Found({"loss": (float("nan"), 1.0)}).passed

    def breaks() -> Any:
        raise RuntimeError("no such kernel")

    broken = checks.done("this", breaks)
    assert not broken["passed"] and broken["error"] == "RuntimeError: no such kernel"
    from tunesmith.training.optim import Masters

    honest = Masters.move
    monkeypatch.setattr(Masters, "move", lambda self, rate, share=1.0: honest(self, 1.01 * rate, share))
    assert not checks.adamw("cpu").passed


def test_a_part_that_breaks_leaves_the_others(gpu: Any) -> None:
    from _gpu import parts

    done: list[int] = []

    def breaks() -> Any:
        raise RuntimeError("not capturing")

    found = parts.measured(parts.Part("p", {"one": breaks, "two": lambda: lambda: done.append(1)}), "cpu", 2)
    assert [one["error"] for one in found] == ["RuntimeError: not capturing", ""]
    assert found[0]["ms"] is None and found[1]["ms"] >= 0 and len(done) == 5  # three untimed first
    made = {part.name: part for part in parts.parts(True, "cpu")}
    assert len(made) == 9
    records = [
        record for part in made.values() for record in parts.measured(
            parts.Part(part.name, {way: ready for way, ready in part.ways.items() if "compiled" not in way}), "cpu", 1
        )
    ]  # fmt: skip
    assert {record["error"] for record in records} == {""}


def test_a_process_of_its_own_tells_what_it_found_and_why_it_ended(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    monkeypatch.setattr(gpu, "__file__", str(script))
    lines = 'import sys, time\nprint("noise")\nprint(\'RECORD {"a": 1}\', flush=True)\n'
    script.write_text(lines)
    assert gpu.apart(["card"], False, 30) == ([{"a": 1}], "")
    script.write_text(lines + "print(sys.argv)\nraise SystemExit('out of luck')")
    assert gpu.apart(["checks"], True, 30) == ([{"a": 1}], "ended with 1: out of luck")
    script.write_text(lines + "time.sleep(30)")
    assert gpu.apart(["checks"], True, 1.5) == ([{"a": 1}], "stopped after 2 s")


def test_what_is_asked_for_is_done_in_order_and_the_rest_is_kept(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def apart(name: list[str], trial: bool, limit: float) -> tuple[list[Any], str]:
        done.append(",".join(name))
        if name[0] == "llm_8b" and name[2] == "ours":
            return [], "ended with 1: out of memory"
        if len(name) == 3:
            return [{"work": name[0], "job": int(name[1]), "contender": name[2]}], ""
        return [{"name": "", "passed": True}], ""

    monkeypatch.setattr(gpu, "apart", apart)
    monkeypatch.setattr(gpu, "no_gpu", lambda: "")
    monkeypatch.setattr(gpu, "environment", lambda: NOW)
    monkeypatch.setattr(gpu, "page", lambda plain: ["page"])
    assert gpu.main(["--works", "llm_8b,parts,checks", "--out", str(tmp_path)]) == 0
    assert done[:2] == ["card", "checks"] and done[-1] == "parts" and len(done) == 3 + 5
    first = json.loads((tmp_path / "gpu.json").read_text())
    assert len(first["measured"]) == 3 and len(first["failed"]) == 2
    assert first["failed"][0]["what"] == "llm_8b, lora, 4 a step: Tunesmith"
    assert gpu.main(["--works", "encoder", "--out", str(tmp_path)]) == 0
    second = json.loads((tmp_path / "gpu.json").read_text())
    assert {record["work"] for record in second["measured"]} == {"encoder", "llm_8b"}
    assert second["checks"] == first["checks"] and second["failed"] == first["failed"] and len(second["card"]) == 1
    monkeypatch.setattr(gpu, "environment", lambda: {**NOW, "source": "another"})
    monkeypatch.setattr(gpu, "apart", lambda name, trial, limit: ([{"name": "", "passed": False}], ""))
    assert gpu.main(["--works", "checks", "--out", str(tmp_path)]) == 1  # what computes wrongly is an error
    assert json.loads((tmp_path / "gpu.json").read_text())["measured"] == []
    assert (
        gpu.main(["--works", "checks", "--out", str(tmp_path), "--minutes", "1e-9"]) == 1
    )  # so is what nobody checked


def test_the_page(gpu: Any) -> None:
    from _gpu import card
    from _gpu.page import page

    def record(contender: str, name: str, speed: float, **further: Any) -> dict[str, Any]:
        plain = {"work": "llm_0.5b", "job": 0, "method": "full", "batch": 8, "contender": contender, "name": name}
        plain |= {"tokens_a_second": speed, "tflops": speed / 100, "peak_gb": 12.34, "held_gb": 15.0, "micro_batch": 8}
        plain |= {"mean_loss": 11.9, "trainable": 494_000_000, "precision": "bfloat16", "recomputed": False}
        return plain | further

    compiled = {"compiled": {"graphs": 2, "breaks": 0}, "first_seconds": 31.0}
    checks = [
        {"check": "a", "passed": True, "apart": {"loss": [1e-7, 1e-5]}, "error": ""},
        {"check": "b", "passed": False, "apart": {}, "error": "RuntimeError: x"},
    ]
    what = {"name": "NVIDIA H200", "memory_gb": 150.1, "processors": 132, "capability": "9.0", "cuda": "13.0"}
    plain = {
        "environment": NOW, "trial": False, "checks": checks, "card": [{**what, "published": 1000.0, "measured": 800.0}],
        "parts": [{"part": "p", "way": "w", "ms": 1.5, "cpu_ms": 0.25, "peak_gb": None, "error": ""},
                  {"part": "p", "way": "v", "ms": None, "error": "RuntimeError: y"}],
        "measured": [record("ours", "Tunesmith", 40_000.0), record("ours_compiled", "compiled", 50_000.0, **compiled),
                     record("trainer_autocast", "Trainer", 20_000.0)],
        "failed": [{"what": "llm_8b", "why": "out of memory"}],
    }  # fmt: skip
    shown = page(plain)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown if line.startswith("| ")]
    by_name = {row[0]: row for row in cells}
    assert by_name["Trainer"][2:6] == ["20,000", "0.50", "20.0%", "25.0%"]
    assert by_name["a"][1:] == ["passed", "loss 1.0e-07 (at most 1e-05)"] and by_name["b"][1:] == [
        "FAILED",
        "RuntimeError: x",
    ]
    assert by_name["p"][1:] == ["w", "1.500", "0.250", "-", ""] and ["", "v", "-", "-", "-", "RuntimeError: y"] in cells
    text = "\n".join(shown)
    assert "**1 of 2 checks FAILED.**" in text and "- llm_8b: out of memory" in text
    assert "## Llama of 0.5 B, packed to 4,096 tokens: full, 8 windows a step" in text and "trial" not in text
    assert "- compiled: 2 graphs, 0 breaks; the first step took 31 s" in text and "published 1,000 TFLOP/s" in text
    assert "no GPU, so no figure" in "\n".join(page({**plain, "trial": True}))
    empty = {**plain, "card": [], "checks": [], "parts": [], "measured": [], "failed": []}
    assert "## " not in "\n".join(page(empty))
    names = {"NVIDIA H200": 989.4, "NVIDIA H100 PCIe": 756.0, "NVIDIA A100-SXM4-80GB": 312.0, "NVIDIA L40S": 362.0}
    assert {name: card.published_peak(name) for name in names} == names and card.published_peak("Tesla V100") is None
    assert card.measured_peak("cpu", 64, 1) > 0


def test_batches_of_the_trainer_hold_the_same_rows(gpu: Any) -> None:
    from _gpu import peers, rows
    from _gpu.works import TINY_DECODER, TINY_ENCODER, Amount

    made = rows.examples(TINY_ENCODER, Amount(96, 4, 0, 1), 3)
    batch = peers.padded([rows.plain(row) for row in made])
    assert batch["labels"].tolist() == [row.target for row in made]
    assert batch["attention_mask"].sum(1).tolist() == [row.length for row in made]
    windows = rows.examples(TINY_DECODER, Amount(96, 4, 0, 1), 2)
    batch = peers.padded([rows.plain(row) for row in windows])
    assert set(batch) == {"input_ids", "position_ids", "labels"}
    assert [int((line != -100).sum()) for line in batch["labels"]] == [row.units for row in windows]
    draw = random.Random(0)
    assert 0 < rows.token_numbers(draw, 1, TINY_DECODER)[0] < TINY_DECODER.vocabulary
