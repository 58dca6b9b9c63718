"""WHAT MAY CHANGE: one file each."""
