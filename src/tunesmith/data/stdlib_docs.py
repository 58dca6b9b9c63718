"""A labelled table that every Python carries: what its standard library says of itself, and in which chapter.

A row is the first paragraph of the docstring of a public module, class, function or method. Pure Python modules are
read as text and parsed, never imported; compiled modules on a fixed list are imported, as they have no source. The
column `definition` is for a split that keeps a class with its methods on one side; `module` for the harder split into
modules seen and not seen. Near-duplicates are gone before either.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.chapters import CHAPTER_OF, COMPILED, SKIPPED, documented_as
from tunesmith.errors import DataError

SHORTEST = 8  # words; a shorter one ("Close the connection.") could stand in half of the chapters
LARGEST = 100  # rows kept of one module, so that no module is most of a chapter (tkinter alone has 600)
SIMILAR = 0.8  # Jaccard similarity of 3-word shingles above which the later text goes

_SIGNATURE = re.compile(
    r"^[\w.]+\s?\((?:[^()]|\([^()]*\))*\)(?:\s*(?:->|=>)\s*[^\n.:]+?)?\s*(?:--|:|$)\s*", re.MULTILINE
)
_WORD = re.compile(r"\w+")


class Entry(NamedTuple):
    """One documented thing."""

    text: str
    module: str
    definition: str = ""  # the class or function at the top level of its file that holds it


def stdlib_table(library: Path | None = None) -> dict[str, list[str]]:
    """Columns `text`, `chapter`, `module` and `definition` of equal length; the order depends only on the Python.

    `library` is the folder of the standard library; the running Python's own by default. Raises DataError when it
    holds no documentation (an installation that carries only compiled files).
    """
    folder = Path(sysconfig.get_paths()["stdlib"]) if library is None else library
    found = [*_source_entries(folder), *_compiled_entries()] if library is None else list(_source_entries(folder))
    entries = thinned(distinct(found))
    if not entries:
        raise DataError(
            f"{folder}: holds no documented Python source, so there is nothing to learn from; "
            "run the demo with a Python whose standard library is installed as source files"
        )
    return {
        "text": [entry.text for entry in entries],
        "chapter": [CHAPTER_OF[entry.module] for entry in entries],
        "module": [entry.module for entry in entries],
        "definition": [entry.definition for entry in entries],
    }


def distinct(entries: Iterable[Entry]) -> list[Entry]:
    """The entries, less equal texts, texts that two chapters share, short ones, and near-duplicates of earlier ones."""
    first: dict[tuple[str, ...], Entry] = {}
    chapters: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for entry in entries:
        words = tuple(_WORD.findall(entry.text.casefold()))
        if min(len(words), len(entry.text.split())) < SHORTEST:
            continue
        first.setdefault(words, entry)
        chapters[words].add(CHAPTER_OF[entry.module])
    kept = [words for words in first if len(chapters[words]) == 1]
    return [first[kept[index]] for index in _unlike(kept, SIMILAR)]


def thinned(entries: list[Entry], largest: int = LARGEST) -> list[Entry]:
    """At most `largest` entries of each module, taken at even distances; the order stays."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for at, entry in enumerate(entries):
        places[entry.module].append(at)
    kept: list[int] = []
    for found in places.values():
        count = min(largest, len(found))
        kept += [found[part * len(found) // count] for part in range(count)]
    return [entries[at] for at in sorted(kept)]


def _unlike(texts: list[tuple[str, ...]], limit: float) -> list[int]:
    """Indices of the texts whose 3-word shingles are not more than `limit` like those of an earlier kept one.

    Exact and fast by prefix filtering (Chaudhuri et al. 2006): two sets as alike as that must share one of the
    rarest few shingles of each, so only texts that do are compared.
    """
    sets = [{words[at : at + 3] for at in range(len(words) - 2)} for words in texts]
    rarity = Counter(shingle for each in sets for shingle in each)
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    kept = []
    for at, shingles in enumerate(sets):
        ordered = sorted(shingles, key=lambda shingle: (rarity[shingle], shingle))
        prefix = ordered[: len(ordered) - int(limit * len(ordered)) + 1]
        near = {other for shingle in prefix for other in index[shingle]}
        if any(_alike(shingles, sets[other]) > limit for other in near):
            continue
        kept.append(at)
        for shingle in prefix:
            index[shingle].append(at)
    return kept


def _alike(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def first_paragraph(doc: str) -> str:
    """What the docstring says first, on one line, without a call signature in front of it; "" when it says nothing."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        text = " ".join(_SIGNATURE.sub("", paragraph).split())
        if text and not text.startswith((">>>", "$")):
            return text
    return ""


def _source_entries(folder: Path) -> Iterator[Entry]:
    for path, module in _source_files(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # old escapes in the library's own strings
                tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # such as a sample of broken source that the library carries
        inside = ".".join(path.relative_to(folder).with_suffix("").parts)
        for doc, name in _documented(tree):
            yield Entry(first_paragraph(doc), module, f"{inside}.{name}" if name else inside)


def _source_files(folder: Path) -> Iterator[tuple[Path, str]]:
    # From the top down, as a search through everything would also walk through all installed packages.
    for top in sorted(folder.iterdir(), key=lambda path: path.name):
        module = documented_as(top.stem)
        if module is None or top.name in SKIPPED:
            continue
        files = [top] if top.suffix == ".py" else sorted(top.rglob("*.py"), key=lambda path: path.as_posix())
        for path in files:
            if not SKIPPED.intersection(path.relative_to(folder).parts):
                yield path, module


def _documented(node: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, str]]:
    """Docstrings of a module or class and of the public classes, functions and methods inside it, in file order.

    With each, the name of the class or function at the top level of the file that holds it; "" for the file's own.
    """
    own = ast.get_docstring(node, clean=False)
    if own is not None:
        yield own, within
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
            yield from _documented(inner, within if within else inner.name)
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            doc = ast.get_docstring(inner, clean=False)
            if doc is not None:
                yield doc, within if within else inner.name


def _compiled_entries() -> Iterator[Entry]:
    for name, module in sorted(COMPILED.items()):
        try:
            loaded = importlib.import_module(name)
        except ImportError:
            continue  # this Python was built without it, or for another system
        for doc, inside in _attached(loaded):
            yield Entry(first_paragraph(doc), module, f"{module}.{inside}" if inside else module)


def _attached(loaded: Any) -> Iterator[tuple[str, str]]:
    """Docstrings of a compiled module, its public functions and types, and those types' public methods.

    With each, the name of the function or type that holds it; "" for the module's own. Hooks (sys.excepthook) are left
    out: programs put functions of their own there, and one row more or less makes another split.
    """
    if loaded.__doc__:
        yield loaded.__doc__, ""
    for name, item in sorted(vars(loaded).items()):
        if name.startswith("_") or name.endswith("hook"):
            continue
        if inspect.isclass(item) and issubclass(item, BaseException):
            continue
        if inspect.isbuiltin(item) and item.__doc__:
            yield item.__doc__, name
        elif inspect.isclass(item):
            if item.__doc__:
                yield item.__doc__, name
            members = (member for key, member in sorted(vars(item).items()) if not key.startswith("_"))
            yield from ((member.__doc__, name) for member in members if inspect.isroutine(member) and member.__doc__)
