"""All examinations, in the order that they are told in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunesmith.auditing import balance, drift, fields, giveaway, label_errors, languages, lengths, near_duplicates
from tunesmith.auditing.base import Examined, Material, not_done
from tunesmith.preparing import Encoded, Prepared

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.processor import Processor

CHEAP = (near_duplicates, balance, lengths, fields, giveaway, drift)
ALL = (near_duplicates, label_errors, balance, lengths, languages, fields, giveaway, drift)


def examined(material: Material) -> list[Examined]:
    """Every examination."""
    return [part.examine(material) for part in ALL]


def audit(
    prepared: Prepared,
    encoded: Encoded | None = None,
    processor: Processor | None = None,
    features: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    unlabelled: str = "there are no features of the base to tell them by",
) -> list[Examined]:
    """What a run is to know of its rows before it trains, beside the findings of reading and encoding.

    features: split -> [rows, width], what the frozen base makes of each row of its table; with them labels are examined
    too, else `unlabelled` says why not. Languages are left to `tunesmith audit`.
    """
    material = Material.of(prepared, encoded, processor, features, seed)
    found = [part.examine(material) for part in CHEAP]
    whole = features is not None or not material.one_class
    found.append(label_errors.examine(material) if whole else not_done(label_errors.NAME, unlabelled))
    found.append(not_done(languages.NAME, "tunesmith audit tells them", not material.pictures))
    return found
