"""The demo's table: what every Python says of its own standard library."""

from __future__ import annotations

import cmath
import sys
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.chapters import ALIASES, CHAPTER_OF, COMPILED, SKIPPED, documented_as
from tunesmith.data.stdlib_docs import (
    LARGEST,
    SHORTEST,
    Entry,
    distinct,
    first_paragraph,
    stdlib_table,
    thinned,
)
from tunesmith.errors import DataError


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    return stdlib_table()


def test_thousands_of_rows_in_a_dozen_chapters_of_several_modules(table: dict[str, list[str]]) -> None:
    rows = Counter(table["chapter"])
    modules: dict[str, set[str]] = defaultdict(set)
    for chapter, module in zip(table["chapter"], table["module"], strict=True):
        modules[chapter].add(module)
    assert len(table["text"]) > 2500
    assert 11 <= len(rows) <= 14
    assert min(rows.values()) >= 80
    assert min(map(len, modules.values())) >= 4
    assert max(Counter(table["module"]).values()) <= LARGEST


def test_a_module_has_one_chapter_and_texts_are_plain_lines(table: dict[str, list[str]]) -> None:
    for text, chapter, module in zip(table["text"], table["chapter"], table["module"], strict=True):
        assert CHAPTER_OF[module] == chapter
        assert len(text.split()) >= SHORTEST
        assert text == " ".join(text.split())
    assert len(set(table["text"])) == len(table["text"])


def test_no_pure_module_was_imported_for_it(table: dict[str, list[str]]) -> None:
    assert "turtle" in table["module"]
    assert not {"turtle", "antigravity", "this", "pydoc_data"} & set(sys.modules)


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in ("csv.py", "textwrap.py", "json", "logging"):  # made in another order than the alphabet's
        (tmp_path / name).symlink_to(library / name)
    found = stdlib_table(tmp_path)
    assert stdlib_table(tmp_path) == found
    assert list(dict.fromkeys(found["module"])) == ["csv", "json", "logging", "textwrap"]


def test_known_texts_are_where_they_belong(table: dict[str, list[str]]) -> None:
    where = dict(zip(table["text"], zip(table["chapter"], table["module"], strict=True), strict=True))
    csv = [text for text, (_, module) in where.items() if module == "csv"]
    assert any("CSV" in text for text in csv)
    assert {where[text][0] for text in csv} == {"File Formats, Markup and Internet Data"}
    assert ("Numeric and Functional Programming", "math") in where.values()  # compiled: no source to read


def test_every_module_of_this_python_has_a_chapter_or_a_reason() -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    machine_made = ("_sysconfig", "config-", "_distutils_system_mod", "sitecustomize", "EXTERNALLY")
    unlisted = [
        path.name
        for path in sorted(folder.iterdir())
        if (path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists()))
        and documented_as(path.stem) is None
        and path.stem not in SKIPPED
        and not path.stem.startswith(machine_made)
    ]
    assert unlisted == []


def test_the_tables_of_names_agree() -> None:
    assert set(ALIASES.values()) <= set(CHAPTER_OF)
    assert set(COMPILED.values()) <= set(CHAPTER_OF)
    assert not set(ALIASES) & set(CHAPTER_OF)
    assert not SKIPPED & set(CHAPTER_OF)


@pytest.mark.parametrize(
    ("doc", "text"),
    [
        ("Open a file.\n\n    Long story.", "Open a file."),
        ("\n    Two lines\n    of text.\n    ", "Two lines of text."),
        ("dump(obj, file) -> None\n\nWrite obj to file.", "Write obj to file."),
        ("sub(a, b=(1, 2)) -- Replace a by b.", "Replace a by b."),
        (">>> 1 + 1\n2\n\nAdds numbers.", "Adds numbers."),
        ("f(x)", ""),
        ("", ""),
        ("Calls f(x) once.", "Calls f(x) once."),
    ],
)
def test_first_paragraph(doc: str, text: str) -> None:
    assert first_paragraph(doc) == text


LONG = "return the number of seconds that have passed since the start of the process"


def test_equal_texts_near_duplicates_and_short_ones_go() -> None:
    entries = [
        Entry("Close it.", "os"),
        Entry(LONG, "time"),
        Entry(LONG.upper() + "!", "time"),
        Entry(LONG + " itself", "os"),  # 12 of 13 shingles in common
        Entry("write every row of the table to the file as one line of text", "csv"),
    ]
    assert [entry.module for entry in distinct(entries)] == ["time", "csv"]


def test_a_text_that_two_chapters_share_belongs_to_neither() -> None:
    assert distinct([Entry(LONG, "time"), Entry(LONG, "csv")]) == []
    assert distinct([Entry(LONG, "time"), Entry(LONG, "os")]) == [Entry(LONG, "time")]


def jaccard(one: str, other: str) -> float:
    a, b = one.split(), other.split()
    first, second = ({tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in (a, b))
    return len(first & second) / len(first | second)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=8, max_size=14).map(" ".join), max_size=25))
def test_the_fast_search_for_near_duplicates_finds_what_comparing_all_pairs_finds(texts: list[str]) -> None:
    kept: list[str] = []
    for text in dict.fromkeys(texts):
        if all(jaccard(text, other) <= 0.8 for other in kept):
            kept.append(text)
    assert [entry.text for entry in distinct([Entry(text, "csv") for text in texts])] == kept


@given(st.lists(st.sampled_from(["os", "csv", "re"]), max_size=60), st.integers(1, 20))
def test_thinning_keeps_order_and_at_most_so_many_of_each(modules: list[str], largest: int) -> None:
    entries = [Entry(str(number), module) for number, module in enumerate(modules)]
    kept = thinned(entries, largest)
    assert [int(entry.text) for entry in kept] == sorted({int(entry.text) for entry in kept})
    assert Counter(entry.module for entry in kept) == {
        module: min(count, largest) for module, count in Counter(modules).items()
    }


def test_a_library_without_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "os.pyc").write_bytes(b"\0")
    with pytest.raises(DataError, match="no documented Python source"):
        stdlib_table(tmp_path)


def test_a_library_is_read_as_text_private_names_left_out(tmp_path: Path) -> None:
    words = "one two three four five six seven eight"
    (tmp_path / "csv.py").write_text(
        f'"""Module {words}."""\nraise RuntimeError("never run")\n'
        f'def _hidden():\n    """Hidden {words[::-1]} and more of the same kind."""\n'
        f'class Reader:\n    def read(self):\n        """Read nine ten eleven twelve thirteen fourteen fifteen."""\n'
    )
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "decoder.py").write_text('"""Decode alpha beta gamma delta epsilon zeta eta."""')
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "re.py").write_text("def (")
    found = stdlib_table(tmp_path)
    assert found["text"] == [
        f"Module {words}.",
        "Read nine ten eleven twelve thirteen fourteen fifteen.",
        "Decode alpha beta gamma delta epsilon zeta eta.",
    ]
    assert found["module"] == ["csv", "csv", "json"]


def test_a_program_that_sets_hooks_gets_the_same_rows(
    table: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook"):
        monkeypatch.setattr(sys, name, lambda *_: None)
    assert stdlib_table() == table
    other = next(name for name in table["definition"] if name.startswith("cmath."))
    monkeypatch.setattr(
        cmath, other.removeprefix("cmath."), None
    )  # what is no hook is read: the above could have failed
    assert stdlib_table() != table
