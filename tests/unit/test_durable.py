"""What a run needs to be gone with: its folder is its own, its rows, base and adapter are those of the start."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import recipe_for, rows
from tunesmith.errors import ArtifactError, TrainingError, TunesmithError
from tunesmith.manifest import shaping_files
from tunesmith.pipeline import OWN_ROWS, OWN_START, Session, resume, start
from tunesmith.training.events import Event, Finished, Note, StepDone, Stopped, Warned
from tunesmith.training.ledger import Ledger
from tunesmith.training.state import Checkpoints

Folder = Callable[[str], Path]
LORA = {"name": "lora", "rank": 4, "alpha": 8.0}


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop at the call after the two polls before the first step and `steps` in the loop."""
    calls = iter(range(10_000))
    return lambda: next(calls) >= steps + 2


def stopped(session: Session) -> Path:
    assert isinstance(list(session.events())[-1], Stopped)
    return session.run


def finished(events: list[Event]) -> bool:
    return isinstance(events[-1], Finished)


def test_a_run_begun_later_leaves_the_rows_of_the_first(model_folder: Folder, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = start(recipe_for(model_folder("bert"), Path("rows")), out, rows(60), after(1))
    second = start(recipe_for(model_folder("bert"), Path("rows")), out, rows(40, seed=1))
    going = first.events()
    begun = [next(going)]
    while not isinstance(begun[-1], StepDone):
        begun.append(next(going))
    kept = (out / OWN_ROWS).read_bytes()
    with pytest.raises(ArtifactError, match="already holds a run"):
        list(second.events())
    list(going)
    assert (out / OWN_ROWS).read_bytes() == kept
    assert finished(list(resume(out).events()))


def test_a_folder_that_another_process_prepares_is_left_alone(model_folder: Folder, tmp_path: Path) -> None:
    """Before its recipe is there, only its lock says so."""
    session = start(recipe_for(model_folder("bert"), Path("rows")), tmp_path / "run", rows(60))
    with Ledger.at(tmp_path / "run").in_use(), pytest.raises(ArtifactError, match=f"in use by process {os.getpid()}"):
        list(session.events())
    assert sorted(item.name for item in (tmp_path / "run").rglob("*")) == [".lock"]


def test_rows_that_lie_there_are_not_overwritten(model_folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "run" / OWN_ROWS
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"rows\.parquet: there already, of no run"):
        start(recipe_for(model_folder("bert"), Path("rows")), tmp_path / "run", rows(60))
    assert path.read_text(encoding="utf-8") == "mine"
    assert sorted(item.name for item in (tmp_path / "run").rglob("*")) == ["data", "rows.parquet"]


def test_a_caller_s_mixed_columns_can_be_gone_on_with(model_folder: Folder, tmp_path: Path) -> None:
    named = {"blame": 1.0, "money": "a", "praise": 2}
    groups = itertools.cycle([1, 2.5, "b", None, 4, 5, 6, 7, 8, 9])
    table = [
        {"text": text, "label": named[label], "group": group}
        for (text, label), group in zip(rows(90), groups, strict=False)
    ]
    settings = {"data.group": "group"}
    recipe = recipe_for(model_folder("bert"), Path("rows"), "head", settings)
    out = stopped(start(recipe, tmp_path / "run", table, after(1)))
    assert finished(list(resume(out).events()))
    card = json.loads((out / "model" / "tunesmith.json").read_text(encoding="utf-8"))
    assert card["labels"] == ["1", "2", "a"]


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("bert", "config.json"),
        ("bert", "tokenizer.json"),
        ("sentence", "modules.json"),
        ("sentence", "1_Pooling/config.json"),
    ],
)
def test_a_base_whose_files_changed_is_refused_by_name(
    family: str, file: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(model_folder(family), tmp_path / "base"))
    out = stopped(start(recipe_for(base, table_file, "head"), tmp_path / "run", stop=after(1)))
    (base / "README.md").write_text("of no account", encoding="utf-8")
    whole = (base / file).read_text(encoding="utf-8")
    (base / file).write_text(whole.rstrip() + "\n\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"its files differ: {file} changed"):
        list(resume(out).events())
    (base / file).write_text(whole, encoding="utf-8")
    (base / "added_tokens.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"added_tokens\.json is new"):
        list(resume(out).events())
    (base / "added_tokens.json").unlink()
    assert finished(list(resume(out).events()))


def test_what_shapes_a_model_is_not_what_lies_below_it(model_folder: Folder, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model_folder("sentence"), tmp_path / "base"))
    before = shaping_files(base)
    assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"} <= set(
        before
    )
    (base / "run" / "model").mkdir(parents=True)
    (base / "run" / "config.json").write_text("{}", encoding="utf-8")
    assert shaping_files(base) == before


@pytest.fixture
def adapter(model_folder: Folder, table_file: Path, tmp_path: Path) -> Path:
    run = tmp_path / "earlier"
    list(start(recipe_for(model_folder("bert"), table_file, LORA, {"training.epochs": 1}), run).events())
    return Path(shutil.copytree(run / "adapter", tmp_path / "adapter"))


def test_an_adapter_may_go_while_its_run_lasts(
    adapter: Path, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given by a relative path, moved after the first step, gone on with from another folder."""
    monkeypatch.chdir(tmp_path)
    method = {**LORA, "start": "adapter"}
    whole = tmp_path / "whole"
    list(start(recipe_for(model_folder("bert"), table_file, method), whole).events())
    moved = iter(range(1))
    for event in start(recipe_for(model_folder("bert"), table_file, method), Path("moved")).events():
        if isinstance(event, StepDone) and next(moved, None) is not None:
            adapter.rename(tmp_path / "hidden")
    (tmp_path / "hidden").rename(adapter)
    stopped(start(recipe_for(model_folder("bert"), table_file, method), Path("run"), stop=after(2)))
    assert Ledger.open(tmp_path / "run").recipe().method.to_plain()["start"] == str(adapter)  # type: ignore[index]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.rmtree(adapter)
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    assert finished(list(resume(Path("run")).events()))
    for made in (tmp_path / "moved", Path("run")):
        for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
            assert (made / file).read_bytes() == (whole / file).read_bytes(), f"{made}, {file}"


def test_an_adapter_that_changed_is_refused_by_name(
    adapter: Path, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, {**LORA, "start": str(adapter)})
    out = stopped(start(recipe, tmp_path / "run", stop=after(2)))
    path = out / OWN_START / "adapter_config.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"method\.start .*adapter_config\.json changed"):
        list(resume(out).events())


def test_a_torn_line_does_not_swallow_the_next_event(tmp_path: Path, table_file: Path) -> None:
    ledger = Ledger.create(tmp_path / "run", recipe_for(tmp_path, table_file))
    ledger.append(Warned("first"))
    with (tmp_path / "run" / "events.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"kind": "warn')
    with ledger.in_use():
        ledger.append(Warned("second"))
    assert list(ledger.events()) == [Warned("first"), Warned("second")]


def test_a_run_killed_before_its_manifest_gets_one(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "head")
    whole = tmp_path / "whole"
    list(start(recipe, whole).events())
    out = tmp_path / "run"
    Ledger.create(out, recipe)
    events = list(resume(out, stop=after(1)).events())
    assert isinstance(events[-1], Stopped) and not [event for event in events if isinstance(event, Warned)]
    assert Ledger.open(out).manifest()["data"] == Ledger.open(whole).manifest()["data"]
    (out / "manifest.json").unlink()
    events = list(resume(out).events())
    assert finished(events)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert len(warned) == 1 and "manifest.json: is missing" in warned[0], "steps were done: this is said"


@pytest.mark.parametrize("text", ["{", "[]", "{}x", '{"data": {}}'])
def test_a_damaged_manifest_is_named(text: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = stopped(start(recipe_for(model_folder("bert"), table_file, "head"), tmp_path / "run", stop=after(1)))
    (out / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json: is damaged"):
        list(resume(out).events())


def test_a_checkpoint_of_another_run_is_refused(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    runs = [
        stopped(start(recipe_for(model_folder("bert"), table_file, method), tmp_path / name, stop=after(1)))
        for name, method in (("one", "head"), ("two", LORA))
    ]
    shutil.rmtree(runs[1] / "checkpoints")
    shutil.copytree(runs[0] / "checkpoints", runs[1] / "checkpoints")
    with pytest.raises(ArtifactError, match="is not of this run"):
        list(resume(runs[1]).events())


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (PermissionError(13, "Permission denied", "x"), ArtifactError, "cannot be read or written.*Permission denied"),
        (RuntimeError("shapes\nand more"), TrainingError, r"cannot go on \(RuntimeError: shapes\)"),
        ("safetensors", ArtifactError, "SafetensorError: damaged"),
        (NotImplementedError("a bug"), NotImplementedError, "a bug"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
    ],
)
@pytest.mark.parametrize("where", ["before the run", "in the run"])
def test_what_a_library_refuses_is_said_in_words(
    where: str, raised: Any, kind: type[Exception], words: str, model_folder: Folder, table_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from safetensors import SafetensorError

    error = SafetensorError("damaged") if raised == "safetensors" else raised

    def fails(*_: Any) -> Any:
        raise error

    place = {"before the run": "tunesmith.preparing.encode", "in the run": "tunesmith.assembly.keep_frozen"}[where]
    monkeypatch.setattr(place, fails)
    with pytest.raises(kind, match=words) as caught:
        list(start(recipe_for(model_folder("bert"), table_file), tmp_path / "run").events())
    if isinstance(caught.value, TunesmithError):
        assert caught.value.__cause__ is error, "the traceback is kept for a report"
        assert ("tunesmith resume" in str(caught.value)) is (where == "in the run" and kind is ArtifactError)


def test_commands_to_go_on_can_be_copied(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "my runs; no 1"
    for steps in (-2, 1):  # before the first step, and in the loop
        events = list(start(recipe_for(model_folder("bert"), table_file, "head"), out, stop=after(steps)).events())
        assert isinstance(events[-1], Stopped)
        assert shlex.split(events[-1].resume) == ["tunesmith", "resume", str(out)]
        with pytest.raises(ArtifactError) as caught:
            start(recipe_for(model_folder("bert"), table_file), out)
        assert f"tunesmith resume '{out}'" in str(caught.value)
        shutil.rmtree(out)


def test_a_validation_loss_that_is_not_finite_ends_the_run(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the rows, saves nothing over the last good state, and never chooses a checkpoint."""
    import torch

    from tunesmith.models.network import TransformersNetwork

    live = TransformersNetwork.classify
    calls = itertools.count()

    def classify(self: Any, features: Any) -> Any:
        output = live(self, features)
        spoiled = not self.training and torch.is_inference_mode_enabled() and next(calls) > 0
        return output * float("nan") if spoiled else output

    monkeypatch.setattr(TransformersNetwork, "classify", classify)
    out = tmp_path / "run"
    with pytest.raises(TrainingError) as caught:
        list(start(recipe_for(model_folder("bert"), table_file), out).events())
    said = str(caught.value)
    assert "step 3, validation: " in said and "not finite for" in said and f"{table_file}:" in said
    assert Checkpoints(out / "checkpoints").steps() == [0]
    assert f"the last good state is kept in {out / 'checkpoints' / 'step-00000000'}" in said
    assert not [event for event in Ledger.open(out).events() if isinstance(event, Note) and event.topic == "verdict"]


def test_a_loss_alone_that_is_not_finite_ends_the_run(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from shortruns import bench
    from tunesmith.training.loop import Measured, train

    made = bench(recipe_for(model_folder("bert"), table_file, "head"), tmp_path)
    made.run.evaluate = lambda: Measured("accuracy", 0.5, 0.5, 0.1, float("nan"))
    with pytest.raises(
        TrainingError, match=r"(?s)step 0, validation: the loss is not finite \(nan\).*no state had been"
    ):
        list(train(made.run))


def test_only_blocks_that_learn_drop_out(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    from shortruns import bench
    from tunesmith.training.loop import set_mode

    made = bench(recipe_for(model_folder("bert"), table_file, {"name": "layers", "layers": [0, 2]}), tmp_path)
    network, layout = made.run.network, made.run.network.layout
    network.eval()
    set_mode(network, made.run.plan)
    modes = [{part.training for part in network.get_submodule(name).modules()} for name in layout.blocks]
    assert made.run.plan.cut == 0 and modes == [{True}, {False}, {True}]
    for method in ("full", LORA):
        every = bench(recipe_for(model_folder("bert"), table_file, method), tmp_path / str(len(str(method))))
        set_mode(every.run.network, every.run.plan)
        network = every.run.network
        frozen = () if method == "full" else (*layout.embeddings, *layout.tail)
        assert method == "full" or not any(
            part.training for name in frozen for part in network.get_submodule(name).modules()
        )
        others = [part for name, part in network.named_modules() if not name.startswith(frozen or ("-",))]
        assert all(part.training for part in others), "where each block learns, nothing else changes"
