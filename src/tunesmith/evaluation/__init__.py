"""HOW GOOD: metrics, intervals, baselines, verdict, report."""
