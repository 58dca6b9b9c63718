"""Who predicts: each a function from the folder of a delivered model to a function from texts to labels.

All compute with the same weights: the encoder's, the mean of its token vectors scaled to length 1, one linear map.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.backbone import quiet

Predicts = Callable[[Sequence[str]], list[str]]
PIPELINE = "transformers pipeline, batches of {}"
BATCH = 64  # rows of about equal length in the loops that somebody writes who knows about padding
LONGEST = 512


def reference(folder: Path, texts: Sequence[str]) -> list[str]:
    """What Tunesmith says in float32."""
    import tunesmith

    return tunesmith.load(folder, dtype="float32").predict(list(texts))


def ours(folder: Path) -> Predicts:
    import tunesmith

    model = tunesmith.load(folder)
    return lambda texts: model.predict(list(texts))


def ours_float32(folder: Path) -> Predicts:
    import tunesmith

    model = tunesmith.load(folder, dtype="float32")
    return lambda texts: model.predict(list(texts))


def pipeline_in(batch: int) -> Callable[[Path], Predicts]:
    """transformers' text-classification pipeline, given a list; padding within the batch, rows as they come."""

    def load(folder: Path) -> Predicts:
        from transformers import pipeline

        with quiet():  # of a class that is not transformers' own
            classify: Any = pipeline(
                "text-classification", model=classifier(folder), tokenizer=tokenizer_of(folder), device="cpu"
            )
        return lambda texts: [found["label"] for found in classify(list(texts), batch_size=batch, truncation=True)]

    return load


def sorted_bfloat16(folder: Path) -> Predicts:
    """A loop of somebody's own: rows sorted by length, bfloat16 weights, inference mode."""
    model, tokenizer = classifier(folder).to(torch.bfloat16), tokenizer_of(folder)

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            return model(**inputs).logits

    return lambda texts: in_sorted_batches(texts, tokenizer, names_of(folder), forward)


def sentence_transformer(folder: Path) -> Predicts:
    """sentence-transformers' encode of the delivered folder, whose last module is the head; it sorts by length itself."""
    from sentence_transformers import SentenceTransformer

    model, names = SentenceTransformer(str(folder), device="cpu"), names_of(folder)

    def predict(texts: Sequence[str]) -> list[str]:
        found = model.encode(list(texts), show_progress_bar=False)
        return [names[place] for place in found.argmax(axis=1).tolist()]

    return predict


def onnx(int8: bool) -> Callable[[Path], Predicts]:
    """ONNX Runtime in the same sorted batches; int8: weights quantised when converted, activations as they come."""

    def load(folder: Path) -> Predicts:
        import onnxruntime

        with tempfile.TemporaryDirectory() as converted:
            path = exported(folder, Path(converted), int8)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        wanted = [item.name for item in session.get_inputs()]

        def forward(inputs: dict[str, Tensor]) -> Tensor:
            return torch.from_numpy(session.run(None, {name: inputs[name].numpy() for name in wanted})[0])

        tokenizer, names = tokenizer_of(folder), names_of(folder)
        return lambda texts: in_sorted_batches(texts, tokenizer, names, forward)

    return load


def exported(folder: Path, into: Path, int8: bool) -> Path:
    """The classifier as an ONNX file, written by torch's tracing exporter."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, path = classifier(folder, "eager"), into / "model.onnx"
    sample = dict(tokenizer_of(folder)(["one text", "and a longer one"], padding=True, return_tensors="pt"))
    axes = {name: {0: "rows", 1: "tokens"} for name in sample}
    with warnings.catch_warnings(action="ignore"):  # of values that tracing takes for constants: labels are compared
        torch.onnx.export(
            Logits(model, tuple(sample)), tuple(sample.values()), str(path), input_names=list(sample),
            output_names=["logits"], dynamic_axes={**axes, "logits": {0: "rows"}}, opset_version=17, dynamo=False,
        )  # fmt: skip
    if not int8:
        return path
    quantize_dynamic(path, into / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
    return into / "int8.onnx"


class Logits(nn.Module):
    """Tensors in, one tensor out, as an exporter wants it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, tensors, strict=True))).logits


def in_sorted_batches(
    texts: Sequence[str], tokenizer: Any, names: Sequence[str], forward: Callable[[dict[str, Tensor]], Tensor]
) -> list[str]:
    """Labels in the order of the texts."""
    encoded = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    said: list[str] = [""] * len(texts)
    for rows in batches([len(ids) for ids in encoded], BATCH):
        inputs = tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt")
        inputs = {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])}
        for row, place in zip(rows, forward(inputs).argmax(dim=1).tolist(), strict=True):
            said[row] = names[place]
    return said


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows by length, so many at a time."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for first in range(0, len(order), size):
        yield order[first : first + size]


def classifier(folder: Path, attention: str = "sdpa") -> Any:
    """A transformers model of the delivered weights that pools as they were trained: its own classes pool another way."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    head = load_file(folder / "3_Dense" / "model.safetensors")

    class MeanPooled(PreTrainedModel):
        def __init__(self) -> None:
            super().__init__(config)
            self.base = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation=attention)
            self.classifier = nn.Linear(*reversed(head["linear.weight"].shape))
            self.classifier.load_state_dict({"weight": head["linear.weight"], "bias": head["linear.bias"]})

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
            hidden = self.base(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state  # [rows, tokens, width]
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)
            return SequenceClassifierOutput(logits=self.classifier(pooled))  # [rows, classes]

    return MeanPooled().eval()


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def names_of(folder: Path) -> list[str]:
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    return [found[str(place)] for place in range(len(found))]


# What each needs beside the package, and how it is loaded.
PREDICTORS: dict[str, tuple[tuple[str, ...], Callable[[Path], Predicts]]] = {
    "Tunesmith": ((), ours),
    "Tunesmith, float32": ((), ours_float32),
    PIPELINE.format(1): ((), pipeline_in(1)),
    PIPELINE.format(32): ((), pipeline_in(32)),
    "own sorted loop, bfloat16": ((), sorted_bfloat16),
    "ONNX Runtime, float32": (("onnxruntime", "onnx"), onnx(False)),
    "ONNX Runtime, int8": (("onnxruntime", "onnx"), onnx(True)),
    "sentence-transformers, encode": (("sentence_transformers",), sentence_transformer),
}
