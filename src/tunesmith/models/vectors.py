"""Files of word vectors: the text and binary forms of word2vec, and GloVe's text. One word a line, one vector a word."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.errors import ModelError, Problems

HEADER = re.compile(rb"(\d+)[ \t](\d+)[ \t]*\r?\n")
FASTTEXT = (793712314).to_bytes(4, "little")  # how fastText's own binary begins
PICKLES = (b"PK\x03\x04", b"\x80")  # how what torch.save wrote begins: a zip, or a bare pickle
MOST_SHOWN = 5
LETTERS = 40  # of a word, in a message


@dataclass(frozen=True)
class WordVectors:
    """Words in the order of their file, each once, and their vectors."""

    words: tuple[str, ...]
    vectors: Tensor  # [words, width], float32
    kind: str  # "word2vec text", "word2vec binary", "GloVe text"
    repeated: int  # words left out because they had come before
    unreadable: int  # words left out because they are not UTF-8


def read_vectors(path: Path) -> WordVectors:
    """Reads a file by its content, whatever its name ends in.

    word2vec begins with a line "words width"; its binary form has after each word and a space `width` little-endian
    float32 (Mikolov 2013, the C code's own output). GloVe has no such line (Pennington 2014). Of a word that comes twice
    the first vector is kept, as gensim does. Raises ModelError naming lines.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64 * 1024)
            _refuse(path, start)
            header = HEADER.match(start)
            if header is None:
                return _gathered(path, _text_lines(path, None), "GloVe text")
            count, width = int(header[1]), int(header[2])
            if count < 1 or width < 1:
                raise ModelError(f"{path}:1: says {count} words of {width} values; fetch the file again")
            if not _is_text(start[header.end() :], width):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _gathered(path, _binary_words(path, data, header.end(), count, width), "word2vec binary")
            return _gathered(path, _text_lines(path, (count, width)), "word2vec text")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse(path: Path, start: bytes) -> None:
    """Raises ModelError for what is no file of word vectors, and says what it is where that can be told."""
    if not start:
        raise ModelError(f"{path}: is empty; fetch the file again")
    if start.startswith(FASTTEXT):
        raise ModelError(f"{path}: is fastText's own binary, which holds more than vectors; give its .vec file")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path}: is a git-lfs pointer, not the vectors; run git lfs pull in its folder")
    if start.startswith(PICKLES):
        raise ModelError(
            f"{path}: is a zip or a pickle, not a table of word vectors; unpack it, or give the folder of a model whose "
            "weights are safetensors"
        )


def _is_text(rest: bytes, width: int) -> bool:
    """Whether what follows word2vec's first line is text: a word and `width` numbers."""
    first = rest.partition(b"\n")[0].rsplit(None, width)
    try:
        return len(first) == width + 1 and all(value == value for value in map(float, first[1:]))
    except ValueError:
        return False


def _text_lines(path: Path, header: tuple[int, int] | None) -> Iterator[tuple[bytes, Tensor]]:
    """Words with their vectors. Raises ModelError that names the first bad lines."""
    problems = Problems()
    width = None if header is None else header[1]
    found = shown = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if (number == 1 and header is not None) or not line.strip():
                continue
            if width is None:
                width = len(line.split()) - 1
                if width < 1:
                    raise ModelError(f"{path}:{number}: no vector after the word; expected a word and numbers")
            # From the right: a few of GloVe's words hold spaces.
            parts = line.rstrip().rsplit(b" ", width) if b"\t" not in line else line.split()
            try:
                if len(parts) != width + 1:
                    raise ValueError(f"{len(parts) - 1} values")
                vector = torch.tensor([float(part) for part in parts[1:]])
                if not bool(vector.isfinite().all()):
                    raise ValueError("a value that is not finite")
            except ValueError as error:
                problems.add(f"{path}:{number}: expected a word and {width} numbers ({error}); mend or remove the line")
                shown += 1
                if shown == MOST_SHOWN:
                    break
                continue
            found += 1
            yield parts[0].strip(), vector
    problems.raise_as(ModelError)
    if header is not None and found != header[0]:
        raise ModelError(f"{path}: its first line says {header[0]:,} words, and it holds {found:,}; fetch it again")


def _binary_words(path: Path, data: mmap.mmap, start: int, count: int, width: int) -> Iterator[tuple[bytes, Tensor]]:
    """Words with their vectors. Raises ModelError where the file ends too soon or holds more."""
    import numpy as np

    at = start
    for place in range(count):
        space = data.find(b" ", at)
        end = space + 1 + 4 * width
        if space < 0 or end > len(data):
            raise ModelError(f"{path}: ends in word {place + 1:,} of {count:,}; fetch it again")
        values = np.frombuffer(data[space + 1 : end], dtype="<f4")
        word = data[at:space].lstrip(b"\n")  # some writers end each vector with a line feed
        if not np.isfinite(values).all():
            raise ModelError(f"{path}: a value of word {place + 1:,} ({_shown(word)}) is not finite; fetch it again")
        yield word, torch.from_numpy(values.astype(np.float32))
        at = end
    if data[at:].strip():
        raise ModelError(f"{path}: holds more than the {count:,} words its first line says; fetch it again")


def _gathered(path: Path, rows: Iterator[tuple[bytes, Tensor]], kind: str) -> WordVectors:
    vectors: dict[str, Tensor] = {}
    repeated = unreadable = 0
    for raw, vector in rows:
        try:
            word = raw.decode("utf-8")
        except UnicodeDecodeError:
            unreadable += 1
            continue
        if word in vectors or not word:
            repeated += 1
        else:
            vectors[word] = vector
    if not vectors:
        raise ModelError(f"{path}: holds no word with a vector; expected a word and its numbers a line")
    return WordVectors(tuple(vectors), torch.stack(list(vectors.values())), kind, repeated, unreadable)


def _shown(word: bytes) -> str:
    return ascii(word.decode("utf-8", errors="replace"))[1:-1][:LETTERS]
