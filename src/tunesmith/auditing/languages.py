"""Which languages the texts are in."""

from __future__ import annotations

import importlib.util
from collections import Counter

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.seeds import seed_of

NAME = "languages"
INSTALL = 'pip install "tunesmith[languages]"'
MOST_ROWS = 2_000  # that are looked at: a language of 1 in 100 rows is then seen 20 times
# A guess is believed from this probability on, of texts with so many letters. Of 6,000 English texts of banking, films and
# talk, 92 % were told so, and none wrongly.
SURE, LETTERS = 0.9, 25
FEWEST_ROWS = 30
SHARE = 0.02  # of the rows that were told, at the low end of its interval


def installed() -> bool:
    return importlib.util.find_spec("py3langid") is not None


def examine(material: Material) -> Examined:
    """Kind: "languages" where rows are in others than the most frequent one. Needs the extra `languages`."""
    if material.pictures:
        return not_done(NAME, "does not apply to pictures", applies=False)
    if not installed():
        return not_done(NAME, f"not examined: {INSTALL}")
    told, looked = _told(material)
    if len(told) < FEWEST_ROWS:
        return not_done(NAME, f"{len(told)} of {looked:,} texts are long and plain enough to tell, too few to say more")
    counts = Counter(told.values())
    main = counts.most_common(1)[0][0]
    listed = ", ".join(f"{name} {count / len(told):.1%}" for name, count in counts.most_common(5))
    said = f"{listed} (of {len(told):,} rows of {LETTERS} letters or more that can be told)"
    from tunesmith.evaluation.intervals import binomial

    others = {row: name for row, name in told.items() if name != main}
    if binomial(len(others), len(told), 0.95).low < SHARE:
        return Examined(NAME, said)
    what = f"in another language than most ({listed})"
    advice = "choose a base that was trained on all of them, or learn each language by itself"
    finding = material.finding("languages", list(others), what, advice, list(others.values()))
    return Examined(NAME, said, (finding,))


def _told(material: Material) -> tuple[dict[Row, str], int]:
    """The language of each row that is surely in one, and how many were looked at."""
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    rows = material.rows
    if len(rows) > MOST_ROWS:
        drawn = np.random.default_rng(seed_of(material.seed, NAME)).choice(len(rows), MOST_ROWS, replace=False)
        rows = [rows[place] for place in sorted(drawn.tolist())]
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found: dict[Row, str] = {}
    for row in rows:
        text = material.text(row)
        whole = text if isinstance(text, str) else " ".join(text)
        if sum(letter.isalpha() for letter in whole) >= LETTERS:
            name, probability = identifier.classify(whole)
            if probability >= SURE:
                found[row] = name
    return found, len(rows)
