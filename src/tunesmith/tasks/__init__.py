"""WHAT is learned: one file each."""
