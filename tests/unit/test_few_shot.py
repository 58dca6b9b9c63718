"""Few texts a class: steps of two rows a class, names as rows, and what happens after the last step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import rows
from tunesmith import load
from tunesmith.data.columns import Columns
from tunesmith.data.order import PairedOrder
from tunesmith.data.table import table_of
from tunesmith.pipeline import start
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Labels
from tunesmith.tasks.few_shot import FewShot, spoken_name

Folder = Callable[[str], Path]


def test_every_step_holds_two_rows_of_a_class_and_every_class_comes_as_often() -> None:
    classes = (*(place % 6 for place in range(40)), 6)
    order = PairedOrder((5,) * 41, classes, 8, 56, seed=3)
    assert order.steps_per_epoch == 7
    epoch = [order.batch(step) for step in range(7)]
    for batch in epoch:
        counts = Counter(classes[row] for row in batch)
        assert len(batch) == 8 and set(counts.values()) <= {2, 4}
    assert Counter(classes[row] for batch in epoch for row in batch) == dict.fromkeys(range(7), 8)
    again = PairedOrder((5,) * 41, classes, 8, 56, seed=3)
    assert [again.batch(step) for step in range(7)] == epoch, "a function of seed and step alone"
    assert [order.batch(7 + step) for step in range(7)] != epoch
    assert order.batch(2)[::2] != order.batch(2)[1::2], (
        "a class with several rows is paired with another one of its own"
    )


@pytest.mark.parametrize("batch_size", [2, 5, 8, 9])
def test_each_row_of_a_step_has_another_one_of_its_class(batch_size: int) -> None:
    """With five rows a class a round ends between the two rows of a pair; an odd batch has no partner for its last row."""
    classes = tuple(row // 5 for row in range(35))
    order = PairedOrder((5,) * 35, classes, batch_size, 513, seed=0)
    epoch = [order.batch(step) for step in range(order.steps_per_epoch)]
    for batch in epoch:
        for one, two in zip(batch[::2], batch[1::2], strict=True):
            assert classes[one] == classes[two] and one != two
    assert sum(map(len, epoch)) == 514 and max(map(len, epoch)) <= batch_size


def test_the_budget_does_not_grow_with_the_pairs() -> None:
    task = FewShot()
    assert [task.epoch_rows(rows) for rows in (10, 154, 512, 4928)] == [512, 512, 512, 4928]


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("card_arrival", "card arrival"),
        ("Refund_not_showing_up", "Refund not showing up"),
        ("cardArrival", "card Arrival"),
        ("food/drink", "food drink"),
        ("LABEL_3", ""),
        ("class 12", ""),
        ("7", ""),
        ("B2", ""),
        ("退款", "退款"),
    ],
)
def test_names_are_read_where_they_are_words(name: str, spoken: str) -> None:
    assert spoken_name(name) == spoken


def test_names_are_rows_of_their_class_or_none_is() -> None:
    table = table_of({"text": ["a", "b", "c"], "label": ["lost_card", "top_up", "lost_card"], "more": [1, 2, 3]}, "t")
    columns, labels = Columns("text", "label"), Labels(("lost_card", "top_up"), (2, 1))
    found, said = FewShot().enriched(table, columns, labels)
    assert found.columns["text"][3:] == ["lost card", "top up"] and found.columns["label"][3:] == [
        "lost_card",
        "top_up",
    ]
    assert found.lines[3:] == (1, 2) and found.columns["more"][3:] == [None, None]
    assert "2 classes" in said
    assert FewShot(names=False).enriched(table, columns, labels) == (table, "")
    same, said = FewShot().enriched(table, columns, Labels(("lost_card", "0"), (2, 1)))
    assert same is table and "left out" in said


def _run(model: Path, out: Path, **settings: object) -> list[object]:
    from tunesmith.recipe import set_key

    texts = rows(12)
    data = {"text": [text for text, _ in texts] * 2, "label": [label for _, label in texts] * 2}
    data["text"] = [f"{text} {place}" for place, text in enumerate(data["text"])]
    plain: dict[str, object] = {"model": str(model), "data": {"path": "rows", "test": 0.3}, "task": "few_shot"}
    usual = {"training.epochs": 1, "training.micro_batch": 12, "evaluation.baselines": False, "training.rate": 1e-3}
    usual["training.precision"] = "float32"  # two runs are compared: the format must not be what was fast at the moment
    for key, value in {**usual, **settings}.items():
        set_key(plain, key, value)
    return list(start(Recipe.parse(plain), out, data).events())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_delivered_weights_are_halfway_between_the_base_and_the_trained(
    method: str, model_folder: Folder, tmp_path: Path
) -> None:
    import torch

    rate = {"method.name": method, "training.rate": 1e-3 if method == "full" else 0.05}
    events = _run(model_folder("sentence"), tmp_path / "half", **rate)
    _run(model_folder("sentence"), tmp_path / "all", **rate, **{"task.keep": 0.0})
    base = load_body(model_folder("sentence"))
    half, trained = (load(tmp_path / name).network.state_dict() for name in ("half", "all"))
    moved = 0
    for name, start_value in base.items():
        key = f"body.{name}"
        if key in trained and start_value.is_floating_point():
            assert torch.allclose(half[key], (start_value + trained[key]) / 2, atol=1e-6), name
            moved += not torch.equal(trained[key], start_value)
    assert moved >= 12, "the linear maps of both blocks at least"
    said = "\n".join(line for event in events if event.kind == "note" for line in event.lines)  # type: ignore[attr-defined]
    assert "averaged with the base's own, which count 0.5" in said and "head fitted again" in said
    assert "validation: 0 rows" in said and "3 classes as one more row each" in said


def load_body(folder: Path) -> dict:  # type: ignore[type-arg]
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder))).module.state_dict()


def test_the_head_is_the_best_one_for_the_delivered_features(model_folder: Folder, tmp_path: Path) -> None:
    """Its gradient of penalised loss over the training rows (and names) vanishes; that of the trained head does not."""
    import torch

    _run(model_folder("sentence"), tmp_path / "run")
    texts = rows(12)
    model = load(tmp_path / "run")
    network = model.network
    head = network.last
    from pyarrow import parquet

    tested = set(parquet.read_table(tmp_path / "run" / "predictions" / "test.parquet")["text"].to_pylist())
    given = [(f"{text} {place}", label) for place, (text, label) in enumerate(texts * 2)]
    train = [*(item for item in given if item[0] not in tested), *((name, name) for name in model.labels)]
    encoded = model.card.task.encode(
        [text for text, _ in train], [label for _, label in train], model.card.labels, network.processor, 64
    )
    from tunesmith.data.encode import collate

    batch = collate(encoded, network.processor.pad)
    with torch.no_grad():
        features = network.features(batch.inputs)
    length = features.norm(dim=1).mean()
    weight = head.weight.detach().clone().requires_grad_(True)
    logits = features @ weight.T + head.bias.detach()
    strength = FewShot.likely_strength
    loss = torch.nn.functional.cross_entropy(logits, batch.target, reduction="sum")
    (loss + (weight * length).square().sum() / (2 * strength)).backward()
    assert weight.grad is not None
    assert float(weight.grad.norm()) < 0.05 * float(features.norm() * 1.0)


def test_classes_of_few_rows_are_told_of_the_task_and_many_are_not() -> None:
    from tunesmith.preparing import prepare

    def told(count: int) -> str:
        texts = rows(count)
        data = {
            "text": [f"{text} {place}" for place, (text, _) in enumerate(texts)],
            "label": [one for _, one in texts],
        }
        recipe = Recipe.parse({"model": "m", "data": {"path": "rows"}})
        return "\n".join(line for note in prepare(recipe, data).notes for line in note.lines)

    assert "--task few_shot is made for that" in told(24)
    assert "few_shot" not in told(120)
