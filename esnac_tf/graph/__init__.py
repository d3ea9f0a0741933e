"""Keras graphs: read into architectures, their channels understood, built again as models."""
