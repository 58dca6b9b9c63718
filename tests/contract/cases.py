"""Every task x method (with variants of its options) x model family, found by listing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from families import FAMILIES, NO_BIASES, NO_INTERFACE, NO_LINEARS, STATIC, STATIC_METHODS, VISION
from fourbits import in_four_bits
from shortruns import HINTS, rows
from tunesmith import catalog
from tunesmith.data.answer_columns import Answer
from tunesmith.data.conversation import Conversation, Turn, as_text, prompt_of
from tunesmith.data.encode import Batch, Example, Text, collate
from tunesmith.data.targets.related import RELATED
from tunesmith.data.targets.tags import Entity
from tunesmith.data.words import Words
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.training.optim import Masters

RATES = Rates(1e-3, 1e-2, "large enough for two steps to show")

# A method or task that is not named here is tried as it is.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "full": [{}, {"rate_decay": 0.8, "unfreeze": 0.5}],
    "layers": [
        {"layers": 1},
        {"layers": [0, 2]},
        {"layers": 2, "norms": "all"},
        {"layers": 1, "embeddings": True},
        {"layers": 1, "side": "bottom", "rate_decay": 0.5},
    ],
    "bottleneck": [{"size": 4}, {"size": 4, "kind": "pfeiffer"}],
    "prompt": [{"length": 3}],
    "p_tuning": [{"length": 3, "hidden": 8}],
    "prefix": [{"length": 3}],
    "peft": [{"kind": "HIRA", "r": 4}],
    "lora": [
        {"rank": 4},
        {"rank": 2, "alpha": 1.0, "dropout": 0.2, "targets": "the first linear layer's"},
        {"rank": 3, "rslora": True, "dora": True, "up_rate": 16.0},
        {"rank": 3, "initial": "pissa"},
        {"rank": 3, "quantised": "nf4_double"},
    ],
}
TASK_VARIANTS: dict[str, list[dict[str, Any]]] = {"classification": [{}, {"label_smoothing": 0.1}]}
TASK_VARIANTS["instruction"] = [{"template": "plain"}, {"template": "plain", "learn": "all"}]
TASK_VARIANTS["image_classification"] = [{}, {"label_smoothing": 0.1}]
TASK_VARIANTS["regression"] = [{}, {"error": "huber"}]
TASK_VARIANTS["seq2seq"] = [{}, {"label_smoothing": 0.1, "prefix": "now: "}]
TASK_VARIANTS["embedding"] = [{}, {"symmetric": True, "scale": 10.0}]


def _pairs(count: int) -> list[tuple[Text, Any]]:
    texts = [text for text, _ in rows(count)]
    return [((text, texts[place - 1]), (0.5 * place, 10.0 - place)) for place, text in enumerate(texts)]


def _with_entities(count: int) -> list[tuple[Text, Any]]:
    """Every telling word and the word before it are an entity; some texts are given as words, some are read in windows."""
    made: list[tuple[Text, Any]] = []
    for place, (text, _) in enumerate(rows(count)):
        words, found, free = text.split(), [], 0
        for at, word in enumerate(words):
            kind = next((kind for kind, hints in HINTS.items() if word in hints), None)
            start = len(" ".join(words[: max(at - 1, free)])) + (1 if max(at - 1, free) > 0 else 0)
            if kind is not None:
                found.append(Entity(start, len(" ".join(words[: at + 1])), kind))
                free = at + 1
        made.append((Words.of(words) if place % 2 else text, tuple(found)))
    return made


def _chats(count: int) -> list[tuple[Text, Any]]:
    made: list[tuple[Text, Any]] = []
    for text, label in rows(count):
        whole = Conversation((Turn("user", text), Turn("assistant", label)))
        made.append((as_text(prompt_of(whole)), whole))
    return made


def _triplets(count: int) -> list[tuple[Text, Any]]:
    texts = [text for text, _ in rows(count)]
    return [((text, texts[place - 1], texts[place - 2]), RELATED) for place, text in enumerate(texts)]


def _with_answers(count: int) -> list[tuple[Text, Any]]:
    """The first word of praise or blame in a context answers; some contexts are read in windows, some hold no answer."""
    made: list[tuple[Text, Any]] = []
    for place, (context, _) in enumerate(rows(count)):
        words = context.split()
        hits = [at for at, word in enumerate(words) if word in (*HINTS["praise"], *HINTS["blame"])]
        starts = [len(" ".join(words[:at])) + (1 if at else 0) for at in hits]
        answers = [Answer(start, start + len(words[at]), words[at]) for start, at in zip(starts, hits, strict=True)]
        made.append((("what was it like" + " now" * (place % 3), context), tuple(answers[:2])))
    return made


def pictures(count: int) -> list[tuple[Text, str]]:
    """(picture, class): of three sizes, the class in the brightest colour."""
    import numpy as np

    from tunesmith.data.images import Picture

    made: list[tuple[Text, str]] = []
    for place in range(count):
        draw = np.random.default_rng(place)
        size = ((40, 40), (24, 50), (70, 33))[place % 3]
        array = draw.integers(0, 160, (*size, 3)).astype(np.uint8)
        array[..., place % 3] += 90
        picture = Picture(f"picture {place}")
        picture.array = array
        made.append((picture, ("blue", "green", "red")[2 - place % 3]))
    return made


# Rows of each task: (text or two, what is to be learned of it), and what the outputs mean.
SAMPLES: dict[str, tuple[list[tuple[Text, Any]], Labels]] = {
    "classification": ([*rows(10)], Labels(("blame", "money", "praise"), (4, 3, 3))),
    "embedding": (_triplets(10), Labels((RELATED,), (10,))),
    "few_shot": ([*rows(10)], Labels(("blame", "money", "praise"), (4, 3, 3))),
    "image_classification": ([*pictures(10)], Labels(("blue", "green", "red"), (3, 3, 4))),
    "multilabel": (
        [(text, (label, "long") if len(text) % 2 else ()) for text, label in rows(10)],
        Labels(("blame", "long", "money", "praise"), (2, 5, 1, 2), thresholds=(0.5, 0.4, 0.6, 0.5)),
    ),
    "regression": (
        _pairs(10),
        Labels(("up", "down"), (10, 10), center=(2.25, 5.5), scale=(1.4, 2.9), standardised=True),
    ),
    "instruction": (_chats(10), Labels((), ())),
    "causal_lm": ([(text, text) for text, _ in rows(10)], Labels((), ())),
    "masked_lm": ([(text, text) for text, _ in rows(10)], Labels((), ())),
    "seq2seq": (
        [(text, " ".join(reversed(text.split()[: 2 + place]))) for place, (text, _) in enumerate(rows(10))],
        Labels((), (), longest=12),
    ),
    "question_answering": (_with_answers(10), Labels(("start", "end"), (6, 4), (0.5,), longest=6)),
    "token_classification": (
        _with_entities(10),
        Labels(("O", "B-blame", "I-blame", "B-money", "I-money", "B-praise", "I-praise"), (40, 9, 9, 9, 9, 9, 9)),
    ),
}


# Everything is pretrained: method head is refused.
HEADLESS = {("instruction", "gpt2"), ("causal_lm", "gpt2"), ("seq2seq", "t5"), ("seq2seq", "bart")}
BARE = ("embedding",)  # the network is the base alone: with the base frozen there is nothing to train
DECODERS = ("llama", "qwen3", "gpt2")
FITTING: dict[str, tuple[str, ...]] = {
    "instruction": DECODERS,
    "causal_lm": DECODERS,
    "seq2seq": ("t5", "bart"),
    "masked_lm": ("bert", "roberta", "distilbert", "mpnet", "electra", "modernbert", "deberta-v2"),
}  # families that a task is built on, where these are few


def headless(task: str, family: str) -> bool:
    """Whether method head has nothing to train."""
    return task in BARE or (task, family) in HEADLESS


# Families on which a task has no head; they are refused by name.
UNFIT: dict[str, tuple[str, ...]] = {"question_answering": ("t5", "bart")}


@dataclass(frozen=True)
class Case:
    task: str
    method: str
    family: str
    task_options: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]

    @property
    def plain(self) -> bool:
        """Whether its task is tried as it usually is."""
        return self.task_options == _plain(TASK_VARIANTS.get(self.task, [{}])[0])

    def __str__(self) -> str:
        said = ",".join(f"{key}={value}" for key, value in (*self.task_options, *self.options))
        return f"{self.task}-{self.method}-{self.family}" + (f"-{said}" if said else "").replace(" ", "")


def _plain(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items())


PICTURED = ("image_classification",)  # tasks that read pictures, from bases of their own
# Tasks with an output a token, which word vectors have no head for, and those that a table has nothing to learn by.
NOT_STATIC = ("token_classification", "question_answering")
NEVER_STATIC = ("instruction", "causal_lm", "masked_lm", "seq2seq")


def static_cases(fitting: bool) -> list[Case]:
    """Word vectors with the tasks and methods that fit them, or with those that do not."""
    return [
        Case(task, method, family, (), _plain(VARIANTS.get(method, [{}])[0]))
        for task in catalog.names("tasks")
        for family in STATIC
        for method in catalog.names("methods")
        if task not in (*PICTURED, *NEVER_STATIC)
        and (method in STATIC_METHODS and task not in NOT_STATIC and not (method == "head" and headless(task, family)))
        == fitting
    ]


def families_of(task: str) -> tuple[str, ...]:
    """The bases that a task reads its rows with."""
    if task in PICTURED:
        return VISION
    return tuple(family for family in FITTING.get(task, FAMILIES) if family not in UNFIT.get(task, ()))


# Families that lack what a method trains or changes.
WITHOUT: dict[str, tuple[str, ...]] = {
    "lora": NO_LINEARS,
    "bitfit": NO_BIASES,
    "scratch": NO_LINEARS,
    "ia3": NO_LINEARS,
    "bottleneck": NO_LINEARS,
    "peft": NO_LINEARS,
    "prompt": VISION,
    "p_tuning": VISION,
    "prefix": (*VISION, *NO_INTERFACE),
}
# Methods that begin with another network than the pretrained one, or make it read more than the text.
UNKNOWING = ("scratch", "prompt", "p_tuning", "prefix")


def fits(method: str, family: str) -> bool:
    return family not in WITHOUT.get(method, ())


def all_cases() -> list[Case]:
    """Each task's further variants are tried with one family only: they change the loss, which no family knows of."""
    return [*_transformers_cases(), *static_cases(fitting=True)]


def _transformers_cases() -> list[Case]:
    found = []
    for task in catalog.names("tasks"):
        for place, task_options in enumerate(TASK_VARIANTS.get(task, [{}])):
            families = families_of(task)
            for family in families if place == 0 else families[:1]:
                for method in catalog.names("methods"):
                    if (method == "head" and headless(task, family)) or not fits(method, family):
                        continue
                    for options in VARIANTS.get(method, [{}]):
                        found.append(Case(task, method, family, _plain(task_options), _plain(options)))
    return found


@dataclass
class Set:
    """One case, put together."""

    case: Case
    task: Task
    method: Method
    network: Network
    plan: Plan
    labels: Labels
    examples: list[Example]
    batch: Batch  # all of them
    before: Tensor  # the output for `batch` before the method was attached, with the base that it leaves
    masters: Masters


def set_up(case: Case, backbone: Backbone, seed: int = 5, tamper: Callable[[Network], None] | None = None) -> Set:
    """The network with the method on it, one batch, and float32 masters. `tamper` acts on it right after attaching."""
    import torch

    from tunesmith.training.optim import Masters

    samples, labels = SAMPLES[case.task]
    task = catalog.build("tasks", {"name": case.task, **dict(case.task_options)})
    assert isinstance(task, Task)
    network = task.head(backbone, labels, not isinstance(samples[0][0], str), seed)
    options = dict(case.options)
    if "targets" in options:
        options["targets"] = (network.layout.linears[0].rpartition(".")[2],)
    method = catalog.build("methods", {"name": case.method, **options})
    assert isinstance(method, Method)
    texts, targets = [text for text, _ in samples], [target for _, target in samples]
    examples = task.encode(texts, targets, labels, backbone.processor, 40)
    batch = collate(examples, backbone.processor.pad)
    bare = network
    if method.alters:
        bare = task.head(backbone, labels, not isinstance(samples[0][0], str), seed)
        in_four_bits(bare, double=True)
    with torch.no_grad():
        before = bare.eval()(batch.inputs)
    plan = method.attach(network, RATES, seed)
    if tamper is not None:
        tamper(network)
    masters = Masters(network, plan, TrainingSpec(), torch.float32)
    return Set(case, task, method, network, plan, labels, examples, batch, before, masters)
