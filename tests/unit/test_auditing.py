"""Each examination on rows with one thing wrong, which is found, and on clean rows, on which nothing is raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.auditing import (
    balance,
    drift,
    examinations,
    fields,
    giveaway,
    label_errors,
    languages,
    lengths,
    near_duplicates,
)
from tunesmith.auditing.base import Examined, Material
from tunesmith.auditing.inspecting import inspect
from tunesmith.data.audit import clean
from tunesmith.data.columns import Columns
from tunesmith.data.findings import Finding
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import LabelSet
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.targets.one_class import OneClass
from tunesmith.recipe import Recipe

CLASSES = ("alpha", "beta", "gamma", "delta")
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]


def texts_of(draw: np.random.Generator, topic: np.ndarray, every: np.ndarray, count: int) -> list[str]:
    """Texts of 8 to 15 words, about half of them of a topic."""
    found = []
    for _ in range(count):
        size = int(draw.integers(8, 16))
        words = np.where(draw.random(size) < 0.5, draw.choice(topic, size), draw.choice(every, size))
        found.append(" ".join(words))
    return found


def rows(seed: int, count: int, path: str = "train.csv", draw_seed: int | None = None) -> dict[str, list[Any]]:
    """Rows of four classes, each with thirty words that it uses more than others do; the classes are those of `seed`."""
    language = np.random.default_rng(seed)
    every = np.array([a + b + c for a, b, c in language.choice(SYLLABLES, (400, 3))])
    draw = np.random.default_rng((seed, 0 if draw_seed is None else draw_seed + 1))
    texts: list[str] = []
    labels: list[str] = []
    for place, name in enumerate(CLASSES):
        share = count // len(CLASSES)
        texts += texts_of(draw, every[30 * place : 30 * place + 30], every, share)
        labels += [name] * share
    order = draw.permutation(len(texts))
    return {"text": [texts[row] for row in order], "label": [labels[row] for row in order]}


def material(
    tables: dict[str, dict[str, list[Any]]], target: Target | None = None, texts: tuple[str, ...] = ("text",)
) -> Material:
    """As `clean` leaves them."""
    target = OneClass() if target is None else target
    columns = Columns(texts[0], "label", pair=texts[1] if len(texts) > 1 else None)
    read = {
        name: Table(f"{name}.csv", values, tuple(range(2, len(values["label"]) + 2))) for name, values in tables.items()
    }
    cleaned, _ = clean(read, columns, target)
    return Material(target, columns, cleaned, frozenset(cleaned) - {"train"})


def clean_tables(seed: int) -> dict[str, dict[str, list[Any]]]:
    return {"train": rows(seed, 800), "test": rows(seed, 300, draw_seed=1)}


def one(examined: Examined, kind: str) -> Finding:
    assert examined.done
    (found,) = [finding for finding in examined.findings if finding.kind == kind]
    assert found.advice
    assert found.message
    return found


def test_nothing_is_raised_on_ten_clean_tables() -> None:
    alarms = []
    for seed in range(10):
        for part in examinations.examined(material(clean_tables(seed))):
            alarms += [(seed, finding.kind, finding.message) for finding in part.findings]
            assert part.done or part.name == "languages", part  # made-up words are of none
            assert part.said
    assert len(alarms) == 0, alarms


def test_nothing_is_raised_on_ten_clean_tables_with_other_columns() -> None:
    """Columns that say something about the label, as real ones do, and two texts a row."""
    alarms = []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        tables = clean_tables(seed)
        for values in tables.values():
            number = [CLASSES.index(label) for label in values["label"]]
            values["second"] = rows(seed + 100, len(number), draw_seed=int(draw.integers(99)))["text"]
            values["shop"] = [one if draw.random() < 0.5 else int(draw.integers(4)) for one in number]
            values["price"] = [str(round(one + draw.normal() * 2, 2)) for one in number]
            values["user"] = [f"user {row}" for row in range(len(number))]
        given = material(tables, texts=("text", "second"))
        for part in (*examinations.CHEAP, languages):
            alarms += [(seed, finding.kind, finding.message) for finding in part.examine(given).findings]
    assert len(alarms) == 0, alarms


def test_near_duplicates_within_and_across_splits_are_found_with_what_they_are_near() -> None:
    tables = clean_tables(0)
    train, test = tables["train"], tables["test"]
    for copy, source in ((700, 10), (701, 11), (702, 12)):
        train["text"][copy] = train["text"][source] + "!"
        train["label"][copy] = train["label"][source]
    train["label"][702] = next(name for name in CLASSES if name != train["label"][12])
    for copy, source in ((5, 20), (6, 21)):
        test["text"][copy] = train["text"][source].capitalize() + " x"
        test["label"][copy] = train["label"][source]
    found = near_duplicates.examine(material(tables))
    within, across, torn = (one(found, kind) for kind in ("near_duplicate", "near_leak", "near_conflict"))
    assert (within.count, across.count, torn.count) == (3, 2, 1)
    assert set(within.places) == {"train.csv:702", "train.csv:703", "train.csv:704"}
    assert set(across.places) == {"test.csv:7", "test.csv:8"}
    assert torn.places == ("train.csv:704",)
    assert within.message.startswith("3 rows (train 3): ")
    details = {example.place: example.detail for example in (*within.examples, *across.examples)}
    assert details["train.csv:702"].endswith("the same as train.csv:12")
    assert details["test.csv:7"].endswith("the same as train.csv:22")
    assert len(found.marks) == 5
    near, crowded = near_duplicates.near_in_train(material(tables), "test")
    assert not crowded
    assert [row for row, is_near in enumerate(near) if is_near] == [5, 6]


def test_where_not_all_rows_could_be_compared_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.data import near

    tables = clean_tables(0)
    for copy in range(40):
        tables["train"]["text"][copy] = f"{tables['train']['text'][700]} {SYLLABLES[copy]}"
    whole = near_duplicates.examine(material(tables))
    assert near.CROWDED not in whole.said and "near_crowded" not in [item.kind for item in whole.findings]
    assert not near_duplicates.near_in_train(material(tables), "test")[1]
    monkeypatch.setattr(near, "MOST_IN_BUCKET", 8)
    found = near_duplicates.examine(material(tables))
    assert near.CROWDED in found.said and near.CROWDED in one(found, "near_crowded").message
    assert near_duplicates.near_in_train(material(tables), "test")[1]


def test_exact_copies_are_left_to_cleaning() -> None:
    tables = clean_tables(0)
    tables["train"]["text"][700] = tables["train"]["text"][10].upper()
    assert near_duplicates.examine(material(tables)).findings == ()


@pytest.mark.parametrize("by_features", [False, True])
def test_flipped_labels_are_found_with_the_right_ones(by_features: bool) -> None:
    tables = {"train": rows(3, 800)}
    right = list(tables["train"]["label"])
    draw = np.random.default_rng(0)
    flipped = set(draw.choice(800, 40, replace=False).tolist())
    for row in flipped:
        tables["train"]["label"][row] = CLASSES[(CLASSES.index(right[row]) + int(draw.integers(1, 4))) % 4]
    given = material(tables)
    if by_features:
        centers = draw.normal(size=(4, 16))
        features = centers[[CLASSES.index(name) for name in right]] + 0.7 * draw.normal(size=(800, 16))
        given = Material(given.target, given.columns, given.tables, given.given, features={"train": features})
    found = label_errors.examine(given)
    finding = one(found, "label_error")
    rows_found = {row.row for row in found.suggested}
    assert len(rows_found) == finding.count
    assert len(rows_found & flipped) >= 0.6 * len(flipped)
    assert len(rows_found & flipped) >= 0.8 * len(rows_found)
    hits = [row.row for row in found.suggested if row.row in flipped]
    assert sum(found.suggested[label_errors.Row("train", row)] == right[row] for row in hits) >= 0.9 * len(hits)
    assert ", rather " in finding.examples[0].detail
    assert ("frozen features" if by_features else "TF-IDF") in found.said


def test_rare_classes_are_found_and_uneven_chance_is_not() -> None:
    tables = {"train": rows(0, 800)}
    kept = [row for row, label in enumerate(tables["train"]["label"]) if label != "delta" or row % 16 == 0]
    tables["train"] = {name: [values[row] for row in kept] for name, values in tables["train"].items()}
    found = balance.examine(material(tables))
    finding = one(found, "imbalance")
    assert finding.count == tables["train"]["label"].count("delta")
    assert '"delta"' in finding.message
    draw = np.random.default_rng(0)
    many = {"text": [f"text {row}" for row in range(150)], "label": [f"c{draw.integers(50)}" for _ in range(150)]}
    counts = [many["label"].count(label) for label in set(many["label"])]
    assert max(counts) >= 6 * min(counts)
    assert balance.examine(material({"train": many})).findings == ()


def test_labels_of_a_set_are_counted_each_and_numbers_are_not() -> None:
    draw = np.random.default_rng(0)
    labels = [["a"] if row % 3 else ["a", "b"] for row in range(200)]
    labels[7] = ["a", "c"]
    tables = {"train": {"text": [f"t{draw.integers(10**9)}" for _ in range(200)], "label": labels}}
    finding = one(balance.examine(material(tables, LabelSet("|"))), "imbalance")
    assert finding.count == 1
    assert finding.places == ("train.csv:9",)
    numbers = {"train": {"text": tables["train"]["text"], "label": [row / 7 for row in range(200)]}}
    for part in (balance, label_errors, giveaway):
        found = part.examine(material(numbers, Numbers(("label",))))
        assert not found.done
        assert "does not apply" in found.said


def test_classes_that_a_given_test_table_lacks_are_found() -> None:
    tables = clean_tables(0)
    test = tables["test"]
    kept = [row for row, label in enumerate(test["label"]) if label != "beta"]
    tables["test"] = {name: [values[row] for row in kept] for name, values in test.items()}
    assert '"beta"' in one(balance.examine(material(tables)), "untested").message


def test_texts_without_words_are_found() -> None:
    tables = {"train": rows(0, 400)}
    tables["train"]["text"][5] = "?!"
    tables["train"]["text"][9] = "... -- ..."
    finding = one(lengths.examine(material(tables)), "wordless")
    assert finding.places == ("train.csv:7", "train.csv:11")


def test_empty_and_constant_columns_are_found() -> None:
    tables = {"train": rows(0, 400)}
    tables["train"] |= {"note": ["", None, "  ", ""] * 100, "source": ["web"] * 400, "row": list(range(400))}
    found = fields.examine(material(tables))
    assert one(found, "empty_column").examples[0].place == "note"
    constant = one(found, "constant_column")
    assert (constant.count, constant.examples[0].place, constant.examples[0].text) == (1, "source", "web")
    assert "do not read" not in constant.advice
    tables["train"]["second"] = ["the same"] * 400
    read = one(fields.examine(material(tables, texts=("text", "second"))), "constant_column")
    assert '"second" is read by the model' in read.advice


GIVEAWAYS: dict[str, Callable[[int, str], Any]] = {
    "code": lambda _, label: {"alpha": 11, "beta": 12, "gamma": 13, "delta": 14}[label],
    "score": lambda row, label: CLASSES.index(label) + (row % 97) / 100,
    "missing": lambda row, label: None if label == "alpha" else f"{label[0]}",
    "address": lambda row, label: f"https://news.example/{label}/item-{row}.html",
}


@pytest.mark.parametrize("name", GIVEAWAYS)
def test_a_column_that_tells_the_label_is_found(name: str) -> None:
    tables = {"train": rows(0, 400)}
    labels = tables["train"]["label"]
    tables["train"][name] = [GIVEAWAYS[name](row, label) for row, label in enumerate(labels)]
    tables["train"]["other"] = [row % 5 for row in range(400)]
    finding = one(giveaway.examine(material(tables)), "giveaway")
    assert finding.count == 1
    assert f'"{name}" tells' in finding.message
    assert finding.examples[0].place == name


def of_two_classes(count: int) -> dict[str, list[Any]]:
    table = rows(0, 2 * count)
    kept = [row for row, label in enumerate(table["label"]) if label in CLASSES[:2]]
    return {name: [values[row] for row in kept] for name, values in table.items()}


def swapped(labels: list[str], share: float) -> list[str]:
    draw = np.random.default_rng(1)
    other = dict(zip(CLASSES[:2], CLASSES[1::-1], strict=True))
    return [other[label] if draw.random() < share else label for label in labels]


@pytest.mark.parametrize("flipped", [0.05, 0.1])
@pytest.mark.parametrize("name", list(GIVEAWAYS))
def test_a_column_that_gives_the_label_away_is_found_behind_flipped_labels(name: str, flipped: float) -> None:
    train = of_two_classes(600)
    train[name] = [GIVEAWAYS[name](row, label) for row, label in enumerate(train["label"])]
    train["label"] = swapped(train["label"], flipped)
    finding = one(giveaway.examine(material({"train": train})), "giveaway")
    assert finding.count == 1
    assert f'"{name}" tells' in finding.message
    assert flipped < 0.1 or "could be wrong labels" in finding.message


def test_a_column_that_is_itself_wrong_in_some_rows_is_not_found() -> None:
    train = of_two_classes(600)
    train["guess"] = swapped(train["label"], 0.12)  # the texts tell that it is the column that is wrong
    train["sure"] = [  # right in 9 of 10 rows, and wrong at one of its values
        f"{label[0]}{row % 5}" if row % 5 else "?" for row, label in enumerate(train["label"])
    ]
    assert not [item for item in giveaway.examine(material({"train": train})).findings if item.kind == "giveaway"]


def test_texts_that_hold_their_label_are_found() -> None:
    tables = {"train": rows(0, 400)}
    train = tables["train"]
    train["text"] = [
        f"{text} ({label})" if row % 10 < 8 else text
        for row, (text, label) in enumerate(zip(*train.values(), strict=True))
    ]
    finding = one(giveaway.examine(material(tables)), "label_in_text")
    assert finding.count == pytest.approx(320, abs=8)


def test_one_word_that_tells_the_label_is_found() -> None:
    tables = {"train": rows(0, 400)}
    train = tables["train"]
    marks = dict(zip(CLASSES, ("qx1", "qx2", "qx3", ""), strict=True))
    train["text"] = [f"{marks[label]} {text}" for text, label in zip(*train.values(), strict=True)]
    finding = one(giveaway.examine(material(tables)), "word_tells")
    assert '"qx1" = alpha' in finding.message
    assert '"qx2" = beta' in finding.message


def test_a_test_table_of_another_kind_is_found() -> None:
    tables = {"train": rows(0, 800), "test": rows(0, 300, draw_seed=1)}
    tables["test"]["text"] = [f"lorem {text}" if row % 2 else text for row, text in enumerate(tables["test"]["text"])]
    found = drift.examine(material(tables))
    finding = one(found, "drift")
    assert '"lorem"' in finding.message
    assert all("lorem" in example.text for example in finding.examples)
    drawn = material(tables)
    drawn = Material(drawn.target, drawn.columns, drawn.tables, frozenset())
    assert not drift.examine(drawn).done


def test_other_languages_are_found() -> None:
    pytest.importorskip("py3langid")
    english = "the quick delivery of this parcel number {} was a pleasant surprise for all of us here"
    german = "die schnelle Lieferung von Paket Nummer {} war für uns alle hier eine angenehme Überraschung"
    texts = [(german if row % 8 == 0 else english).format(row) for row in range(400)]
    tables = {"train": {"text": texts, "label": [CLASSES[row % 4] for row in range(400)]}}
    finding = one(languages.examine(material(tables)), "languages")
    assert finding.count == 50
    assert finding.examples[0].detail == "de"
    plain = {"train": {"text": [english.format(row) for row in range(400)], "label": tables["train"]["label"]}}
    assert languages.examine(material(plain)).findings == ()


def test_without_the_extra_languages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "installed", lambda: False)
    found = languages.examine(material({"train": rows(0, 100)}))
    assert not found.done
    assert 'pip install "tunesmith[languages]"' in found.said


@pytest.mark.parametrize("count", [4, 8, 12, 40])
def test_few_rows_are_examined_without_alarm(count: int) -> None:
    for part in examinations.examined(material({"train": rows(0, count), "test": rows(0, 4, draw_seed=1)})):
        assert part.findings == (), part
        assert part.said


def test_every_file_of_the_folder_that_examines_is_asked() -> None:
    folder = Path(examinations.__file__).parent
    examining = {
        path.stem for path in folder.glob("*.py") if "def examine(material: Material) -> Examined:" in path.read_text()
    }
    assert examining == {part.NAME for part in examinations.ALL}
    assert set(examinations.CHEAP) == set(examinations.ALL) - {languages, label_errors}


def test_what_is_found_is_a_function_of_the_rows_and_the_seed() -> None:
    tables = clean_tables(1)
    assert examinations.examined(material(tables)) == examinations.examined(material(tables))


def test_tokens_that_the_model_does_not_know_are_found_and_lengths_are_told(tmp_path: Path) -> None:
    from families import FAMILIES, WORDS

    words = [word for word in WORDS if word.isalpha()]
    known = [" ".join(words[(row + step) % len(words)] for step in range(6)) for row in range(60)]
    strange = [f"{text} жжж 語語 ξξξ" if row % 6 == 0 else text for row, text in enumerate(known)]
    model = str(FAMILIES["bert"](tmp_path))
    found = {}
    for name, texts in (("known", known), ("strange", strange)):
        path = tmp_path / f"{name}.csv"
        lines = [f"{text} {'good' if row % 2 else 'bad'},{row % 2}" for row, text in enumerate(texts)]
        path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
        asked = {"model": model, "data": {"path": str(path), "validation": 0, "test": 0}, "task": "classification"}
        seen = inspect(Recipe.parse(asked))
        (found[name],) = [part for part in seen.examined if part.name == "lengths"]
        assert seen.material.features is not None
        assert seen.material.features["train"].shape[0] == len(seen.material.tables["train"])
    assert found["known"].findings == ()
    assert "tokens a row: median" in found["known"].said
    finding = one(found["strange"], "unknown_tokens")
    assert finding.count == 10
    assert "unknown" in finding.examples[0].detail
