"""Laws of blocks: each is computed once, whoever comes; what is kept survives; what nothing was kept of leaves nothing."""

from __future__ import annotations

import pytest
import torch

from robustlab import files
from robustlab.blocks import Blocks
from robustlab.errors import UserError
from robustlab.records import Resumable

ASKED = {"seed": 1}


def at(place, settings=ASKED):
    return Blocks.at(place, settings, what="measurement")


def test_a_block_is_claimed_once_and_kept(tmp_path):
    place = tmp_path / "out"
    with at(place) as blocks, at(place) as others:
        with blocks.claim("part", 3) as mine, others.claim("part", 3) as theirs, others.claim("part", 4) as another:
            assert (mine, theirs, another) == (True, False, True)
            blocks.put("part", 3, {"n": 1}, {"x": torch.arange(3)})
        with others.claim("part", 3) as mine:
            assert not mine, "it is there"
        with others.claim("part", 4) as mine:
            assert mine, "it was given up"
        with blocks.finishing({"part": 5}) as ready:
            assert not ready
    with at(place) as blocks:  # as after kill -9
        assert blocks.is_done("part", 3) and blocks.found("part", 3) == {"n": 1}
        assert blocks.tensors("part", 3)["x"].tolist() == [0, 1, 2]
        for k in (0, 1, 2, 4):
            blocks.put("part", k, k)
        with blocks.finishing({"part": 5}) as ready:
            assert ready
            files.write_text(place / "result", "42")
        with blocks.finishing({"part": 5}) as ready:
            assert not ready, "it is finished"
    assert [path.name for path in place.iterdir()] == ["result"]


def test_a_block_that_fails_can_be_claimed_again(tmp_path):
    with at(tmp_path / "out") as blocks:
        with pytest.raises(RuntimeError), blocks.claim("part", 0) as mine:
            assert mine
            raise RuntimeError
        with blocks.claim("part", 0) as mine:
            assert mine


def test_what_nothing_was_kept_of_leaves_nothing_but_not_while_others_are_at_it(tmp_path):
    place = tmp_path / "out"
    with at(place):
        pass
    assert not place.exists()
    with at(place) as others:
        with at(place):
            pass
        assert Resumable.folder_of(place).is_dir()
        others.put("part", 0, 1)
    assert Resumable.folder_of(place).is_dir()


def test_other_settings_and_other_files_are_refused(tmp_path):
    place = tmp_path / "out"
    with at(place) as blocks:
        blocks.put("part", 0, 1)
        with pytest.raises(UserError, match="holds a measurement with other settings .seed: 1 there, 2 here"), at(place, {"seed": 2}):
            pass
        assert blocks.found("part", 0) == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    with pytest.raises(UserError), at(tmp_path / "full"):
        pass
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a"]


def test_without_a_place_all_is_in_memory():
    with Blocks.at(None, ASKED, what="measurement") as blocks:
        with blocks.claim("part", 0) as mine:
            assert mine
            blocks.put("part", 0, [1], {"x": torch.ones(1)})
        with blocks.claim("part", 0) as mine:
            assert not mine
        with blocks.finishing({"part": 1}) as ready:
            assert ready and blocks.found("part", 0) == [1] and blocks.tensors("part", 0)["x"].item() == 1
