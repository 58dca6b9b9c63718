"""Spaces out of a recipe's plain data, and a recipe from the values of a trial. Nothing here is drawn or kept."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from tunesmith.catalog import find, names, options_alone
from tunesmith.errors import RecipeError, did_you_mean
from tunesmith.recipe import Recipe, set_key

KEYS = ("low", "high", "log", "step", "choices")
MOST_COMBINATIONS = 400  # that are all checked before the first trial; of more, every two fields' values together
WITHIN = 0.381966  # of the way from low to high: a value that no bound is
LISTED = 8  # problems of combinations
_SPACED = ("low", "high", "choices")

# What makes trials that cannot be compared, or finds luck: why it is no space.
_FIXED = {
    "data": "trials on other rows cannot be compared; of data only data.share can be searched",
    "evaluation": "it is how trials are judged, and has to be the same for all",
    "cost": "it changes nothing that is trained",
    "limits": "they say how long training may go on, which the clock decides",
    "seed": "the best of several seeds is luck; search.repeats trains each trial from several, and takes their mean",
}
_FREE = ("data.share",)


@dataclass(frozen=True)
class Numbers:
    """From `low` to `high`, both included. Whole numbers where both are and no step is a fraction."""

    low: float
    high: float
    log: bool = False  # as many draws from 1 to 10 as from 10 to 100
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int) and (self.step is None or self.step % 1 == 0)

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.step is not None:
            return int((self.high - self.low) / self.step + 1e-9) + 1
        return int(self.high - self.low) + 1 if self.whole else math.inf

    def every(self) -> list[float]:
        """All values, of a space that is not endless."""
        step = 1 if self.step is None else self.step
        return [self.low + place * step for place in range(int(self.size))]

    def telling(self) -> list[float]:
        """The bounds, and a value within."""
        if self.size <= 3:
            return self.every()
        within = self.low + WITHIN * (self.high - self.low)
        if self.step is not None or self.whole:
            step = 1 if self.step is None else self.step
            within = self.low + round((within - self.low) / step) * step
        return [self.low, self.high, within]

    def said(self) -> str:
        kind = ", log" if self.log else ""
        return f"{self.low:g} to {self.high:g}{'' if self.step is None else f', step {self.step:g}'}{kind}"


@dataclass(frozen=True)
class Choices:
    """One of `values`, in no order."""

    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        return len(self.values)

    def every(self) -> list[Any]:
        return list(self.values)

    def telling(self) -> list[Any]:
        return list(self.values)

    def labels(self) -> list[str]:
        """A text for each value, no two alike: 1, true and "1" are three."""
        return [label_of(value) for value in self.values]

    def said(self) -> str:
        return " or ".join(shown(value) for value in self.values)


Space = Numbers | Choices


def label_of(value: Any) -> str:
    """JSON, but for plain words, which stand as they are."""
    plain = json.dumps(value, sort_keys=True)
    if not isinstance(value, str):
        return plain
    try:
        json.loads(value)
    except ValueError:
        return value
    return plain  # "1" and 1 are told apart


def shown(value: Any) -> str:
    """A value in words for a line or a table."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping) and "name" in value:
        others = ", ".join(f"{key}={shown(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']}({others})" if others else str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Searched:
    """A recipe with spaces in it."""

    plain: dict[str, Any]  # with a value of its space where each stands
    spaces: dict[str, Space]  # by dotted key, in the recipe's order

    @property
    def size(self) -> float:
        """How many recipes there are."""
        return math.prod(space.size for space in self.spaces.values())

    def plain_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The nested plain data of one recipe."""
        plain = copy.deepcopy(self.plain)
        for key, value in values.items():
            set_key(plain, key, copy.deepcopy(value))
        return plain

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Raises RecipeError where these values do not go together."""
        return Recipe.parse(self.plain_of(values))

    def every(self) -> Iterator[dict[str, Any]]:
        """All combinations, of a space that is not endless."""
        for values in itertools.product(*(space.every() for space in self.spaces.values())):
            yield dict(zip(self.spaces, values, strict=True))

    def telling(self) -> Iterator[dict[str, Any]]:
        """Combinations that stand for all, first each field's first value.

        Of numbers the bounds and a value within; of many fields every two with all their values, the others at their
        first.
        """
        yield from _telling(self.spaces)

    def check(self) -> None:
        """Raises RecipeError with what is wrong with any combination, as far as the recipe alone can tell: of `telling`."""
        tried, wrong = 0, dict[str, list[dict[str, Any]]]()
        for values in self.telling():
            tried += 1
            try:
                self.recipe(values)
            except RecipeError as error:
                for problem in error.problems:
                    wrong.setdefault(problem, []).append(values)
        if wrong:
            lines = [f"{_where(found, tried)}{problem}" for problem, found in wrong.items()]
            more = [f"and {len(lines) - LISTED} more problems of combinations"] if len(lines) > LISTED else []
            raise RecipeError(*lines[:LISTED], *more)


def _telling(spaces: Mapping[str, Space]) -> Iterator[dict[str, Any]]:
    values = {key: space.telling() for key, space in spaces.items()}
    if math.prod(map(len, values.values())) <= MOST_COMBINATIONS:
        yield from (dict(zip(values, found, strict=True)) for found in itertools.product(*values.values()))
        return
    first = {key: found[0] for key, found in values.items()}
    for one, other in itertools.combinations(values, 2):
        for pair in itertools.product(values[one], values[other]):
            yield first | {one: pair[0], other: pair[1]}


def _where(found: Sequence[Mapping[str, Any]], tried: int) -> str:
    """The values that all combinations with a problem share; "" where these are all."""
    if len(found) == tried:
        return ""
    shared = {key: value for key, value in found[0].items() if all(other[key] == value for other in found)}
    said = " and ".join(f"{key}={shown(value)}" for key, value in shared.items())
    return f"with {said}: " if said else f"in {len(found)} of {tried} combinations that were tried: "


def read_spaces(asked: Mapping[str, Any]) -> Searched:
    """The spaces of a recipe's plain data, which has no `search` section any more. Raises RecipeError with every problem.

    A space is `{low: 1e-5, high: 1e-3, log: true}` (whole numbers where both bounds are; an optional step), a list
    `[4, 16, 64]` where the field itself takes no list, or `{choices: [...]}` anywhere.
    """
    plain, spaces, problems = copy.deepcopy(dict(asked)), dict[str, Space](), list[str]()
    taken = list[str]()  # lists that are values
    for key in ("method", "task"):
        if isinstance(plain.get(key), Mapping):
            plain[key] = _named(f"{key}s", plain[key])
    for key, value in list(plain.items()):
        if _is_space(value) or (isinstance(value, list) and key in Recipe.model_fields):
            _read(key, value, spaces, problems)
        elif isinstance(value, Mapping):
            for inner, below in value.items():
                place = f"{key}.{inner}"
                group = key not in ("method", "task")
                listed = isinstance(below, list) and not _takes_lists(plain, key, str(inner))
                taken += [place] if isinstance(below, list) and not listed else []
                if listed or _is_space(below) or (group and isinstance(below, Mapping)):
                    _read(place, below, spaces, problems)
    for key in spaces:
        group = key.partition(".")[0]
        if group in _FIXED and key not in _FREE:
            problems.append(f"{key}: cannot be searched: {_FIXED[group]}")
    if not spaces and not problems:
        problems += [
            f"{key}: takes lists itself, so this one is its value; for several to choose from write {key}: {{choices: [...]}}"
            for key in taken
        ]
        problems.append(
            "there is nothing to search: give a field a space in place of its value, such as "
            "training.rate: {low: 1e-5, high: 1e-3, log: true} or method.rank: [4, 16, 64]"
        )
    if problems:
        raise RecipeError(*problems)
    found = Searched(plain, spaces)
    return Searched(found.plain_of({key: space.telling()[0] for key, space in spaces.items()}), spaces)


def _named(folder: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """{"lora": {"rank": 8}} and {"layers": 2} as a name with options, for what is searched has to have one key."""
    inside = [key for key in part if key in names(folder)]
    if "name" in part or len(inside) != 1:
        return dict(part)
    name, options = inside[0], {key: value for key, value in part.items() if key != inside[0]}
    value = part[name]
    if isinstance(value, Mapping) and not _is_space(value):
        return {"name": name, **options, **value}
    main = find(folder, name).main_option
    return dict(part) if main is None else {"name": name, main: value, **options}


def _is_space(value: Any) -> bool:
    return isinstance(value, Mapping) and any(key in value for key in _SPACED)


def _read(place: str, value: Any, spaces: dict[str, Space], problems: list[str]) -> None:
    found, wrong = _space(value)
    problems += [f"{place}: {problem}" for problem in wrong]
    if found is not None:
        spaces[place] = found


def _space(value: Any) -> tuple[Space | None, list[str]]:
    """A space, or what is wrong with it."""
    if isinstance(value, list):
        return _choices(value)
    strange = [key for key in value if key not in KEYS]
    wrong = [f'unknown key "{key}" of a space; {did_you_mean(str(key), KEYS)}' for key in strange]
    if "choices" in value:
        beside = [key for key in value if key in KEYS and key != "choices"]
        if beside:
            wrong.append(f"choices have no {' and no '.join(beside)}; give choices alone, or low and high")
        if not isinstance(value["choices"], list):
            wrong.append(f"choices: a list is expected (given: {value['choices']!r})")
        elif not wrong:
            return _choices(value["choices"])
        return None, wrong
    missing = [key for key in ("low", "high") if key not in value]
    if missing:
        wrong.append(f"a space of numbers needs low and high; give {' and '.join(missing)}, or choices")
    return _numbers(value, wrong)


def _choices(values: list[Any]) -> tuple[Choices | None, list[str]]:
    labels = Counter(label_of(value) for value in values if not _is_space(value))
    wrong = [f"{label} stands there {times} times; keep one" for label, times in labels.items() if times > 1]
    if any(
        _is_space(value) or (isinstance(value, Mapping) and any(map(_is_space, value.values()))) for value in values
    ):
        wrong.append("a space within choices cannot be searched; give the values themselves")
    if len(values) < 2:
        wrong.append(f"{len(values)} is no choice; give two values or more, or the value itself")
    return (None if wrong else Choices(tuple(values))), wrong


def _numbers(value: Mapping[str, Any], wrong: list[str]) -> tuple[Numbers | None, list[str]]:
    given = {key: value[key] for key in ("low", "high", "step") if value.get(key) is not None}
    for key, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            wrong.append(f"{key}: a number is expected (given: {number!r})")
    log = value.get("log", False)
    if not isinstance(log, bool):
        wrong.append(f"log: true or false is expected (given: {log!r})")
    if wrong:
        return None, wrong
    low, high, step = given["low"], given["high"], given.get("step")
    if not low < high:
        wrong.append(f"low has to be below high (given: {low!r} and {high!r})")
    if log and low <= 0:
        wrong.append(f"low has to be above 0 where log is true (given: {low!r})")
    if log and step is not None:
        wrong.append("log and step do not go together; leave one of the two out")
    elif step is not None and step <= 0:
        wrong.append(f"step has to be above 0 (given: {step!r})")
    elif step is not None and low < high:
        steps = (high - low) / step
        if abs(steps - round(steps)) > 1e-6 or steps < 0.5:
            last = low + math.floor(steps + 1e-9) * step
            near = f"make high {last:g}" if last > low else "make step smaller"
            wrong.append(f"high is not a whole number of steps above low; {near}")
    return (None if wrong else Numbers(low, high, log, step)), wrong


def _takes_lists(plain: Mapping[str, Any], group: str, key: str) -> bool:
    """Whether a field itself may hold a list, so that a list is its value; also of an unknown one."""
    if group in ("method", "task"):
        kinds = list(_parts(f"{group}s", plain.get(group)))
        fields = [kind.model_fields[key] for kind in kinds if key in kind.model_fields]
    else:
        group_kind = Recipe.model_fields[group].annotation if group in Recipe.model_fields else None
        known = group_kind.model_fields if isinstance(group_kind, type) and issubclass(group_kind, BaseModel) else {}
        fields = [known[key]] if key in known else []
    return any(_lists(field.annotation) for field in fields)


def _parts(folder: str, asked: Any) -> Iterable[type[BaseModel]]:
    """The class that a part's plain data names; all of them where it names none."""
    alone = options_alone(folder, asked)
    name = asked.get("name") if isinstance(asked, Mapping) else None
    if alone is None and isinstance(name, str):
        try:
            return [find(folder, name)]
        except RecipeError:
            return []  # told when the recipe is parsed
    return [find(folder, each) for each in names(folder)]


def _lists(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(map(_lists, get_args(annotation)))
    if origin is Annotated:
        return _lists(get_args(annotation)[0])
    kind = annotation if origin is None else origin
    return isinstance(kind, type) and issubclass(kind, tuple | list | set | frozenset | Sequence) and kind is not str
