"""Entities: transformers' run_ner recipe, and the most frequent tag of every word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .data import Record, Rows
from .peers_trainer import trained

IGNORED = -100


def frequent_tag(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[list[str]]:
    """Words that no training row has are looked up in small letters, and get O where those are unknown too."""
    counts: dict[tuple[str, bool], Counter[str]] = {}
    for row in rows.train:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            for form in ((word, False), (word.casefold(), True)):
                counts.setdefault(form, Counter())[tag] += 1
    usual = {form: found.most_common(1)[0][0] for form, found in counts.items()}
    return [
        [usual.get((word, False), usual.get((word.casefold(), True), "O")) for word in row["tokens"]]
        for row in rows.test
    ]


def run_ner(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[list[str]]:
    """Each word is learned, and read, at its first token."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

    names = sorted({tag for row in rows.train for tag in row["tags"]})
    tokenizer: Any = AutoTokenizer.from_pretrained(base)

    def encoded(part: Sequence[Record]) -> tuple[list[dict[str, Any]], list[list[int]]]:
        """The examples, and for each the places of the first tokens of its words."""
        found = tokenizer([row["tokens"] for row in part], truncation=True, is_split_into_words=True)
        examples, firsts = [], []
        for number, row in enumerate(part):
            words = found.word_ids(number)
            places = [at for at, word in enumerate(words) if word is not None and word != words[at - 1]]
            labels = [IGNORED] * len(words)
            for at in places:
                tag = row["tags"][words[at]]
                labels[at] = names.index(tag) if tag in names else IGNORED
            examples.append({**{key: found[key][number] for key in found}, "labels": labels})
            firsts.append(places)
        return examples, firsts

    def build() -> Any:
        return AutoModelForTokenClassification.from_pretrained(base, num_labels=len(names))

    train, _ = encoded(rows.train)
    test, firsts = encoded(rows.test)
    trainer = trained(build, train, DataCollatorForTokenClassification(tokenizer), seed, options)
    best = trainer.predict(test).predictions.argmax(axis=-1)
    said = []
    for number, (row, places) in enumerate(zip(rows.test, firsts, strict=True)):
        words = tokenizer(row["tokens"], truncation=True, is_split_into_words=True).word_ids()
        tags = ["O"] * len(row["tokens"])  # a word without a token, of signs that the tokenizer drops
        for at in places:
            tags[words[at]] = names[best[number, at]]
        said.append(tags)
    return said
