"""Square Attack (Andriushchenko et al. 2020): random search that asks for logits alone, the last attack of AutoAttack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from robustlab.attacks.random_search import Moves, RandomSearch
from robustlab.attacks.windows import moves_for
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf

_HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: after these p is halved


@dataclass(frozen=True)
class Square(RandomSearch):
    """Square Attack: change a square window, keep the change where the margin falls or the example is fooled, again and again.

    The settings are those of AutoAttack. In Linf a window gets one end of the range in each channel; in L2 and in L1 (Croce and Hein
    2021) the change of one window moves into a bump in another. Two things differ from the public code. There one window, and in Linf
    one colour, is drawn for the whole batch; here every draw belongs to an example and the number of the query. There a window's
    first row is drawn below ``H - s``, so that no window but a full one reaches the last row and the last column; here all places are
    equally likely. An image that is not square takes a longer window where a square of the same area does not fit; a batch of
    vectors, ``(B, D)``, is one of images of one row. Bumps are at least 3 pixels wide, as published, so they suit no smaller images.

    Of each image the first point is returned that fools, else the one of the best margin.

    A call costs an example that withstands, for each start, ``queries`` forward passes and one for the start. An example that is
    fooled stays as it is; the device is asked every 10 queries who is, and they leave the batch then. In L1 it is also asked in each
    query how many values have moved.

    Attributes:
        threat: what the adversary may do; its norm is Linf, L2 or L1.
        queries: changes to try from each start.
        restarts: independent starts; each further one runs only the examples that withstood all before it.
        p_init: share of the pixels in the first windows.
        rescale_schedule: let p fall over these ``queries`` as it is published for 10,000, not at the published queries.
    """

    p_init: float = 0.8
    rescale_schedule: bool = False
    label: ClassVar[str] = "Square"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p_init <= 1:
            raise UserError(f"p_init is a share of the pixels, above 0 and at most 1, got {self.p_init}")
        if not isinstance(self.threat.norm, (Linf, L2, L1)):
            raise UserError(f"Square attacks in Linf, L2 and L1, not in {type(self.threat.norm).__name__}")

    def share(self, query: int) -> float:
        """The share p of the pixels that the windows of a query take up; queries count from 0."""
        place = int(query / self.queries * 10_000) if self.rescale_schedule else query
        return self.p_init / 2 ** sum(place > last for last in _HALVED)

    def _moves(self, x: Tensor) -> Moves:
        return moves_for(self.threat, x)
