"""From a model's name to a local folder: a folder, an installed package, or the hub. Runs nothing that it finds."""

from __future__ import annotations

import importlib.metadata
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError, Problems, did_you_mean
from tunesmith.models.hub import fetch

STATIC = "tunesmith_static"  # model_type of the word vectors that we write
STATIC_TYPES = (STATIC, "model2vec")
VECTORS = "word vectors"  # the kind of base that is a table of them
VECTOR_FILES = (".txt", ".vec", ".bin", ".glove", ".w2v", ".word2vec")

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHT_FILES = ("pytorch_model*.bin", "adapter_model*.bin")  # by these names never a table of word vectors
NO_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
CONVERT = (
    'python -c "import torch, safetensors.torch as s; '
    "w = torch.load('{file}', weights_only=True, map_location='cpu'); "
    "s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, 'model.safetensors', {{'format': 'pt'}})\""
)


@dataclass(frozen=True)
class Source:
    """Where a model is, on this machine."""

    name: str  # as asked
    # Holds config.json, *.safetensors, tokenizer files (or the modules.json that says where); a file of word vectors.
    folder: Path
    kind: str  # "folder" (also a file), "package" or "hub"
    revision: str | None  # the hub's commit, or the package's version; a folder has none

    @property
    def public_name(self) -> str:
        """What it is called on any machine: the hub's name, "package==version", or "./folder" without the way there.

        The last two are no names that the hub could have, so that no tool takes another model for it.
        """
        return {
            "hub": self.name,
            "package": f"{self.name}=={self.revision}",
            "folder": f"./{self.folder.name}",
        }[self.kind]


def resolve(name: str, revision: str | None = None) -> Source:
    """Finds a model by name: an existing folder, then an installed package that carries one, then the hub.

    Only safetensors are accepted, and code from a repository is never run. The hub is reached through
    huggingface_hub, so HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME hold. `revision` is the hub's commit to take, None for
    the newest; a folder or package is as it is. Raises ModelError with every problem found.
    """
    source = _found_here(name)
    if source is None:
        source = _from_hub(name, revision)
    check_folder(source)
    return source


def local_problems(name: str) -> tuple[str, ...]:
    """What `resolve` would refuse without asking the hub: a bad folder or package, or a name that no hub model can have.

    Empty where all is well, and where only the hub could tell. Fetches nothing.
    """
    try:
        source = _found_here(name)
        if source is not None:
            check_folder(source)
    except ModelError as error:
        return error.problems
    return ()


def local_kind(name: str) -> str:
    """The kind of a base by its files: "encoder", "decoder", "encoder-decoder", "vision" or "word vectors".

    "" for what is none of these, cannot be read, or is not on this machine. Fetches nothing.
    """
    try:
        source = _found_here(name)
    except ModelError:
        return ""
    return "" if source is None else kind_of(source)


def check_template(name: str) -> None:
    """Raises ModelError where the files of a base that is here hold no chat template. Fetches nothing, imports little."""
    try:
        source = _found_here(name)
    except ModelError:
        return  # told by who reads the base
    if source is None or not source.folder.is_dir():
        return
    folder = weights_folder(source.folder)
    path = folder / "tokenizer_config.json"
    declared = _json(path, Problems()) if path.is_file() else None
    if not isinstance(declared, dict) or declared.get("chat_template"):
        return  # whatever else is amiss is told by who reads the tokenizer
    if any(folder.glob("chat_template.*")) or any(folder.glob("additional_chat_templates/*")):
        return
    raise ModelError(no_template(name))


def no_template(name: str) -> str:
    """What is wrong with a base that has no chat template, and what to do."""
    return (
        f"{name}: its tokenizer has no chat template, so nothing says how a conversation is written for it; choose an "
        "instruction-tuned base, or say how: --set task.template=plain (texts on lines of their own, for a base that only "
        "goes on with texts), chatml, or the file of a jinja template"
    )


def kind_of(source: Source) -> str:
    """The kind of a base that is here, as `local_kind` names kinds."""
    if source.folder.is_file() or static_part(source.folder) is not None:
        return VECTORS
    path = weights_folder(source.folder) / "config.json"
    config = _json(path, Problems()) if path.is_file() else None
    return _kind_of(config) if isinstance(config, dict) else ""


def _kind_of(config: dict[str, Any]) -> str:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.get("model_type")
    if config.get("is_encoder_decoder") or kind in ("t5", "mt5", "umt5", "longt5"):  # whose configs need not say so
        return "encoder-decoder"
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:  # bert and its kin can be decoders too, and seldom are
        return "encoder"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "decoder"
    return "vision" if kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES else ""


def _found_here(name: str) -> Source | None:
    """The folder or package of that name, unchecked; None for what can only be on the hub. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return Source(name, path.resolve(), "folder", None)
    if path.is_file():
        pickled = any(path.match(pattern) for pattern in WEIGHT_FILES)
        if path.suffix.lower() in VECTOR_FILES and not pickled:
            return Source(name, path.resolve(), "folder", None)
        raise ModelError(
            f"{name}: is a file; give the folder that holds it together with config.json (a file of word vectors ends in "
            f"{', '.join(VECTOR_FILES)})"
        )
    found = _packaged(name)
    if found is None and HUB_NAME.fullmatch(name) is None:
        near = _folders_beside(path)
        hint = did_you_mean(path.name, near) if near else f"there is no model in {path.parent} either"
        raise ModelError(f"{name}: no such folder; {hint}")
    return found


def weights_folder(folder: Path) -> Path:
    """Where config.json and the weights are: the folder, or the part of it that modules.json calls Transformer."""
    modules = folder / "modules.json"
    if (folder / "config.json").is_file() or not modules.is_file():
        return folder
    declared = _json(modules, Problems())
    for module in declared if isinstance(declared, list) else []:
        if str(module.get("type", "")).endswith(".Transformer"):
            return folder / str(module.get("path", ""))
    return folder


def static_part(folder: Path) -> Path | None:
    """Where a table of word vectors and its tokenizer.json are, by config.json or modules.json; None for other models."""
    config, modules = folder / "config.json", folder / "modules.json"
    declared = _json(config, Problems()) if config.is_file() else None
    if isinstance(declared, dict) and declared.get("model_type") in STATIC_TYPES:
        return folder
    named = _json(modules, Problems()) if modules.is_file() else None
    first = named[0] if isinstance(named, list) and named and isinstance(named[0], dict) else {}
    if str(first.get("type", "")).endswith(".StaticEmbedding"):
        return folder / str(first.get("path", ""))
    return None


def check_folder(source: Source) -> None:
    """Raises ModelError, with every problem, where the folder is not a config with whole safetensors beside it.

    Of word vectors: where there is no table with its tokenizer. A file of them is checked when it is read.
    """
    problems = Problems()
    if source.folder.is_file():
        return
    static = static_part(source.folder)
    if static is not None:
        _check_weights(static, source, problems)
        if not (static / "tokenizer.json").is_file():
            problems.add(f"{static}: no tokenizer.json, which says what the rows of the table are; fetch it")
        problems.raise_as(ModelError)
        return
    folder = weights_folder(source.folder)
    config = _check_config(folder, source.name, problems)
    if not _in_two_parts(folder):
        _check_weights(folder, source, problems)
    if config is not None and "auto_map" in config and not _is_native(config):
        problems.add(
            f"{source.name}: config.json wants to run code from the repository (auto_map), which is never done; "
            "choose a model whose architecture is part of transformers"
        )
    problems.raise_as(ModelError)


def _check_config(folder: Path, name: str, problems: Problems) -> dict[str, Any] | None:
    path = folder / "config.json"
    if path.is_file():
        config = _json(path, problems)
        if config is None or isinstance(config, dict):
            return config
        problems.add(f"{path}: expected a JSON object; fetch the file again")
    elif (folder / "adapter_config.json").is_file():
        problems.add(f"{name}: holds an adapter, not a model; give the base model that it was trained on")
    elif _in_two_parts(folder):
        problems.add(
            f"{name}: is a model of Tunesmith with something beside its base that no other run can begin with; "
            f"give {folder / 'base'} for the base and its head alone"
        )
    elif (folder / "model" / "config.json").is_file():
        problems.add(f'{name}: no config.json, but there is one in its folder "model": give {folder / "model"}')
    else:
        problems.add(f"{name}: no config.json in {folder}; give a folder as save_pretrained writes it")
    return None


def _in_two_parts(folder: Path) -> bool:
    """Whether this is a saved model with something beside its base, as Tunesmith's own `saved` writes it."""
    return not (folder / "config.json").is_file() and (folder / "adapter" / "adapter.json").is_file()


def _check_weights(folder: Path, source: Source, problems: Problems) -> None:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        _check_file(folder / "model.safetensors", problems)
    elif index.is_file():
        content = _json(index, problems)
        parts = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(parts, dict) or not parts:
            problems.add(f"{index}: has no weight_map; fetch the file again")
            return
        for part in sorted({str(value) for value in parts.values()}):
            if (folder / part).is_file():
                _check_file(folder / part, problems)
            else:
                problems.add(f"{folder / part}: is named in {index.name} and is not there; fetch it")
    else:
        _say_what_there_is(folder, source, problems)


def _say_what_there_is(folder: Path, source: Source, problems: Problems) -> None:
    name = source.name
    others = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern) if path.name not in NO_WEIGHTS)
    if others:
        problems.add(f"{name}: no model.safetensors, but {', '.join(others)}; rename the one with the weights")
    elif pickles:
        problems.add(
            f"{name}: has its weights only as a pickle ({', '.join(pickles)}), which can run code when it is read; "
            f"convert it in a container that holds nothing of yours: {CONVERT.format(file=pickles[0])}"
        )
    elif source.kind == "hub":
        problems.add(
            f"{name}: the repository has no model.safetensors; where it has a pytorch_model.bin, fetch that and "
            f"convert it in a container that holds nothing of yours: {CONVERT.format(file='pytorch_model.bin')}"
        )
    else:
        problems.add(f"{name}: no model.safetensors in {folder}; fetch the weights, or give the folder that holds them")


def _check_file(path: Path, problems: Problems) -> None:
    """A whole safetensors file: a length, a header of that length, and exactly the bytes that the header names."""
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            problems.add(f"{path}: is a git-lfs pointer, not the weights; run git lfs pull in its folder")
            return
        length = int.from_bytes(start, "little")
        size = path.stat().st_size
        try:
            if not 0 < length <= size - 8:
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
            if not ends:
                raise ValueError("it holds no tensors")
            if size != expected:
                raise ValueError(f"it has {size:,} bytes, and its header says {expected:,}")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            why = str(error) if type(error) is ValueError else "its header is not one of safetensors"
            problems.add(f"{path}: is damaged ({why}); fetch it again")


def _is_native(config: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return config.get("model_type") in CONFIG_MAPPING


def _packaged(name: str) -> Source | None:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    folders = _model_folders(distribution)
    if not folders:
        return None
    if len(folders) > 1:
        inside = ", ".join(str(folder) for folder in folders)
        raise ModelError(f"{name}: this package carries several models; give the folder of one: {inside}")
    return Source(name, folders[0], "package", distribution.version)


def _model_folders(distribution: importlib.metadata.Distribution) -> list[Path]:
    files = distribution.files
    if files is None:  # installed without a record of its files
        return []
    configs = {file.parent for file in files if file.name == "config.json"}
    weights = {file.parent for file in files if file.suffix == ".safetensors"}
    return sorted(Path(str(distribution.locate_file(folder))).resolve() for folder in configs & weights)


def _from_hub(name: str, revision: str | None) -> Source:
    try:
        folder, commit = fetch(name, revision)
    except ModelError as error:
        tried = f"{name}: there is no such folder, and no installed package of that name carries a model; on the hub: "
        raise ModelError(f"{tried}{error}; {_near(name)}") from None
    return Source(name, folder, "hub", commit)


def _near(name: str) -> str:
    packages = {
        distribution.name for distribution in importlib.metadata.distributions() if _model_folders(distribution)
    }
    near = did_you_mean(name, packages | set(_folders_beside(Path(name))))
    return f"here: {near}" if packages else near


def _folders_beside(path: Path) -> list[str]:
    parent = path.expanduser().parent
    if not parent.is_dir():
        return []
    return [folder.name for folder in parent.iterdir() if folder.is_dir() and (folder / "config.json").is_file()]


def _json(path: Path, problems: Problems) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        problems.add(f"{path}: is not JSON ({error}); fetch the file again")
        return None
