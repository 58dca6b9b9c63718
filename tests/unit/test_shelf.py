"""What is kept on disk is what is computed, found for the same weights, rows and forms alone, never when damaged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from families import WIDTH
from shortruns import METHODS, bench, differences, facts, recipe_for, rows
from tunesmith.data.encode import Example
from tunesmith.files import PARTIAL
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.methods.head import Head
from tunesmith.methods.layers import Layers
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, PooledNetwork, sequence_network, token_network
from tunesmith.models.resolve import resolve
from tunesmith.training import keeping, keys, shelf, trunk
from tunesmith.training.keeping import keep
from tunesmith.training.loop import train
from tunesmith.training.shelf import Shelf, read, writing
from tunesmith.training.trunk import HiddenCache, Live, PooledCache, TokenCache, Trunk, kept_features, plan_trunk

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]
ROWS = 20


def _attached(folder: Path, method: Method, kind: Any = None) -> tuple[Network, Plan]:
    backbone = load_backbone(resolve(str(folder)))
    if kind is None:
        network = sequence_network(backbone, ("a", "b", "c"), "single_label_classification", False, 0)
    else:
        network = kind(backbone, ("a", "b", "c"), 0)
    return network, method.attach(network, Rates(1e-3, 1e-3, ""), 0)


def _examples(network: Network, count: int = ROWS, seed: int = 1) -> list[Example]:
    texts = [text for text, _ in rows(count, seed)]
    return [Example(row, given, 0) for row, (given, _) in enumerate(network.processor.encode_all(texts, 40))]


def _flat(values: Tensor | Sequence[Tensor]) -> Tensor:
    import torch

    return values if isinstance(values, torch.Tensor) else torch.cat(list(values))


def _values(found: Trunk) -> Tensor:
    kept = found.hidden if isinstance(found, HiddenCache) else found.kept  # type: ignore[attr-defined]
    return _flat(kept["train"])


def _planned(made: tuple[Network, Plan], examples: Sequence[Example], folder: Path) -> Trunk:
    network, plan = made
    return plan_trunk(network, plan, {"train": examples}, "disk", network.processor.pad, Shelf(folder, True))


def _hits(found: Trunk) -> bool:
    """By what the user is told, which must be one of two things."""
    assert ("read from" in found.why) != ("kept in" in found.why), found.why
    return "read from" in found.why


METHOD: dict[str, tuple[Method, str, Any, type]] = {
    "pooled": (Head(), "sentence", None, PooledCache),
    "hidden": (Layers(layers=1), "bert", None, HiddenCache),
    "decoder": (Layers(layers=1), "llama", None, HiddenCache),
    "tokens": (Head(), "bert", token_network, TokenCache),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", list(METHOD))
def test_read_back_it_is_what_was_computed_to_the_bit(
    case: str, dtype: str, model_folder: Folder, tmp_path: Path
) -> None:
    import torch

    method, family, kind, expected = METHOD[case]
    found = []
    for cache in ("memory", "disk", "disk"):
        network, plan = _attached(model_folder(family), method, kind)
        network.to(getattr(torch, dtype))
        shelf_here = Shelf(tmp_path, True) if cache == "disk" else Shelf()
        examples = {"train": _examples(network), "validation": _examples(network, 7, 2), "test": []}
        found.append(plan_trunk(network, plan, examples, cache, network.processor.pad, shelf_here))
    live, kept, again = found
    assert [type(item) for item in found] == [expected] * 3
    assert not _hits(kept) and _hits(again)
    for other in (kept, again):
        assert _values(other).dtype == _values(live).dtype
        assert torch.equal(_values(other), _values(live))
    assert again.saved.seconds > 0 and live.saved.seconds == kept.saved.seconds == 0


def test_any_tool_opens_a_file(model_folder: Folder, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    found = _planned(_attached(model_folder("bert"), Layers(layers=1)), _examples(_network(model_folder)), tmp_path)
    (path,) = tmp_path.iterdir()
    assert torch.equal(load_file(path)[shelf.TENSOR], _values(found))


def _network(model_folder: Folder) -> Network:
    return _attached(model_folder("bert"), Head())[0]


def _weight(name: str) -> Callable[[Network, list[Example]], list[Example]]:
    def change(network: Network, examples: list[Example]) -> list[Example]:
        import torch

        with torch.no_grad():
            dict(network.named_parameters())[name].view(-1)[3] += 1e-3
        return examples

    return change


def _one_token(network: Network, examples: list[Example]) -> list[Example]:
    ids = list(examples[5].inputs["input_ids"])
    ids[1] += 1
    return [*examples[:5], replace(examples[5], inputs={**examples[5].inputs, "input_ids": ids}), *examples[6:]]


def _swapped(network: Network, examples: list[Example]) -> list[Example]:
    one, two = replace(examples[5], row=6), replace(examples[6], row=5)
    return [*examples[:5], two, one, *examples[7:]]


def _moved_bound(network: Network, examples: list[Example]) -> list[Example]:
    """The last token of one row becomes the first of the next: end to end the numbers are the same."""
    one, two = examples[5].inputs, examples[6].inputs
    moved = [
        {name: values[:-1] for name, values in one.items()},
        {name: [one[name][-1], *values] for name, values in two.items()},
    ]
    return [*examples[:5], replace(examples[5], inputs=moved[0]), replace(examples[6], inputs=moved[1]), *examples[7:]]


def _mask(network: Network, examples: list[Example]) -> list[Example]:
    inputs = {**examples[5].inputs, "attention_mask": [0] + [1] * (examples[5].length - 1)}
    return [*examples[:5], replace(examples[5], inputs=inputs), *examples[6:]]


def _bfloat16(network: Network, examples: list[Example]) -> list[Example]:
    import torch

    network.to(torch.bfloat16)
    return examples


def _same(network: Network, examples: list[Example]) -> list[Example]:
    return examples


def _config(network: Network, examples: list[Example]) -> list[Example]:
    network.get_submodule(network.layout.body).config.layer_norm_eps = 0.1  # type: ignore[union-attr]
    return examples


def _eps(network: Network, examples: list[Example]) -> list[Example]:
    norm: Any = network.get_submodule(network.layout.embeddings[0]).get_submodule("LayerNorm")
    norm.eps = 0.1
    return examples


def _first_norm(network: Network) -> str:
    return next(name for name, _ in network.named_parameters() if name.endswith("LayerNorm.weight"))


def _buffer(network: Network, examples: list[Example]) -> list[Example]:
    network.get_submodule(network.layout.blocks[0]).register_buffer("further", _ones())
    return examples


def _ones() -> Tensor:
    import torch

    return torch.ones(3)


BLOCK = "model.bert.encoder.layer.{}.output.dense.weight"
CHANGES: dict[str, tuple[Callable[[Network, list[Example]], list[Example]], bool, bool]] = {
    # whether head only, and the last layer alone, still find what was kept
    "nothing": (_same, True, True),
    "a weight of the embeddings": (_weight("model.bert.embeddings.word_embeddings.weight"), False, False),
    "a weight of the first block": (_weight(BLOCK.format(0)), False, False),
    "a weight after the cut": (_weight(BLOCK.format(2)), False, True),
    "the pooler": (_weight("model.bert.pooler.dense.weight"), False, True),
    "the head": (_weight("model.classifier.weight"), True, True),
    "a buffer": (_buffer, False, False),
    "one token": (_one_token, False, False),
    "the order of rows": (_swapped, False, False),
    "where a row ends": (_moved_bound, False, False),
    "a mask": (_mask, False, False),
    "the number format": (_bfloat16, False, False),
    "the config": (_config, False, False),
    "a setting of a module": (_eps, False, False),
    "fewer rows": (lambda network, examples: examples[:-1], False, False),
}


@pytest.mark.parametrize("method", ["head", "layers"])
@pytest.mark.parametrize("change", list(CHANGES))
def test_found_where_nothing_that_is_read_changed(
    change: str, method: str, model_folder: Folder, tmp_path: Path
) -> None:
    asked: Method = Head() if method == "head" else Layers(layers=1)
    first = _attached(model_folder("bert"), asked)
    _planned(first, _examples(first[0]), tmp_path)
    other = _attached(model_folder("bert"), asked)
    alter, *expected = CHANGES[change]
    found = _planned(other, alter(other[0], _examples(other[0])), tmp_path)
    assert _hits(found) == expected[method == "layers"], found.why


@pytest.mark.parametrize("change", ["cut", "pooling", "reading", "threads", "budget", "code", "torch", "pad", "hook"])
def test_not_found_in_another_form(
    change: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    family, method = ("sentence", Head()) if change == "pooling" else ("bert", Layers(layers=1))
    first = _attached(model_folder(family), method)
    examples = _examples(first[0])
    _planned(first, examples, tmp_path)
    control = _attached(model_folder(family), method)
    assert _hits(_planned(control, examples, tmp_path)), "the control: nothing is changed"
    if change == "cut":
        method = Layers(layers=2)
    elif change == "reading":
        method = Head()
    other, plan = _attached(model_folder(family), method)
    if change == "pooling":
        assert isinstance(other, PooledNetwork)
        other.pooling = replace(other.pooling, mode="max")
    elif change == "threads":
        monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    elif change == "budget":
        monkeypatch.setattr(trunk, "CPU_TOKENS", 123)
    elif change == "code":
        monkeypatch.setattr(keys, "CODE", {"models": "replay.py"})
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    elif change == "pad":
        other.processor.pad = {**other.processor.pad, "input_ids": 3}
    elif change == "hook":
        other.get_submodule(other.layout.blocks[0]).register_forward_hook(lambda module, args, output: None)
        assert "cannot be told whole" in _planned((other, plan), examples, tmp_path).why
        return
    assert not _hits(_planned((other, plan), examples, tmp_path))


def test_dropout_and_labels_decide_nothing(model_folder: Folder, tmp_path: Path) -> None:
    """A search over rates of dropout, and tasks with other labels, share what the base gives."""
    first = _attached(model_folder("sentence"), Head())
    examples = _examples(first[0])
    _planned(first, examples, tmp_path)
    backbone = load_backbone(resolve(str(model_folder("sentence"))), 0.4)
    other = sequence_network(backbone, ("x", "y", "z", "w"), "multi_label_classification", False, 9)
    assert _hits(_planned((other, Head().attach(other, Rates(1e-3, 1e-3, ""), 5)), examples, tmp_path))


def test_splits_are_found_one_by_one(model_folder: Folder, tmp_path: Path) -> None:
    network, plan = _attached(model_folder("bert"), Layers(layers=1))
    held, pad = _examples(network, 8, 2), network.processor.pad
    plan_trunk(network, plan, {"train": _examples(network), "validation": held}, "disk", pad, Shelf(tmp_path, True))
    found = plan_trunk(
        network, plan, {"train": _examples(network, ROWS, 5), "test": held}, "disk", pad, Shelf(tmp_path, True)
    )
    assert "MB read from" in found.why and "MB kept in" in found.why
    assert len(list(tmp_path.iterdir())) == 3


def test_rows_are_hashed_once_whether_they_are_found_or_not(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, plan = _attached(model_folder("bert"), Layers(layers=1))
    splits, pad = {"train": _examples(network), "validation": _examples(network, 8, 2)}, network.processor.pad
    hashed: list[int] = []

    def counted(examples: Sequence[Example]) -> bytes:
        hashed.append(len(examples))
        return keys.rows_digest(examples)

    monkeypatch.setattr(keeping, "rows_digest", counted)
    for said in ("kept in", "read from"):
        hashed.clear()
        assert said in plan_trunk(network, plan, splits, "disk", pad, Shelf(tmp_path, True)).why
        assert hashed == [len(rows) for rows in splits.values()]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-WIDTH * 4 - 2] ^= 1
    path.write_bytes(data)


def _other_values(path: Path) -> None:
    """Whole, of the right shape, and of something else."""
    import torch

    entry = read(path)
    spoilt = torch.zeros_like(entry.values)
    with writing(path, tuple(spoilt.shape), spoilt.dtype) as put:
        put(0, spoilt)


def _one_wrong_row(path: Path) -> None:
    entry = read(path)
    spoilt = entry.values.clone()
    spoilt[0] += 0.01 * spoilt[0].abs().max()
    with writing(path, tuple(spoilt.shape), spoilt.dtype) as put:
        put(0, spoilt)


def _fewer_rows(path: Path) -> None:
    entry = read(path)
    with writing(path, tuple(entry.values[1:].shape), entry.values.dtype) as put:
        put(0, entry.values[1:])


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (_cut_off, "is not as long as it was"),
    "a bit": (_flipped, "is not what was written"),
    "empty": (lambda path: path.write_bytes(b""), "is no such file"),
    "text": (lambda path: path.write_text("not a tensor at all, but quite long"), "is cut off"),
    "no header": (lambda path: path.write_bytes(b"\2\0\0\0\0\0\0\0{}"), "is no such file"),
    "other values": (_other_values, "is not what this network gives of the train rows"),
    "one wrong row": (_one_wrong_row, "is not what this network gives of the train rows"),
    "fewer rows": (_fewer_rows, "another number of"),
}


@pytest.mark.parametrize("method", ["head", "layers"])
@pytest.mark.parametrize("spoil", list(SPOILT))
def test_what_is_damaged_or_wrong_is_computed_anew(
    spoil: str, method: str, model_folder: Folder, tmp_path: Path
) -> None:
    import torch

    asked: Method = Head() if method == "head" else Layers(layers=1)
    first = _attached(model_folder("bert"), asked)
    examples = _examples(first[0])
    right = _values(_planned(first, examples, tmp_path)).clone()
    (path,) = _files(tmp_path)
    alter, said = SPOILT[spoil]
    alter(path)
    found = _planned(_attached(model_folder("bert"), asked), examples, tmp_path)
    assert said in found.why and "computed anew" in found.why and "kept in" in found.why
    assert torch.equal(_values(found), right)
    assert _hits(_planned(_attached(model_folder("bert"), asked), examples, tmp_path)), "and kept anew"


def test_writing_into_what_was_read_leaves_the_file_as_it_is(model_folder: Folder, tmp_path: Path) -> None:
    made = _attached(model_folder("bert"), Head())
    examples = _examples(made[0])
    _planned(made, examples, tmp_path)
    (path,) = _files(tmp_path)
    before = path.read_bytes()
    _values(_planned(made, examples, tmp_path)).zero_()
    assert path.read_bytes() == before


WRITER = """
import os, sys, time
from pathlib import Path
import torch
from tunesmith.training.shelf import writing
path, mode = Path(sys.argv[1]), sys.argv[2]
values = torch.arange(300_000, dtype=torch.float32).view(1000, 300)
with writing(path, (1000, 300), torch.float32) as put:
    put(0, values[:500])
    print("half", flush=True)
    if mode == "wait":
        time.sleep(60)
    put(500, values[500:])
print("done", flush=True)
"""


def _writer(path: Path, mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), mode], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def test_killed_while_writing_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / f"key{shelf.SUFFIX}"
    process = _writer(path, "wait")
    Shelf(tmp_path).tidy([])
    assert len(_files(tmp_path)) == 1, "a writer that lives is left alone"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists() and not Shelf(tmp_path).used
    assert [file.name.startswith(PARTIAL) for file in _files(tmp_path)] == [True]
    Shelf(tmp_path).tidy([])
    assert _files(tmp_path) == []


def test_two_writers_at_once(tmp_path: Path) -> None:
    import torch

    path = tmp_path / f"key{shelf.SUFFIX}"
    processes = [_writer(path, "go") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert _files(tmp_path) == [path]
    assert torch.equal(read(path).values, torch.arange(300_000, dtype=torch.float32).view(1000, 300))


def test_a_partial_file_of_another_machine_goes_after_a_day(tmp_path: Path) -> None:
    old, new = (tmp_path / f"{PARTIAL}elsewhere-{number}-0-key" for number in (1, 2))
    for path, age in ((old, 90_000), (new, 1_000)):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    Shelf(tmp_path).tidy([])
    assert _files(tmp_path) == [new]


def test_what_was_not_used_longest_goes_first(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _attached(model_folder("bert"), Head())
    parts = [_examples(made[0], ROWS, seed) for seed in range(4)]
    for age, examples in enumerate(parts[:3]):
        before = set(_files(tmp_path))
        _planned(made, examples, tmp_path)
        (path,) = set(_files(tmp_path)) - before
        os.utime(path, (time.time() - 5_000 + 100 * age,) * 2)
    oldest_first = sorted(_files(tmp_path), key=lambda path: path.stat().st_mtime)
    assert _hits(_planned(made, parts[0], tmp_path)), "used again, so that the second is now the oldest"
    monkeypatch.setattr(shelf, "KEPT_BYTES", 3 * oldest_first[0].stat().st_size + 10)
    _planned(made, parts[3], tmp_path)
    left = _files(tmp_path)
    assert len(left) == 3 and oldest_first[0] in left and oldest_first[1] not in left and oldest_first[2] in left


@pytest.mark.parametrize("trouble", ["a file in the way", "no room", "full while writing", "too much"])
def test_where_nothing_can_be_written_it_goes_on_in_memory(
    trouble: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    made = _attached(model_folder("bert"), Layers(layers=1))
    examples, folder = _examples(made[0]), tmp_path / "frozen"
    right = _values(plan_trunk(*made, {"train": examples}, "memory", made[0].processor.pad))
    if trouble == "a file in the way":
        folder.write_text("a file")
    elif trouble == "no room":
        monkeypatch.setattr(shelf, "disk_free", lambda path: 100)
    elif trouble == "too much":
        monkeypatch.setattr(shelf, "KEPT_BYTES", 100)
    else:
        monkeypatch.setattr(os, "replace", _full)
    found = _planned(made, examples, folder)
    assert "not kept on disk: " in found.why and str(folder) in found.why
    assert torch.equal(_values(found), right)
    assert not folder.is_dir() or _files(folder) == []


def _full(*args: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("case", list(METHOD))
def test_what_does_not_fit_into_memory_goes_through_the_disk(
    case: str, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    method, family, kind, expected = METHOD[case]
    network, plan = _attached(model_folder(family), method, kind)
    splits, pad = {"train": _examples(network), "validation": _examples(network, 6, 2)}, network.processor.pad
    right = _values(plan_trunk(network, plan, splits, "memory", pad))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    for said in ("MB kept in", "MB read from"):
        found = plan_trunk(network, plan, splits, "auto", pad, Shelf(tmp_path))
        assert isinstance(found, expected) and said in found.why and "too much for the memory" in found.why
        assert torch.equal(_values(found), right)
    refused = plan_trunk(network, plan, splits, "auto", pad)
    assert isinstance(refused, Live) and "do not fit" in refused.why
    monkeypatch.setattr(os, "replace", _full)
    shutil.rmtree(tmp_path)
    refused = plan_trunk(network, plan, splits, "auto", pad, Shelf(tmp_path))
    assert isinstance(refused, Live) and "cannot be written" in refused.why
    assert _files(tmp_path) == []


def test_auto_keeps_on_disk_what_took_long(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, plan = _attached(model_folder("bert"), Layers(layers=1))
    examples, pad = {"train": _examples(network, 200)}, network.processor.pad
    few = {"train": _examples(network, 150)}
    for rate, rows_given, expected in ((1.0, examples, 0), (1e15, few, 0), (1e15, examples, 1)):
        monkeypatch.setattr("tunesmith.training.keeping.RATE", rate)
        plan_trunk(network, plan, rows_given, "auto", pad, Shelf(tmp_path / "frozen"))
        found = _files(tmp_path / "frozen") if (tmp_path / "frozen").exists() else []
        assert len(found) == expected, (rate, found)


def _numbers(recipe: Any, folder: Path) -> tuple[list[Any], dict[str, Tensor], str]:
    made = bench(recipe, folder)
    return facts(train(made.run)), made.tensors(), made.trunk.why


@pytest.mark.parametrize("method", ["head", "layers", "unfreeze", "full", "lora"])
def test_runs_with_and_without_the_disk_are_the_same(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    found = []
    for place, cache in enumerate(("memory", "disk", "disk")):
        settings = {"training.cache": cache, "training.epochs": 4, "evaluation.baselines": True}
        found.append(
            _numbers(recipe_for(model_folder("bert"), table_file, METHODS[method], settings), tmp_path / f"{place}")
        )
    for other in found[1:]:
        assert other[0] == found[0][0] and differences(other[1], found[0][1]) == []
    assert _files(tmp_path / "cache" / "frozen")


@pytest.mark.parametrize("method", ["head", "layers", "unfreeze"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_stopped_run_ends_the_same(
    lost: bool, method: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lost`: what was kept on disk is gone when the run is taken up."""
    from shortruns import same_model
    from tunesmith.pipeline import resume, start
    from tunesmith.training.events import Stopped

    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    whole = {"training.cache": "memory", "training.epochs": 6}
    kept = {**whole, "training.cache": "disk"}
    recipes = [recipe_for(model_folder("bert"), table_file, METHODS[method], each) for each in (whole, kept)]
    list(start(recipes[0], tmp_path / "whole").events())
    asked = iter([False] * 5 + [True] * 100)
    events = list(start(recipes[1], tmp_path / "cut", stop=asked.__next__).events())
    assert isinstance(events[-1], Stopped)
    if lost:
        shutil.rmtree(tmp_path / "cache")
    list(resume(tmp_path / "cut").events())
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")


def test_a_half_trained_network_finds_nothing_of_the_base(model_folder: Folder, tmp_path: Path) -> None:
    import torch

    made = _attached(model_folder("bert"), Head())
    examples = _examples(made[0])
    _planned(made, examples, tmp_path)
    network = _attached(model_folder("bert"), Head())[0]
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(1.0 + 1e-7)  # below what the proof on eight rows could see
    assert not _hits(_planned((network, made[1]), examples, tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["lora", "pissa", "bottleneck", "ia3"])
def test_an_adapter_shares_with_the_base_as_long_as_it_adds_nothing(
    method: str, dtype: str, model_folder: Folder, tmp_path: Path
) -> None:
    import torch

    from tunesmith.catalog import build
    from tunesmith.methods._beside import Beside
    from tunesmith.methods._bottleneck_layer import BottleneckLinear

    folder, here = model_folder("sentence"), Shelf(tmp_path, True)
    base, _ = _attached(folder, Head())
    base.to(getattr(torch, dtype))
    splits, pad = {"train": _examples(base)}, base.processor.pad
    kept_features(base, splits, pad, here)
    asked = METHODS.get(method, method)
    network, _ = _attached(folder, build("methods", asked))
    network.to(getattr(torch, dtype))
    live = kept_features(network, splits, pad, Shelf())
    found = kept_features(network, splits, pad, here)
    assert ("read from" in found.said) == (method != "pissa" and dtype == "float32"), found.said
    assert torch.equal(found.values["train"], live.values["train"])
    adapter = next(part for part in network.modules() if isinstance(part, Beside | BottleneckLinear))
    with torch.no_grad():
        change = adapter.factor if method == "ia3" else adapter.up.weight if method == "bottleneck" else adapter.up
        change.view(-1)[0] += 0.02
    said = kept_features(network, splits, pad, here).said
    assert "kept in" in said and "read from" not in said and "thrown away" not in said


def test_a_scale_that_is_no_tensor_is_in_the_key(model_folder: Folder, tmp_path: Path) -> None:
    """An adapter that goes on from an earlier training: the same maps, and another alpha."""
    import torch

    from tunesmith.catalog import build
    from tunesmith.methods._lora_layer import LoraLinear

    said = []
    for scale in (2.0, 2.0, 2.0001):
        network, _ = _attached(model_folder("sentence"), build("methods", METHODS["lora"]))
        for part in network.modules():
            if isinstance(part, LoraLinear):
                torch.nn.init.constant_(part.up, 0.01)
                part.scale = scale
        pad = network.processor.pad
        said.append(
            "read from" in kept_features(network, {"train": _examples(network)}, pad, Shelf(tmp_path, True)).said
        )
    assert said == [False, True, False]


def test_pictures_by_their_pixels(model_folder: Folder, tmp_path: Path) -> None:
    import torch

    from tunesmith.models.network import image_network

    draw = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (3, 32, 32), generator=draw, dtype=torch.uint8) for _ in range(9)]
    for method in (Head(), Layers(layers=1)):
        network, plan = _attached(model_folder("vit"), method, image_network)
        examples = [Example(row, {"pixel_values": value}, 0) for row, value in enumerate(pictures)]
        assert [_hits(_planned((network, plan), examples, tmp_path)) for _ in range(2)] == [False, True]
        other = pictures[4].clone()
        other[2, 31, 31] ^= 1
        changed = [*examples[:4], Example(4, {"pixel_values": other}, 0), *examples[5:]]
        assert not _hits(_planned((network, plan), changed, tmp_path))


def test_rows_of_two_texts_read_apart(model_folder: Folder, tmp_path: Path) -> None:
    import torch

    backbone = load_backbone(resolve(str(model_folder("sentence"))))
    network = sequence_network(backbone, ("a", "b"), "single_label_classification", True, 0)
    one, two = _examples(network, 12, 1), _examples(network, 12, 2)
    pairs = [replace(first, second=second.inputs) for first, second in zip(one, two, strict=True)]
    turned = [replace(second, second=first.inputs) for first, second in zip(one, two, strict=True)]
    for method in (Head(), Layers(layers=1)):
        made = (network, method.attach(network, Rates(1e-3, 1e-3, ""), 0))
        first, again = (_planned(made, pairs, tmp_path) for _ in range(2))
        assert _hits(again) and torch.equal(_values(first), _values(again))
        assert not _hits(_planned(made, turned, tmp_path))


def test_nothing_is_read_or_written_unless_asked(model_folder: Folder, tmp_path: Path) -> None:
    network, _ = _attached(model_folder("bert"), Head())
    reading = trunk._features_reading(network, network.processor.pad)
    kept = keep(Shelf(), reading, {"train": _examples(network)})
    assert kept.said == "" and list(kept.values) == ["train"]
    assert shelf.shelf_of("memory").folder is None and shelf.shelf_of("off").folder is None
    assert shelf.shelf_of("disk").always and not shelf.shelf_of("auto").always
