"""Small files of the state folder."""

import stat

import pytest

from agent.state_files import MAX_SET_ASIDE, set_aside, write_whole


def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_whole(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_set_aside_and_only_so_many_are_kept(tmp_path):
    path = tmp_path / "ward.npz"
    for n in range(MAX_SET_ASIDE + 3):
        path.write_text(str(n))
        assert set_aside(path).read_text() == str(n)
        assert not path.exists()
    assert len(list(tmp_path.iterdir())) == MAX_SET_ASIDE
