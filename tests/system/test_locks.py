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
