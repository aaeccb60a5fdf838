"""Tables of findings: Markdown whose columns stand one below the other, rates with what is known of their error."""

from __future__ import annotations

import pytest
from robustlab.experiments.table import Table, over_seeds, percent

from robustlab.evaluation import Rate

TABLE = Table("Title", "So it was.", ("set", "a longer column"), (("D_rand", 1.5), ("x", "yes")), ("One note.", "Another."))


def test_a_table_is_markdown_with_its_title_conditions_and_notes() -> None:
    title, regime, body, *notes = str(TABLE).split("\n\n")
    assert (title, regime, notes) == ("## Title", "So it was.", ["One note.", "Another."])
    lines = body.splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])] == [
        ["set", "a longer column"],
        ["D_rand", "1.5"],
        ["x", "yes"],
    ]
    assert set(lines[1]) == {"|", "-"}


def test_columns_stand_one_below_the_other() -> None:
    lines = [line for line in str(TABLE).splitlines() if line.startswith("|")]
    assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1


def test_a_table_may_have_no_rows_and_no_notes() -> None:
    assert str(Table("T", "R.", ("a",), ())).splitlines() == ["## T", "", "R.", "", "| a |", "|---|"]


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError):
        str(Table("T", "R.", ("a", "b"), (("only one",),)))


def test_one_rate_is_shown_with_its_interval() -> None:
    rate = Rate(30, 40)
    low, high = rate.interval
    assert over_seeds([rate]) == f"75.0 [{100 * low:.1f}, {100 * high:.1f}]"


def test_several_rates_are_shown_by_their_mean_and_range_in_any_order() -> None:
    rates = [Rate(10, 40), Rate(20, 40), Rate(36, 40)]
    assert over_seeds(rates) == over_seeds(rates[::-1]) == "55.0 (25.0 to 90.0, 3 seeds)"


@pytest.mark.parametrize("share, shown", [(0.0, "0.0 %"), (1.0, "100.0 %"), (0.1234, "12.3 %")])
def test_percent(share: float, shown: str) -> None:
    assert percent(share) == shown
