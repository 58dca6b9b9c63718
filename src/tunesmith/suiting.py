"""Settings that go with some networks alone: refused where they do not go, and turned on where they pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import collate
from tunesmith.errors import RecipeError
from tunesmith.methods.base import Plan
from tunesmith.preparing import Encoded
from tunesmith.recipe import Derived, Recipe, TrainingSpec
from tunesmith.seeds import torch_seed
from tunesmith.tasks.base import Task
from tunesmith.training.loop import set_mode

if TYPE_CHECKING:
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor

LARGE_VOCABULARY = 8192  # from which on the loss is computed in parts (docs/log.md, "Loss in parts")
TRIED = 2  # rows


def two_passes_differ(recipe: Recipe, task: Task, network: Network, plan: Plan, encoded: Encoded) -> None:
    """Raises RecipeError where `training.r_drop` asks for two passes that cannot be compared, or are the same: tried."""
    import torch

    if recipe.training.r_drop == 0:
        return
    if type(task).disagreement is Task.disagreement or task.joint:
        raise RecipeError(f"training.r_drop: task {task.part_name()} has no measure of two passes; leave it out")
    rows = encoded.examples["train"]
    batch = collate(
        [rows[row] for row in range(min(TRIED, len(rows)))], network.processor.pad, str(network.sample.device)
    )
    outputs = []
    set_mode(network, plan)
    try:
        for turn in range(2):
            with torch_seed(recipe.seed, "two passes", turn), torch.no_grad():
                outputs.append(network(batch.inputs))
    finally:
        network.eval()
    if torch.equal(*outputs):
        raise RecipeError(
            f"training.r_drop: with method {recipe.method_name} training drops nothing of this base out, so that two "
            "passes are the same; set training.dropout=0.1 too, use --method full, or leave it out"
        )


def new_tokens_train(recipe: Recipe, network: Network, plan: Plan, processor: Processor) -> None:
    """Raises RecipeError where the vocabulary grew and its embeddings stay as they are: new tokens learn nothing."""
    added = processor.added
    if not added:
        return  # a base of pictures has no table of tokens
    table = network.get_submodule(network.layout.body).get_input_embeddings().weight  # type: ignore[operator]
    name = next(name for name, value in network.named_parameters() if value is table)
    if name not in plan.trainable:
        raise RecipeError(
            f"task.new_tokens: method {recipe.method_name} leaves the embeddings as they are, so {len(added):,} "
            "new tokens would stay the mean of their pieces; use --method full, or layers with method.embeddings=true, or "
            "leave task.new_tokens out"
        )


def attention_learns(recipe: Recipe, network: Network, plan: Plan) -> None:
    """Raises RecipeError where training would drop all that the base attends to, or a share that is none.

    torch's kernels for GPUs refuse such a rate, and no other form of attention learns anything by it.
    """
    from transformers import PreTrainedModel

    from tunesmith.models.attention import dropped_by

    body = network.get_submodule(network.layout.body)
    trains = any(name.startswith(f"{network.layout.body}.") for name in plan.trainable)
    if not isinstance(body, PreTrainedModel) or not trains or plan.cut >= len(network.layout.blocks):
        return
    key, rate = dropped_by(body.config)
    if not 0 <= rate < 1:
        raise RecipeError(
            f"training.dropout: {key} = {rate:g} in the base's config.json drops all that it attends to in training: a rate "
            "is 0 or more, and below 1; set training.dropout=0.1, or use --method head"
        )


def scratch_fits(recipe: Recipe, network: Network) -> None:
    """Raises RecipeError where the rival of `evaluation.scratch` could not be trained."""
    from tunesmith.models.layout import has_batch_norms

    if recipe.evaluation.scratch and has_batch_norms(network):
        raise RecipeError(
            "evaluation.scratch: this base has batch norms, whose statistics stay those of its pretraining, so that random "
            "weights would not fit them; leave it out"
        )


def patience_told(asked: TrainingSpec, epochs: int, validated: bool) -> list[Derived]:
    """What patience comes to where it, or how often it is counted, was given; nothing where nothing could stop early."""
    usual = TrainingSpec()
    given = (asked.patience, asked.evaluations) != (usual.patience, usual.evaluations)
    if not given or asked.patience == 0 or not validated:
        return []
    whole = epochs * asked.evaluations
    if whole <= asked.patience:
        why = f"the run has {whole} evaluations in all, so that it never stops early"
    else:
        far = asked.patience / asked.evaluations
        why = f"of {whole} evaluations in all: it stops after {far:.3g} epochs without progress"
    return [Derived("training.patience", asked.patience, why)]


def loss_in_parts(asked: TrainingSpec, network: Network) -> list[Derived]:
    """Whether a language model's outputs are made a few places at a time. Raises RecipeError where that is asked in vain."""
    from tunesmith.models.lazy_logits import VocabularyNetwork, lazy_fits

    vocabulary = network.vocabulary if isinstance(network, VocabularyNetwork) else 0
    if asked.chunked_loss is True and asked.r_drop > 0:
        raise RecipeError("training.chunked_loss: r_drop compares whole outputs; leave one of the two out")
    small = asked.chunked_loss == "auto" and (vocabulary < LARGE_VOCABULARY or asked.r_drop > 0)
    if asked.chunked_loss is False or small:
        return []
    why_not = lazy_fits(network)
    if why_not and asked.chunked_loss is True:
        raise RecipeError(f"training.chunked_loss: {why_not}; leave it out")
    network.lazy = not why_not
    said = why_not or f"{vocabulary:,} outputs for each token, which training never holds all at once"
    return [Derived("training.chunked_loss", not why_not, said)]


def packed_by_kernel(
    asked: TrainingSpec, earlier: Mapping[str, Any], network: Network, packed: bool, limit: int
) -> tuple[TrainingSpec, list[Derived]]:
    """The settings with what came of `training.flash_packed`. Raises RecipeError where that is asked in vain.

    To be called once the weights have their device and number format. A resumed run does as it did, where it still can.
    """
    from tunesmith.models.language import CausalNetwork
    from tunesmith.models.packed_attention import use_packed

    key = "training.flash_packed"
    wanted = earlier.get(key, False) if earlier and asked.flash_packed == "auto" else asked.flash_packed
    if wanted is False or not packed or not isinstance(network, CausalNetwork):
        if asked.flash_packed is True:
            raise RecipeError(f"{key}: rows of a causal language model alone are packed, by task.packing; leave it out")
        return asked.model_copy(update={"flash_packed": False}), []
    why_not = use_packed(network.body, network.text.ordinary_tokens, limit)
    if why_not and asked.flash_packed is True:
        raise RecipeError(f"{key}: {why_not}; leave it out")
    quiet = why_not and network.sample.device.type == "cpu"
    said = why_not or "the kernel computes each text by itself, and gives what the usual form gives"
    found = [] if quiet else [Derived(key, not why_not, said)]
    return asked.model_copy(update={"flash_packed": not why_not}), found
