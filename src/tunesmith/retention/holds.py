"""What holds a network to its base while it trains: general text, of which each step reads a little."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import IGNORED, Batch, Example, collate
from tunesmith.data.stored import measures, tokens_in
from tunesmith.errors import RecipeError
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.retention.fisher import fisher
from tunesmith.retention.general import general_text
from tunesmith.retention.meters import judge_of
from tunesmith.retention.vectors import batch_vectors, body_vectors
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.tasks._language import LanguageTask
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

MOST = 512  # texts or pictures
OWN = 64  # of them texts that a decoder writes itself: other ones than those it is measured on
SHARE = 0.25  # of a step's rows are read again from general text, where the recipe says no share
LIKELIEST = 64  # tokens of each place whose probabilities are kept: beyond them all others together
READ = 128  # of the texts, or pictures, tell how much depends on each weight
SHORTEST, TIMES = 32, 2  # tokens kept of a general text at least, and beside the mean of the training rows


class General(ABC):
    """Rows of no task, and what the untouched base says of them."""

    examples: Sequence[Example]

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self.seed = network, seed

    @property
    def tokens(self) -> frozenset[int]:
        return frozenset(tokens_in(self.examples))

    def batch(self, step: int, rows: int) -> Batch:
        """Rows drawn for a step."""
        count = min(rows, len(self.examples))
        drawn = random.Random(seed_of(self.seed, "general", step)).sample(range(len(self.examples)), count)
        return self._collated(sorted(drawn, key=lambda row: self.examples[row].length))

    def distance(self, batch: Batch) -> Tensor:
        """How far the network, as it stands, is from what was kept; 0 where it is not.

        In evaluation mode, in which it is left: what dropout moves is no change of the network, and a pull against it is one.
        """
        self.network.eval()
        return self._distance(batch)

    def importance(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Of each weight: see `fisher`."""
        rows = [self._collated([row]) for row in range(min(READ, len(self.examples)))]
        return fisher(self.network, names, rows, self._drawn, self.seed)

    def _collated(self, rows: Sequence[int], network: Network | None = None) -> Batch:
        device = str((self.network if network is None else network).sample.device)
        return collate([self.examples[row] for row in rows], self.network.processor.pad, device)

    @abstractmethod
    def remember(self, base: Network) -> None:
        """Keeps what `base` says, for `distance`: the network before its first step, and before a method altered it."""

    @abstractmethod
    def _distance(self, batch: Batch) -> Tensor: ...

    @abstractmethod
    def _drawn(self, batch: Batch) -> Tensor:
        """Minus the log-likelihood of an outcome that is drawn from what the network says of one row."""


class Vectors(General):
    """Of a body: the vector that it makes of each row."""

    def __init__(self, network: Network, examples: Sequence[Example], seed: int) -> None:
        super().__init__(network, seed)
        self.examples = examples

    def remember(self, base: Network) -> None:
        self._kept = body_vectors(base, self.examples)  # [rows, width]
        spread = (self._kept - self._kept.mean(0)).square().sum(1).mean()
        self._spread = max(float(spread), 1e-12)

    def _distance(self, batch: Batch) -> Tensor:
        """Mean squared distance, in units of the mean squared distance of the base's vectors from their mean."""
        now = batch_vectors(self.network, batch).float()
        kept = self._kept[list(batch.rows)].to(now.device)
        return (now - kept).square().sum(1).mean() / self._spread

    def _drawn(self, batch: Batch) -> Tensor:
        """The vector as the mean of a normal distribution of variance 1."""
        import torch

        vector = batch_vectors(self.network, batch).float()
        return (vector - (vector + torch.randn_like(vector)).detach()).square().sum() / 2


class Words(General):
    """Of a language model: which token it says at each place."""

    def __init__(self, network: Network, examples: Sequence[Example], task: LanguageTask, seed: int) -> None:
        super().__init__(network, seed)
        self.examples, self._task = examples, task

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Mean loss of what the texts themselves say, in nats a token."""
        if self._task.varies(False):
            batch = self._task.varied(batch, self.seed, step, self.network.processor)
        with torch_seed(self.seed, "replay", step):
            found = self._task.loss(self.network(batch.inputs), batch)
        return found.total / found.weight.clamp(min=1)

    def remember(self, base: Network) -> None:
        import torch

        base.eval()
        device = self.network.sample.device
        self._kept: list[tuple[Any, Any]] = []  # of each row, at each learned place: tokens and their log-probabilities
        with torch.no_grad():
            for row in range(len(self.examples)):
                logits = self._logits(base, self._collated([row], base)).log_softmax(-1)  # [places, vocabulary]
                values, tokens = logits.topk(min(LIKELIEST, logits.shape[-1]))
                self._kept.append((tokens.to(device), values.to(device)))

    def _distance(self, batch: Batch) -> Tensor:
        """Kullback-Leibler divergence of the network from the base, in nats a token; rare tokens count as one together."""
        import torch

        tokens = torch.cat([self._kept[row][0] for row in batch.rows])  # [places, LIKELIEST]
        was = _with_rest(torch.cat([self._kept[row][1] for row in batch.rows]))
        now = _with_rest(self._logits(self.network, batch).log_softmax(-1).gather(-1, tokens))
        return (was.exp() * (was - now)).sum(-1).mean()

    def _drawn(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        logits = self._logits(self.network, batch)
        drawn = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
        return cross_entropy(logits, drawn, reduction="sum")

    def _logits(self, network: Network, batch: Batch) -> Tensor:
        """[learned places, vocabulary] float32, row after row."""
        assert batch.target is not None
        logits, target = self._task.aligned(network(batch.inputs), batch.target)
        return logits[target != IGNORED].float()


def _with_rest(values: Tensor) -> Tensor:
    """Log-probabilities of some tokens, and last that of all others together: [places, tokens + 1]."""
    import torch

    rest = (1 - values.exp().sum(-1, keepdim=True)).clamp(min=1e-8).log()
    return torch.cat([values, rest], dim=-1)


class Hold:
    """What is added to the loss of each step: a mean, each part of it times its strength."""

    def __init__(self, general: General, distill: float, replay: float, rows: float) -> None:
        """`replay`: the share of general text among what is learned; `rows`: of a step, on the mean.

        Of `distill` what the base says is remembered by then.
        """
        self._general, self._distill = general, distill
        self._share = replay
        self._rows = max(1, round(rows * (replay / (1 - replay) if replay > 0 else SHARE)))

    def loss(self, step: int) -> Tensor:
        general = self._general
        batch = general.batch(step, self._rows)
        parts = []
        if self._share > 0:  # in training mode, as the task's own rows are learned
            assert isinstance(general, Words)
            parts.append(self._share / (1 - self._share) * general.loss(batch, step))
        if self._distill > 0:
            parts.append(self._distill * general.distance(batch))
        return sum(parts[1:], parts[0])


def general_of(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, network: Network, untouched: Callable[[], Network]
) -> General | None:
    """What the recipe's settings hold the network to; None where they hold it to nothing but its own weights.

    `untouched` gives the network as it was before a method altered it, which writes texts of its own. Raises RecipeError
    where there is nothing to hold it to.
    """
    asked = recipe.retention
    if not (asked.ewc or asked.distill or asked.replay) or not network.pretrained:
        return None
    judge = judge_of(prepared.task) if network.writes and not network.fresh else None
    if asked.replay and judge is None:
        raise RecipeError(
            f"retention.replay: with task {prepared.task.part_name()} this network says nothing that general text could be "
            "learned by; use retention.distill, or put rows of other kinds among the training rows"
        )
    if network.writes and judge is None:
        raise RecipeError(
            f"retention.{'ewc' if asked.ewc else 'distill'}: what task {prepared.task.part_name()} writes cannot be held to "
            "general text; use retention.anchor"
        )
    if prepared.task.reads_pictures:
        return _pictures(encoded, network, recipe.seed)
    # Longer ones would cost more than the task itself.
    usual = float(measures(encoded.examples["train"]).lengths.mean())
    return _texts(recipe, prepared, min(encoded.limit, max(SHORTEST, round(TIMES * usual))), network, judge, untouched)


def _pictures(encoded: Encoded, network: Network, seed: int) -> General:
    """The training pictures, as they are: there are no general ones (Li & Hoiem 2016, "Learning without forgetting")."""
    rows = encoded.examples["train"]
    drawn = sorted(random.Random(seed_of(seed, "general")).sample(range(len(rows)), min(MOST, len(rows))))
    return Vectors(network, [replace(rows[row], row=place) for place, row in enumerate(drawn)], seed)


def _texts(
    recipe: Recipe,
    prepared: Prepared,
    limit: int,
    network: Network,
    judge: LanguageTask | None,
    untouched: Callable[[], Network],
) -> General:
    """Raises RecipeError where there is no general text."""
    general, seed = general_text(prepared), recipe.seed
    texts = general.held(MOST)
    if not texts:
        raise RecipeError(
            "retention: this Python carries no documentation to hold to; name a file with retention.general"
        )
    if judge is None:
        encoded = network.text.encode_all(texts, limit)
        return Vectors(network, [Example(row, inputs, None) for row, (inputs, _) in enumerate(encoded)], seed)
    own = judge.own_texts(untouched(), OWN, seed_of(seed, "held")) if prepared.general is None else []
    texts = [*own, *texts[: MOST - len(own)]]
    labels = prepared.labels if judge is prepared.task else Labels((), ())
    made = [item for item in judge.encode(texts, texts, labels, network.text, limit) if item.units > 0][:MOST]
    return Words(network, [replace(item, row=place) for place, item in enumerate(made)], judge, seed)
