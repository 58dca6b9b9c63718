"""The rows of every job: read once, handed to all contenders alike, and written as files for Tunesmith."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
SPLITS = ("train", "validation", "test")
FASHION_TEST = 18  # of the 90 pictures of each class; the set has no split of its own
LETTERS_A_ROW = 200  # of plain text, which has no rows, where fewer rows are asked for


@dataclass(frozen=True)
class Rows:
    """Records of each split, in the order of the source."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Rows:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def splits(self) -> dict[str, list[Record]]:
        """The splits that hold rows."""
        found = {name: vars(self)[name] for name in SPLITS}
        return {name: records for name, records in found.items() if records}


def cut(rows: Rows, count: int) -> Rows:
    """At most `count` rows of each split, as many of every (first) label as of the others where rows have one; for trials."""
    return Rows(*(_cut(records, count) for records in (rows.train, rows.validation, rows.test)))


def _cut(records: Sequence[Record], count: int) -> list[Record]:
    if len(records) == 1 and "text" in records[0]:
        return [{**records[0], "text": records[0]["text"][: count * LETTERS_A_ROW]}]
    by_label: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        label = record.get("label", record.get("labels", "").split("|")[0])
        by_label.setdefault(label, []).append(place)
    turns = [by_label[label] for label in sorted(by_label)]
    longest = max(map(len, turns), default=0)
    drawn = [turn[level] for level in range(longest) for turn in turns if level < len(turn)]
    return [records[place] for place in sorted(drawn[:count])]


def _csv(path: Path) -> list[Record]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sst2(source: Path, seed: int) -> Rows:
    return Rows(*(_csv(source / "sst2_sentences" / f"{name}.csv") for name in ("train", "dev", "test")))


def goemotions(source: Path, seed: int) -> Rows:
    """`labels` is one text joined by "|"."""
    read = [_csv(source / "goemotions" / f"{name}.csv") for name in ("train", "dev", "test")]
    return Rows(*([{"text": row["text"], "labels": row["labels"]} for row in rows] for rows in read))


def pubmedqa(source: Path, seed: int) -> Rows:
    """The question, and all parts of the abstract one after another."""
    read = []
    for name in ("train", "test"):
        with (source / "pubmedqa" / f"{name}.jsonl").open(encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        read.append(
            [
                {"sentence1": row["question"], "sentence2": " ".join(row["contexts"]), "label": row["label"]}
                for row in records
            ]
        )
    return Rows(read[0], [], read[1])


def whole_text(row: Record) -> str:
    """What a reader of one text reads of a row: of two texts one after the other."""
    return row["text"] if "text" in row else f"{row['sentence1']} {row['sentence2']}"


def stsb(source: Path, seed: int) -> Rows:
    return Rows(*(_csv(source / "stsb" / f"{name}.csv") for name in ("train", "dev", "test")))


def banking77(source: Path, seed: int) -> Rows:
    read = [_csv(source / "banking77" / f"{name}.csv") for name in ("train", "test")]
    train, test = [[{"text": row["text"], "label": row["category"]} for row in rows] for rows in read]
    return Rows(train, [], test)


def few_of_banking77(count: int) -> Callable[[Path, int], Rows]:
    """`count` training rows a class, drawn by seed."""

    def load(source: Path, seed: int) -> Rows:
        whole = banking77(source, seed)
        draw = random.Random(seed)
        places: dict[str, list[int]] = {}
        for place, row in enumerate(whole.train):
            places.setdefault(row["label"], []).append(place)
        chosen = sorted(place for label in sorted(places) for place in draw.sample(places[label], count))
        return Rows([whole.train[place] for place in chosen], [], whole.test)

    return load


def wnut17(source: Path, seed: int) -> Rows:
    return Rows(*(_conll(source / "wnut17" / f"{name}.conll") for name in ("train", "dev", "test")))


def _conll(path: Path) -> list[Record]:
    found = []
    for sentence in path.read_text(encoding="utf-8").split("\n\n"):
        pairs = [line.split("\t") for line in sentence.split("\n") if line.strip()]
        if pairs:
            found.append({"tokens": [pair[0] for pair in pairs], "tags": [pair[-1].strip() for pair in pairs]})
    return found


def squad2(source: Path, seed: int) -> Rows:
    train, test = (_questions(source / "squad2_half_dev" / f"{name}.json") for name in ("train", "val"))
    return Rows(train, [], test)


def _questions(path: Path) -> list[Record]:
    found = []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for item in paragraph["qas"]:
                question = {name: item[name] for name in ("id", "question", "answers")}
                found.append({"title": article["title"], "context": paragraph["context"], **question})
    return found


def wikitext2(source: Path, seed: int) -> Rows:
    """The first half of valid.txt to train on, the second to measure on: train.txt is not among the files."""
    text = (source / "wikitext2" / "valid.txt").read_text(encoding="utf-8")
    middle = text.index("\n", len(text) // 2) + 1
    return Rows([{"text": text[:middle]}], [], [{"text": text[middle:]}])


def alpaca(source: Path, seed: int) -> Rows:
    """Every tenth row is held out to test on, of an order drawn by seed."""
    records = json.loads((source / "alpaca_en_demo" / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    order = random.Random(seed).sample(range(len(records)), len(records))
    test = set(order[: len(records) // 10])
    train, held = ([row for place, row in enumerate(records) if (place in test) is side] for side in (False, True))
    return Rows(train, [], held)


def flowers5(source: Path, seed: int) -> Rows:
    folder = source / "flowers5"
    by_split: dict[str, list[Record]] = {"train": [], "test": []}
    for row in _csv(folder / "labels.csv"):
        by_split[row["split"]].append({"file": str((folder / row["file"]).resolve()), "label": row["label"]})
    return Rows(by_split["train"], [], by_split["test"])


def fashion(source: Path, seed: int) -> Rows:
    """The same 18 pictures of each class are held out under every seed."""
    import numpy as np

    folder = source / "fashion_mnist_900"
    names = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    with np.load(folder / "fashion900.npz") as held:
        labels = held["y"].tolist()
    draw, by_class = random.Random(0), {label: [] for label in sorted(set(labels))}
    for place, label in enumerate(labels):
        by_class[label].append(place)
    test = {place for places in by_class.values() for place in draw.sample(places, FASHION_TEST)}
    path = str((folder / "fashion900.npz").resolve())
    records = [{"array": path, "place": place, "label": names[label]} for place, label in enumerate(labels)]
    sides = [[record for record in records if (record["place"] in test) is held_out] for held_out in (False, True)]
    return Rows(sides[0], [], sides[1])


def picture(record: Record) -> Any:
    """The picture of a record, in colours (PIL)."""
    import numpy as np
    from PIL import Image

    if "file" in record:
        with Image.open(record["file"]) as opened:
            return opened.convert("RGB")
    with np.load(record["array"]) as held:
        return Image.fromarray(held["x"][record["place"]]).convert("RGB")


def write_csv(rows: Rows, folder: Path) -> None:
    for name, records in rows.splits().items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)


def write_conll(rows: Rows, folder: Path) -> None:
    for name, records in rows.splits().items():
        sentences = (
            "\n".join(f"{word}\t{tag}" for word, tag in zip(record["tokens"], record["tags"], strict=True))
            for record in records
        )
        (folder / f"{name}.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")


def write_squad(rows: Rows, folder: Path) -> None:
    for name, records in rows.splits().items():
        articles: dict[str, dict[str, list[Record]]] = {}
        for record in records:
            question = {key: record[key] for key in ("id", "question", "answers")}
            question["is_impossible"] = not record["answers"]
            articles.setdefault(record["title"], {}).setdefault(record["context"], []).append(question)
        data = [
            {"title": title, "paragraphs": [{"context": text, "qas": qas} for text, qas in paragraphs.items()]}
            for title, paragraphs in articles.items()
        ]
        (folder / f"{name}.json").write_text(json.dumps({"version": "v2.0", "data": data}), encoding="utf-8")


def write_text(rows: Rows, folder: Path) -> None:
    for name, records in rows.splits().items():
        (folder / f"{name}.txt").write_text(records[0]["text"], encoding="utf-8")


def write_json(rows: Rows, folder: Path) -> None:
    for name, records in rows.splits().items():
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")


def write_pictures(rows: Rows, folder: Path) -> None:
    """Pictures in files as a table of their paths; pictures of an array as an array with a split of its own."""
    splits = rows.splits()
    if "file" in rows.train[0]:
        with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "label", "split"])
            writer.writerows([[row["file"], row["label"], name] for name, found in splits.items() for row in found])
        return
    import numpy as np

    with np.load(rows.train[0]["array"]) as held:
        pictures = held["x"]
    both = [(row, name) for name, found in splits.items() for row in found]
    names = sorted({row["label"] for row, _ in both})
    labels = np.array([names.index(row["label"]) for row, _ in both], dtype=np.uint8)
    kept = pictures[[row["place"] for row, _ in both]]
    np.savez(folder / "pictures.npz", x=kept, y=labels, split=np.array([name for _, name in both]))
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
