"""How much electricity a process took: counters of the machine where they can be read, else an estimate that says so.

Counted: the processor packages by RAPL (Linux, Intel and AMD; since 2020 readable by root alone unless an administrator
allows it) and the GPU by NVML (`pip install "tunesmith[nvml]"`). Both count all that the machine did meanwhile. What has
no counter is estimated, as the Green Algorithms calculator does (Lannelongue, Grealey and Inouye 2021, Advanced Science
8, 2100707): energy = core-seconds in use x watts a core + memory x watts a GB x seconds. Left out everywhere: what
cooling, power supplies, disks and screens take.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

POWERCAP = Path("/sys/class/powercap")
# A core in use of a processor that is not known (Green Algorithms, its table of processors, entry "Any"): 4 to 15 are usual.
CORE_WATTS = 12.0
MEMORY_WATTS = 0.3725  # a GB (Lannelongue 2021, section 4)
RAPL, NVML, ESTIMATE = "rapl", "nvml", "estimate"
PACKAGE = re.compile(r"intel-rapl:\d+")  # with a second number it is a part of a package; "-mmio" counts one once more
MICRO, MILLI = 1e-6, 1e-3
J_PER_WH = 3600.0
# No package takes more for as long as a counter runs: the largest of 2026 are of 500 W (EPYC 9965, Xeon 6980P).
MOST_WATTS = 600.0
OFTEN = 10.0  # seconds between two readings on the way: the smallest range, 65.5 kJ (AMD), lasts 109 s at `MOST_WATTS`


def estimated(cpu_seconds: float, seconds: float, memory_mb: float) -> float:
    """Joules: cores in use and memory held, by the formula of this file; of a whole machine, without its GPU."""
    return cpu_seconds * CORE_WATTS + seconds * memory_mb / 1e3 * MEMORY_WATTS


@dataclass
class _Counter:
    """A counter that only rises, and begins anew at `top`."""

    name: str
    path: Path
    top: int  # microjoules
    last: int
    safe: float  # seconds in which it cannot have come round once
    total: int = 0

    def read(self) -> None:
        """Takes one turn of the counter for granted where it stands lower than before."""
        now = _number(self.path)
        self.total += now - self.last + (self.top if now < self.last else 0)
        self.last = now


class Rapl:
    """Joules of the processor packages since it was made.

    The counters begin anew, after 262 kJ (Intel, an hour at 70 W) or 65.5 kJ (AMD). What they count is known as long as
    none can have come round whole between two readings, by the time that has passed and the package's own power limit, or
    `MOST_WATTS`. After a longer pause there is no figure any more, and `lapsed` says so.
    """

    def __init__(self, folder: Path = POWERCAP, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters: list[_Counter] = []
        self._clock = clock
        self._read = clock()
        self.why = f"{folder}: there are no RAPL counters here"  # "" where there are
        self.lapsed = ""  # why what was counted is no figure any more; "" where it is one, or never was
        try:
            for domain in sorted(folder.iterdir()) if folder.is_dir() else ():
                if PACKAGE.fullmatch(domain.name) and _text(domain / "name").startswith("package"):
                    path, top = domain / "energy_uj", _number(domain / "max_energy_range_uj")
                    self._counters.append(
                        _Counter(domain.name, path, top, _number(path), MICRO * top / _most_watts(domain))
                    )
        except (OSError, ValueError) as error:
            self._give_up(f"the RAPL counters cannot be read ({error})")
        if self._counters:
            self.why = ""

    def joules(self) -> float | None:
        """None where nothing can be read, or cannot any more."""
        if not self._counters:
            return None
        paused, self._read = self._clock() - self._read, self._clock()
        if paused >= min(counter.safe for counter in self._counters):
            self.lapsed = (
                f"the processor's RAPL counter was not read for {paused / 60:.1f} minutes, in which it may have begun anew "
                "unseen"
            )
            self._give_up(self.lapsed)
            return None
        try:
            for counter in self._counters:
                counter.read()
        except (OSError, ValueError) as error:
            self._give_up(f"the RAPL counters cannot be read ({error})")
        return MICRO * sum(counter.total for counter in self._counters) if self._counters else None

    def keep_up(self) -> None:
        """Reads where the last reading is `OFTEN` seconds ago: to be called as often as there is an occasion."""
        if self._counters and self._clock() - self._read >= OFTEN:
            self.joules()

    def _give_up(self, why: str) -> None:
        """Of several packages all or none: the sum of some would be no figure of anything."""
        self._counters, self.why = [], why


class Nvml:
    """Joules of each GPU since it was made, by the last part of its UUID; none where NVML or a GPU is missing."""

    def __init__(self, library: Any = None) -> None:
        """library: stands in for `pynvml`, which is looked for otherwise."""
        self._library: Any = _pynvml() if library is None else library
        self._begun: dict[str, int] = {}
        self.why = 'NVML is not installed (pip install "tunesmith[nvml]")' if self._library is None else ""
        if self._library is not None:
            try:
                self._library.nvmlInit()
                self._begun = self._read()
            except self._library.NVMLError as error:
                self.why = f"NVML cannot be read ({error})"

    def joules(self, uuid: str) -> float | None:
        """Of the GPU whose UUID ends so; None where there is no such figure."""
        if not self._begun or self._library is None:
            return None
        try:
            now = self._read()
        except self._library.NVMLError as error:
            self.why, self._begun = f"NVML cannot be read any more ({error})", {}
            return None
        found = [MILLI * (now[name] - value) for name, value in self._begun.items() if name.endswith(uuid)]
        return found[0] if len(found) == 1 else None

    def _read(self) -> dict[str, int]:
        """UUID -> millijoules since the driver was loaded, of each GPU that counts them (Volta and later)."""
        found, library = {}, self._library
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            try:
                found[_decoded(library.nvmlDeviceGetUUID(handle))] = library.nvmlDeviceGetTotalEnergyConsumption(handle)
            except library.NVMLError:  # an older one
                continue
        return found


@dataclass(frozen=True)
class Joules:
    """What was taken, and how that is known."""

    processor: float  # and of the memory, where that is estimated
    how: str  # of the processor: "rapl" or "estimate"
    gpu: float | None = None  # None where no GPU is used, or its counter cannot be read
    missing: str = ""  # why a GPU that is used is not counted; "" where it is, or none is used
    lapsed: str = ""  # why the processor is reckoned although it has a counter

    @property
    def total(self) -> float:
        return self.processor + (0.0 if self.gpu is None else self.gpu)

    def plus(self, other: Joules) -> Joules:
        """A sum is an estimate where a part of it is."""
        how = self.how if self.how == other.how else ESTIMATE
        known = [value for value in (self.gpu, other.gpu) if value is not None]
        missing = self.missing if self.missing else other.missing
        lapsed = self.lapsed if self.lapsed else other.lapsed
        return Joules(self.processor + other.processor, how, sum(known) if known else None, missing, lapsed)


class Meter:
    """The electricity since it was made."""

    def __init__(self, rapl: Rapl | None = None, nvml: Nvml | None = None) -> None:
        self._rapl = Rapl() if rapl is None else rapl
        self._nvml = Nvml() if nvml is None else nvml
        self._uuid: str | None = None
        self._begun = time.perf_counter()

    def uses(self, device: str) -> None:
        """Says that work is done on `device`: from "cuda" on, the GPU that torch uses is counted, from the start."""
        if device.startswith("cuda"):
            import torch

            self._uuid = str(torch.cuda.get_device_properties(torch.device(device)).uuid)

    def keep_up(self) -> None:
        """To be called now and then between two readings, since counters begin anew: costs a look at the clock."""
        self._rapl.keep_up()

    def read(self, cpu_seconds: float, seconds: float, memory_mb: float) -> Joules:
        """What was taken so far; the arguments are for the estimate where nothing can be read."""
        counted = self._rapl.joules()
        gpu = None if self._uuid is None else self._nvml.joules(self._uuid)
        lacking = self._nvml.why if self._nvml.why else "NVML has no counter of this GPU"
        missing = lacking if self._uuid is not None and gpu is None else ""
        if counted is None:
            return Joules(estimated(cpu_seconds, seconds, memory_mb), ESTIMATE, gpu, missing, self._rapl.lapsed)
        return Joules(counted, RAPL, gpu, missing)


def _pynvml() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def _decoded(uuid: str | bytes) -> str:
    return uuid.decode() if isinstance(uuid, bytes) else uuid


def _most_watts(domain: Path) -> float:
    """The largest limit that the package is held to, and no more than `MOST_WATTS`: boards set 4,095 W for none."""
    limits = []
    for path in domain.glob("constraint_*_*"):
        try:
            if path.name.endswith(("_max_power_uw", "_power_limit_uw")):
                limits.append(MICRO * _number(path))
        except (OSError, ValueError):  # some limits say nothing
            continue
    most = max(limits, default=0.0)
    return min(most, MOST_WATTS) if most > 0 else MOST_WATTS


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _number(path: Path) -> int:
    return int(_text(path))
