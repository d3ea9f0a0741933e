"""Faults that happen to a search, and what becomes of it; `tools/faults.py` is the command."""
