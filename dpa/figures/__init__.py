"""Figures: for each a table of its marks, a drawing of nothing but that table, and a caption."""
