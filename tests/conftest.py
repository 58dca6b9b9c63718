"""What the tests share: one thread, tiny model folders written once a session, a small labelled table."""

from __future__ import annotations

import os

# Before torch is imported: one thread makes sums the same everywhere, and leaves the cores to the other workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from families import FAMILIES, STATIC, VISION_FAMILIES
from shortruns import write_rows


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep on disk for later ones is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family name -> folder of its tiny model. Nobody may write into it."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = {**FAMILIES, **STATIC, **VISION_FAMILIES}[family](tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 90 short texts of unequal length in 3 classes, columns text and label."""
    return write_rows(tmp_path_factory.mktemp("table") / "rows.csv", 90)
