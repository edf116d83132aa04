"""Directional Preference Alignment (arXiv 2402.18571): the library that the scripts use."""

__version__ = "0.1.0"
