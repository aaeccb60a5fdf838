"""Laws of blocks: each is computed once, whoever comes; what is kept survives; what nothing was kept of leaves nothing."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from robustlab import files
from robustlab.blocks import Blocks, folder_of, is_finished
from robustlab.errors import UserError

ASKED = {"seed": 1}


def at(place, settings=ASKED, **options):
    return Blocks.at(place, settings, what="measurement", **options)


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
        assert folder_of(place).is_dir()
        others.put("part", 0, 1)
    assert folder_of(place).is_dir()


def test_what_is_finished_is_told_and_what_a_kill_left_of_the_work_is_taken_away(tmp_path, monkeypatch):
    place, results = tmp_path / "out", ("a", "b")
    with at(place) as blocks:
        blocks.put("part", 0, 1)
        files.write_text(place / "a", "1")
    with at(place, results=results) as blocks:
        assert not blocks.is_finished and not is_finished(place, results)
        monkeypatch.setattr("robustlab.records.shutil.rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), blocks.finishing({"part": 1}) as ready:
            assert ready and blocks.found("part", 0) == 1
            files.write_text(place / "b", "2")
        assert blocks.is_done("part", 7) and not is_finished(place, ())
        monkeypatch.undo()
        hidden = folder_of(place) / "part" / "00000.json"
        kept = hidden.read_bytes()
    files.write_bytes(hidden, kept)  # a process that is killed takes nothing more away
    assert is_finished(place, results)
    for settings in (ASKED, {"seed": 2}):
        with at(place, settings, results=results) as blocks, blocks.finishing({}) as ready:
            assert blocks.is_finished and not ready
        assert sorted(path.name for path in place.iterdir()) == ["a", "b"]


def test_what_others_write_meanwhile_is_no_work_any_more(tmp_path):
    place = tmp_path / "out"
    with at(place) as slow, at(place) as fast:
        fast.put("part", 0, 1)
        with fast.finishing({"part": 1}) as ready:
            files.write_text(place / "result", "42")
        with slow.claim("part", 0) as mine:
            assert not mine and slow.is_done("part", 0) and slow.found("part", 0) is None
        with slow.finishing({"part": 1}) as again:
            assert ready and not again
    assert [path.name for path in place.iterdir()] == ["result"]


def test_only_one_process_may_be_at_work_that_is_not_shared(tmp_path):
    with at(tmp_path / "out", alone=True) as blocks:
        blocks.put("part", 0, 1)
        with pytest.raises(UserError, match="another process works on the measurement in"), at(tmp_path / "out", alone=True):
            pass
        assert blocks.found("part", 0) == 1
    with at(tmp_path / "out", alone=True) as blocks:
        assert blocks.found("part", 0) == 1


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
