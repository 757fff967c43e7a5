"""What all tests share: folders to work in, and settings that hold on a busy machine."""

import os
import signal
import time

import pytest
from hypothesis import HealthCheck, settings
from runs import end_what_was_started, running_children, write_cfg, write_text

# A machine with other work to do is slow at any moment; how long a test may take says the time limit in pyproject.toml.
settings.register_profile("pydarknet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pydarknet")

LEFT = 5  # seconds that a process which has been told to end may take


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """A test that leaves a process running has failed; then, and after any other failure, what it has started is ended."""
    before, failed = running_children(), request.session.testsfailed
    yield
    until = time.monotonic() + LEFT
    while (left := running_children() - before) and request.session.testsfailed == failed and time.monotonic() < until:
        time.sleep(0.05)
    end_what_was_started()
    for pid in running_children() - before:
        os.kill(pid, signal.SIGKILL)
    if left and request.session.testsfailed == failed:
        pytest.fail(f"the test has left processes behind: {sorted(left)}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with tiny.cfg and text.bin, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path)
    write_text(tmp_path)
    return tmp_path
