"""What augmentations do to pictures, by property; that they are functions of (seed, epoch, row) alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tunesmith.data.augment import GREY, mixed, partners, varied
from tunesmith.data.encode import PIXELS, Batch, Example, collate
from tunesmith.errors import RecipeError
from tunesmith.recipe import Recipe
from tunesmith.tasks._classes import class_loss
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.training.varying import varier

ROWS = (3, 11, 4)
ROWS_OF_NINE = (7, 0, 4)
numbers = st.integers(0, 10**6)
shares = st.floats(0, 0.9)


def _pictures(seed: int, rows: int = 3, height: int = 12, width: int = 17) -> Tensor:
    return torch.randint(0, 256, (rows, 3, height, width), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


@settings(max_examples=40, deadline=None)
@given(seed=numbers, epoch=numbers, flip=st.booleans(), crop=shares, jitter=shares)
def test_a_row_s_variation_depends_on_seed_epoch_and_row_alone(
    seed: int, epoch: int, flip: bool, crop: float, jitter: float
) -> None:
    pixels = _pictures(seed)
    whole = varied(pixels, ROWS, seed, epoch, flip, crop, jitter)
    assert whole.dtype == torch.uint8 and whole.shape == pixels.shape
    for place, row in enumerate(ROWS):
        alone = varied(pixels[place : place + 1], (row,), seed, epoch, flip, crop, jitter)
        assert int((alone[0].int() - whole[place].int()).abs().max()) <= 1  # sums of other sizes round otherwise
    assert torch.equal(whole, varied(pixels, ROWS, seed, epoch, flip, crop, jitter))


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 2}, {"rows": (5, 6, 7)}])
def test_control_another_seed_epoch_or_row_varies_otherwise(change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"rows": ROWS, "seed": 1, "epoch": 1, "flip": True, "crop": 0.3, "jitter": 0.3}
    assert not torch.equal(varied(_pictures(0), **usual), varied(_pictures(0), **{**usual, **change}))


@settings(max_examples=20, deadline=None)
@given(seed=numbers, epoch=numbers)
def test_nothing_asked_changes_nothing_and_a_flip_mirrors(seed: int, epoch: int) -> None:
    pixels = _pictures(seed)
    assert torch.equal(varied(pixels, ROWS, seed, epoch, False, 0.0, 0.0), pixels)
    for before, after in zip(pixels, varied(pixels, ROWS, seed, epoch, True, 0.0, 0.0), strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))


def test_about_half_are_mirrored() -> None:
    pixels = _pictures(0, rows=400)
    found = varied(pixels, range(400), 1, 0, True, 0.0, 0.0)
    mirrored = sum(not torch.equal(*pair) for pair in zip(found, pixels, strict=True))
    assert 160 <= mirrored <= 240


@settings(max_examples=20, deadline=None)
@given(seed=numbers, crop=st.floats(0.05, 0.9))
def test_a_crop_shows_a_window_and_nothing_else(seed: int, crop: float) -> None:
    """On a ramp the values of a window are a shorter ramp, inside the whole one's ends."""
    ramp = torch.arange(0, 200, 5).float().expand(3, 3, 40, 40).to(torch.uint8)  # rises to the right
    for picture in varied(ramp, ROWS, seed, 0, False, crop, 0.0).float():
        assert torch.equal(picture[:, :1].expand_as(picture), picture), "lines stay alike"
        line = picture[0, 0]
        steps = line[1:] - line[:-1]
        assert line.min() >= 0 and line.max() <= 195 and bool((steps >= 0).all())
        assert (line[-1] - line[0]) >= 195 * (1 - crop) - 6
    flat = torch.full((3, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(varied(flat, ROWS, seed, 0, True, crop, 0.0), flat), "no filler comes in at the edges"


@settings(max_examples=20, deadline=None)
@given(seed=numbers, jitter=st.floats(0.01, 0.5))
def test_jitter_keeps_brightness_within_its_share(seed: int, jitter: float) -> None:
    pixels = (60 + _pictures(seed).float() * 60 / 255).to(torch.uint8)  # in the middle, where nothing is cut off
    found = varied(pixels, ROWS, seed, 0, False, 0.0, jitter)
    weights = torch.tensor(GREY).view(1, 3, 1, 1)
    before, after = ((image.float() * weights).sum(1).mean((1, 2)) for image in (pixels, found))
    ratio = after / before
    assert bool(((ratio > 1 - jitter - 0.02) & (ratio < 1 + jitter + 0.02)).all())


@settings(max_examples=30, deadline=None)
@given(seed=numbers, epoch=numbers, alpha=st.floats(0.1, 3))
def test_mixup_is_the_weighted_mean(seed: int, epoch: int, alpha: float) -> None:
    one, other = _pictures(seed), _pictures(seed + 1)
    found, share = mixed(one, other, ROWS, seed, epoch, alpha, 0.0)
    weight = share.view(-1, 1, 1, 1)
    expected = (weight * one.float() + (1 - weight) * other.float()).round()
    assert (found.float() - expected).abs().max() <= 1
    assert bool(((share >= 0) & (share <= 1)).all())


@settings(max_examples=30, deadline=None)
@given(seed=numbers, epoch=numbers, alpha=st.floats(0.1, 3))
def test_cutmix_is_a_window_and_its_share_its_area(seed: int, epoch: int, alpha: float) -> None:
    one = torch.zeros(3, 3, 12, 17, dtype=torch.uint8)
    found, share = mixed(one, one + 255, ROWS, seed, epoch, 0.0, alpha)
    own = found == 0
    assert bool((own | (found == 255)).all())
    assert own[:, 0].float().mean((1, 2)).tolist() == pytest.approx(share.tolist(), abs=1e-6)
    for picture in ~own[:, 0]:
        rows, columns = picture.any(1), picture.any(0)
        assert int(picture.sum()) == int(rows.sum()) * int(columns.sum()), "one rectangle"


def test_of_both_each_row_draws_one() -> None:
    one = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    found, _ = mixed(one, one + 200, range(200), 1, 0, 1.0, 1.0)
    mixes = int(((found > 0) & (found < 200)).flatten(1).any(1).sum())
    assert 60 <= mixes <= 140


def test_partners_come_from_all_rows_and_do_not_depend_on_the_batch() -> None:
    found = partners(range(2000), 50, 1, 3)
    assert set(found) == set(range(50))
    assert partners((7,), 50, 1, 3) == (found[7],)
    assert found != partners(range(2000), 50, 1, 4)


@settings(max_examples=20, deadline=None)
@given(seed=numbers, smoothing=st.floats(0, 0.5))
def test_loss_of_mixed_rows_is_that_of_soft_targets(seed: int, smoothing: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, generator=draw)
    first, second = torch.randint(4, (2, 5), generator=draw)
    share = torch.rand(5, generator=draw)
    soft = share[:, None] * one_hot(first, 4) + (1 - share[:, None]) * one_hot(second, 4)
    expected = cross_entropy(logits, soft, reduction="sum", label_smoothing=smoothing)
    target = torch.stack([first.float(), second.float(), share], dim=1)
    found = class_loss(logits, Batch(tuple(range(5)), {}, target), smoothing)
    assert float(found.total) == pytest.approx(float(expected), rel=1e-5)
    assert float(found.weight) == 5
    assert float(found.logs["correct"]) == int((logits.argmax(-1) == first).sum())


def test_the_task_mixes_pictures_and_targets_alike() -> None:
    task = ImageClassification(mixup=0.4, cutmix=1.0)
    one, other = _pictures(1), _pictures(2)
    batch = Batch(ROWS, {PIXELS: one}, torch.tensor([0, 1, 2]))
    found = task.mixed(batch, Batch((1, 2, 3), {PIXELS: other}, torch.tensor([2, 2, 0])), 1, 2)
    pixels, share = mixed(one, other, ROWS, 1, 2, 0.4, 1.0)
    assert torch.equal(found.inputs[PIXELS], pixels) and found.rows == ROWS
    assert found.target is not None and torch.equal(found.target[:, 2], share)
    assert found.target[:, :2].tolist() == [[0, 2], [1, 2], [2, 0]]
    assert ImageClassification().partners(ROWS, 9, 1, 2) == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"versions": 4, "mixup": 0.2}, "leave mixup and cutmix out, or versions"),
        ({"augment": False, "cutmix": 1.0}, "augment is false"),
        ({"augment": False, "versions": 3}, "augment is false"),
        ({"versions": 1}, "greater than or equal to 2"),
        ({"crop": 1.0}, "less than 1"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.parse({"model": "m", "data": "d", "task": {"name": "image_classification", **options}})


def test_when_pictures_are_varied() -> None:
    assert ImageClassification().varies(frozen=False) and not ImageClassification().varies(frozen=True)
    assert ImageClassification(versions=3).varies(frozen=True)
    assert ImageClassification(augment=True).varies(frozen=True)
    assert not ImageClassification(augment=False).varies(frozen=False)


def test_a_row_and_its_partner_are_both_varied_before_they_are_mixed() -> None:
    pixels, task = _pictures(3, rows=9), ImageClassification(mixup=0.4, flip=True, crop=0.3, jitter=0.3)
    examples = [Example(row, {PIXELS: picture}, row % 3) for row, picture in enumerate(pixels)]
    batch = collate([examples[row] for row in ROWS_OF_NINE], {PIXELS: 0})
    found = varier(task, examples, {PIXELS: 0}, 5, None, False, None)(batch, 2)
    others = partners(ROWS_OF_NINE, 9, 5, 2)
    own = varied(pixels[list(ROWS_OF_NINE)], ROWS_OF_NINE, 5, 2, True, 0.3, 0.3)
    plain = pixels[list(others)]
    both = varied(plain, others, 5, 2, True, 0.3, 0.3)
    expected, share = mixed(own, both, ROWS_OF_NINE, 5, 2, 0.4, 0.0)
    assert torch.equal(found.inputs[PIXELS], expected)
    assert found.target is not None
    classes = [[row % 3, other % 3] for row, other in zip(ROWS_OF_NINE, others, strict=True)]
    assert found.target[:, :2].tolist() == classes and torch.equal(found.target[:, 2], share)
    assert not torch.equal(mixed(own, plain, ROWS_OF_NINE, 5, 2, 0.4, 0.0)[0], expected), "control: plain partners"
