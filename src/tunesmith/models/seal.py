"""The seal of a saved model: the digest of each of its files, written last and checked before anything is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tunesmith.errors import ArtifactError, Problems

SEAL = "sha256.json"
UNSEALED = (SEAL, "README.md")  # the card is for people, who may add to it


def seal(folder: Path) -> None:
    """Writes `SEAL`: file name -> hexadecimal sha256, of every file in `folder` and the folders in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    digests = {name: _sha256(folder / name) for name in names if name not in UNSEALED}
    (folder / SEAL).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def check_seal(folder: Path) -> None:
    """Raises ArtifactError, naming every file that is missing or not as it was written.

    Files that were put there later are no concern of the seal's: nothing that it vouches for reads them.
    """
    path = folder / SEAL
    again = "copy the whole model/ folder from its run again, or train the model anew"
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
        stored = {folder / name: str(digest) for name, digest in digests.items()}
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: has no {SEAL}, so nothing says that its files are whole; {again}") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); {again}") from None
    problems = Problems()
    for file, digest in stored.items():
        if not file.is_file():
            problems.add(f"{file}: is missing; {again}")
        elif _sha256(file) != digest:
            problems.add(f"{file}: was changed or damaged since it was written (its sha256 is another); {again}")
    problems.raise_as(ArtifactError)


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
