"""Directional Preference Alignment (arXiv 2402.18571): the library behind the scripts."""

__version__ = "0.1.0"
