"""How near written texts are to those wanted: exact match, ROUGE-L; with the extra `gen` ROUGE-1, ROUGE-2, BLEU, chrF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tunesmith.tasks._answers import WORD, Compare, exact_match, rouge_l
from tunesmith.tasks._metrics import mean_of
from tunesmith.tasks._weighted import OfSums

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.tasks.base import Metric

Pair = tuple[str, str]  # (what was written, what was wanted)
PACKAGES = {"rouge_score": ("ROUGE-1", "ROUGE-2"), "sacrebleu": ("BLEU", "chrF")}
ORDERS = 4  # longest n-gram of BLEU


def left_out() -> str:
    """One line about the metrics whose package is not installed; "" where all are."""
    lacking = [metric for package, metrics in PACKAGES.items() if find_spec(package) is None for metric in metrics]
    if not lacking:
        return ""
    return f"{', '.join(lacking)} of written texts are left out: pip install 'tunesmith[gen]' adds them"


def written_metric(name: str, column: np.ndarray) -> Metric:
    """The metric of a column that `means_of` or `measures_of` made: a mean, unless it holds counts."""
    return mean_of(name) if column.ndim == 1 else {"bleu": bleu, "chrf": chrf}[name]


def means_of(pairs: Sequence[Pair | None], own: Mapping[str, Compare]) -> dict[str, np.ndarray]:
    """Columns with an entry for each row (None: nothing was written), NaN without a written text: exact match, ROUGE-L and
    `own`, of which the metric is the mean over the rows; the first two are from 0 to 1.
    """
    import numpy as np

    compared = {"exact_match": exact_match, "rouge_l": rouge_l, **own}
    return {
        name: np.array([np.nan if pair is None else function(*pair) for pair in pairs])
        for name, function in compared.items()
    }


def measures_of(pairs: Sequence[Pair | None], own: Mapping[str, Compare]) -> dict[str, np.ndarray]:
    """`means_of`, and what the extra `gen` adds.

    ROUGE are means over the rows, from 0 to 1. BLEU and chrF are of all texts together, from 0 to 100, as sacrebleu has
    them: counts of n-grams are summed first.
    """
    columns = means_of(pairs, own)
    if find_spec("rouge_score") is not None:
        found = _rouge(pairs)
        columns |= {name: found[:, place] for place, name in enumerate(("rouge_1", "rouge_2"))}
    if find_spec("sacrebleu") is not None:
        columns |= {"bleu": _bleu_counts(pairs), "chrf": _chrf_counts(pairs)}
    return columns


class _Words:
    """Words for rouge-score: the same as for ROUGE-L, in any script; its own would know Latin letters alone."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def _rouge(pairs: Sequence[Pair | None]) -> np.ndarray:
    """[rows, 2] F1 of words and of pairs of words (Lin 2004); nan where nothing was written."""
    import numpy as np
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-not-found]

    scorer = RougeScorer(["rouge1", "rouge2"], tokenizer=_Words())
    found = np.full((len(pairs), 2), np.nan)
    for row, pair in enumerate(pairs):
        if pair is not None:
            said, wanted = pair
            scores = scorer.score(wanted, said)
            found[row] = [scores["rouge1"].fmeasure, scores["rouge2"].fmeasure]
    return found


def _bleu_counts(pairs: Sequence[Pair | None]) -> np.ndarray:
    """[rows, 10]: hits and n-grams of each order, and the lengths of both texts; zeros where nothing was written."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU  # type: ignore[import-not-found]

    metric = BLEU(effective_order=True)  # of one sentence: only its counts are taken, which do not depend on it
    found = np.zeros((len(pairs), 2 * ORDERS + 2))
    for row, pair in enumerate(pairs):
        if pair is not None:
            score = metric.sentence_score(pair[0], [pair[1]])
            found[row] = [*score.counts, *score.totals, score.sys_len, score.ref_len]
    return found


def _bleu(sums: np.ndarray) -> np.ndarray:
    """[sums, samples] -> [samples], of a corpus (Papineni 2002), as sacrebleu computes it by default."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU  # type: ignore[import-not-found]

    def score(of: list[int]) -> float:
        hits, totals, (said, wanted) = of[:ORDERS], of[ORDERS:-2], of[-2:]
        return float(BLEU.compute_bleu(hits, totals, said, wanted, smooth_method="exp").score) if said else 0.0

    return np.array([score(of) for of in np.rint(sums.T).astype(int).tolist()])


bleu = OfSums(lambda of: of["bleu"], _bleu)


def _chrf_counts(pairs: Sequence[Pair | None]) -> np.ndarray:
    """[rows, 18]: for each order of letters those of the written text, of the wanted one, and the hits."""
    import numpy as np
    from sacrebleu.metrics.chrf import CHRF  # type: ignore[import-not-found]

    metric: Any = CHRF()
    found = np.zeros((len(pairs), 3 * metric.order))
    for row, pair in enumerate(pairs):
        if pair is not None:
            (found[row],) = metric._extract_corpus_statistics([pair[0]], [[pair[1]]])
    return found


def _chrf(sums: np.ndarray) -> np.ndarray:
    """[sums, samples] -> [samples], of a corpus (Popovic 2015), as sacrebleu computes it by default."""
    import numpy as np
    from sacrebleu.metrics.chrf import CHRF  # type: ignore[import-not-found]

    metric: Any = CHRF()
    return np.array([float(metric._compute_f_score(of)) for of in np.rint(sums.T).astype(int).tolist()])


chrf = OfSums(lambda of: of["chrf"], _chrf)
