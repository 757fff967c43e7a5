"""What all tests share: folders to work in, and settings that hold on a busy machine."""

import pytest
from hypothesis import settings
from runs import end_what_was_started, write_cfg, write_text

# A machine with other work to do is slow at any moment; how long a test may take says the time limit in pyproject.toml.
settings.register_profile("pydarknet", deadline=None)
settings.load_profile("pydarknet")


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """A test that fails ends the processes that it has started."""
    yield
    end_what_was_started()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with tiny.cfg and text.bin, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path)
    write_text(tmp_path)
    return tmp_path
