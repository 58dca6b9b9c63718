"""README.md of a run: what the model is and what it was worth, with the metadata that the hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.evaluation.advising import told_beside
from tunesmith.evaluation.groups import drawn_in
from tunesmith.evaluation.intervals import Interval
from tunesmith.evaluation.wording import metric_title, with_interval

SENTENCES, LIBRARY = "sentence-transformers", "transformers"  # the names that the hub knows


def render_card(report: Mapping[str, Any], run: Path) -> str:
    """Markdown with YAML before it, from the plain data of report.json; `run` is the folder, whose place is left out.

    The metadata are those of the hub's model cards (`huggingface_hub.ModelCardData`): base model, task, and each metric of
    the test rows. Licence and language are the owner's to state: what is not known is left out.
    """
    about = [
        f"# {_plain(report['name'])}",
        "",
        f"`{_base(report['model'])}`, fine-tuned by Tunesmith {report['tunesmith']} for "
        f"{report['task']} with method {report['method']}, seed {report['seed']}.",
        "",
        "## What it is worth",
        "",
        _plain(report["verdict"]["paragraph"]),
        *(f"\n{_plain(line)}" for _, line in told_beside(report)),
        f"\nWhat now: {_plain(report['advice']['paragraph'])}",
        "",
        *_table(report),
        "## How to use it",
        "",
        "```python",
        "import tunesmith",
        "",
        f'model = tunesmith.load("{report["name"]}")  # the path of this folder',
        "```",
        "",
        f"`model/` {_plain(report['opens'].replace(f'{run}/', ''))}",
        "",
        *_data(report),
        "The evidence (baselines, intervals, mistakes, settings with their reasons, cost) is in report.html, and as data in "
        "report.json.",
        "",
    ]
    return f"---\n{_metadata(report)}\n---\n\n" + "\n".join(about)


def _metadata(report: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    tag = report["pipeline_tag"]
    results = [
        EvalResult(
            task_type=tag or "other",
            dataset_type="tabular",
            dataset_name=_dataset(report),
            dataset_split="test",
            metric_type=name,
            metric_name=metric_title(name),
            metric_value=round(item["value"], 6),
        )
        for name, item in report["metrics"].items()
        if item["value"] is not None
    ]
    card = ModelCardData(
        library_name=SENTENCES if "SentenceTransformer(" in report["opens"] else LIBRARY,
        pipeline_tag=tag or None,
        base_model=_base(report["model"]),
        tags=["tunesmith", report["method"]],
        model_name=report["name"] if results else None,
        eval_results=results or None,
    )
    return card.to_yaml().strip()


def _base(model: str) -> str:
    """The base by the name that others know it by: of a folder of this machine its own name."""
    return Path(model).name if Path(model).is_absolute() or model.startswith(".") or Path(model).exists() else model


def _dataset(report: Mapping[str, Any]) -> str:
    return Path(report["data"]["path"]).name


def _table(report: Mapping[str, Any]) -> list[str]:
    """The model and its rivals on the test rows."""
    names = list(report["metrics"])
    if not names:
        return []
    models = [(f"**this model ({report['method']})**", report["metrics"])]
    models += [(_plain(item["what"]), item["metrics"]) for item in report["baselines"]]
    return [
        "| on the test rows | " + " | ".join(metric_title(name, report["lower"]) for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {what} | " + " | ".join(_cell(found[name]) for name in names) + " |" for what, found in models),
        "",
        f"Brackets are {100 * report['confidence']:g} % intervals over {report['rows_tested']:,} test rows"
        f"{drawn_in(report.get('groups_tested'))}.",
        "",
    ]


def _cell(plain: Mapping[str, float | None]) -> str:
    edges = [plain[key] for key in ("value", "low", "high")]
    known = [edge for edge in edges if edge is not None]
    return with_interval(Interval(*known)) if len(known) == len(edges) else "–"


def _data(report: Mapping[str, Any]) -> list[str]:
    splits = report["data"].get("splits", ())
    if not splits:
        return []
    lines = [f"- {split['name']}: {split['rows']:,} rows ({_plain(split['why'])})" for split in splits if split["why"]]
    return ["## Data", "", f"`{_dataset(report)}`", "", *lines, ""]


def _plain(words: str) -> str:
    """Words of outside as one line that Markdown does not read as its own signs."""
    return " ".join(str(words).split()).translate({ord(sign): f"\\{sign}" for sign in "|<>*`"})
