"""Pictures: where they are read from, what is said of those that cannot be, and tables of them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tunesmith.data.columns import find_columns
from tunesmith.data.images import Picture, Pictures, holds_pictures, pictures_in, read_npz, read_picture_folder, stored
from tunesmith.data.readers import ROLES, read_data
from tunesmith.errors import DataError, TunesmithWarning


def _pixels(seed: int = 0, size: tuple[int, ...] = (9, 13, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _read(folder: Path, name: str) -> Picture:
    return Pictures(str(folder / "table.csv")).of(name)


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    pixels = _pixels()
    (tmp_path / "a.png").write_bytes(_png(pixels))
    found = _read(tmp_path, "a.png")
    assert (str(found), found.fault) == ("a.png", "")
    assert np.array_equal(np.asarray(found.image()), pixels)


def test_every_kind_of_colour_becomes_rgb(tmp_path: Path) -> None:
    grey = _pixels(1, (9, 13))
    for mode in ("L", "LA", "RGBA", "P", "1", "I;16"):
        image = Image.fromarray(grey).convert(mode) if mode != "I;16" else Image.fromarray(grey.astype(np.uint16))
        image.save(tmp_path / "one.png")
        found = _read(tmp_path, "one.png")
        assert found.fault == "" and np.asarray(found.image()).shape == (9, 13, 3), mode
    Image.fromarray(_pixels()).convert("CMYK").save(tmp_path / "one.jpg")
    assert _read(tmp_path, "one.jpg").image().mode == "RGB"


def test_a_camera_s_turn_is_undone(tmp_path: Path) -> None:
    pixels = _pixels()
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is to be turned a quarter to the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(_read(tmp_path, "a.png").image()), np.rot90(pixels, -1))


def test_the_same_pixels_are_the_same_picture_whatever_they_are_called(tmp_path: Path) -> None:
    pixels = _pixels()
    (tmp_path / "a.png").write_bytes(_png(pixels))
    Image.fromarray(pixels).save(tmp_path / "b.bmp")
    np.savez(tmp_path / "c.npz", x=pixels[None])
    inline = _read(tmp_path, "a.png").inline()
    digests = {_read(tmp_path, name).digest for name in ("a.png", "b.bmp", "c.npz[0]", inline)}
    assert len(digests) == 1 and "" not in digests
    other = pixels.copy()
    other[0, 0, 0] ^= 1  # the control: one bit of one value
    (tmp_path / "d.png").write_bytes(_png(other))
    assert _read(tmp_path, "d.png").digest not in digests
    (tmp_path / "e.png").write_bytes(_png(pixels.reshape(13, 9, 3)))  # the same bytes in another shape
    assert _read(tmp_path, "e.png").digest not in digests


def test_what_does_not_decode_says_why(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(_pixels(0, (64, 64, 3))).save(out, "JPEG")
    np.savez(tmp_path / "c.npz", x=_pixels()[None])
    content: dict[str, bytes] = {
        "empty.jpg": b"",
        "text.png": b"this is no picture",
        "cut.jpg": out.getvalue()[:-300],
        "cut.png": _png(_pixels())[:-30],
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    said = {name: _read(tmp_path, name).fault for name in (*content, "nowhere.png", "c.npz[7]", "data:;base64,!!")}
    assert all(said.values()), said
    assert "cannot identify image file" in said["text.png"] and "there is no such file" in said["nowhere.png"]
    assert "truncated" in said["cut.jpg"]
    assert all(_read(tmp_path, name).digest == "" for name in said)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(_png(_pixels()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 13 // 3)
    assert "decompression bomb" in _read(tmp_path, "a.png").fault


def test_inline_and_thumbnail(tmp_path: Path) -> None:
    pixels = _pixels(0, (40, 90, 3))
    (tmp_path / "a.png").write_bytes(_png(pixels))
    found = _read(tmp_path, "a.png")
    again = Pictures("elsewhere").of(found.inline())
    assert np.array_equal(np.asarray(again.image()), pixels)
    small = Image.open(io.BytesIO(base64.b64decode(found.thumbnail(30).partition(",")[2])))
    assert max(small.size) == 30 and found.thumbnail(30).startswith("data:image/jpeg;base64,")
    assert found.thumbnail(128).startswith("data:image/png;base64,")


def test_columns_that_name_pictures() -> None:
    assert holds_pictures(["a.JPG", "b/c.webp", None, "x.npz[3]"])
    assert not holds_pictures(["a.jpg", "some text", "more"])
    assert not holds_pictures([None, ""])
    assert not holds_pictures([1, 2])


def test_npz_with_names_of_classes(tmp_path: Path) -> None:
    pixels = _pixels(0, (3, 8, 8))
    np.savez(tmp_path / "a.npz", x=pixels, y=np.array([1, 0, 1], np.uint8), split=np.array(["train", "test", "train"]))
    (tmp_path / "classes.json").write_text(json.dumps(["cat", "dog"]), encoding="utf-8")
    table = read_npz(b"", str(tmp_path / "a.npz"))
    assert table.columns == {
        "image": ["a.npz[0]", "a.npz[1]", "a.npz[2]"],
        "label": ["dog", "cat", "dog"],
        "split": ["train", "test", "train"],
    }
    shown = np.asarray(Pictures(table.path).of("a.npz[1]").image())
    assert np.array_equal(shown, np.repeat(pixels[1][..., None], 3, axis=2))
    tables = read_data(str(tmp_path))  # the folder: classes.json is no table of it
    assert {name: len(part) for name, part in tables.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"x": np.zeros((3, 8), np.uint8), "y": np.zeros(3, int)},
            r"expected one array of pictures, .*x uint8\[3, 8\]",
        ),
        ({"x": np.zeros((3, 8, 8, 4), np.uint8)}, r"expected one array of pictures, .*x uint8\[3, 8, 8, 4\]"),
        ({"x": np.zeros((3, 3, 8, 8), np.uint8)}, r"expected one array of pictures, .*\[3, 3, 8, 8\]"),
        ({"x": np.zeros((3, 8, 8), np.float32)}, r"expected one array of pictures, uint8 .*x float32\[3, 8, 8\]"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "z": np.zeros((3, 8, 8), np.uint8)}, "expected one array of pictures"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": np.zeros(2, int)}, "y: expected 3 values, one a picture"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": np.array([0, 1, 5])}, "label 5 is none of the 2 classes"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": np.array([{}, {}, {}])}, r"no readable \.npz of plain arrays"),
    ],
)
def test_npz_of_another_shape_is_refused(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "classes.json").write_text('["cat", "dog"]', encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_npz(b"", str(tmp_path / "a.npz"))


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no zip at all")
    with pytest.raises(DataError, match="no readable"):
        read_data(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=np.zeros((1, 8, 8), np.uint8), y=np.array([0]))
    (tmp_path / "classes.json").write_text('{"0": "cat"}', encoding="utf-8")
    with pytest.raises(DataError, match="expected a JSON list of class names"):
        read_data(str(tmp_path / "b.npz"))


def test_a_class_s_folder_without_a_picture_is_said(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/c.png", "test/cat/b.png", "test/dog/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_png(_pixels()))
    for name in ("train/.cache", "train/cat/more", "train/emu", "train/owl"):
        (tmp_path / name).mkdir()
    with pytest.warns(TunesmithWarning) as caught:
        tables = read_data(str(tmp_path))
    assert {name: part.columns["label"] for name, part in tables.items()} == {"train": ["cat", "dog"], "test": ["cat"]}
    assert [str(item.message) for item in caught] == [
        f"{tmp_path}/test: dog holds no picture, and is no class of these rows; put pictures in, or remove the folder",
        f"{tmp_path}/train: emu, owl hold no pictures, and are no class of these rows; put pictures in, or remove the folder",
    ]


def test_a_folder_of_pictures_without_classes(tmp_path: Path) -> None:
    for name in ("b.png", "deep/a.JPG", ".hidden.png", "notes.doc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(_png(_pixels()))
    table = pictures_in(tmp_path)
    assert table.columns == {"image": [str(tmp_path / "b.png"), str(tmp_path / "deep" / "a.JPG")]}
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds no picture \(\.jpg, .*; name a folder that does"):
        pictures_in(tmp_path / "none")


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/more/b.png", "dog/c.png", "dog/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_png(_pixels()))
    (tmp_path / "dog" / "notes.doc").write_text("x", encoding="utf-8")
    with pytest.warns(
        TunesmithWarning, match=r"1 files are no pictures by their names, and are not read: .*notes\.doc"
    ):
        tables = read_data(str(tmp_path))
    assert tables["train"].columns == {
        "image": ["cat/a.png", "cat/more/b.png", "dog/c.png"],
        "label": ["cat", "cat", "dog"],
    }
    assert Pictures(tables["train"].path).of("dog/c.png").fault == ""


def test_splits_of_folders_per_class(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "test/dog/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_png(_pixels()))
    found = read_picture_folder(tmp_path, ROLES)
    assert {name: table.columns["label"] for name, table in found.items()} == {
        "train": ["cat", "dog"],
        "validation": ["cat"],
        "test": ["dog"],
    }
    (tmp_path / "train" / "stray.png").write_bytes(_png(_pixels()))
    with pytest.raises(DataError, match=r"stray\.png: is in no class's folder; expected .*<class>/stray\.png"):
        read_data(str(tmp_path))


def test_pictures_stored_in_a_parquet_table(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    pixels = [_pixels(seed) for seed in range(3)]
    (tmp_path / "c.png").write_bytes(_png(pixels[2]))
    images = [
        {"bytes": _png(pixels[0]), "path": "a.png"},
        {"bytes": _png(pixels[1]), "path": None},
        {"bytes": None, "path": "c.png"},
    ]
    parquet.write_table(pyarrow.table({"image": images, "label": ["x", "y", "x"]}), tmp_path / "t.parquet")
    table = read_data(str(tmp_path / "t.parquet"))["train"]
    assert table.columns["image"] == ["a.png", "picture 2", "c.png"] and holds_pictures(table.columns["image"])
    read = Pictures(table.path).of
    for name, expected in zip(table.columns["image"], pixels, strict=True):
        assert np.array_equal(np.asarray(read(name).image()), expected)


def test_other_records_are_left_as_they_are() -> None:
    for values in ([{"bytes": b"x"}], [{"bytes": b"x", "path": "a", "more": 1}], ["a.png"], [None], []):
        assert stored(values) == values


def test_pictures_of_several_sizes_in_one_array_are_told_a_way(tmp_path: Path) -> None:
    both = np.empty(2, dtype=object)
    both[:] = [np.zeros((4, 4), np.uint8), np.zeros((5, 4), np.uint8)]
    np.savez(tmp_path / "a.npz", x=both, y=np.array(["a", "b"]))
    with pytest.raises(DataError, match="pictures of several sizes make no array: save them as files"):
        read_npz(tmp_path / "a.npz", str(tmp_path / "a.npz"))


def test_a_label_that_is_no_number_is_no_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=_pixels(0, (3, 8, 8)), y=np.array([1.0, np.nan, 0.0]))
    assert read_npz(b"", str(tmp_path / "a.npz")).columns["label"] == [1.0, None, 0.0]


def test_pictures_without_classes_are_no_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=_pixels(0, (30, 8, 8)))
    with pytest.raises(DataError, match=r"name one with --label, which in an \.npz is an array y") as caught:
        find_columns(read_npz(b"", str(tmp_path / "a.npz")), pictures=True, base=lambda: "")
    assert "--task" not in str(caught.value)
