"""The artifact: written from the untouched base and the best parameters, read back, and proven equal before it counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.assembly import build_network, method_of
from tunesmith.data.encode import Text
from tunesmith.data.images import Picture
from tunesmith.data.words import Words
from tunesmith.errors import ArtifactError, ModelError
from tunesmith.evaluation.infer import infer
from tunesmith.files import sync_folder, sync_tree, write_whole
from tunesmith.methods.base import Rates
from tunesmith.predictor import BFLOAT16, CARD, FLOAT32, Card, Predictor, load
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.saved import write_network
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.tasks._certainty import fold_temperature
from tunesmith.tasks.base import Labels, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.assembly import Built
    from tunesmith.methods.base import Plan
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor
    from tunesmith.models.resolve import Source
    from tunesmith.training.loop import Run

PROBES = 8  # stored texts whose outputs are compared each time the model is written or read elsewhere
LONGEST_PROBE = 1024  # tokens of a text made up for that, which takes as long as many rows; a row may be longer
MOST_LETTERS = 100  # of such a text, for each token of the limit
TOLERANCE = 1e-4  # largest difference of a probability, or a standardised number, between two float32 networks
ROUNDING = 0.1  # and between a bfloat16 network and a float32 one: each layer rounds to 3 digits


@dataclass(frozen=True)
class Delivered:
    """model/ as it was read back, and what was learnt on the way."""

    predictor: Predictor  # in the number format that it is to be measured and used in
    whole: Network | None  # in float32, to be compared with the base; None where nothing is
    opens: str  # how model/ opens
    held: list[Prediction] | None  # what the predictor says of the validation rows, where it was asked


def deliver(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    source: Source,
    loop: Run,
    best: Mapping[str, Tensor],
    built: Built,
    run: Path,
) -> Delivered:
    """Writes model/ (and adapter/), reloads it and compares.

    Compared twice: with the network that was trained, in its own number format, and with the float32 network that was
    written; adapter/ with the latter. Raises ArtifactError when what is read back does not predict what these do.
    """
    import torch

    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.saving import readable
    from tunesmith.models.seal import seal

    with torch_seed(recipe.seed, "base"):  # as the pipeline reads it
        backbone = load_backbone(source)
    prepared.task.widen(backbone.processor, prepared.texts("train"))
    loop.masters.overwrite(dict(best))  # the trained network, as it was at its best
    rate, head_rate = loop.training.rate, loop.training.head_rate
    assert rate != "auto" and head_rate != "auto", "resolved before the first step"
    network, plan = build_network(recipe, prepared, backbone, Rates(rate, head_rate, ""))
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in best.items():
            if name in built.kept_rows:
                parameters[name][built.kept_rows[name]] = value.cpu()
            else:
                parameters[name].copy_(value)
    settled = _settled(recipe, loop, prepared, encoded, backbone.processor.pad)
    labels = fold_temperature(network, settled)  # before anything is written: adapter/ and model/ both hold it
    columns = prepared.columns
    lowered = network.lowers and loop.training.precision == BFLOAT16
    dtype = BFLOAT16 if lowered else FLOAT32
    card = Card(prepared.task, labels, columns.text, columns.pair, columns.asked_label, encoded.limit, dtype)
    split = next(name for name in ("validation", "train") if prepared.texts(name))
    rows, texts = _probes(prepared, encoded, split, backbone.processor)
    expected = _evidence(Predictor(run, network, card), texts)
    _deliver_adapter(recipe, prepared, source, network, plan, card, texts, expected, run)
    method_of(recipe).fold(network)
    card = replace(card, labels=prepared.task.fold(network, labels))
    partial, final = run / ".partial-model", run / "model"
    shutil.rmtree(partial, ignore_errors=True)
    opens = write_network(method_of(recipe), network, plan, prepared.labels.names, encoded.limit, partial)
    opens = opens.replace(str(partial), str(final))
    write_whole(partial / CARD, json.dumps(card.to_plain(), indent=2) + "\n")
    write_whole(partial / "README.md", _how_to_use(recipe, card, final, opens))
    probes = {"texts": [_stored(text) for text in texts], "evidence": expected, "tolerance": TOLERANCE}
    write_whole(partial / "probes.json", json.dumps(probes, indent=2) + "\n")
    readable(partial)
    seal(partial)
    written = load(partial, loop.source.device, FLOAT32)
    check_parity(written, partial)
    trained = _as_trained(loop, prepared, encoded, settled, split, rows, backbone.processor.pad)
    allowed = ROUNDING if loop.training.precision == "bfloat16" else TOLERANCE
    allowed *= max(1.0, 1 / settled.temperature)  # which multiplies what the outputs differ by
    _compare_trained(written, texts[: len(rows)], trained, allowed, partial, loop.training.precision)
    measured = written
    if lowered:
        measured = load(partial, loop.source.device, FLOAT32).as_measured()
    if measured.dtype == BFLOAT16:
        _compare(_evidence(measured, texts[: len(rows)]), trained, allowed, partial)
    card, held = _as_measured(recipe, prepared, loop, measured)
    write_whole(partial / CARD, json.dumps(card.to_plain(), indent=2) + "\n")
    seal(partial)
    shutil.rmtree(final, ignore_errors=True)
    sync_tree(partial)  # the weights, before the name that says the model is there
    partial.rename(final)
    sync_folder(final.parent)
    whole = written.network if built.meters else None
    return Delivered(Predictor(final, measured.network, card), whole, opens, held)


def _deliver_adapter(
    recipe: Recipe,
    prepared: Prepared,
    source: Source,
    network: Network,
    plan: Plan,
    card: Card,
    texts: list[Text],
    expected: list[list[float]],
    run: Path,
) -> None:
    """Writes adapter/ where the method has such a form, reads it back onto the base, and compares."""
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.saving import readable

    method = method_of(recipe)
    partial, final = run / ".partial-adapter", run / "adapter"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    if not method.folds or not method.save(network, plan, partial):
        return  # what does not fold is part of model/, and proven with it
    readable(partial)
    with torch_seed(recipe.seed, "adapter"):  # other draws: what the base lacks (a pooler) must be in the adapter
        base = load_backbone(source)
    pair = prepared.columns.pair is not None
    again = prepared.task.head(base, prepared.labels, pair, seed_of(recipe.seed, "adapter"))
    try:
        method.load(again, partial)
    except ModelError as error:
        raise ArtifactError(*error.problems) from None
    _compare(_evidence(Predictor(run, again, card), texts), expected, TOLERANCE, final)
    partial.rename(final)


def check_parity(predictor: Predictor, folder: Path) -> None:
    """Replays the stored texts with a float32 network. Raises ArtifactError where it differs by more than is stored."""
    probes = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    texts = [predictor.read(text) for text in probes["texts"]]
    _compare(_evidence(predictor, texts), probes["evidence"], probes["tolerance"], folder)


def _stored(text: Text) -> Any:
    """A text as JSON holds it, and `Predictor.read` reads it anywhere: words as a list, a picture with its content."""
    if isinstance(text, Picture):
        return text.inline()
    return text.words() if isinstance(text, Words) else text


def _evidence(predictor: Predictor, texts: list[Text]) -> list[list[float]]:
    return [list(item.evidence) for item in predictor.quiet_predictions(texts)]


def _compare(found: list[list[float]], expected: list[list[float]], allowed: float, folder: Path) -> None:
    worst = max(
        abs(here - there)
        for row, stored in zip(found, expected, strict=True)
        for here, there in zip(row, stored, strict=True)
    )
    if not worst <= allowed:
        raise ArtifactError(
            f"{folder}: the model read back differs from the one trained by {worst:.2g} in what it says (at most "
            f"{allowed:g} is rounding); do not use it: please report this with the run's manifest.json"
        )


def _compare_trained(
    written: Predictor, texts: list[Text], trained: list[list[float]], allowed: float, folder: Path, precision: str
) -> None:
    """`_compare` with what the trained network said; in the format it was trained in, where float32 says something else.

    A head with large weights makes much of the third digit, which is all that bfloat16 has of the features.
    """
    import torch

    from tunesmith.models.casting import cast

    try:
        _compare(_evidence(written, texts), trained, allowed, folder)
    except ArtifactError:
        if precision != BFLOAT16:
            raise
        again = load(folder, str(written.network.sample.device.type), FLOAT32)
        cast(again.network, torch.bfloat16)
        _compare(_evidence(again, texts), trained, allowed, folder)


def _probes(prepared: Prepared, encoded: Encoded, split: str, processor: Processor) -> tuple[list[int], list[Text]]:
    """The first rows of the split and the first one that is cut; their texts, and a made-up long one where none is cut.

    Only a text that is cut shows that the length limit was saved with the model.
    """
    texts = prepared.texts(split)
    rows = list(range(min(PROBES, len(texts))))
    cut = next((example.source for example in encoded.examples[split] if example.cut > 0), None)
    if cut is not None and cut not in rows:
        rows.append(cut)
    chosen = [texts[row] for row in rows]
    if cut is None and encoded.limit <= LONGEST_PROBE:
        long = " ".join(text if isinstance(text, str) else " ".join(text) for text in chosen)
        while len(long) < MOST_LETTERS * encoded.limit:
            made_up: Text = long if prepared.columns.pair is None else (long,) * len(prepared.columns.texts)
            if processor.encode(made_up, encoded.limit)[1] > 0:
                return rows, [*chosen, made_up]
            long = f"{long} {long}"
    return rows, chosen


def _as_trained(
    loop: Run,
    prepared: Prepared,
    encoded: Encoded,
    labels: Labels,
    split: str,
    rows: list[int],
    pad: dict[str, int],
) -> list[list[float]]:
    """The evidence of some rows of a split by the very network that was trained, cache and all."""
    loop.network.eval()
    task = prepared.task
    if task.judges_by_truth:  # judged without their targets, as the model that was read back judges them
        texts = [prepared.texts(split)[row] for row in rows]
        alone = task.encode(texts, None, prepared.labels, loop.network.processor, encoded.limit)
        found, _ = infer(lambda batch: loop.network(batch.inputs), task, alone, labels, pad, loop.source.device)
        return [list(prediction.evidence) for prediction in found]
    found, _ = infer(
        lambda batch: loop.trunk.forward(split, batch),
        task,
        [example for example in encoded.examples[split] if example.source in rows],
        labels,
        pad,
        loop.source.device,
    )
    return [list(prediction.evidence) for prediction in found]


def _as_measured(
    recipe: Recipe, prepared: Prepared, loop: Run, measured: Predictor
) -> tuple[Card, list[Prediction] | None]:
    """The card with the number format that the delivered model computes in, and what validation rows tell of it.

    What sets and thresholds promise is exact for rows that are scored as the validation rows were, and a network that was
    trained in bfloat16 rounds more. With what the model says of these rows, where there was need to ask.
    """
    card, truth = measured.card, prepared.truth("validation")
    if card.dtype == BFLOAT16:
        card = replace(card, dtype=measured.dtype)
    known = card.labels.calibration
    if loop.training.precision == FLOAT32 or known is None or not known.scores:
        return card, None
    found = measured.judged(prepared.texts("validation"), truth, answers=False)
    return replace(card, labels=card.task.calibrate(found, truth, card.labels, recipe.evaluation.confidence)), found


def _settled(recipe: Recipe, loop: Run, prepared: Prepared, encoded: Encoded, pad: dict[str, int]) -> Labels:
    """The labels with what the task chooses by the trained network's predictions on the validation rows."""
    truth = prepared.truth("validation")
    if not truth:
        return prepared.labels
    loop.network.eval()
    found, _ = infer(
        lambda batch: loop.trunk.forward("validation", batch),
        prepared.task,
        encoded.examples["validation"],
        prepared.labels,
        pad,
        loop.source.device,
    )
    task = prepared.task
    labels, found = task.temper(found, truth, prepared.labels, recipe.seed)
    labels = task.settle(found, truth, labels)
    return task.calibrate(found, truth, labels, recipe.evaluation.confidence)


def _how_to_use(recipe: Recipe, card: Card, final: Path, opens: str) -> str:
    names = ", ".join(card.labels.names[:20]) + (", ..." if len(card.labels.names) > 20 else "")
    text = '"some text"' if card.pair_column is None else '"some text" --pair "another text"'
    if card.task.reads_pictures:
        text = "picture.jpg"
    entry = '"..."' if card.pair_column is None else '("...", "...")'
    units = (
        "\nOutputs are standardised: multiply by scale and add center of tunesmith.json.\n"
        if card.labels.standardised
        else ""
    )
    known = card.labels.calibration
    cooled = ""
    if known is not None and known.temperature != 1 and card.labels.temperature == 1:
        cooled = f"\nThe last linear map is divided by a temperature of {known.temperature:.3g} ({known.why}).\n"
    elif card.labels.temperature != 1:
        cooled = "\nDivide the outputs by temperature of tunesmith.json to get the probabilities that were measured.\n"
    return (
        f"# {recipe.model}, fine-tuned by Tunesmith\n\n"
        f"Task: {card.task.part_name()}, {card.task.describe(card.labels)}{f' ({names})' if names else ''}.\n"
        f"Method: {method_of(recipe).part_name()}. What it was worth is in the run's report.html.\n\n"
        f'- `tunesmith predict {final} {text}`, or `tunesmith.load("{final}").predict([{entry}])` in Python.\n'
        f"- This folder {opens}.\n{units}{cooled}"
    )
