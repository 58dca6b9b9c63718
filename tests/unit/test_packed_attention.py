"""Attention that is told where texts end: what the usual form gives, by any kernel with the arguments of the real ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortruns import bench, facts, recipe_for
from tunesmith.errors import RecipeError
from tunesmith.models import packed_attention
from tunesmith.models.attention import FUSED
from tunesmith.models.backbone import load_backbone
from tunesmith.models.packed_attention import kernel, put_on, take_off, use_packed
from tunesmith.models.resolve import resolve
from tunesmith.models.segments import CUTS, apart
from tunesmith.profiling import profiled, settled
from tunesmith.recipe import Derived, TrainingSpec
from tunesmith.suiting import packed_by_kernel
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
SIZES = ((9, 1, 6), (3, 8, 2))  # of the texts in two rows; the second ends with filler


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A kernel in plain torch, text by text; gives how many texts each call had."""
    calls: list[int] = []

    def plain(query: Tensor, key: Tensor, value: Tensor, cuts: Tensor, longest: int, scale: float) -> Tensor:
        heads = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
        assert cuts.dtype == torch.int32 and int(cuts[0]) == 0 and int(cuts[-1]) == len(query)
        assert int(cuts.diff().max()) <= longest and all(part.is_contiguous() for part in (query, key, value))
        calls.append(len(cuts) - 1)
        parts = []
        for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            own = [part[start:end].transpose(0, 1) for part in (query, key, value)]
            found = torch.nn.functional.scaled_dot_product_attention(*own, is_causal=True, scale=scale)
            parts.append(found.transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(packed_attention, "kernel", lambda: plain)
    monkeypatch.setattr(packed_attention, "DTYPES", (torch.float32,))
    monkeypatch.setattr(packed_attention, "DEVICE", "cpu")
    yield calls


def _packed(vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    ids, segments, places = (torch.zeros(2, 16, dtype=torch.long) for _ in range(3))
    for row, sizes in enumerate(SIZES):
        start = 0
        for number, size in enumerate(sizes, 1):
            segments[row, start : start + size], places[row, start : start + size] = number, torch.arange(size)
            start += size
    ids += torch.arange(32).view(2, 16) * 7 % (vocabulary - 5) + 3
    return ids, segments, places


def _passes(body: Any, upstream: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    ids, segments, places = _packed(body.config.vocab_size)
    hidden = body(input_ids=ids, **apart(body, True, segments, places)).last_hidden_state * (segments > 0)[..., None]
    body.zero_grad()
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), {
        name: value.grad.clone() for name, value in body.named_parameters() if value.grad is not None
    }


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_hidden_states_and_gradients_are_those_of_the_usual_form(
    family: str, model_folder: Folder, on_cpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel

    body = AutoModel.from_pretrained(model_folder(family), dtype=torch.float32).eval()
    expected = _passes(body)
    assert put_on(body)
    found = _passes(body)
    assert on_cpu == [7] * len(on_cpu) and on_cpu, "six texts and filler, in one call a layer"
    count = len(on_cpu)
    monkeypatch.setattr(packed_attention, "kernel", lambda: None)  # as where texts drop out
    pairs = _passes(body)
    take_off(body)
    assert body.config._attn_implementation == FUSED and len(on_cpu) == count
    for hidden, gradients in (found, pairs):
        torch.testing.assert_close(hidden, expected[0], atol=1e-5, rtol=1e-5)
        assert gradients.keys() == expected[1].keys()
        for name, value in gradients.items():
            torch.testing.assert_close(value, expected[1][name], atol=1e-4, rtol=1e-4, msg=name)


def test_rows_that_are_not_packed_are_as_ever(model_folder: Folder, on_cpu: list[int]) -> None:
    from transformers import AutoModel

    body: Any = AutoModel.from_pretrained(model_folder("llama"), dtype=torch.float32).eval()
    ids, mask = torch.arange(3, 15).view(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        expected = body(input_ids=ids, attention_mask=mask).last_hidden_state
        put_on(body)
        found = body(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(found, expected) and on_cpu == []


def test_a_run_by_a_kernel_learns_the_same(
    model_folder: Folder, table_file: Path, tmp_path: Path, on_cpu: list[int]
) -> None:
    losses = []
    for way in (False, True):
        settings = {"task": {"name": "causal_lm"}, "training.flash_packed": way, "training.max_length": 48}
        made = bench(recipe_for(model_folder("llama"), table_file, "full", settings), tmp_path / str(way))
        assert made.run.training.flash_packed is way
        before = len(on_cpu)
        losses.append([item["loss"] for item in facts(train(made.run)) if "loss" in item])
        assert (len(on_cpu) > before) is way
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_profile_says_what_the_kernel_brought_or_why_it_was_refused(
    model_folder: Folder, table_file: Path, tmp_path: Path, on_cpu: list[int]
) -> None:
    settings = {"task": {"name": "causal_lm"}, "training.max_length": 48, "training.embedding_rows": "all"}
    found = {}
    for way in (True, False):
        recipe = recipe_for(model_folder("llama"), table_file, "full", {**settings, "training.flash_packed": way})
        made = bench(recipe, tmp_path / str(way))
        if not way:
            made.built.derived.append(Derived("training.flash_packed", False, "it takes torch 2.11"))
        load = lambda: load_backbone(resolve(str(model_folder("llama"))))  # noqa: E731
        (found[way],) = profiled(recipe, made.prepared, made.encoded, load, made.built, made.run)
    told = {row[0]: row for row in found[True].table[1:]}
    assert told["training.flash_packed"][1:4:2] == ("True", "False")
    assert not any("could not be measured" in line for line in found[True].lines)
    assert "training.flash_packed" not in {row[0] for row in found[False].table}
    assert found[False].lines[-1] == "training.flash_packed = False: it takes torch 2.11"


def test_a_kernel_for_bfloat16_does_not_keep_float32_from_being_measured(
    model_folder: Folder, table_file: Path, tmp_path: Path, on_cpu: list[int]
) -> None:
    settings = {"task": {"name": "causal_lm"}, "training.flash_packed": True}
    made = bench(recipe_for(model_folder("llama"), table_file, "full", settings), tmp_path)
    assert made.run.training.flash_packed is True
    assert settled(made.recipe, made.built, made.run).training.flash_packed == "auto"


def _with_backward(real: Any, name: str, wrong: Callable[[Tensor], Tensor]) -> Any:
    """The right numbers forward, and of one of what it is given another gradient."""

    def given(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        parts = {"query": query, "key": key, "value": value}
        copy = parts[name] * 1.0
        if copy.requires_grad:
            copy.register_hook(wrong)
        return real(*{**parts, name: copy}.values(), *rest)

    return given


def test_when_it_is_taken(
    model_folder: Folder, table_file: Path, tmp_path: Path, on_cpu: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(model_folder("llama"), table_file, "full", {"task": {"name": "causal_lm"}})
    network = bench(recipe, tmp_path).run.network
    network.eval()
    body: Any = network.get_submodule(network.layout.body)
    assert TrainingSpec().flash_packed == "auto"

    def chosen(earlier: dict[str, Any], packed: bool = True, asked: Any = "auto") -> tuple[Any, str]:
        take_off(body)
        spec, derived = packed_by_kernel(TrainingSpec(flash_packed=asked), earlier, network, packed, 64)
        return spec.flash_packed, derived[0].why if derived else ""

    assert chosen({}) == (True, "the kernel computes each text by itself, and gives what the usual form gives")
    assert chosen({"training.cache": "Live"}) == (False, "")
    assert chosen({"training.flash_packed": True})[0] is True
    assert chosen({}, packed=False) == (False, "")
    with pytest.raises(RecipeError, match=r"training\.flash_packed: .* packed, by task\.packing"):
        chosen({}, packed=False, asked=True)

    real = packed_attention.kernel()
    assert real is not None
    monkeypatch.setattr(packed_attention, "kernel", lambda: lambda *given: real(*given) * 1.1)
    take_off(body)
    assert use_packed(body, network.text.ordinary_tokens, 64) == "it gave other numbers than the usual form"
    assert body.config._attn_implementation == FUSED

    wrongs: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
        (
            "query",
            lambda gradient: gradient * 1.2,
            r"its gradient of the query is another than the usual form's, by 20 %",
        ),
        ("key", lambda gradient: gradient + 0.2 * gradient.flip(0), "its gradient of the key"),
        ("value", lambda gradient: gradient.roll(1, 0), "its gradient of the value"),
        ("value", lambda gradient: gradient / 0, "its gradients are not finite"),
    ]
    for name, wrong, said in wrongs:
        monkeypatch.setattr(
            packed_attention, "kernel", lambda name=name, wrong=wrong: _with_backward(real, name, wrong)
        )
        assert re.match(said, use_packed(body, network.text.ordinary_tokens, 64)), name
        assert body.config._attn_implementation == FUSED

    with monkeypatch.context() as as_if_right:  # by itself: then what comes through the whole base tells
        as_if_right.setattr(packed_attention, "_of_kernel", packed_attention._of_pairs)
        as_if_right.setattr(packed_attention, "kernel", lambda: _with_backward(real, "value", lambda given: given * 2))
        assert "its gradient of the input" in use_packed(body, network.text.ordinary_tokens, 64)

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("not for this card\nand more")

    monkeypatch.setattr(packed_attention, "kernel", lambda: broken)
    assert use_packed(body, network.text.ordinary_tokens, 64) != "" and body.config._attn_implementation == FUSED
    monkeypatch.setattr(packed_attention, "kernel", lambda: None)
    assert "flash_attn" in use_packed(body, network.text.ordinary_tokens, 64)


def test_on_a_cpu_nobody_is_told(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"task": {"name": "causal_lm"}}
    made = bench(recipe_for(model_folder("llama"), table_file, "full", settings), tmp_path / "auto")
    assert made.run.training.flash_packed is False
    assert "training.flash_packed" not in {item.key for item in made.built.derived}
    with pytest.raises(RecipeError, match="the kernel is for a GPU and bfloat16; leave it out"):
        recipe = recipe_for(model_folder("llama"), table_file, "full", {**settings, "training.flash_packed": True})
        bench(recipe, tmp_path / "asked")


def test_torchs_own_kernel_takes_what_it_is_given() -> None:
    """Its arguments and its shapes, without a GPU: on the device that has no numbers."""
    found = kernel()
    if found is None:
        pytest.skip("this torch has no such kernel, and flash_attn is not installed")
    query, key = (
        torch.empty(32, 4, 8, device="meta", dtype=torch.bfloat16),
        torch.empty(32, 2, 8, device="meta", dtype=torch.bfloat16),
    )
    cuts = torch.empty(8, device="meta", dtype=CUTS)
    given = found(query, key, key, cuts, 16, 0.3)
    assert given.shape == query.shape and given.dtype == query.dtype
