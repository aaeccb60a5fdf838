"""Pictures in TensorBoard."""

from __future__ import annotations

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from robustlab.errors import UserError
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
    try:
        with SummaryWriter(str(folder)) as board:
            board.add_image(title, made.sheet(columns), 0)
            for name, one in made.by_model.items():
                for key, value in one.numbers.items():
                    board.add_scalar(f"{name}/{key}", value, 0)
                for t, objective in enumerate(one.objective.tolist()):
                    board.add_scalar(f"{name}/objective", objective, t)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
