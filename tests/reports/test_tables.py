"""Tables of findings: Markdown whose columns stand one below the other, rates with what is known of their error."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded

from robustlab.evaluation import Rate
from robustlab.reports.tables import ALIGNED, Table, markdown, over_seeds, percent

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


# Markdown


def cells_of(line: str) -> list[str]:
    """The cells of a line as a reader of Markdown sees them: a ``|`` ends a cell unless a backslash escapes it."""
    cells, text, escaped = [], "", False
    for character in line.removeprefix("|"):
        if character == "|" and not escaped:
            cells.append(text)
            text = ""
            continue
        text += character
        escaped = character == "\\" and not escaped
    assert not text.strip()
    return [re.sub(r"(\\+)\|", lambda found: found[1][: len(found[1]) // 2] + "|", cell).strip() for cell in cells]


@seeded
@given(st.lists(st.lists(st.text("ab|\\ ä", max_size=8), min_size=2, max_size=2), max_size=4))
def test_a_reader_of_markdown_sees_the_cells_that_were_written(rows: list[list[str]]) -> None:
    lines = markdown(("one", "t|o"), rows).splitlines()
    assert cells_of(lines[0]) == ["one", "t|o"]
    assert [cells_of(line) for line in lines[2:]] == [[cell.strip() for cell in row] for row in rows]


def test_a_line_break_within_a_cell_does_not_end_its_row() -> None:
    assert len(markdown(("a",), [["one\ntwo"], ["three\r\nfour"]]).splitlines()) == 4


def test_a_long_cell_does_not_widen_the_others() -> None:
    lines = markdown(("a", "b"), [["x" * (ALIGNED + 1), "1"], ["y", "2"]]).splitlines()
    assert len(lines[0]) == len(lines[3]) < ALIGNED


def test_titles_may_be_empty() -> None:
    assert markdown(("", ""), [["a", 1]]).splitlines() == ["|   |   |", "|---|---|", "| a | 1 |"]
