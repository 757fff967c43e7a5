"""Locks: one holder at a time, and nothing kept open of those that were refused."""

import os

import pytest

from pydarknet.system.locks import Lock


def open_files():
    return len(os.listdir("/dev/fd"))


def test_a_lock_that_another_holds(tmp_path):
    holder = Lock(tmp_path / "lock")
    before = open_files()
    for _ in range(5):
        with pytest.raises(BlockingIOError):
            Lock(tmp_path / "lock")
    assert open_files() == before
    holder.close()
    assert open_files() == before - 1
    Lock(tmp_path / "lock").close()
    assert open_files() == before - 1


def test_one_whose_file_is_taken_away_is_lost(tmp_path):
    with Lock(tmp_path / "lock") as lock:
        assert not lock.lost
        os.unlink(tmp_path / "lock")
        assert lock.lost
        with Lock(tmp_path / "lock") as other:
            assert lock.lost and not other.lost


def test_the_file_is_open_to_all_that_the_mask_lets_in(tmp_path):
    before = os.umask(0o007)
    try:
        Lock(tmp_path / "lock").close()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o660
