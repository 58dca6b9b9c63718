"""What frozen blocks gave, kept on disk: whole files of one tensor each, mapped into memory where they are read.

A file is safetensors, so that other tools open it. It is written under another name and moved into place when it is on the
disk, so that it is whole or not there, whoever else writes it meanwhile and whenever a process ends.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.files import cache_folder, clear_partials, disk_free, evict, make_folder, own_partial, sync_folder
from tunesmith.phases import NOTHING, Time, now

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VERSION = "1"
KEPT_BYTES = 8_000_000_000  # of all files of the folder; those that were not used longest go first
TENSOR = "frozen"
SUFFIX = ".safetensors"
ALIGNED = 64  # bytes: the tensor begins at a multiple of it
BLOCK = 1 << 24  # bytes read at once for the checksum


class Entry(NamedTuple):
    """What a file holds. `took` is what computing it took."""

    values: Tensor
    took: Time


@dataclass(frozen=True)
class Shelf:
    """`folder` None: nothing is read or kept. `always`: also what took no time to compute."""

    folder: Path | None = None
    always: bool = False

    @property
    def used(self) -> bool:
        """Whether anything may be found there."""
        with suppress(OSError):
            whole = () if self.folder is None else self.folder.glob(f"[!.]*{SUFFIX}")
            return any(True for _ in whole)
        return False

    def refuses(self, size: int) -> str:
        """Why so many bytes cannot be kept; "" where they can. As much again of the disk stays free."""
        if self.folder is None:
            return "nothing is kept on disk"
        if size > KEPT_BYTES:
            return f"{self.folder} may take {KEPT_BYTES / 1e9:.0f} GB"
        try:
            make_folder(self.folder)
            if not os.access(self.folder, os.W_OK):
                return f"{self.folder} cannot be written"
            return f"{self.folder} has no room for them" if 2 * size > disk_free(self.folder) else ""
        except OSError as error:
            return f"{self.folder} cannot be written ({error})"

    def tidy(self, kept: Collection[Path]) -> None:
        """Takes away what dead writers left, and what was not used longest where there is too much; none of `kept`."""
        if self.folder is not None:
            clear_partials(self.folder)
            evict(self.folder, kept, KEPT_BYTES)


NOWHERE = Shelf()


def shelf_of(cache: str) -> Shelf:
    """The user's own, for `training.cache`: on disk for "auto" and "disk"."""
    return Shelf(cache_folder() / "frozen", cache == "disk") if cache in ("auto", "disk") else NOWHERE


@contextmanager
def writing(
    path: Path, shape: tuple[int, ...], dtype: torch.dtype, took: Time | None = None
) -> Iterator[Callable[[int, Tensor], None]]:
    """Gives put(first, values): values [n, ...] become those from `first` on. When the block ends the file is there.

    `took`: what computing it took; by default as long as the block does. Written through the file, not through a map of
    it: where the disk is full a map would end the process. Raises OSError.
    """
    from tunesmith.models.fingerprint import as_bytes

    size = dtype.itemsize
    for width in shape:
        size *= width
    made, begun = own_partial(path), now()
    try:
        with made.open("wb+") as file:
            start = file.write(_header(shape, dtype, size, 0, NOTHING))
            file.truncate(start + size)
            row = size // max(shape[0], 1)

            def put(first: int, values: Tensor) -> None:
                file.seek(start + first * row)
                file.write(as_bytes(values).data)

            yield put
            file.seek(start)
            found = 0
            while block := file.read(BLOCK):
                found = zlib.crc32(block, found)
            file.seek(0)
            spent = now().plus(begun.times(-1)) if took is None else took
            file.write(_header(shape, dtype, size, found, spent))
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            made.unlink()


def read(path: Path) -> Entry:
    """The file's tensor, mapped: it takes memory only while it is used, and writing to it leaves the file as it is.

    Notes that it was used. Raises OSError where it is not there, and ValueError where it is not whole, to the byte.
    """
    import torch

    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > end:
                raise ValueError("is cut off")
            header = json.loads(file.read(length))
            about, said = header[TENSOR], header["__metadata__"]
            dtype = _formats()[about["dtype"]]
            shape, (_, size) = about["shape"], about["data_offsets"]
            took = Time(float(said["seconds"]), float(said["cpu_seconds"]))
            wanted = (said["version"], int(said["crc32"], 16))
        except (struct.error, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: is no such file ({error})") from None
        if wanted[0] != VERSION or end != 8 + length + size or size == 0:
            raise ValueError(f"{path}: is not as long as it was when it was written")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = memoryview(mapped)[8 + length :]
    if zlib.crc32(whole) != wanted[1]:
        raise ValueError(f"{path}: is not what was written")
    with suppress(OSError):
        os.utime(path)
    return Entry(torch.frombuffer(mapped, dtype=dtype, offset=8 + length).view(shape), took)


def _header(shape: tuple[int, ...], dtype: torch.dtype, size: int, checksum: int, took: Time) -> bytes:
    """Always as long for one shape and format: it is written once more when the tensor is."""
    name = next(name for name, kind in _formats().items() if kind == dtype)
    said = {
        "version": VERSION,
        "crc32": f"{checksum:08x}",
        "seconds": f"{took.seconds:016.3f}",
        "cpu_seconds": f"{took.cpu_seconds:016.3f}",
    }
    tensor = {"dtype": name, "shape": list(shape), "data_offsets": [0, size]}
    plain = json.dumps({"__metadata__": said, TENSOR: tensor}).encode("ascii")
    plain += b" " * (-(8 + len(plain)) % ALIGNED)
    return struct.pack("<Q", len(plain)) + plain


def _formats() -> dict[str, torch.dtype]:
    """torch's number formats by safetensors' names."""
    import torch

    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
