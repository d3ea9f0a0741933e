"""The models that `tools/supported_models.py` tries: one module for each place they come from.

Such a module holds `TITLE` and `DESCRIPTION` for its section of the table, `PACKAGE`, the
distribution that is needed beside this project's own or None, and `cases()`.
"""
