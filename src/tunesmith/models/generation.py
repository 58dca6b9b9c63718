"""Writing: what a language model says after a prompt, many prompts at a time."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from tunesmith.errors import ModelError
from tunesmith.models.backbone import quiet
from tunesmith.models.network import Network
from tunesmith.models.soft_prompt import alone_at_its_length
from tunesmith.seeds import torch_seed

ROWS = 16  # prompts that are continued together
CLOSE = 1.5  # how many times as long as the shortest prompt of a batch its longest may be


def generate(network: Network, prompts: Sequence[Sequence[int]], most: int, ends: Collection[int]) -> list[list[int]]:
    """The tokens that follow each of `prompts`, at most `most`, by always taking the likeliest (greedy).

    A text ends after the first of `ends`, which is given too, or of the model's own ends of text, or where the model has no
    more positions. Prompts of like length are continued together, filled on the left, and the keys and values of tokens
    that were read are kept: the same tokens come as one by one. Raises ValueError for an empty prompt.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt without a token has nothing to go on from")
    model = _writer(network)
    filler = network.processor.pad["input_ids"]
    stops = stops_of(network, ends)
    found: list[list[int]] = [[]] * len(prompts)
    free = -1 if alone_at_its_length(model) else network.processor.positions - most
    for rows in _batches([len(prompt) for prompt in prompts], free):
        longest = len(prompts[rows[0]])
        room = min(most, network.processor.positions - longest)
        if room < 1:
            continue
        ids = torch.full((len(rows), longest), filler)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, longest - len(prompts[row]) :] = torch.tensor(prompts[row])
            mask[place, longest - len(prompts[row]) :] = 1
        config = GenerationConfig(
            max_new_tokens=room, do_sample=False, num_beams=1, use_cache=True, pad_token_id=filler,
            eos_token_id=stops if stops else None, bos_token_id=None,
        )  # fmt: skip
        device = network.sample.device
        with torch.inference_mode(), quiet(), _plain_defaults(model):
            # [rows, tokens]
            said = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
        for place, row in enumerate(rows):
            found[row] = _until(said[place, longest:].tolist(), stops)
    return found


def stops_of(network: Network, ends: Collection[int]) -> list[int]:
    """The tokens after which `generate` ends a text: `ends`, and the model's own ends of text."""
    config = _writer(network).generation_config
    return sorted({*ends, *([] if config is None else ends_of(config))})


def drawn_texts(network: Network, count: int, most: int, seed: int) -> list[str]:
    """Texts that a decoder writes from nothing, each token drawn by its probability, at most `most` of them in each.

    None where its tokenizer has no token that a text begins with. Texts of less than two words are left out.
    """
    model, tokenizer = _writer(network), network.text.tokenizer
    first: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        return []
    config = GenerationConfig(
        max_new_tokens=min(most, network.processor.positions - 1), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        use_cache=True, pad_token_id=network.processor.pad["input_ids"], bos_token_id=first,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    ids = torch.full((count, 1), int(first), device=network.sample.device)
    with torch.inference_mode(), quiet(), _plain_defaults(model), torch_seed(seed, "own texts"):
        said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    texts = [str(text).strip() for text in tokenizer.batch_decode(said[:, 1:], skip_special_tokens=True)]
    return [text for text in texts if len(text.split()) > 1]


def write_from(network: Network, sources: Sequence[Sequence[int]]) -> list[tuple[list[int], bool]]:
    """What an encoder-decoder writes for each of `sources`, and whether it came to an end, by its saved settings.

    These were set by `models/sequence.py`: greedy or by beams, and how many tokens at most. The end of text is given too.
    Sources of like length are read together, filled on the right, and the keys and values of tokens that were written are
    kept: the same tokens come as one by one, up to rounding.
    """
    model = _writer(network)
    config = model.generation_config
    ends = ends_of(config)
    filler, device = network.processor.pad["input_ids"], network.sample.device
    found: list[tuple[list[int], bool]] = [([], False)] * len(sources)
    lengths = [len(source) for source in sources]
    for rows in _batches(lengths, max(lengths)):
        longest = len(sources[rows[0]])
        ids = torch.full((len(rows), longest), filler)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(sources[row])] = torch.tensor(sources[row])
            mask[place, : len(sources[row])] = 1
        with torch.inference_mode(), quiet():
            # [rows, 1 + tokens]: what the decoder starts from comes first.
            said = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
        for place, row in enumerate(rows):
            written = _until(said[place, 1:].tolist(), ends)
            found[row] = written, bool(written) and written[-1] in ends
    return found


def ends_of(config: GenerationConfig) -> list[int]:
    """The tokens that end a text."""
    own: Any = config.eos_token_id
    return [] if own is None else [own] if isinstance(own, int) else list(own)


def ends_with(network: Network, ends: Collection[int]) -> None:
    """Lets other tools that open the saved model end a text at `ends` too, beside the model's own ends of text."""
    model = _writer(network)
    own = model.generation_config.eos_token_id
    before = [] if own is None else [own] if isinstance(own, int) else list(own)
    every = [*before, *sorted(set(ends) - set(before))]
    if every:
        model.generation_config.eos_token_id = every if len(every) > 1 else every[0]


def _writer(network: Network) -> Any:
    """transformers' own model inside, which can write. Raises ModelError where it cannot."""
    model = getattr(network, "model", None)
    if not isinstance(model, GenerationMixin):
        raise ModelError(f"{type(network).__name__} holds no model that writes texts; choose a decoder as the base")
    return model


class _plain_defaults:
    """Inside, the model's own generation settings (a penalty of repetitions, say) are the plain ones."""

    def __init__(self, model: Any) -> None:
        self._model, self._own = model, None

    def __enter__(self) -> None:
        self._own = copy.deepcopy(self._model.generation_config)
        self._model.generation_config = GenerationConfig()

    def __exit__(self, *raised: object) -> None:
        self._model.generation_config = self._own


def _batches(lengths: Sequence[int], free: int) -> list[list[int]]:
    """Rows in batches of like length, longest first; of those longer than `free`, which have less room, of one length."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        longest = lengths[batches[-1][0]] if batches else 0
        like = longest <= CLOSE * lengths[row] and (longest <= free or longest == lengths[row])
        if batches and len(batches[-1]) < ROWS and like:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _until(ids: list[int], stops: Collection[int]) -> list[int]:
    """Up to and with the first stop: what follows it is filler."""
    place = next((at for at, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: place + 1]
