"""Writing many texts at a time gives what writing each alone gives, token by token."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tunesmith.models.network import Network

DECODERS = ("llama", "qwen3", "gpt2")


@pytest.fixture(scope="module")
def writer(model_folder: Callable[[str], Path]) -> Callable[[str], Network]:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.language import causal_network
    from tunesmith.models.resolve import resolve

    return lambda family: causal_network(load_backbone(resolve(str(model_folder(family)))), 0)


def _prompts(count: int) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randint(2, 190) for _ in range(draw.randint(1, 30))] for _ in range(count)]


def _greedy(network: Network, prompt: list[int], most: int, ends: set[int]) -> list[int]:
    """The definition: the likeliest token after the whole text so far, computed anew each time."""
    import torch

    ids = list(prompt)
    with torch.no_grad():
        while len(ids) - len(prompt) < most:
            now = torch.tensor([ids])
            ids.append(int(network({"input_ids": now, "attention_mask": torch.ones_like(now)})[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", DECODERS)
def test_many_at_a_time_equal_one_at_a_time(family: str, writer: Callable[[str], Network]) -> None:
    from tunesmith.models.generation import generate

    network, prompts = writer(family), _prompts(23)
    wanted = [_greedy(network, prompt, 12, set()) for prompt in prompts]
    often = max({token for said in wanted for token in said}, key=lambda token: sum(token in said for said in wanted))
    for ends in (set(), {often}):
        expected = [_greedy(network, prompt, 12, ends | {0}) for prompt in prompts]
        assert generate(network, prompts, 12, ends) == expected
        assert [generate(network, [prompt], 12, ends)[0] for prompt in prompts] == expected
    assert any(often in said[:-1] for said in wanted), "the end came in the middle of a text"


def test_control_filling_on_the_right_would_be_noticed(writer: Callable[[str], Network]) -> None:
    """Filler between a prompt and what follows changes what is said: the comparison above can fail."""
    network, prompts = writer("gpt2"), _prompts(10)
    spoiled = [[*prompt, *[0] * (30 - len(prompt))] for prompt in prompts]
    expected = [_greedy(network, prompt, 12, set()) for prompt in prompts]
    assert [_greedy(network, prompt, 12, set()) for prompt in spoiled] != expected


def test_it_ends_where_the_model_has_no_more_positions(writer: Callable[[str], Network]) -> None:
    from tunesmith.models.generation import generate, stops_of

    network = writer("gpt2")
    most = network.processor.positions
    assert [len(said) for said in generate(network, [[5] * (most - 3), [5] * most], 50, ())] == [3, 0]
    assert stops_of(network, [7]) == [0, 7], "what it was given, and the model's own"
    with pytest.raises(ValueError, match="without a token"):
        generate(network, [[5], []], 5, ())


def test_the_models_own_settings_for_sampling_do_not_leak_in(writer: Callable[[str], Network]) -> None:
    from transformers import GenerationConfig

    from tunesmith.models.generation import generate

    network, prompts = writer("llama"), _prompts(5)
    plain = generate(network, prompts, 12, ())
    model = network.get_submodule("model")
    own = GenerationConfig(repetition_penalty=5.0, do_sample=True, temperature=2.0, eos_token_id=0)
    model.generation_config = own  # type: ignore[assignment]
    assert generate(network, prompts, 12, ()) == plain
    assert model.generation_config is not None and model.generation_config.repetition_penalty == 5.0  # type: ignore[union-attr]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_drawn_texts_are_a_function_of_the_seed_alone(family: str, writer: Callable[[str], Network]) -> None:
    import torch

    from tunesmith.models.generation import drawn_texts

    network = writer(family)
    drawn = drawn_texts(network, 6, 20, 1)
    state = torch.random.get_rng_state()
    torch.rand(3)
    assert drawn_texts(network, 6, 20, 1) == drawn and len(drawn) > 2
    assert drawn_texts(network, 6, 20, 2) != drawn
    torch.random.set_rng_state(state)
    drawn_texts(network, 6, 20, 3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_encoder_writes_nothing_and_says_so(model_folder: Callable[[str], Path]) -> None:
    from tunesmith.errors import ModelError
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.generation import generate
    from tunesmith.models.network import sequence_network
    from tunesmith.models.resolve import resolve

    backbone = load_backbone(resolve(str(model_folder("sentence"))))
    with pytest.raises(ModelError, match="choose a decoder"):
        generate(sequence_network(backbone, ("a", "b"), "single_label_classification", False, 0), [[1]], 3, ())
