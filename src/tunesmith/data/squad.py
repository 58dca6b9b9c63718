"""SQuAD's nested JSON (articles, their paragraphs, the questions of each) as rows, one a question."""

from __future__ import annotations

from typing import Any

from tunesmith.data.table import Table, from_records
from tunesmith.errors import DataError

LISTED = 10
SHAPE = (
    '{"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": '
    '[{"text": ..., "answer_start": ...}]}]}]}]}'
)


def is_nested(value: Any) -> bool:
    """Whether a JSON value is a list of SQuAD's articles or paragraphs, or one of them."""
    records = [value] if isinstance(value, dict) else value
    return isinstance(records, list) and any(
        isinstance(record, dict) and _holds_questions(record) for record in records
    )


def _holds_questions(record: dict[str, Any]) -> bool:
    """Whether a record is an article or a paragraph, perhaps a wrong one; a column called paragraphs may hold plain texts."""
    inside = record.get("paragraphs", record.get("qas"))
    return isinstance(inside, dict) or (
        isinstance(inside, list) and (not inside or any(isinstance(item, dict) for item in inside))
    )


def nested_table(value: Any, path: str) -> Table:
    """One row a question: title, question, context, answers, is_impossible, id, as far as the file has them.

    Lines are numbers of questions, from 1. Raises DataError with every place where the nesting is another, and where
    there is no question.
    """
    problems: list[str] = []
    records: list[dict[str, Any]] = []
    for place, article in enumerate([value] if isinstance(value, dict) else value):
        where = f"{path}: data[{place}]"
        if not isinstance(article, dict):
            problems.append(f"{where} is {_kind(article)}, not an article or a paragraph; write {SHAPE}")
        elif "qas" in article:
            records += _questions(article, None, where, problems)
        else:
            for inner, paragraph in enumerate(_listed(article, "paragraphs", where, problems)):
                records += _questions(paragraph, article.get("title"), f"{where}.paragraphs[{inner}]", problems)
    if problems:
        more = [f"{path}: {len(problems)} such places in all"] if len(problems) > LISTED else []
        raise DataError(*problems[:LISTED], *more)
    if not records:
        raise DataError(f"{path}: holds no question; write {SHAPE}")
    return from_records(records, path, range(1, len(records) + 1))


def _questions(paragraph: Any, title: Any, where: str, problems: list[str]) -> list[dict[str, Any]]:
    if not isinstance(paragraph, dict):
        problems.append(f"{where} is {_kind(paragraph)}, not a paragraph; write {SHAPE}")
        return []
    if not isinstance(paragraph.get("context"), str):
        problems.append(f'{where}: "context" is {_kind(paragraph.get("context"))}, not a text; write {SHAPE}')
    found = []
    for place, question in enumerate(_listed(paragraph, "qas", where, problems)):
        here = f"{where}.qas[{place}]"
        if not isinstance(question, dict) or not isinstance(question.get("question"), str):
            problems.append(f'{here}: has no text under "question"; write {SHAPE}')
            continue
        if not isinstance(question.get("answers", []), list):
            problems.append(f'{here}: "answers" is {_kind(question["answers"])}, not a list; write {SHAPE}')
            continue
        named = {"title": title, "question": question["question"], "context": paragraph.get("context")}
        record = named | {"answers": question.get("answers"), "is_impossible": question.get("is_impossible")}
        record |= {"id": question.get("id")}
        found.append({key: value for key, value in record.items() if value is not None or key == "answers"})
    return found


def _listed(holder: dict[str, Any], key: str, where: str, problems: list[str]) -> list[Any]:
    value = holder.get(key)
    if isinstance(value, list):
        return value
    problems.append(f'{where}: "{key}" is {_kind(value)}, not a list; write {SHAPE}')
    return []


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing"}
    return names.get(type(value), "a number")
