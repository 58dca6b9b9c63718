"""The parts of throughput.py: one module for each kind of work, what they share, and the page."""
