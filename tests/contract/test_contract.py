"""What holds for every task x method x model family; a new file in tasks/ or methods/ is found and tried here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cases import (
    BARE,
    NOT_STATIC,
    PICTURED,
    SAMPLES,
    UNKNOWING,
    Case,
    Set,
    all_cases,
    families_of,
    fits,
    set_up,
    static_cases,
)

from families import NO_BIASES, NO_INTERFACE, NO_LINEARS, NOT_REPLAYED, VISION
from tunesmith import catalog
from tunesmith.errors import ModelError, TrainingError
from tunesmith.methods.base import Group, Plan

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.data.encode import Batch, Example
    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Prediction
    from tunesmith.training.trunk import Trunk

UNREAD = "embeddings.mask_token"  # dinov2's, which stands for what pretraining hides and no classifier reads
CASES = all_cases()
FIRST = [case for case in CASES if case.family == families_of(case.task)[0] and case.task_options == ()]


@pytest.fixture(scope="session")
def backbone_of(model_folder: Callable[[str], Path]) -> Callable[[str], Backbone]:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    made: dict[str, Backbone] = {}

    def of(family: str) -> Backbone:
        if family not in made:
            made[family] = load_backbone(resolve(str(model_folder(family))))
        return made[family]

    return of


def take_steps(made: Set, count: int = 2) -> list[float]:
    """Optimizer steps on the one batch in two parts, evaluated in between; the loss of each."""
    import torch

    from tunesmith.data.encode import collate
    from tunesmith.training.loop import set_mode
    from tunesmith.training.step import Objective, optimizer_step

    inputs, pad = made.batch.inputs, made.network.processor.pad
    parts = [collate(made.examples[part], pad) for part in (slice(0, 6), slice(6, None))]
    losses = []
    for step in range(count):
        made.network.eval()
        with torch.inference_mode():
            made.network(inputs)
        set_mode(made.network, made.plan)
        losses.append(
            optimizer_step(
                Objective(made.task, lambda batch: made.network(batch.inputs)), parts, made.masters, 1.0, None, 7, step
            ).loss
        )
    made.network.eval()
    return losses


def values(network: Network) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def predicted(made: Set, output: Tensor, labels: Labels) -> list[Prediction]:
    from tunesmith.data.encode import windows

    found = made.task.judged(output, made.batch, labels)
    return made.task.whole(found, windows(made.examples), labels)


def unmoved(made: Set, before: dict[str, Tensor]) -> set[str]:
    import torch

    return {name for name, value in made.network.named_parameters() if torch.equal(value, before[name])}


def test_every_task_has_sample_rows() -> None:
    assert set(SAMPLES) == set(catalog.names("tasks"))
    assert {case.method for case in CASES} == set(catalog.names("methods"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case: Case, backbone_of: Callable[[str], Backbone], tmp_path: Path) -> None:
    import torch

    backbone = backbone_of(case.family)
    pretrained = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    made = set_up(case, backbone)
    _check_plan(made)
    with torch.no_grad():
        start = made.network.eval()(made.batch.inputs)
    assert torch.equal(start, made.before) != (case.method in UNKNOWING), (
        "what is attached is the identity before the first step"
    )
    _check_loss(made, start)
    before = values(made.network)
    losses = take_steps(made)
    assert all(loss == loss and abs(loss) < 1e3 for loss in losses)
    # A LoRA `down` has no gradient while its `up` is zero: the second step moves it.
    unread = {name for name in made.plan.trainable if name.endswith(UNREAD)}
    assert unmoved(made, before) == made.plan.frozen | unread, "what is frozen stays bitwise, what is trainable moves"
    _check_saved(made, tmp_path)
    assert all(torch.equal(value, pretrained[name]) for name, value in backbone.module.state_dict().items())


def _check_plan(made: Set) -> None:
    made.plan.check(made.network)
    present = [name for name, _ in made.network.named_parameters()]
    assert sorted([*made.plan.trainable, *made.plan.frozen]) == sorted(present)
    assert {name for name, value in made.network.named_parameters() if value.requires_grad} == set(made.plan.trainable)
    assert 0 <= made.plan.cut <= len(made.network.layout.blocks)
    prefix = tuple(f"{name}." for name in made.network.layout.blocks[: made.plan.cut])
    assert not [name for name in made.plan.trainable if prefix and name.startswith(prefix)]
    assert made.network.fresh <= set(made.plan.trainable), "what starts random must train"


def _check_loss(made: Set, output: Tensor) -> None:
    from torch.nn import functional

    found, target = made.task.loss(output, made.batch), made.batch.target
    options = made.task.model_dump()
    oracles = {
        "classification": lambda: functional.cross_entropy(output, target, label_smoothing=options["label_smoothing"]),
        "image_classification": lambda: functional.cross_entropy(
            output, target, label_smoothing=options["label_smoothing"]
        ),
        "multilabel": lambda: functional.binary_cross_entropy_with_logits(output, target),
        "regression": lambda: (functional.mse_loss if options["error"] == "squared" else functional.huber_loss)(
            output, target
        ),
        "token_classification": lambda: functional.cross_entropy(output.flatten(0, 1), target.flatten()),
        "instruction": lambda: functional.cross_entropy(output[:, :-1].flatten(0, 1), target[:, 1:].flatten()),
        "causal_lm": lambda: functional.cross_entropy(output[:, :-1].flatten(0, 1), target[:, 1:].flatten()),
        "masked_lm": lambda: functional.cross_entropy(output.flatten(0, 1), target.flatten()),
        "seq2seq": lambda: functional.cross_entropy(
            output.flatten(0, 1), target[:, : output.shape[1]].flatten(), label_smoothing=options["label_smoothing"]
        ),
        "question_answering": lambda: _span_loss(made, output),
    }
    if made.case.task in oracles:  # the others' losses are held against their references in tests/unit
        assert float(found.total / found.weight) == pytest.approx(float(oracles[made.case.task]()), rel=1e-6)
    said = predicted(made, output, made.labels)
    assert [item.row for item in said] == list(range(len(SAMPLES[made.case.task][0])))
    if made.case.task == "classification":
        assert [sum(item.evidence) for item in said] == pytest.approx([1.0] * len(said), abs=1e-5)
    truth = [target for _, target in SAMPLES[made.case.task][0]]
    scores = made.task.score(said, truth, made.labels)
    # Of pairs some are of scores alone: they are measured in tests/unit/test_embedding.py.
    elsewhere = {"embedding": {"spearman", "pearson"}, "regression": {"rmse"}}  # of one number, where these are two
    known = set(made.task.metrics) - elsewhere.get(made.case.task, set())
    assert set(scores.metrics) == known
    assert all(scores.value(name) == scores.value(name) for name in scores.metrics), "no metric is nan"
    assert all(len(values) == len(said) for values in made.task.columns(said, made.labels).values())
    settled = made.task.settle(said, truth, made.labels)
    assert [item.evidence for item in made.task.restate(said, settled)] == [item.evidence for item in said]


def _span_loss(made: Set, output: Tensor) -> Tensor:
    """Mean over the windows, each without filler, of the cross-entropies of start and end."""
    import torch
    from torch.nn.functional import cross_entropy

    losses = []
    for logits, example in zip(output, made.examples, strict=True):
        edges = _edges(example)
        losses += [cross_entropy(logits[: example.length, side], torch.tensor(edges[side])) for side in (0, 1)]
    return torch.stack(losses).mean()


def _edges(example: Example) -> tuple[int, int]:
    """The tokens at which the answer starts and ends: 1 marks the one, 2 the other, 3 both."""
    return next(at for at, kind in enumerate(example.target) if kind in (1, 3)), example.target.index(
        3 if 3 in example.target else 2
    )


def _check_saved(made: Set, folder: Path) -> None:
    import torch

    from tunesmith.saved import read_network, write_network

    with torch.no_grad():
        trained = made.network(made.batch.inputs)
        assert not torch.equal(trained, made.before)
        made.method.fold(made.network)
        said = predicted(made, trained, made.labels)
        labels_after = made.task.fold(made.network, made.labels)
        trained = made.network(made.batch.inputs)
        again = predicted(made, trained, labels_after)
        for one, two in zip(said, again, strict=True):
            assert one.evidence == pytest.approx(two.evidence, abs=1e-4), "folding changes no answer"
        write_network(made.method, made.network, made.plan, made.labels.names, 40, folder / "model")
        loaded, labels = read_network(folder / "model")
        reloaded = loaded(made.batch.inputs)
    assert labels == (() if made.case.task in BARE else made.labels.names)
    assert (reloaded - trained).abs().max().item() <= (0.0 if made.method.part_name() != "lora" else 2e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.plain], ids=str)
def test_cached_equals_live(case: Case, backbone_of: Callable[[str], Backbone]) -> None:
    """Loss and gradients in training mode, dropout drawn from the same seed.

    Bitwise for a batch of the rows that were together when the cache was filled. A row's last bit depends on which rows
    share its matrix products, so another batch agrees to rounding: 1e-6 of the largest gradient.
    """
    import torch

    from tunesmith.data.encode import collate
    from tunesmith.data.order import by_tokens
    from tunesmith.training.trunk import CPU_TOKENS, Live, plan_trunk

    made = set_up(case, backbone_of(case.family))
    pad = backbone_of(case.family).processor.pad
    cached = plan_trunk(made.network, made.plan, {"train": made.examples}, "memory", pad)
    live = plan_trunk(made.network, made.plan, {"train": made.examples}, "off", pad)
    assert isinstance(live, Live)
    last = set() if made.network.output is None else set(made.network.output.parameters())
    head_only = {made.network.get_parameter(name) for name in made.plan.trainable} == last
    replayed = made.plan.cut > 0 and made.case.family not in NOT_REPLAYED
    assert isinstance(cached, Live) == (not replayed and not head_only), cached.why
    (together,) = by_tokens([example.length for example in made.examples], CPU_TOKENS)
    for rows, tolerance in ((together, 0.0), ([7, 2, 9], 1e-6)):
        batch = collate([made.examples[row] for row in rows], pad)
        here, there = _gradients(made, cached, batch), _gradients(made, live, batch)
        assert here.keys() == there.keys()
        largest = max(float(value.abs().max()) for value in there.values())
        worst = max(float((value - there[name]).abs().max()) for name, value in here.items())
        assert worst <= tolerance * max(1.0, largest)
        assert torch.equal(here["loss"], there["loss"]) or tolerance > 0


def _gradients(made: Set, trunk: Trunk, batch: Batch) -> dict[str, Tensor]:
    """The gradient of every trainable parameter by name, and the loss."""
    from tunesmith.seeds import torch_seed
    from tunesmith.training.loop import set_mode

    set_mode(made.network, made.plan)
    with torch_seed("dropout"):
        loss = made.task.loss(trunk.forward("train", batch), batch)
    loss.total.backward()
    gradients = {name: made.network.get_parameter(name).grad for name in made.plan.trainable}
    made.network.zero_grad(set_to_none=True)
    return {"loss": loss.total.detach(), **{name: value for name, value in gradients.items() if value is not None}}


@pytest.mark.parametrize("case", static_cases(fitting=False), ids=str)
def test_what_does_not_fit_word_vectors_says_what_does(case: Case, backbone_of: Callable[[str], Backbone]) -> None:
    says = "choose another base" if case.task in NOT_STATIC else f"method {case.method}: .*; use full or head"
    if case.method == "head" and case.task in BARE:
        says = "no head to train; use full$"
    with pytest.raises(ModelError, match=says):
        set_up(case, backbone_of(case.family))


@pytest.mark.parametrize("family", NO_LINEARS)
def test_low_rank_maps_need_linear_layers(family: str, backbone_of: Callable[[str], Backbone]) -> None:
    for task in PICTURED:
        with pytest.raises(ModelError, match="no linear layers inside its blocks; use full, layers or head"):
            set_up(Case(task, "lora", family, (), ()), backbone_of(family))
    assert not fits("lora", family)


@pytest.mark.parametrize("family", VISION)
def test_pictures_have_no_tokens_to_learn_before(family: str, backbone_of: Callable[[str], Backbone]) -> None:
    for method in ("prompt", "p_tuning", "prefix"):
        says = f"method {method}: this base does not read tokens one after another, .*; use .*full or head$"
        with pytest.raises(ModelError, match=says):
            set_up(Case("image_classification", method, family, (), ()), backbone_of(family))


@pytest.mark.parametrize("family", NO_INTERFACE)
def test_a_prefix_needs_an_attention_that_takes_one(family: str, backbone_of: Callable[[str], Backbone]) -> None:
    says = "takes no keys and values beside its own; use prompt, lora, layers, full or head$"
    with pytest.raises(ModelError, match=says):
        set_up(Case("classification", "prefix", family, (), ()), backbone_of(family))


@pytest.mark.parametrize("family", NO_BIASES)
def test_bitfit_needs_biases(family: str, backbone_of: Callable[[str], Backbone]) -> None:
    with pytest.raises(ModelError, match=r"no biases, .*; use lora, norms, layers, head or full$"):
        set_up(Case("classification", "bitfit", family, (), ()), backbone_of(family))


@pytest.mark.parametrize(
    ("family", "task"),
    [(family, task) for task in catalog.names("tasks") if task not in BARE for family in families_of(task)],
)
def test_loss_equals_transformers_own(family: str, task: str, backbone_of: Callable[[str], Backbone]) -> None:
    """The family's classifier in transformers, given labels=, computes the same mean loss."""
    import torch

    from tunesmith.models.language import LanguageNetwork
    from tunesmith.models.network import TransformersNetwork

    case = next(case for case in CASES if (case.task, case.method, case.family) == (task, "full", family))
    made = set_up(case, backbone_of(family))
    if not isinstance(made.network, TransformersNetwork | LanguageNetwork):
        assert family in ("sentence", "t5", "bart"), "only a declared pooling and an encoder alone take a head of ours"
        return
    if task == "question_answering":  # filler counts in transformers' own loss: it is compared row by row
        _check_span_losses(made)
        return
    with torch.no_grad():
        given = made.network.processor.ready(made.batch.inputs, next(made.network.parameters()))
        oracle = made.network.model(**given, labels=made.batch.target).loss
        found = made.task.loss(made.network(made.batch.inputs), made.batch)
    assert float(found.total / found.weight) == pytest.approx(float(oracle), rel=1e-6)


def _check_span_losses(made: Set) -> None:
    import torch

    from tunesmith.data.encode import collate
    from tunesmith.models.network import TransformersNetwork

    assert isinstance(made.network, TransformersNetwork)
    for example in made.examples:
        batch, edges = collate([example], made.network.processor.pad), _edges(example)
        asked = {"start_positions": torch.tensor(edges[:1]), "end_positions": torch.tensor(edges[1:])}
        with torch.no_grad():
            oracle = made.network.model(**batch.inputs, **asked).loss
            found = made.task.loss(made.network(batch.inputs), batch)
        assert float(found.total / found.weight) == pytest.approx(float(oracle), rel=1e-6)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_control_an_unfrozen_parameter_is_noticed(case: Case, backbone_of: Callable[[str], Backbone]) -> None:
    """With one frozen parameter handed to the optimizer behind the plan's back, L5's comparison fails."""
    made = set_up(case, backbone_of(case.family))
    if not made.plan.frozen:
        return
    name = sorted(made.plan.frozen)[0]
    before = values(made.network)
    with pytest.MonkeyPatch.context() as patch:
        live = made.masters.move

        def meddle(rate_share: float, share: float) -> float:
            made.network.get_parameter(name).data.add_(1e-6)
            return live(rate_share, share)

        patch.setattr(made.masters, "move", meddle)
        take_steps(made)
    assert unmoved(made, before) == made.plan.frozen - {name}


def test_control_an_attachment_that_is_no_identity_is_noticed(backbone_of: Callable[[str], Backbone]) -> None:
    import torch

    def spoil(network: Network) -> None:
        ups = [value for name, value in network.named_parameters() if name.endswith(".up")]
        ups[0].data.fill_(1e-3)

    case = next(case for case in FIRST if case.method == "lora")
    made = set_up(case, backbone_of(case.family), tamper=spoil)
    with torch.no_grad():
        assert not torch.equal(made.network.eval()(made.batch.inputs), made.before)


@pytest.fixture
def small(backbone_of: Callable[[str], Backbone]) -> Iterator[Set]:
    yield set_up(FIRST[0], backbone_of(FIRST[0].family))


def test_control_a_plan_that_misses_or_doubles_a_parameter_is_refused(small: Set) -> None:
    groups, frozen = small.plan.groups, small.plan.frozen
    names = groups[0].parameters
    twice = Group("again", names[:1], 1e-3, False)
    with pytest.raises(TrainingError, match=f"{names[0]} has no rule"):
        Plan((Group("less", names[1:], 1e-3, False), *groups[1:]), frozen, 0).check(small.network)
    with pytest.raises(TrainingError, match=r"is in group .* and in group again"):
        Plan((*groups, twice), frozen, 0).check(small.network)
    with pytest.raises(TrainingError, match="and frozen"):
        Plan(groups, frozen | {names[0]}, 0).check(small.network)
    with pytest.raises(TrainingError, match="which the network does not have"):
        Plan(groups, frozen | {"nothing.here"}, 0).check(small.network)
    with pytest.raises(TrainingError, match="nothing would train"):
        Plan((), frozenset(name for name, _ in small.network.named_parameters()), 0).check(small.network)
