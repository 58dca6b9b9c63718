"""What is said of the levers of speed, and the settings that let them go."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shortruns import HINTS, METHODS, Bench, bench, recipe_for
from tunesmith import pipeline
from tunesmith.data.order import LengthOrder
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.profiling import HEADINGS, levers_of, padded_tokens, profiled
from tunesmith.training.events import Finished, Note
from tunesmith.training.loop import train

Folder = Callable[[str], Path]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Of few words, so that most rows of a table of embeddings are in no use."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        rows = [(n, sorted(HINTS)[n % 3]) for n in range(90)]
        said = (" ".join(HINTS[label][(n + k) % 3] for k in range(3 + 5 * n % 14)) for n, label in rows)
        csv.writer(out).writerows(
            [("text", "label"), *((f"{text} {n}", label) for text, (n, label) in zip(said, rows, strict=True))]
        )
    return path


def short(folder: Path, table: Path, method: str = "full", **settings: object) -> Bench:
    given = {f"training.{key}": value for key, value in settings.items()}
    return bench(recipe_for(folder, table, METHODS[method], given), table.parent / "run")


def note_of(found: Bench) -> Note:
    load = lambda: load_backbone(resolve(found.recipe.model))  # noqa: E731
    (note,) = profiled(found.recipe, found.prepared, found.encoded, load, found.built, found.run)
    return note


def test_the_levers_are_those_of_the_run(model_folder: Folder, table: Path) -> None:
    found = short(model_folder("bert"), table, precision="bfloat16")
    assert levers_of(found.built, found.run) == {
        "precision": ("bfloat16", "float32"), "batches": ("similar", "random"), "embedding_rows": ("used", "all"),
    }  # fmt: skip
    kept = short(model_folder("bert"), table, "layers")
    assert levers_of(kept.built, kept.run) == {"batches": ("similar", "random"), "cache": ("HiddenCache", "off")}
    given_up = short(model_folder("bert"), table, batches="random", embedding_rows="all")
    assert levers_of(given_up.built, given_up.run) == {}


def test_every_lever_has_a_line_and_nothing_of_the_run_changes(model_folder: Folder, table: Path) -> None:
    found = short(model_folder("bert"), table, "layers", precision="bfloat16", dropout=0.0)
    for _ in train(found.run):
        pass
    before, state = found.tensors(), torch.get_rng_state()
    note = note_of(found)
    assert note.topic == "profile"
    heads, *rows = note.table
    assert heads == HEADINGS and [row[0] for row in rows] == [
        "training.precision",
        "training.batches",
        "training.cache",
    ]
    for row in rows:
        here, then, gain, clock = float(row[2]), float(row[4]), float(row[5][:-1]), float(row[6][:-1])
        assert min(here, then, gain, clock) >= 0 and gain * clock > 0
    assert all(torch.equal(value, before[name]) for name, value in found.tensors().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_lever_that_cannot_be_let_go_is_named(
    model_folder: Folder, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import profiling
    from tunesmith.errors import TrainingError
    from tunesmith.phases import Time

    def refuses(recipe, *_):
        if recipe.training.cache == "off":
            raise TrainingError("too little memory")
        return Time(2.0, 1.0 if recipe.training.batches == "similar" else 3.0)

    monkeypatch.setattr(profiling, "pace", refuses)
    note = note_of(short(model_folder("bert"), table, "layers"))
    assert note.table[1:] == (("training.batches", "similar", "1.0", "random", "3.0", "3.00x", "1.00x"),)
    assert note.lines[-1] == "training.cache = off could not be measured: too little memory"


def test_a_run_tells_it_before_its_end_where_it_is_asked_to(model_folder: Folder, table: Path) -> None:
    topics = []
    for asked in (False, True):
        out = table.parent / f"asked-{asked}"
        recipe = recipe_for(model_folder("bert"), table, "full", {"evaluation.quick": True, "training.epochs": 1})
        events = list(pipeline.start(recipe, out, profile=asked).events())
        assert isinstance(events[-1], Finished)
        topics.append([event.topic for event in events if isinstance(event, Note)])
    assert "profile" not in topics[0] and topics[1] == [*topics[0], "profile"]


def test_padded_tokens_are_rows_times_the_longest(model_folder: Folder, table: Path) -> None:
    found = short(model_folder("bert"), table)
    for step in range(found.run.source.order.first(1)):
        parts = found.run.source.batch(step)
        assert padded_tokens(found.run, step) >= sum(batch.inputs["input_ids"].numel() for batch in parts)
    assert padded_tokens(found.run, 0) == len(found.run.source.order.batch(0)) * max(
        batch.inputs["input_ids"].shape[1] for batch in found.run.source.batch(0)
    )


def test_random_batches_hold_every_row_once_in_another_order_each_epoch() -> None:
    draw = torch.Generator().manual_seed(0)
    lengths = tuple(torch.randint(3, 40, (101,), generator=draw).tolist())
    order, similar = (LengthOrder(lengths, 16, 3, flag) for flag in (False, True))
    epochs = []
    for epoch in range(2):
        rows = [
            row for step in range(order.steps_per_epoch) for row in order.batch(epoch * order.steps_per_epoch + step)
        ]
        assert sorted(rows) == list(range(101))
        epochs.append(rows)
    assert epochs[0] != epochs[1]

    def padded(of: LengthOrder) -> int:
        batches = [of.batch(step) for step in range(of.steps_per_epoch)]
        return sum(len(rows) * max(lengths[row] for row in rows) for rows in batches)

    assert padded(similar) < 1.2 * sum(lengths) < padded(order)


def test_the_whole_table_of_embeddings_is_moved_as_its_rows_in_use_are(model_folder: Folder, table: Path) -> None:
    trained = {}
    for rows in ("used", "all"):
        found = short(model_folder("bert"), table, embedding_rows=rows)
        for _ in train(found.run):
            pass
        name = next(name for name in found.run.masters.tensors if name.endswith("word_embeddings.weight"))
        kept = found.built.kept_rows.get(name, slice(None))
        trained[rows] = (kept, found.run.masters.tensors[name].detach(), found.tensors())
    kept, some, tensors = trained["used"]
    _, whole, others = trained["all"]
    assert len(some) < len(whole)
    torch.testing.assert_close(some, whole[kept])
    untouched = torch.ones(len(whole), dtype=torch.bool)
    untouched[kept] = False
    start = dict(short(model_folder("bert"), table, embedding_rows="all").built.network.named_parameters())
    name = next(name for name in start if name.endswith("word_embeddings.weight"))
    torch.testing.assert_close(whole[untouched], start[name].detach()[untouched], rtol=0, atol=0)
    for key in tensors.keys() & others.keys():
        if "word_embeddings" not in key:
            torch.testing.assert_close(tensors[key], others[key])


def test_random_batches_are_said_to_be_of_no_use_where_classes_draw_them(model_folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *((f"word {n} card", f"class {n % 3}") for n in range(60))])
    recipe = recipe_for(model_folder("bert"), path, "full", {"task": "few_shot", "training.batches": "random"})
    from tunesmith.unused import unused_settings

    found = bench(recipe, tmp_path / "run")
    assert [line for line in unused_settings(recipe, found.prepared, found.built) if "training.batches" in line]
