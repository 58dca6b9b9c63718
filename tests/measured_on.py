"""A machine and a commit, as the pages of benchmarks name them: for tests of those pages."""

PLACE = {
    "system": "S",
    "processor": "P",
    "flags": [],
    "cores": 2,
    "cpu_quota": None,
    "torch_threads": 1,
    "memory_gb": 1,
}
NOW = {"date": "D", "commit": "C", "source": "s", "machine": PLACE, "versions": {"torch": "1"}}
