"""Readers of file formats, shared by the data sets: one file a format."""
