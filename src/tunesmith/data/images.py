"""Pictures: what a row's picture is, where it is read from, and folders and arrays of them as tables."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.table import Table
from tunesmith.errors import DataError, TunesmithWarning

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
LONGEST = max(map(len, SUFFIXES))
IN_ARRAY = re.compile(r"(.+\.npz)\[(\d+)\]")
INLINE = "data:;base64,"
MOSTLY = 0.9  # share of a column's values that must look like pictures
LABELS = ("y", "label", "labels")
EXACT_BYTES = 12_000  # of a small picture that is shown without loss
KEPT_COLUMNS = ("split", "group")
CLASSES = "classes.json"


class Picture(str):
    """A row's picture, by the name it has in its table. Made by `Pictures`; read when it is asked for."""

    file: Path | None = None
    array: np.ndarray | None = None  # [height, width] or [height, width, 3], uint8
    content: bytes | None = None  # of a file that is not on this machine
    fault: str = ""  # why it cannot be read; "" where it can

    def image(self) -> Image.Image:
        """In colours, turned as its camera says. Raises OSError, SyntaxError, ValueError or Pillow's bomb error."""
        from PIL import Image, ImageOps

        if self.array is not None:
            return Image.fromarray(self.array).convert("RGB")
        source: Any = io.BytesIO(self.content) if self.content is not None else self.file
        with Image.open(source) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")

    @cached_property
    def digest(self) -> str:
        """sha256 of its pixels: pictures with the same one are the same, whatever they are called. "" where unreadable."""
        if self.fault:
            return ""
        image = self.image()
        return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()

    def inline(self) -> str:
        """The picture itself as text, which `Pictures` reads anywhere."""
        if self.array is not None:
            out = io.BytesIO()
            self.image().save(out, "PNG")
            content = out.getvalue()
        else:
            content = self.content if self.content is not None else self.file.read_bytes() if self.file else b""
        return INLINE + base64.b64encode(content).decode("ascii")

    def thumbnail(self, side: int) -> str:
        """A data URI of the picture, at most `side` pixels wide and high: exact where that takes little room."""
        image = self.image()
        exact = max(image.size) <= side
        image.thumbnail((side, side))
        image.info.clear()  # a camera's colour profile may take more room than the picture
        content, kind = _encoded(image, "png"), "png"
        if not exact or len(content) > EXACT_BYTES:
            content, kind = _encoded(image, "jpeg"), "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=85, optimize=True)
    return out.getvalue()


class Pictures:
    """Makes pictures of the names in a table. Arrays are read once."""

    def __init__(self, table_path: str) -> None:
        """Names are looked for beside `table_path`, then from the working folder."""
        here = Path(table_path)
        self._folders = [here if here.is_dir() else here.parent, Path()]
        self._arrays: dict[Path, Any] = {}

    def of(self, name: str) -> Picture:
        """The picture of that name; one that cannot be read says why in `fault`. Every picture is decoded once here."""
        made = Picture(name)
        try:
            if isinstance(name, Picture):
                made.content, made.array, made.file = name.content, name.array, name.file
            else:
                self._find(made)
            _ = made.digest
        except Exception as error:  # Pillow's readers raise many kinds for damaged files, struct.error among them
            made.fault = _reason(error)
            made.__dict__.pop("digest", None)
        return made

    def _find(self, made: Picture) -> None:
        if made.startswith(INLINE):
            made.content = base64.b64decode(made.removeprefix(INLINE), validate=True)
            return
        inside = IN_ARRAY.fullmatch(made)
        name = inside[1] if inside else str(made)
        found = next((path for folder in self._folders if (path := folder / name).is_file()), None)
        if found is None:
            raise FileNotFoundError("there is no such file")
        if inside is None:
            made.file = found
            return
        if found not in self._arrays:
            self._arrays[found] = _stack(found)[0]
        made.array = self._arrays[found][int(inside[2])]


def stored(values: Sequence[Any]) -> list[Any]:
    """A column as `datasets` stores pictures, {"bytes", "path"} each, with a picture in place of each; others as they are."""
    records = [value for value in values if value is not None]
    if not records or not all(isinstance(value, dict) and set(value) == {"bytes", "path"} for value in records):
        return list(values)
    return [None if value is None else _stored(value, place) for place, value in enumerate(values)]


def _stored(record: dict[str, Any], place: int) -> Any:
    if not isinstance(record["bytes"], bytes):
        return record["path"]
    made = Picture(record["path"] or f"picture {place + 1}")
    made.content = record["bytes"]
    return made


def looks_like_picture(value: Any) -> bool:
    return isinstance(value, Picture) or (
        isinstance(value, str)
        and (
            value[-LONGEST:].lower().endswith(SUFFIXES)
            or (value.endswith("]") and IN_ARRAY.fullmatch(value) is not None)
            or value.startswith(INLINE)
        )
    )


def holds_pictures(values: Sequence[Any]) -> bool:
    """Whether a column names pictures: files by their endings, or places in arrays."""
    filled = [value for value in values if value is not None and value != ""]
    return bool(filled) and sum(map(looks_like_picture, filled)) >= MOSTLY * len(filled)


def read_npz(data: bytes, path: str) -> Table:
    """A table of the pictures in an .npz: columns image and label (and split, group where it holds them).

    It holds one array of pictures, uint8 [rows, height, width] or [rows, height, width, 3], and one of labels called y,
    label or labels; classes.json beside it may name the classes that whole numbers stand for. Raises DataError.
    """
    import numpy as np

    file = Path(path)
    pictures, others = _stack(file)
    labels = next((others[name] for name in LABELS if name in others), None)
    columns: dict[str, list[Any]] = {"image": [f"{file.name}[{row}]" for row in range(len(pictures))]}
    if labels is not None:
        columns["label"] = _named(labels, file.parent / CLASSES, np.issubdtype(labels.dtype, np.integer), path)
    columns |= {name: others[name].tolist() for name in KEPT_COLUMNS if name in others}
    return Table(path, columns, tuple(range(1, len(pictures) + 1)))


def _stack(file: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The pictures of an .npz, and its other arrays with one value a picture. Raises DataError."""
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        way = (
            "pictures of several sizes make no array: save them as files, in a folder for each class"
            if "Object arrays" in str(error)
            else "write it again"
        )
        raise DataError(f"{file}: is no readable .npz of plain arrays ({_reason(error)}); {way}") from None
    stacks = [name for name, value in arrays.items() if value.ndim == 3 or (value.ndim == 4 and value.shape[-1] == 3)]
    listed = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in arrays.items())
    if len(stacks) != 1 or arrays[stacks[0]].dtype != np.uint8:
        raise DataError(
            f"{file}: expected one array of pictures, uint8 [rows, height, width] or [rows, height, width, 3]; it holds "
            f"{listed}"
        )
    pictures = arrays.pop(stacks[0])
    wrong = [name for name in (*LABELS, *KEPT_COLUMNS) if name in arrays and arrays[name].shape != (len(pictures),)]
    if wrong:
        raise DataError(
            f"{file}: {', '.join(wrong)}: expected {len(pictures)} values, one a picture; it holds {listed}"
        )
    return pictures, arrays


def _named(labels: np.ndarray, classes: Path, whole: bool, path: str) -> list[Any]:
    values = labels.tolist()
    if not (whole and classes.is_file()):
        return [None if value != value else value for value in values]  # NaN is no class
    try:
        names = json.loads(classes.read_text(encoding="utf-8"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of names")
    except (OSError, ValueError) as error:
        raise DataError(f"{classes}: expected a JSON list of class names ({_reason(error)})") from None
    strange = sorted({value for value in values if not 0 <= value < len(names)})
    if strange:
        raise DataError(f"{path}: label {strange[0]} is none of the {len(names)} classes in {classes}")
    return [names[value] for value in values]


def read_picture_folder(folder: Path, roles: dict[str, str]) -> dict[str, Table]:
    """Tables of a folder of pictures, by split; empty where it is none.

    Each class is a folder in `folder`, or in folders of it that `roles` knows as splits. Raises DataError for pictures
    that stand in no class's folder; warns of other files, and of classes without a picture.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {roles[path.name.lower()]: path for path in inside if path.name.lower() in roles}
    parts = splits if splits else {"train": folder}
    found: dict[str, Table] = {}
    others: list[Path] = []
    for role, part in parts.items():
        images: list[str] = []
        labels: list[str] = []
        for path in sorted(part.rglob("*")):
            if path.is_dir() or any(name.startswith(".") for name in path.relative_to(part).parts):
                continue
            way = path.relative_to(part).parts
            if path.suffix.lower() not in SUFFIXES:
                others.append(path)
            elif len(way) < 2:
                raise DataError(
                    f"{path}: is in no class's folder; expected {part}/<class>/{path.name}, or a table that names the class"
                )
            else:
                images.append(str(path.relative_to(folder)))
                labels.append(way[0])
        if images:
            columns: dict[str, list[Any]] = {"image": images, "label": labels}
            found[role] = Table(str(folder), columns, tuple(range(1, len(images) + 1)))
            _warn_of_empty(part)
    if found and others:
        said = f"{folder}: {len(others)} files are no pictures by their names, and are not read: {others[0]}"
        warnings.warn(said + (", ..." if len(others) > 1 else ""), TunesmithWarning, stacklevel=2)
    return found


def _warn_of_empty(part: Path) -> None:
    """Warns of classes' folders without a picture: the classes that they name cannot be learned."""
    folders = sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
    empty = [path.name for path in folders if not _files_in(path, SUFFIXES)]
    if empty:
        holds = "holds no picture, and is" if len(empty) == 1 else "hold no pictures, and are"
        said = f"{part}: {', '.join(empty)} {holds} no class of these rows; put pictures in, or remove the folder"
        warnings.warn(said, TunesmithWarning, stacklevel=2)


def _files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder and those in it with these endings, sorted, without hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]


def pictures_in(folder: Path) -> Table:
    """A table of the pictures in a folder, whatever its folders are called. Raises DataError where there is none."""
    found = _files_in(folder, SUFFIXES)
    if not found:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)}); name a folder that does, or a picture")
    return Table(str(folder), {"image": [str(path) for path in found]}, tuple(range(1, len(found) + 1)))


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0][:120]
    return said if said else type(error).__name__
