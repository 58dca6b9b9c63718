"""How long rows are against what the model reads, and what its tokenizer does not know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.data.findings import Finding
from tunesmith.preparing import Encoded

NAME = "lengths"
# Share of all tokens: half a percent of unknown ones is a word in 200, and word pieces leave far less in the languages that
# they were made for (0 in Banking77 with MiniLM).
UNKNOWN = 0.005
WORDLESS = re.compile(r"[^\w]*")


def examine(material: Material) -> Examined:
    """Kinds: "wordless" for texts without a letter or digit, and "unknown_tokens".

    What is cut at the model's limit is a finding of encoding ("cut_text").
    """
    if material.pictures:
        return not_done(NAME, "does not apply: pictures are all sized alike", applies=False)
    findings = [*_wordless(material)]
    if material.encoded is None or material.processor is None:
        words = [sum(len(part.split()) for part in _parts(text)) for text in material.texts]
        said = f"words a row: {_spread(words)} (tokens are counted with --model)"
        return Examined(NAME, said, tuple(findings))
    unknown, share = _unknown(material)
    tokens = _tokens(material.encoded)
    limit = material.encoded.limit
    over = sum(1 for count in tokens if count > limit)
    said = f"tokens a row: {_spread(tokens)}; {over:,} of {len(tokens):,} are longer than the {limit:,} that are read"
    return Examined(NAME, f"{said}; {share}", (*findings, *unknown))


def _parts(text: str | tuple[str, ...]) -> Iterable[str]:
    return (text,) if isinstance(text, str) else text


def _spread(counts: list[int]) -> str:
    import numpy as np

    median, high = np.quantile(counts, [0.5, 0.95])
    return f"median {median:.0f}, 95 % up to {high:.0f}, longest {max(counts):,}"


def _tokens(encoded: Encoded) -> list[int]:
    """Of each row of every split, uncut; windows of a row as one."""
    import numpy as np

    from tunesmith.data.stored import measures

    found: list[int] = []
    for examples in encoded.examples.values():
        if len(examples):
            of = measures(examples)
            # Windows overlap, so that the sum over them is a little more than what the row has.
            found += np.bincount(of.sources, weights=of.lengths + of.cuts).astype(int)[np.unique(of.sources)].tolist()
    return found


def _wordless(material: Material) -> list[Finding]:
    found = [
        row
        for row, text in zip(material.rows, material.texts, strict=True)
        if any(WORDLESS.fullmatch(part) for part in _parts(text))
    ]
    if not found:
        return []
    what = "a text without a letter or a digit; kept"
    return [material.finding("wordless", found, what, "take them out, unless signs alone say what is to be learned")]


def _unknown(material: Material) -> tuple[list[Finding], str]:
    """The finding, where there are many, and a clause about them."""
    from tunesmith.models.text import TextProcessor

    processor, encoded = material.processor, material.encoded
    if not isinstance(processor, TextProcessor) or encoded is None or processor.hides:
        return [], "words without a vector are a finding of encoding"
    number = processor.tokenizer.unk_token_id
    if not isinstance(number, int) or number == processor.pad.get("input_ids"):
        return [], "its tokenizer knows every letter"
    total, shares = 0, dict[Row, float]()
    count = 0
    for split, examples in encoded.examples.items():
        for example in examples:
            own = [token for side in example.sides for token in side["input_ids"]]
            total += len(own)
            missing = own.count(number)
            if missing:
                count += missing
                row = Row(split, example.source)
                shares[row] = max(shares.get(row, 0.0), missing / len(own))
    said = f"{count / max(1, total):.2%} of all tokens are unknown"
    if count < UNKNOWN * total or count == 0:
        return [], said
    rows = sorted(shares, key=lambda row: -shares[row])
    what = f"with tokens that the model does not know, {count / total:.1%} of all; they all look the same to it"
    advice = "choose a base that was made for this language and these signs"
    details = [f"{shares[row]:.0%} unknown" for row in rows[:3]]
    found = material.finding("unknown_tokens", rows, what, advice, details)
    return [replace(found, numbers={"share": count / total})], said
