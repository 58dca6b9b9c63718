"""The pure parts of benchmarks/quality.py: which runs are due, what is measured again, scores, rows, and the page."""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from measured_on import NOW

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import quality

    return quality


def asked(quality: Any, *words: str) -> argparse.Namespace:
    return quality.parse(list(words))


def test_every_job_names_what_is_there(quality: Any) -> None:
    from importlib import import_module

    from _quality.scores import KINDS

    for job in quality.JOBS:
        names = [item.name for item in job.contenders]
        assert len(set(names)) == len(names) and job.contenders[0].name == "tunesmith"
        for item in job.contenders:
            module = import_module(f"_quality.{item.module}")
            assert callable(vars(module)[item.function])
        assert job.kind in KINDS or all(item.ours for item in job.contenders)


def test_who_runs_how_often_and_who_begins(quality: Any) -> None:
    def due(*words: str) -> list[tuple[str, int]]:
        given = asked(quality, *words)
        runs = quality.planned(given.jobs, given.contenders, given.seeds, given.peer_seeds)
        return [(run.contender.name, run.seed) for run in runs]

    # Costly peers once; those that draw nothing once, unless their rows are drawn; in each round another one begins.
    few = due("--jobs", "banking77_5")
    assert few == [
        ("tunesmith", 0), ("embeddings", 0), ("setfit", 0), ("embeddings", 1), ("tunesmith", 1), ("tunesmith", 2),
        ("embeddings", 2),
    ]  # fmt: skip
    sst2 = due("--jobs", "sst2")
    assert sorted(sst2) == [
        ("embeddings", 0), ("tfidf", 0), ("trainer", 0), ("tunesmith", 0), ("tunesmith", 1), ("tunesmith", 2),
    ]  # fmt: skip
    assert [seed for name, seed in due("--jobs", "sst2", "--peer-seeds", "2") if name == "trainer"] == [0, 1]
    assert due("--jobs", "sst2", "--contenders", "trainer_same", "--seeds", "4") == [("trainer_same", 4)]
    assert [seed for name, seed in due("--jobs", "flowers5") if name == "trainer"] == [0, 1, 2]


def test_unknown_names_are_told(quality: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--jobs", "sst3"], ["--contenders", "xgboost"], ["--one", "sst2", "setfit", "0"]):
        with pytest.raises(SystemExit):
            asked(quality, *words)
    said = capsys.readouterr().err
    assert "sst3: choose from banking77_vectors" in said and "xgboost" in said and "--one: a job" in said


def test_what_makes_a_run_the_same(quality: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer stays measured when only Tunesmith's source changes; no run stays with other threads or settings."""
    job = next(job for job in quality.JOBS if job.name == "sst2")
    own, peer = job.contenders[0], next(item for item in job.contenders if item.name == "trainer")
    keys = [quality.key_of(quality.Run(job, item, 0), 1) for item in (own, peer)]
    assert keys == json.loads(json.dumps(keys))
    assert quality.same({**keys[0], "metrics": {}}, keys[0])
    assert not quality.same({**keys[0], "threads": 2}, keys[0])
    assert not quality.same({**keys[1], "settings": {**keys[1]["settings"], "rate": 1e-3}}, keys[1])
    monkeypatch.setattr(quality, "source_digest", lambda: "another")
    again = [quality.key_of(quality.Run(job, item, 0), 1) for item in (own, peer)]
    assert again[0]["source"] != keys[0]["source"] and again[1] == keys[1]


def test_results_of_another_machine_are_left_out(
    quality: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = {"machine": {"cores": 2}, "versions": {"torch": "1"}}
    monkeypatch.setattr(quality, "environment", lambda: json.loads(json.dumps(place)))
    given = asked(quality, "--out", str(tmp_path))
    plain = quality.fresh(given)
    plain["runs"] = [{"job": "sst2", "contender": "tfidf"}, {"job": "gone", "contender": "tfidf"}]
    (tmp_path / "quality.json").write_text(json.dumps(plain), encoding="utf-8")
    assert [run["job"] for run in quality.kept_or_new(given)["runs"]] == ["sst2"]
    place["machine"]["cores"] = 4
    assert quality.kept_or_new(given)["runs"] == []
    assert "its 2 runs are of another machine, and are left out" in capsys.readouterr().out


def test_scores_are_those_of_scikit_learn_scipy_and_tunesmith(quality: Any) -> None:
    from _quality.scores import KINDS, measured
    from scipy.stats import spearmanr
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    draw = random.Random(0)
    truth, said = ([draw.choice("abc") for _ in range(40)] for _ in range(2))
    found = measured("classes", said, [{"label": name} for name in truth])
    assert found["accuracy"]["value"] == sum(a == b for a, b in zip(truth, said, strict=True)) / 40
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]

    sets = [[draw.sample("abcd", draw.randint(1, 3)) for _ in range(40)] for _ in range(2)]
    table = MultiLabelBinarizer(classes=list("abcd"))
    true, given = (table.fit_transform(part) for part in sets)
    scores = KINDS["labels"](sets[1], [{"labels": "|".join(row)} for row in sets[0]])
    for average in ("micro", "macro"):
        assert scores.value(f"{average}_f1") == pytest.approx(f1_score(true, given, average=average))

    numbers = [draw.random() for _ in range(40)]
    wanted = [str(draw.random()) for _ in range(40)]
    scores = KINDS["numbers"](numbers, [{"score": value} for value in wanted])
    assert scores.value("spearman") == pytest.approx(spearmanr(numbers, list(map(float, wanted))).statistic)

    # Two entities are true, two are said, one of them rightly; the last word was cut off and counts as O.
    scores = KINDS["entities"]([["B-x", "I-x", "B-y"]], [{"tags": ["B-x", "I-x", "O", "B-y"]}])
    assert scores.value("entity_f1") == 0.5

    rows = [{"answers": [{"text": "the red cat"}]}, {"answers": []}, {"answers": []}]
    scores = KINDS["answers"]([("", "red dog"), ("", "a"), ("no", "no")], rows)
    assert scores.value("best_span_f1") == pytest.approx(0.5) and scores.value("has_answer_f1") == 0.0
    scores = KINDS["answers"]([("red dog", "red dog"), ("", "a"), ("no", "no")], rows)
    assert scores.value("has_answer_f1") == pytest.approx(0.5)
    assert scores.value("no_answer_accuracy") == 0.5
    assert KINDS["language"]([(2, 3.0), (4, 3.0)], []).value("loss") == 1.0
    with pytest.raises(ValueError, match="2 predictions of 1 test rows"):
        measured("classes", ["a", "b"], [{"label": "a"}])


def test_rows_come_back_from_their_files(quality: Any, tmp_path: Path) -> None:
    """What Tunesmith reads from the files is what the peers are handed."""
    from _quality import data

    from tunesmith.data.readers import read_data

    texts = data.Rows([{"text": 'a, "b"\nc', "label": "x"}], [], [{"text": "d", "label": "y"}])
    tags = data.Rows([{"tokens": ["a", "b"], "tags": ["O", "B-x"]}] * 2, [], [{"tokens": ["c"], "tags": ["O"]}])
    answer = {
        "title": "t",
        "context": "a b",
        "id": "1",
        "question": "q?",
        "answers": [{"text": "b", "answer_start": 2}],
    }
    answers = data.Rows([answer, {**answer, "id": "2", "answers": []}], [], [answer])
    for name, rows, write in (
        ("csv", texts, data.write_csv),
        ("conll", tags, data.write_conll),
        ("squad", answers, data.write_squad),
    ):
        (tmp_path / name).mkdir()
        write(rows, tmp_path / name)
        rows.save(tmp_path / f"{name}.json")
        assert data.Rows.load(tmp_path / f"{name}.json") == rows
        read = read_data(str(tmp_path / name))
        for split, records in rows.splits().items():
            for key in records[0]:
                held = read[split].columns[key]
                if key == "answers":  # the reader leaves objects in lists as JSON
                    held = [list(map(json.loads, item)) for item in held]
                assert held == [record[key] for record in records]


def test_a_trial_keeps_the_classes_alike(quality: Any) -> None:
    from _quality import data

    rows = [{"label": "often"}] * 90 + [{"label": "seldom"}] * 10
    kept = data.cut(data.Rows(rows, [], [{"text": "x" * 9_000}]), 16)
    assert [row["label"] for row in kept.train].count("seldom") == 8 == len(kept.train) / 2
    assert len(kept.test[0]["text"]) == 16 * data.LETTERS_A_ROW


def test_few_rows_a_class_are_drawn_by_seed(quality: Any, tmp_path: Path) -> None:
    from _quality import data

    (tmp_path / "banking77").mkdir()
    for name in ("train", "test"):
        with (tmp_path / "banking77" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "category"], *([f"{place}", f"{place % 3}"] for place in range(60))])
    load = data.few_of_banking77(5)
    drawn = [load(tmp_path, seed).train for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [[row["label"] for row in drawn[0]].count(name) for name in "012"] == [5, 5, 5]


def test_answers_out_of_windows(quality: Any) -> None:
    """By hand: the best pair that is in order and in the context, against no answer of the least certain window."""
    import numpy as np
    from _quality.peers_answers import answer, targets

    spans = [None, (0, 3), (4, 7), (8, 11)]
    starts, ends = np.array([0.0, 1.0, 5.0, 2.0, 99.0]), np.array([0.0, 9.0, 1.0, 4.0, 99.0])  # the fifth is filler
    assert answer([(starts, ends, spans)], "the red cat") == ("the", "the")  # 1 + 9; 5 + 9 would end before it starts
    ends[1] = 0.0
    assert answer([(starts, ends, spans)], "the red cat") == ("red cat", "red cat")
    unsure, sure = np.full(4, -9.0), np.array([20.0, -9.0, -9.0, -9.0])
    doubtful = np.array([0.0, -9.0, -9.0, -9.0])
    assert answer([(starts, ends, spans), (sure, sure, spans)], "the red cat")[0] == "red cat"
    assert answer([(sure, sure, spans)], "the red cat") == ("", "the")
    assert answer([(doubtful, unsure, spans)], "the red cat") == ("", "the")
    assert targets(spans, {"text": "red cat", "answer_start": 4}) == (2, 3)
    assert targets(spans, {"text": "red cats", "answer_start": 4}) == (0, 0)  # goes on beyond the window
    assert targets(spans, None) == (0, 0)


def test_the_most_frequent_tag_of_each_word(quality: Any) -> None:
    from _quality import data
    from _quality.peers_tokens import frequent_tag

    train = [{"tokens": ["Rome", "may", "May", "May"], "tags": ["B-place", "O", "B-person", "B-person"]}]
    rows = data.Rows(train, [], [{"tokens": ["ROME", "may", "May", "MAY", "new"], "tags": []}])
    assert frequent_tag(rows, Path(), 0, {}) == [["B-place", "O", "B-person", "B-person", "O"]]


def run_of(job: str, contender: str, seed: int, values: dict[str, float], **further: Any) -> dict[str, Any]:
    metrics = {name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name, value in values.items()}
    found = {"job": job, "contender": contender, "seed": seed, "metrics": metrics, "rows": {"train": 9, "test": 4}}
    found |= {"cpu_seconds": 10.0, "wall_seconds": 11.0, "peak_mb": 500.0, "cores_of_others": 0.0, "threads": 1}
    return {**found, "source": "now", "commit": "abc", **further}


def test_the_page_says_what_was_reached_and_what_is_stale(quality: Any) -> None:
    from _quality_page import page

    baselines = {"majority": {"accuracy": 0.5}}
    own = [
        run_of("sst2", "tunesmith", seed, {"accuracy": value, "macro_f1": 0.8}, notes=[], baselines=baselines)
        for seed, value in ((0, 0.88), (1, 0.90))
    ]
    peers = [
        run_of("sst2", "tfidf", 0, {"accuracy": 0.81, "macro_f1": 0.8}, source="before", commit="old"),
        run_of("sst2", "trainer", 0, {"accuracy": 0.86, "macro_f1": 0.8}, cores_of_others=0.5),
        run_of("wikitext2", "run_clm", 0, {"perplexity": 99.0}),
        run_of("wikitext2", "run_clm_same", 0, {"perplexity": 30.0}),
        run_of("wikitext2", "tunesmith", 0, {"perplexity": 40.0}, notes=["a note"], baselines={}),
    ]
    runs = own + peers
    current = {(run["job"], run["contender"]): "now" for run in runs}
    lines = page({"environment": NOW, "runs": runs}, current)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    trainer = "Trainer (2e-5, 3 epochs, batch 32)"
    assert cells[3] == ["sst2", "accuracy", "at least 0.885", "0.8900", "yes", trainer, "0.8600", "10", "10"]
    assert cells[2][3:7] == ["40.0000", "", "run_clm, same rate (0.003, 3 epochs, batch 8)", "30.0000"]
    table = {row[0]: row[1:] for row in cells[4:]}
    assert table["Tunesmith"][0] == "0.8900 (0.7900 to 0.9900)" and table["Tunesmith"][2:4] == ["0.8800 0.9000", "0, 1"]
    assert table[trainer][4:6] == ["10", "11 ‡"]
    assert "TF-IDF, logistic regression †" in table
    assert "- † of an earlier source: commit old" in lines
    assert any("majority 0.5000" in line for line in lines) and any(line.endswith("a note") for line in lines)


def test_a_child_s_peak_is_its_own(quality: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the child took, in bytes; a step that fails tells the end of what it printed."""
    job = quality.JOBS[0]
    run = quality.Run(job, job.contenders[0], 0)
    stand_in = tmp_path / "stand_in.py"
    monkeypatch.setattr(quality, "HERE", stand_in)
    given = asked(quality)
    stand_in.write_text("x = bytearray(200_000_000)\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    assert quality.child(run, given, "run", tmp_path) > 200e6
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt > before + 200_000_000 // 65_536, "pages it touched"
    # A step runs in a folder of its own, so a relative PYTHONPATH would not find the source that its result is kept by.
    monkeypatch.setenv("PYTHONPATH", "../src")
    stand_in.write_text("import tunesmith; print(tunesmith.__file__)\n")
    quality.child(run, given, "run", tmp_path)
    assert str(FOLDER.parent / "src") in (tmp_path / "run.log").read_text(encoding="utf-8")
    stand_in.write_text("raise SystemExit('no such thing')\n")
    with pytest.raises(SystemExit, match="step run ended with 1:\nno such thing"):
        quality.child(run, given, "run", tmp_path)


def test_the_process_between_imports_little() -> None:
    """Of what a process starts the system counts the starter's memory too, so no torch, no numpy."""
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import quality; "
        "print([name for name in ('torch', 'numpy', 'sklearn', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
