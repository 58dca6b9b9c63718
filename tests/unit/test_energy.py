"""Electricity: counters that wrap, that cannot be read, that stand twice in the tree; the estimate; gCO2e by country."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.carbon import REGIONS, WORLD, intensity_of, unknown_region
from tunesmith.energy import OFTEN, Joules, Meter, Nvml, Rapl, estimated
from tunesmith.evaluation.cost import energy_of

TOP = 262_143_328_850  # microjoules, of real Intel machines


def domain(folder: Path, name: str, called: str, microjoules: int, top: int = TOP) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    for file, content in (("name", called), ("energy_uj", str(microjoules)), ("max_energy_range_uj", str(top))):
        (made / file).write_text(f"{content}\n", encoding="ascii")
    return made / "energy_uj"


def tree(folder: Path) -> tuple[Path, Path]:
    """Two packages, with all that also has a counter beside them; gives the packages' counters."""
    (folder / "intel-rapl").mkdir(parents=True)
    domain(folder, "intel-rapl:0:0", "core", 5_000_000)
    domain(folder, "intel-rapl:0:1", "dram", 5_000_000)
    domain(folder, "intel-rapl-mmio:0", "package-0", 5_000_000)
    domain(folder, "intel-rapl:2", "psys", 5_000_000)
    return domain(folder, "intel-rapl:0", "package-0", 1_000_000), domain(folder, "intel-rapl:1", "package-1", 0)


def test_packages_are_summed_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    first, second = tree(tmp_path)
    meter = Rapl(tmp_path)
    assert meter.joules() == 0.0 and meter.why == ""
    first.write_text("4000000\n")
    second.write_text("500000\n")
    for other in tmp_path.glob("intel-rapl*/energy_uj"):
        if other not in (first, second):
            other.write_text("99000000\n")
    assert meter.joules() == pytest.approx(3.5)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=12))
def test_a_counter_that_wraps_goes_on(steps: list[int]) -> None:
    """Of any steps below its range the sum is found, wherever the counter begins anew."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = domain(Path(folder), "intel-rapl:0", "package-0", 700, top=1000)
        meter, now = Rapl(Path(folder), clock=lambda: 0.0), 700
        for step in steps:
            now = (now + step) % 1000
            path.write_text(str(now))
            meter.joules()
        assert meter.joules() == pytest.approx(sum(steps) * 1e-6)


class Watch:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_a_pause_in_which_a_counter_may_have_come_round_there_is_no_figure(tmp_path: Path) -> None:
    """262 kJ last 437 s at 600 W: a second before that the figure stands, and a second after it nobody can know it."""
    path, watch = domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000), Watch()
    meter = Rapl(tmp_path, watch)
    watch.now, _ = TOP / 600e6 - 1, path.write_text("3000000")
    assert meter.joules() == pytest.approx(2.0) and meter.lapsed == ""
    watch.now += TOP / 600e6 + 1
    assert meter.joules() is None and "was not read for 7.3 minutes" in meter.lapsed
    watch.now += 1
    assert meter.joules() is None, "nor ever again in this session"
    found = Meter(meter, Nvml(FakeNvml())).read(10.0, 5.0, 2000.0)
    assert (found.how, found.lapsed) == ("estimate", meter.lapsed)
    assert energy_of(found, 5.0).why.startswith(f"{meter.lapsed}, so it is not measured but reckoned with")
    assert found.plus(Joules(1.0, "rapl")).lapsed == meter.lapsed


def test_a_counter_that_is_kept_up_with_knows_an_hour(tmp_path: Path) -> None:
    """65.5 kJ, as of AMD, at 280 W, looked at every five seconds: each turn is seen."""
    top = 65_532_610_987
    path, watch = domain(tmp_path, "intel-rapl:0", "package-0", 0, top), Watch()
    meter, energy = Rapl(tmp_path, watch), 0
    for second in range(0, 3600, 5):
        watch.now, energy = float(second), second * 280_000_000
        path.write_text(str(energy % top))
        meter.keep_up()
    assert energy > 10 * top, "the control: it has begun anew many times"
    assert meter.joules() == pytest.approx(energy * 1e-6)
    assert meter.lapsed == ""


@pytest.mark.parametrize(
    ("limits", "minutes"),
    [
        ({}, 7.3),
        ({"constraint_0_power_limit_uw": 28_000_000, "constraint_1_power_limit_uw": 64_000_000}, 68.3),
        ({"constraint_0_max_power_uw": 4_095_000_000}, 7.3),
        ({"constraint_0_max_power_uw": 0}, 7.3),
        ({"constraint_0_time_window_us": 27_983_872}, 7.3),
    ],
)
def test_the_pause_that_is_safe_follows_from_the_power_limit(
    limits: dict[str, int], minutes: float, tmp_path: Path
) -> None:
    made = domain(tmp_path, "intel-rapl:0", "package-0", 0).parent
    for name, value in limits.items():
        (made / name).write_text(f"{value}\n")
    for seconds, known in ((60 * minutes - 6, True), (60 * minutes + 6, False)):
        watch = Watch()
        meter = Rapl(tmp_path, watch)
        watch.now = seconds
        assert (meter.joules() is not None) == known


def test_keeping_up_reads_no_oftener_than_it_must(tmp_path: Path) -> None:
    path, watch = domain(tmp_path, "intel-rapl:0", "package-0", 0), Watch()
    meter = Rapl(tmp_path, watch)
    for watch.now, energy in ((OFTEN / 2, 5_000_000), (OFTEN, 7_000_000), (1.5 * OFTEN, 1_000_000)):
        path.write_text(str(energy))
        meter.keep_up()
    path.write_text("8000000")
    assert meter.joules() == pytest.approx(8.0), "the dip between was not looked at, or it would be a turn"


@pytest.mark.parametrize("spoil", ["missing folder", "no package", "not a number", "gone"])
def test_what_cannot_be_read_is_no_figure(spoil: str, tmp_path: Path) -> None:
    folder = tmp_path / "powercap"
    if spoil == "no package":
        domain(folder, "intel-rapl:0", "psys", 1)
    if spoil == "not a number":
        tree(folder)[1].write_text("<hidden>")
    if spoil == "gone":
        tree(folder)[1].unlink()
    meter = Rapl(folder)
    assert meter.joules() is None, "one package of two is no figure"
    assert meter.why


def test_a_counter_that_goes_away_on_the_way_ends_the_measuring(tmp_path: Path) -> None:
    first, _ = tree(tmp_path)
    meter = Rapl(tmp_path)
    assert meter.joules() is not None
    first.unlink()
    assert meter.joules() is None and "cannot be read" in meter.why


def test_root_s_own_counters_are_told_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As since 2020: the name can be read, the counter cannot. (Tests may run as root, which may read all.)"""
    tree(tmp_path)
    read = Path.read_text

    def guarded(path: Path, *given: Any, **named: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", guarded)
    meter = Rapl(tmp_path)
    assert meter.joules() is None and "Permission denied" in meter.why


class FakeError(Exception):
    pass


@dataclass
class FakeNvml:
    """What `pynvml` has of it: handles are numbers."""

    millijoules: list[int | None] = field(default_factory=list)
    broken: bool = False
    NVMLError = FakeError

    def nvmlInit(self) -> None:
        if self.broken:
            raise FakeError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}abc"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        value = self.millijoules[handle]
        if value is None:
            raise FakeError("not supported")
        return value


def test_the_gpu_that_is_used_is_counted_alone() -> None:
    library = FakeNvml([1000, None, 50_000])
    meter = Nvml(library)
    library.millijoules = [9_000, None, 51_500]
    assert meter.joules("2abc") == pytest.approx(1.5)
    assert meter.joules("0abc") == pytest.approx(8.0)
    assert meter.joules("1abc") is None, "it has no counter"


def test_without_nvml_there_is_no_figure_but_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Nvml(FakeNvml([1], broken=True))
    assert broken.joules("0abc") is None and "driver not loaded" in broken.why
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where it is not installed
    missing = Nvml()
    assert missing.joules("0abc") is None and "tunesmith[nvml]" in missing.why


def test_the_estimate_is_the_formula_of_its_source() -> None:
    # Green Algorithms: an hour of 4 cores in use of 12 W each, and 16 GB of memory at 0.3725 W
    assert estimated(4 * 3600, 3600, 16_000) / 3600 == pytest.approx(4 * 12 + 16 * 0.3725)
    assert estimated(0, 0, 1e6) == 0


def test_the_meter_reads_where_it_can_and_estimates_where_not(tmp_path: Path) -> None:
    first, _ = tree(tmp_path)
    meter = Meter(Rapl(tmp_path), Nvml(FakeNvml()))
    first.write_text("8000000")
    assert meter.read(100.0, 50.0, 1000.0) == Joules(7.0, "rapl")
    without = Meter(Rapl(tmp_path / "none"), Nvml(FakeNvml([5])))
    without.uses("cpu")
    assert without.read(10.0, 5.0, 2000.0) == Joules(10 * 12 + 5 * 2 * 0.3725, "estimate"), "no GPU is used"


def test_a_gpu_that_is_used_and_not_counted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        uuid = "0abc"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties())
    library = FakeNvml([2_000])
    counted, missing = Meter(Rapl(tmp_path), Nvml(library)), Meter(Rapl(tmp_path), Nvml(FakeNvml([None])))
    for meter in (counted, missing):
        meter.uses("cuda")
    library.millijoules = [5_000]
    assert counted.read(1.0, 1.0, 0.0) == Joules(12.0, "estimate", 3.0)
    assert missing.read(1.0, 1.0, 0.0) == Joules(12.0, "estimate", None, "NVML has no counter of this GPU")


def test_a_sum_is_an_estimate_where_a_part_is() -> None:
    assert Joules(1.0, "rapl", 2.0).plus(Joules(3.0, "rapl")) == Joules(4.0, "rapl", 2.0)
    assert Joules(1.0, "rapl").plus(Joules(3.0, "estimate", None, "why")) == Joules(4.0, "estimate", None, "why")


def test_every_region_has_a_plausible_figure_and_the_world_is_between() -> None:
    grams = [value for _, value in REGIONS.values()]
    assert all(10 < value < 900 for value in grams) and min(grams) < WORLD < max(grams)
    assert all(len(code) == 2 and code.isupper() for code in REGIONS)


@pytest.mark.parametrize(
    ("region", "asked", "grams", "word"),
    [
        (None, None, WORLD, "world"),
        ("DE", None, REGIONS["DE"][1], "Germany"),
        (None, 12.5, 12.5, "cost.intensity"),
        (None, 0.0, 0.0, "cost.intensity"),
    ],
)
def test_which_intensity_counts(region: str | None, asked: float | None, grams: float, word: str) -> None:
    found, why = intensity_of(region, asked)
    assert found == grams and word in why


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Germny", '"DE" (Germany)'),
        ("uk", '"GB" (United Kingdom)'),
        ("FRA", '"FR" (France)'),
        ("xq#", "the table has AT"),
    ],
)
def test_an_unknown_region_is_met_with_what_may_be_meant(word: str, said: str) -> None:
    assert said in unknown_region(word)
