"""Image processors and vision bases: what transformers itself gives is the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import PROCESSORS, VISION, VISION_FAMILIES
from tunesmith.data.encode import PIXELS
from tunesmith.data.images import Picture
from tunesmith.errors import ModelError
from tunesmith.methods.base import Rates
from tunesmith.methods.full import Full
from tunesmith.models.backbone import Backbone, load_backbone, quiet
from tunesmith.models.loading import load_network
from tunesmith.models.network import image_network
from tunesmith.models.resolve import local_kind, resolve
from tunesmith.recipe import TrainingSpec
from tunesmith.training.loop import set_mode
from tunesmith.training.optim import Masters

LABELS = tuple("abcdefghij")


def _picture(seed: int, height: int, width: int) -> Picture:
    made = Picture(f"picture {seed}")
    made.array = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return made


PICTURES = [_picture(1, 40, 40), _picture(2, 24, 90), _picture(3, 200, 33)]


def _base(folder: Path) -> Backbone:
    return load_backbone(resolve(str(folder)))


@pytest.mark.parametrize("family", VISION)
def test_pixels_are_those_that_transformers_gives(family: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    base = _base(VISION_FAMILIES[family](tmp_path))
    encoded = [inputs for inputs, _ in base.processor.encode_all(PICTURES, 10**6)]
    assert {inputs[PIXELS].dtype for inputs in encoded} == {torch.uint8}
    found = base.processor.ready({PIXELS: torch.stack([inputs[PIXELS] for inputs in encoded])}, torch.zeros(1))
    if family in PROCESSORS:
        oracle: Any = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        assert not any("pictures are sized" in note for note in base.notes)
    else:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        oracle = ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=mean, image_std=std)
        assert "pictures are sized to 32x32" in base.notes[0]
    expected = [oracle(picture.image(), return_tensors="np")[PIXELS][0] for picture in PICTURES]
    assert torch.allclose(found[PIXELS], torch.from_numpy(np.stack(expected)), atol=1e-5)
    assert found[PIXELS].min() < -0.5, "control: normalised"


@pytest.mark.parametrize("family", VISION)
def test_logits_are_those_of_transformers_own_pipeline(family: str, tmp_path: Path) -> None:
    """Saved, opened by transformers alone with its own image processor: the same answers."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    network = image_network(_base(VISION_FAMILIES[family](tmp_path / "base")), LABELS, 1)
    network.save(tmp_path / "saved", LABELS, 10**6)
    inputs = {PIXELS: torch.stack([network.processor.encode(item, 10**6)[0][PIXELS] for item in PICTURES])}
    with torch.no_grad(), quiet():
        ours = network(inputs)
        theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
        sizer: Any = AutoImageProcessor.from_pretrained(tmp_path / "saved", backend="pil")
        pixels = np.stack([sizer(item.image(), return_tensors="np")[PIXELS][0] for item in PICTURES])
        assert torch.allclose(theirs(torch.from_numpy(pixels)).logits, ours, atol=1e-4)
        again, labels = load_network(tmp_path / "saved")
        assert torch.equal(again(inputs), ours) and labels == LABELS
    assert ours.std() > 1e-3


def test_a_head_of_1000_classes_gives_way_to_one_of_10(tmp_path: Path) -> None:
    from transformers import AutoConfig, ResNetForImageClassification

    folder = VISION_FAMILIES["resnet"](tmp_path)
    with quiet():
        whole = ResNetForImageClassification(AutoConfig.from_pretrained(folder, num_labels=1000))
        whole.save_pretrained(folder)
    network = image_network(_base(folder), LABELS, 1)
    assert network.last.weight.shape[0] == 10
    stored = whole.resnet.state_dict()
    body = network.get_submodule(network.layout.body)
    assert all(torch.equal(value, stored[name]) for name, value in body.state_dict().items())
    assert network.fresh == {"model.classifier.1.weight", "model.classifier.1.bias"}


def test_statistics_of_batch_norms_stay_as_pretrained(tmp_path: Path) -> None:
    from tunesmith.models.layout import is_batch_norm

    network = image_network(_base(VISION_FAMILIES["resnet"](tmp_path)), LABELS, 1)
    before = {name: value.clone() for name, value in network.named_buffers()}
    plan = Full().attach(network, Rates(1e-3, 1e-3, ""), 1)
    inputs = {PIXELS: torch.stack([network.processor.encode(item, 10**6)[0][PIXELS] for item in PICTURES])}
    set_mode(network, plan)
    assert network.training and before
    network(inputs).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    for module in network.modules():  # the control: as torch would have it
        if is_batch_norm(module):
            module.train()
    network(inputs)
    assert not all(torch.equal(value, before[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v2", "vit"])
def test_bfloat16_runs_beside_float32_statistics(family: str, tmp_path: Path) -> None:
    network = image_network(_base(VISION_FAMILIES[family](tmp_path)), LABELS, 1)
    inputs = {PIXELS: torch.stack([network.processor.encode(item, 10**6)[0][PIXELS] for item in PICTURES])}
    with torch.no_grad():
        exact = network(inputs)
    masters = Masters(network, Full().attach(network, Rates(1e-3, 1e-3, ""), 1), TrainingSpec(), torch.bfloat16)
    rough = network(inputs)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1 * exact.abs().max()
    rough.float().square().sum().backward()
    masters.collect()
    assert len(masters.gradients()) == len(masters.tensors)


def test_processors_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    folder = VISION_FAMILIES["vit"](tmp_path)
    path = folder / "preprocessor_config.json"
    usual = json.loads(path.read_text(encoding="utf-8"))
    for change, says in (
        ({"do_resize": False}, "leaves pictures in different sizes"),
        ({"image_processor_type": "NoSuchProcessor"}, "cannot be read"),
        ({"do_flip_channel_order": True, "image_processor_type": "MobileViTImageProcessor"}, "do_flip_channel_order"),
    ):
        path.write_text(json.dumps({**usual, **change}), encoding="utf-8")
        with pytest.raises(ModelError, match=says):
            _base(folder)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        _base(folder)


def test_mobilenet_s_share_kept_is_taken_as_such(tmp_path: Path) -> None:
    folder = VISION_FAMILIES["mobilenet_v2"](tmp_path)
    base = _base(folder)  # transformers' default, and that of Google's own folders, is 0.8
    assert base.notes == (
        "classifier_dropout_prob = 0.8 in config.json is the share kept, as in TensorFlow: 0.2 is dropped",
    )
    network = image_network(base, LABELS, 1)
    assert [part.p for part in network.modules() if isinstance(part, torch.nn.Dropout)] == [0.2]
    network.save(tmp_path / "saved", LABELS, 1)
    assert _base(tmp_path / "saved").notes == ()
    asked = load_backbone(resolve(str(folder)), 0.6)
    assert asked.notes == () and asked.module.config.classifier_dropout_prob == 0.6


def test_kinds_of_vision_bases_are_known_before_they_are_read(model_folder: Callable[[str], Path]) -> None:
    assert {local_kind(str(model_folder(family))) for family in VISION} == {"vision"}


@pytest.mark.parametrize("family", VISION)
def test_rates_are_scaled_by_a_width_unless_batch_norms_undo_it(family: str, tmp_path: Path) -> None:
    base = load_backbone(resolve(str(VISION_FAMILIES[family](tmp_path))))
    width = None if family in ("resnet", "mobilenet_v2") else base.width
    assert base.rate_width == width
    assert Full().rates(width, 100).base == (1e-4 if width is None else 2e-4)  # 2e-4: the most, at a width of 32
