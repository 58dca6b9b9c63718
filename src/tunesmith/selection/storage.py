"""Where a study is kept: in a file of the search's folder, or in a database that several machines share."""

from __future__ import annotations

import platform
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.files import write_whole
from tunesmith.selection.journal import alone, check_journal, journal, mend
from tunesmith.selection.lease import BEAT, GRACE
from tunesmith.selection.spec import SearchSpec

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.storages import BaseStorage

JOURNAL, NAME, TOKEN = "study.journal", "search", ".machine"
COMMITS = "commits"  # an attribute of a study


def check_optuna() -> None:
    """Raises RecipeError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise RecipeError('search: needs Optuna, which is not installed; pip install "tunesmith[search]"') from None


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna does not warn of what is new in it; what it notes is no line of ours."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def name_of(folder: Path, spec: SearchSpec) -> str:
    """Of the study. In a database, which may hold many, that of the folder: other machines name theirs the same."""
    return NAME if spec.storage is None else folder.resolve().name


def owner_of(folder: Path, spec: SearchSpec) -> str:
    """A folder of a machine. In a database it must be told from one of the same path on another machine of the same name."""
    place = f"{platform.node()}:{folder.resolve()}"
    if spec.storage is None:
        return place
    if not (folder / TOKEN).exists():
        write_whole(folder / TOKEN, uuid.uuid4().hex + "\n")
    return f"{place} ({(folder / TOKEN).read_text(encoding='utf-8').strip()})"


def storage_of(folder: Path, spec: SearchSpec) -> tuple[BaseStorage, str]:
    """Where a study is kept, and what was put right there, or "". Raises ArtifactError where the file is damaged.

    Raises RecipeError where the database cannot be used.
    """
    if spec.storage is None:
        path = folder / JOURNAL
        with alone(path.with_name(f".{path.name}.lock")):
            repaired = mend(path)
            check_journal(path)
        return journal(path), repaired
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise RecipeError(
            'search.storage: a database needs SQLAlchemy; pip install "tunesmith[search]" sqlalchemy, or leave it out'
        ) from None
    try:
        return RDBStorage(
            spec.storage,
            heartbeat_interval=BEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        ), ""
    except (ImportError, SQLAlchemyError, ValueError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"search.storage: {spec.storage} cannot be opened ({said}); put the address right, install its driver, or leave "
            "it out for a file in the search's own folder"
        ) from None


def commits_of(study: OptunaStudy, found: Mapping[str, str]) -> dict[str, str]:
    """By hub base the commit that was noted in the study first; `found` is noted where it has none."""
    known: dict[str, str] = study.user_attrs.get(COMMITS, {})
    if found.keys() - known.keys():
        study.set_user_attr(COMMITS, {**found, **known})
        known = study.user_attrs[COMMITS]
    return dict(known)
