"""Texts in the cells of a CSV, which spreadsheets do not take for formulas."""

import re
from typing import Any

#: What spreadsheets take for a formula, at the beginning of a cell, and our mark against that.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


def no_formula(cell: Any) -> Any:
    """A text that would be a formula with an apostrophe before it; numbers as they are."""
    if not isinstance(cell, str) or not FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def plain_text(cell: str) -> str:
    """A text as it was before no_formula."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
