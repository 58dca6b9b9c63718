"""Rows: read, check, audit, split, encode, order."""
