"""Which columns hold texts to read and texts to write: summaries, translations, rewritten texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.data.columns import LABEL_NAMES, NOT_LABELS, Asked, Columns, check_named, simple
from tunesmith.data.findings import counted
from tunesmith.data.passages import PART
from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError

USUAL = (
    ("source", "target"), ("src", "tgt"), ("input", "output"), ("input", "target"), ("input_text", "target_text"),
    ("document", "summary"), ("article", "highlights"), ("article", "summary"), ("dialogue", "summary"), ("text", "summary"),
)  # fmt: skip
ONLY_ASKED = (("question", "answer"), ("question", "answers"))  # other tasks read these too
# ISO 639-1, of the languages that translations are usually of, as names of columns; an "id" or a "no" is none there.
LANGUAGES = (
    ",af,am,ar,az,be,bg,bn,bs,ca,cs,cy,da,de,el,en,eo,es,et,eu,fa,fi,fr,ga,gl,gu,he,hi,hr,hu,hy,is,it,ja,jv"
    ",ka,kk,km,kn,ko,ky,la,lb,lo,lt,lv,mg,mk,ml,mn,mr,ms,mt,my,ne,nl,pa,pl,ps,pt,ro,ru,rw,sd,si,sk,sl,so,sq"
    ",sr,su,sv,sw,ta,te,tg,th,tk,tl,tr,tt,uk,ur,uz,vi,xh,yi,yo,zh,zu,"
)
ALSO_LEARNED = (*LABEL_NAMES[0], "labels", "class")  # a column so named is what the others are read for
LISTED = 10
FREE = 0.5  # least share of different values, and of values with white space, in a column of free text


def looks_written(table: Table, asked: Asked) -> str | None:
    """Why the rows are texts to be written from texts; None where they do not look so, or the base does not write so."""
    if asked.pair is not None or isinstance(asked.label, tuple):
        return None
    named = asked.text is not None and asked.label is not None
    pair = (str(asked.text), str(asked.label)) if named else _usual(table, asked, USUAL)
    if pair is None or any(name not in table.columns for name in pair):
        return None
    names = {simple(name) for name in table.columns}
    if not named and names & {*ALSO_LEARNED, "instruction"}:  # of an instruction the input is only a part
        return None
    if not all(_free_text(table.columns[name]) for name in pair) or asked.base() != "encoder-decoder":
        return None
    return f'columns "{pair[0]}" and "{pair[1]}" hold free texts, and the base is an encoder-decoder'


def find_sources(table: Table, asked: Asked) -> Columns:
    """The column to read and the one to write: as named, else by usual names. Raises DataError with every problem."""
    if asked.pair is not None:
        raise DataError(
            f'data.pair: "{asked.pair}" is not read by task seq2seq; leave it out, and name the column to read with --text '
            "and the one to write with --label"
        )
    if isinstance(asked.label, tuple) and len(asked.label) > 1:
        raise DataError(f"data.label: {len(asked.label)} columns are named, and one text a row is written; name one")
    label = asked.label[0] if isinstance(asked.label, tuple) and asked.label else asked.label
    assert not isinstance(label, tuple)
    roles = [("text", asked.text), ("label", label), ("group", asked.group)]
    check_named(table, [(role, name) for role, name in roles if name is not None])
    if asked.text is not None and label is not None:
        pair, why = (asked.text, label), "named"
    else:
        found = _usual(table, Asked(asked.text, label, asked.group), (*USUAL, *ONLY_ASKED))
        if found is None:
            known = ", ".join(f"{one} and {two}" for one, two in (*USUAL, *ONLY_ASKED[:1]))
            there = [name for name in table.columns if name != PART]
            raise DataError(
                f"{table.path}: no columns to read and to write among {_quoted(there)}; name the one to read "
                f"with --text and the one to write with --label (known by their names: {known}, and two codes of languages)"
            )
        pair, why = found, "by their names"
        if asked.text is None and label is None and _is_language(simple(pair[0])):
            why = "two languages, of which the first column is read; --text and --label say it the other way round"
    group = "" if asked.group is None else f', group = "{asked.group}"'
    return Columns(pair[0], pair[1], asked.group, f'text = "{pair[0]}", to be written = "{pair[1]}" ({why}){group}')


def check_sources(table: Table, columns: Columns) -> Table:
    """The table as it is. Raises DataError naming every row whose text to read or to write is empty or no text."""
    wrong: list[str] = []
    for name in (columns.text, columns.label):
        for row, value in enumerate(table.columns.get(name, ())):  # a column that is not there is told later
            if value is None or (isinstance(value, str) and not value.strip()):
                wrong.append(f'{table.place(row)}: "{name}" is empty')
            elif isinstance(value, list):
                wrong.append(f'{table.place(row)}: "{name}" holds a list where a text was expected: {shown(value, 40)}')
    if wrong:
        fix = "fill these rows, or take them out"
        more = f"; {counted(len(wrong))} in all" if len(wrong) > LISTED else ""
        *first, last = wrong[:LISTED]
        raise DataError(*first, f"{last}{more}; {fix}")
    return table


def _usual(table: Table, asked: Asked, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The first usual pair among the columns that holds the one that was named, if one was."""
    free = {simple(name): name for name in table.columns if name != asked.group}
    languages = [name for name in free if _is_language(name)]
    others = [name for name in free if name not in (*languages, *NOT_LABELS)]
    two = [(languages[0], languages[1]), (languages[1], languages[0])] if len(languages) == 2 and not others else []
    for one, other in (*pairs, *two):
        if one in free and other in free:
            pair = free[one], free[other]
            if asked.text in (None, pair[0]) and asked.label in (None, pair[1]):
                return pair
    return None


def _is_language(name: str) -> bool:
    return len(name) == 2 and f",{name}," in LANGUAGES


def _free_text(values: Sequence[Any]) -> bool:
    """Whether most values are texts of several words, and most of them different: no names of classes."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if len(texts) < FREE * len(values) or not texts:
        return False
    spaced = sum(1 for text in texts if not text.isascii() or len(text.split(None, 1)) > 1)
    return spaced >= FREE * len(texts) and len(set(texts)) > FREE * len(texts)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
