"""Pictures in TensorBoard."""

from __future__ import annotations

from pathlib import Path

from robustlab.records import Board
from robustlab.synthesis.sheets import COLUMNS, Pictures


def write_tensorboard(folder: Path, title: str, made: Pictures, columns: int = COLUMNS) -> None:
    """Write the sheet, the numbers, and the objective by step.

    Args:
        folder: of the event file.
        title: what to call the sheet.
        made: of one model or several.
        columns: pictures of a row that are shown.

    Raises:
        UserError: the folder cannot be written.
    """
    with Board(folder) as board:
        board.picture(title, made.sheet(columns), 0)
        for name, one in made.by_model.items():
            for key, value in one.numbers.items():
                board.number(f"{name}/{key}", value, 0)
            for t, objective in enumerate(one.objective.tolist()):
                board.number(f"{name}/objective", objective, t)
