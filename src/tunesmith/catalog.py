"""A name is a file: method "lora" is methods/lora.py, or a dotted path "package.module:Class"; nothing is registered."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from tunesmith.errors import RecipeError, did_you_mean

# What has another name elsewhere, and is an option here.
OTHER_NAMES = {
    "methods": {
        "qlora": '--method lora --set method.quantised=nf4 here, which needs bitsandbytes: pip install "tunesmith[bits]"',
        "dora": "--method lora --set method.dora=true here",
    }
}
FEW_CHOICES = 8  # values of an option that are listed beside its name


class Part(BaseModel):
    """Something chosen by name (a task, a method): its fields are its options, and it never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    main_option: ClassVar[str | None] = None  # what `{name: value}` sets

    @classmethod
    def part_name(cls) -> str:
        """The name that finds this class again: its file's name, or its dotted path."""
        package, _, module = cls.__module__.rpartition(".")
        if package in ("tunesmith.tasks", "tunesmith.methods"):
            return module
        return f"{cls.__module__}:{cls.__qualname__}"

    def to_plain(self) -> str | dict[str, Any]:
        """The shortest form that `build` reads back as an equal part."""
        options = self.model_dump(mode="json", exclude_defaults=True)
        return {"name": self.part_name(), **options} if options else self.part_name()


def names(folder: str) -> tuple[str, ...]:
    """The names to choose from in `folder` ("tasks", "methods"), sorted: its files, less base.py and _private.py."""
    package = importlib.import_module(f"tunesmith.{folder}")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in found if name != "base" and not name.startswith("_")))


def find(folder: str, name: str) -> type[Part]:
    """The class that `name` stands for. Raises RecipeError when there is no such file or dotted path."""
    if ":" in name:
        return _find_dotted(folder, name)
    if name in (other := OTHER_NAMES.get(folder, {})):
        raise RecipeError(f'{folder.removesuffix("s")}: "{name}" is {other[name]}')
    if name not in names(folder):
        raise RecipeError(f'{folder.removesuffix("s")}: unknown name "{name}"; {did_you_mean(name, names(folder))}')
    return _only_part(importlib.import_module(f"tunesmith.{folder}.{name}"))


def strange_keys(plain: Any, prefix: str = "") -> list[str]:
    """A problem for each key of nested plain data that is no text, such as the number in YAML's `1: 2`."""
    found = []
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            place = f"{prefix}.{key}" if prefix else f"{key}"
            if not isinstance(key, str):
                found.append(f"{place}: a key must be text, not {type(key).__name__}; correct or remove it")
            found += strange_keys(value, place)
    elif isinstance(plain, list):
        found += [problem for value in plain for problem in strange_keys(value, prefix)]
    return found


def text_keys(plain: Any) -> Any:
    """Nested plain data without what stands under the keys that `strange_keys` names."""
    if isinstance(plain, Mapping):
        return {key: text_keys(value) for key, value in plain.items() if isinstance(key, str)}
    return [text_keys(value) for value in plain] if isinstance(plain, list) else plain


def build(folder: str, asked: Any) -> Part:
    """A part from what a person wrote.

    Accepted: `"lora"`, `{"name": "lora", "rank": 8}`, `{"lora": {"rank": 8}}`, and `{"layers": 2, "norms": "all"}`,
    where the one key that names a part also sets its main option. Raises RecipeError with every problem.
    """
    word = folder.removesuffix("s")
    if isinstance(asked, Part):
        if not isinstance(asked, _base(folder)):
            raise RecipeError(f"{word}: {asked.part_name()} is not a {word}")
        return asked
    if isinstance(asked, str):
        return _made(find(folder, asked), {}, word)
    if not isinstance(asked, Mapping):
        raise RecipeError(f"{word}: expected a name or a mapping with a name, not {asked!r}")
    strange = strange_keys(asked, word)
    if strange:
        raise RecipeError(*strange)
    options = dict(asked)
    if "name" in options:
        name = str(options.pop("name"))
    else:
        known = [key for key in options if key in names(folder)]
        if len(known) != 1:
            raise RecipeError(f'{word}: say which with "name", one of: {", ".join(names(folder))}')
        name = known[0]
        value = options.pop(name)
        main = find(folder, name).main_option
        if isinstance(value, Mapping):
            twice = sorted(set(options) & set(value))
            if twice:
                raise RecipeError(
                    *(f"{word}.{key}: is given twice, inside and beside {name}; keep one" for key in twice)
                )
            options.update(value)
        elif main is not None and main in options:
            raise RecipeError(f"{word}.{main}: is given twice, as {name} and beside it; keep one")
        elif main is not None:
            options[main] = value
        else:
            raise RecipeError(f"{word}: {name} takes a mapping of options, not {value!r}")
    return _made(find(folder, name), options, word)


def _made(part: type[Part], options: Mapping[str, Any], word: str) -> Part:
    try:
        return part(**options)
    except ValidationError as error:
        raise RecipeError(*explain(error, part, word)) from None


def options_alone(folder: str, asked: Any) -> dict[str, Any] | None:
    """What `{"mixup": 0.2}` or `{"name": "auto", "mixup": 0.2}` sets of a part that is yet to be found.

    None where `asked` names a part, or is no mapping. See `strange_options` for what no part has.
    """
    if not isinstance(asked, Mapping):
        return None
    alone = {key: value for key, value in asked.items() if (key, value) != ("name", "auto")}
    return None if "name" in alone or any(key in names(folder) for key in alone) else alone


def strange_options(folder: str, alone: Mapping[str, Any]) -> list[str]:
    """A problem for each option, given without a part's name, that no part of `folder` has."""
    word, kinds = folder.removesuffix("s"), _all(folder)
    known = {option for kind in kinds for option in kind.model_fields}
    return [
        # A part's name that is written wrong looks the same, as in `task: {regresion: {error: huber}}`.
        f"{word}.{key}: no {word} has this option; "
        + (did_you_mean(key, names(folder)) if isinstance(value, Mapping) else _meant(key, value, kinds))
        for key, value in alone.items()
        if key not in known
    ]


def with_options(folder: str, options: Mapping[str, Any], kind: type[Part], why: str) -> Part:
    """The part `kind`, which was found because of `why`, with options that were given before it was known.

    Raises RecipeError naming each option that it does not have, its own options, and the parts that have it.
    """
    word, name = folder.removesuffix("s"), kind.part_name()
    found = f"the rows look like {word} {name} ({why})"
    problems = []
    for key in (key for key in options if key not in kind.model_fields):
        having = " or ".join(f"--{word} {other.part_name()}" for other in _all(folder) if key in other.model_fields)
        near = _meant(key, options[key], [kind])
        problems.append(f"{word}.{key}: {found}, which has no such option; {near}; give {having}, which has it")
    try:
        part = kind(**{key: value for key, value in options.items() if key in kind.model_fields})
    except ValidationError as error:
        told = (f"{line}; {found}" for line in explain(error, kind, word))
        raise RecipeError(*problems, *told) from None
    if problems:
        raise RecipeError(*problems)
    return part


def _all(folder: str) -> list[type[Part]]:
    return [find(folder, name) for name in names(folder)]


def explain(error: ValidationError, kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Each pydantic problem as a line of ours: dotted key, what is wrong, and the nearest known key."""
    found: dict[str, list[str]] = {}
    for problem in error.errors():
        place = problem["loc"]
        if problem["type"] == "extra_forbidden":
            inside = _kind_at(kind, place[:-1])
            found.setdefault(_dotted(prefix, place), []).append(
                _unknown(kind, str(place[-1]), problem["input"], inside)
            )
            continue
        # Where a value may be of several kinds, pydantic tells each kind's complaint under a name of its own.
        place = _own_keys(kind, place)
        key = _dotted(prefix, place)
        if problem["type"] == "missing":
            found.setdefault(key, []).append("is required")
            continue
        message = problem["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        given = f" (given: {problem['input']!r})" if place else ""
        found.setdefault(key, []).append(message + given)
    return [f"{key}: {_either(messages)}" for key, messages in found.items()]


def _unknown(kind: type[BaseModel], word: str, value: Any, inside: type[BaseModel] | None) -> str:
    """What is said of the key `word` with this value, which `inside` (`kind`, or a group of keys in it) does not have."""
    known = [] if inside is None else list(inside.model_fields)
    if issubclass(kind, Part) and inside is kind and (having := _having(kind, word)):
        own = f"; its own: {', '.join(known)}" if known else ""
        which = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it"
        return f"{kind.part_name()} has no such option ({which}); leave it out{own}"
    if issubclass(kind, Part) and not known:
        return f"unknown key; {kind.part_name()} has no options"
    deeper = [f"{name}.{word}" for name in known if word in _fields_at(kind, (name,))]
    if deeper:
        return f'unknown key; did you mean "{deeper[0]}"?'
    return f"unknown key; {_meant(word, value, [] if inside is None else [inside])}"


def _having(kind: type[Part], option: str) -> list[str]:
    """The names of the other parts of its folder that have an option."""
    folder = next((name for name in ("tasks", "methods") if issubclass(kind, _base(name))), None)
    if folder is None:
        return []
    return [other.part_name() for other in _all(folder) if option in other.model_fields]


def _meant(word: str, value: Any, kinds: Sequence[type[BaseModel]]) -> str:
    """The keys of `kinds` that take this very value, or are called nearly so, or all: each with its values where few."""
    values: dict[str, list[str]] = {}
    for kind in kinds:
        for name, field in kind.model_fields.items():
            values[name] = list(dict.fromkeys([*values.get(name, []), *_choices(field.annotation)]))
    said = {name: f" ({', '.join(few)})" for name, few in values.items() if 0 < len(few) <= FEW_CHOICES}
    taking = [name for name in values if isinstance(value, str) and value != "auto" and value in values[name]]
    if taking:
        return "did you mean " + " or ".join(f'"{name}"{said.get(name, "")}' for name in sorted(taking)) + "?"
    return did_you_mean(word, values, said)


def _choices(annotation: Any) -> list[str]:
    """The values of a field that takes nothing else, as they are written; none where it takes numbers or any text."""
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, UnionType):
        parts = [_choices(part) for part in get_args(annotation)]
        return [value for part in parts for value in part] if all(parts) else []
    return []


def _dotted(prefix: str, place: tuple[int | str, ...]) -> str:
    return ".".join(([prefix] if prefix else []) + [str(part) for part in place]) or "recipe"


def _own_keys(kind: type[BaseModel], place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a problem's place that a person wrote: keys, and places in lists."""
    kept: list[int | str] = []
    known: list[str] = list(kind.model_fields)
    for part in place:
        if isinstance(part, int) or part in known:
            kept.append(part)
            known = _fields_at(kind, tuple(key for key in kept if isinstance(key, str)))
    return tuple(kept)


def _either(messages: list[str]) -> str:
    """Complaints of several kinds as one: "input should be X or Y (given: Z)"."""
    start = "input should be "
    if len(messages) == 1 or not all(message.startswith(start) for message in messages):
        return "; ".join(dict.fromkeys(messages))
    bodies, given = [], ""
    for message in messages:
        body, opening, rest = message.removeprefix(start).partition(" (given: ")
        bodies.append(body)
        given = opening + rest
    return start + " or ".join(dict.fromkeys(bodies)) + given


def _fields_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    inside = _kind_at(kind, place)
    return [] if inside is None else list(inside.model_fields)


def _kind_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The group of keys at a place of `kind`; None where there is none."""
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is None or not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)):
            return None
        kind = field.annotation
    return kind


def _find_dotted(folder: str, name: str) -> type[Part]:
    word = folder.removesuffix("s")
    try:
        found = _named(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # ".a" and "" are TypeError and ValueError
        raise RecipeError(f'{word}: cannot import "{name}" ({error})') from None
    base = _base(folder)
    if not (inspect.isclass(found) and issubclass(found, base) and not inspect.isabstract(found)):
        expected = f"a complete subclass of {base.__module__}:{base.__name__}"
        raise RecipeError(f'{word}: "{name}" is not a {word} class; expected {expected}')
    return found


def _base(folder: str) -> type[Part]:
    """What every class of `folder` derives from: "tasks" -> Task."""
    return _named(f"tunesmith.{folder}.base:{folder.removesuffix('s').capitalize()}")


def _named(path: str) -> Any:
    """What "package.module:Name" stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _only_part(module: Any) -> type[Part]:
    found = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Part) and item.__module__ == module.__name__ and not inspect.isabstract(item)
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one final class, and defines {len(found)}")
    return found[0]
