"""How sure the model may be taken to be: reliability, answers held back, and sets that hold the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Curve, Scale, curve, number, small, text
from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import count, figures, rows_of

MEASURES = (
    ("error", "Expected calibration error"),
    ("loss", "Negative log-likelihood, nats"),
    ("brier", "Brier score"),
)
NUMBERS = 12  # columns of numbers that a table has room for


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    title = "How sure it is"
    if "unmeasured" in data:
        return section("calibration", title, text(data["unmeasured"]), "")
    tested, known = rows_of(data["rows"], "test row"), rows_of(data["validation_rows"], "validation row")
    if data["kind"] == "numbers":
        lead = (
            f"Ranges around each predicted number that hold the true one so often as asked, from the errors on {known} "
            f"(split conformal prediction), on {tested}. The validation rows also chose the checkpoint, which can make "
            "ranges a little too narrow: hence the check."
        )
        return section("calibration", title, text(lead), _ranges(data))
    unit = "probability of what is said" if data["kind"] == "classes" else "probability of each label"
    lead = f"The {unit} beside how often it is right, on {tested}. Temperature: {data['why']}."
    body = _measures(data, report) + _pictures(data)
    if "precision" in data:
        body += _precision(data, known, 100 * report["confidence"]) + _sets(data, known)
    return section("calibration", title, text(lead), body)


def _interval(plain: Mapping[str, float]) -> str:
    value, low, high = figures(plain["value"], plain["low"], plain["high"])
    return f'<td class="n">{value} <small>[{low}, {high}]</small></td>'


def _measures(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Before and after the temperature, where there is one."""
    cooled = "before" in data
    heads = ("Lower is better", "#Without temperature", f"#With temperature {data['temperature']:.3g}")
    rows = []
    for key, title in MEASURES:
        before = _interval(data["before"][key]) if cooled else ""
        rows.append(row_head(title) + before + _interval(data["measures"][key]))
    shown = heads if cooled else ("Lower is better", "#On the test rows")
    note = (
        f"Probabilities that were right exactly as often as they say would show an error of about "
        f"{number(data['calibrated_error'])} on so many rows, since shares vary by chance. The error is measured in 15 bins "
        f"of equal mass; brackets are {100 * report['confidence']:g} % intervals over rows (for the error basic bootstrap, "
        "which takes off that chance)."
    )
    return f'{_table(shown, rows)}<p class="note">{text(note)}</p>'


def _pictures(data: Mapping[str, Any]) -> str:
    drawn = _reliability(data["bins"])
    if data.get("curve"):
        least = data["curve"][0][0]
        drawn += curve(
            Curve(
                "Right, by the share of rows answered",
                f"the surest first, from {100 * least:.0f} % of the rows on",
                data["curve"],
                across="share",
            )
        )
    unit = "Rows" if data["kind"] == "classes" else "Labels of rows"
    rows = [
        row_head(f"{item['from']:.1f} to {item['to']:.1f}")
        + cell(count(item["units"]), "n")
        + cell(number(item["probability"]), "n")
        + _interval({"value": item["right"], "low": item["right_low"], "high": item["right_high"]})
        for item in data["bins"]
    ]
    table = _table(("Probability", f"#{unit}", "#Mean probability", "#Right"), rows)
    return f'<div class="curves reliability">{drawn}</div>{table}'


def _reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """A dot a bin at (mean probability, share right) with its interval, and below how many there are."""
    scale = Scale(0.0, 1.0)
    ticks = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    body = "".join(
        f'<path class="grid" d="M0 {1000 - scale.at(tick)}H1000M{scale.at(tick)} 0V1000"/>' for tick in ticks
    )
    body += '<path class="zero" d="M0 1000L1000 0"/>'
    bars, most = "", max(item["units"] for item in bins)
    for item in bins:
        across = scale.at(item["probability"])
        low, high, at = (round(1000 - scale.at(item[key]), 1) for key in ("right_low", "right_high", "right"))
        said = (
            f"{count(item['units'])} between {item['from']:.1f} and {item['to']:.1f}: {item['probability']:.3f} on average, "
            f"{item['right']:.3f} right"
        )
        body += f'<path class="whisker strong" d="M{across} {low}V{high}"/>'
        body += f'<path class="dot strong" d="M{across} {at}h0"><title>{text(said)}</title></path>'
        tall = round(1000 * item["units"] / most, 1)
        left, wide = scale.at(item["from"]) + 4, scale.at(item["to"]) - scale.at(item["from"]) - 8
        place = f'x="{left:g}" y="{1000 - tall:g}" width="{wide:g}" height="{tall:g}"'
        bars += f"<rect {place}><title>{text(said)}</title></rect>"
    marks = "".join(f'<span style="top:{100 - scale.at(tick) / 10}%">{tick:.1f}</span>' for tick in ticks)
    below = "".join(f'<span style="left:{scale.at(tick) / 10}%">{tick:.1f}</span>' for tick in ticks)
    return (
        '<figure class="curve square"><figcaption><b>Reliability</b> right, upwards, by mean probability; bars: how many'
        '</figcaption><div class="plot">'
        f'<div class="left">{marks}</div><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="Reliability diagram">{body}</svg><div class="below">{below}</div>'
        f'<div></div><svg class="bars" viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="How many there are">{bars}</svg></div></figure>'
    )


def _expected(shares: Sequence[float] | None) -> str:
    return cell("–" if shares is None else f"{shares[0]:.3f} to {shares[1]:.3f}", "n")


def _of_groups(data: Mapping[str, Any], proven: str) -> str:
    """What is `proven`, and takes rows to be draws of their own, where they are in groups."""
    if not data.get("grouped"):
        return ""
    return (
        f" The rows are in groups, and rows of one group may be alike: brackets know that, {proven}, and on other groups it "
        "can be less."
    )


def _precision(data: Mapping[str, Any], known: str, confidence: float) -> str:
    rows = []
    for item in data["precision"]:
        head = row_head(f"{100 * item['wanted']:g} %" + (" (asked for)" if item["asked"] else ""))
        if item["above"] is None:
            rows.append(f'{head}<td colspan="3">none proven: {text(item["unproven"])}</td>')
            continue
        right = cell("–", "n") if item["precision"] is None else _interval(item["precision"])
        rows.append(head + cell(small_share(item["above"]), "n") + _interval(item["share"]) + right)
    heads = ("Precision wanted", "#Answer above", "#Rows answered", "#Of these right")
    lead = (
        f"The lowest probability above which answers are right so often, proven on {known}: with {confidence:g} % "
        "confidence, by exact binomial tests from the surest rows on until one fails. The other rows are left to a "
        "person."
    )
    lead += _of_groups(data, "but the proof takes validation rows as drawn alone")
    return f'<h3>Answers held back</h3><p class="note">{text(lead)} {_use("--precision 0.95")}</p>{_table(heads, rows)}'


def _sets(data: Mapping[str, Any], known: str) -> str:
    if not data["sets"]:
        return ""
    rows = [
        row_head(f"{100 * item['wanted']:g} %")
        + _interval(item["coverage"])
        + _expected(item["expected"])
        + cell(number(item["mean"], 2), "n")
        + cell(f"{100 * item['single']:.0f} %", "n")
        + cell(count(item["largest"]), "n")
        for item in data["sets"]
    ]
    heads = ("Coverage wanted", "#Truth in the set", "#Expected", "#Mean size", "#One class", "#Largest")
    lead = (
        f"All classes whose probability is not too low: split conformal prediction on {known}. The promise holds on average "
        f"for new rows of the same kind, whatever the model is{_expected_said(data)}. No set is empty, so that a coverage "
        "below the accuracy gives more than asked for. The validation rows also chose the checkpoint, which can "
        "make sets a little too small: hence the check."
    )
    lead += _of_groups(data, "but the promise takes rows as drawn alone")
    note = f"{text(lead)} {_use('--sets 0.9')}"
    return f'<h3>Sets that hold the true class</h3><p class="note">{note}</p>{_table(heads, rows)}'


def _expected_said(data: Mapping[str, Any]) -> str:
    return "" if data.get("grouped") else "; expected is where these test rows should lie, by chance alone"


def _ranges(data: Mapping[str, Any]) -> str:
    if not data["sets"]:
        return '<p class="note">There are too few validation rows for any of 80 %, 90 %, 95 % and 99 %.</p>'
    names = data["names"][:NUMBERS]
    rows = [
        row_head(f"{100 * item['wanted']:g} %")
        + _interval(item["coverage"])
        + _expected(item["expected"])
        + "".join(cell(f"± {figures(reach)[0]}", "n") for reach in item["reach"][:NUMBERS])
        for item in data["sets"]
    ]
    reaches = ["#Range"] if len(names) == 1 else [f"#{name}" for name in names]
    heads = ("Coverage wanted", "#Truth in the range" if len(names) == 1 else "#All in their ranges", "#Expected")
    groups = _of_groups(data, "but the promise takes rows as drawn alone").strip()
    return f'{_table((*heads, *reaches), rows)}<p class="note">{text(groups)} {_use("--sets 0.9")}</p>'


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="scroll"><table class="sure">{head_row(*heads)}<tbody>{lines}</tbody></table></div>'


def _use(option: str) -> str:
    return f"Use it with <code>tunesmith predict RUN FILE {option}</code>"


def small_share(value: float) -> str:
    """A threshold with as many digits as tell it from 1, and from 0."""
    if 0.001 <= value <= 0.999 or value == 0:
        return number(value)
    return small(value) if value < 0.5 else f"{value:.6f}"
