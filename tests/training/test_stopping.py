"""A run that is told to stop: also in a measurement, and while whoever reads what it writes does not."""

import fcntl
import itertools
import os
import signal
import struct
import sys
import termios
import time

import pytest
from runs import (
    bytes_of,
    ends_soon,
    heard_signals,
    make_trainer,
    run,
    seconds_of,
    start,
    start_program,
    text,
    wait_until_group_is_gone,
    wait_until_it_listens,
)

from pydarknet.text.corpus import Corpus
from pydarknet.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from pydarknet.training.validation import Validation

NO_END = ("--max-batches", 10**9, "--save-every", 10**6, "--srand", 1)


# In a measurement


def measured(network):
    return Validation(network, Corpus.from_symbols(text(9000, seed=2)), every=3, plateau=1)


def said(steps):
    return [(step.iteration, step.loss, step.avg_loss, step.rate, step.characters, step.valid_loss) for step in steps]


@pytest.mark.parametrize("stopped_at", [3, 6, 8])  # 8 is the last iteration, which is measured as well
@pytest.mark.parametrize("blocks", [0, 2])  # of the measurement that are done by then
@pytest.mark.parametrize("anew", [False, True])  # whether another process goes on
def test_a_measurement_that_is_given_up_is_made_when_the_run_goes_on(tmp_path, stopped_at, blocks, anew):
    undisturbed = make_trainer(tmp_path, validation=measured, max_batches=8)
    expected = said(undisturbed.run())
    assert [step[0] for step in expected if step[-1] is not None] == [3, 6, 8]

    trainer, left = make_trainer(tmp_path, validation=measured, max_batches=8), itertools.count(blocks, -1)
    trainer.interrupted = lambda: trainer.iteration == stopped_at and next(left) <= 0
    found = said(trainer.run())
    assert [step[0] for step in found] == list(range(1, stopped_at)) and not trainer.done
    if anew:
        write_checkpoint(tmp_path / "a.checkpoint", trainer.checkpoint())
        trainer = make_trainer(tmp_path, validation=measured, max_batches=8, srand=9)
        trainer.restore(read_checkpoint(tmp_path / "a.checkpoint"))
        assert not trainer.done
    trainer.interrupted = None
    found += said(trainer.run())
    assert found == expected and trainer.done
    for name, one in (("one", undisturbed), ("other", trainer)):
        write_checkpoint(tmp_path / name, one.checkpoint())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_run_that_goes_on_without_a_held_out_text_yields_the_iteration_too(tmp_path):
    trainer = make_trainer(tmp_path, validation=measured, max_batches=8)
    trainer.interrupted = lambda: True
    steps = said(trainer.run())
    again = make_trainer(tmp_path, max_batches=8)
    again.restore(trainer.checkpoint())
    steps += said(again.run())
    assert [step[0] for step in steps] == list(range(1, 9)) and not any(step[-1] for step in steps)


@pytest.mark.parametrize("value", [1, [], {}, {"loss": 1.0, "rate": 1.0}, {"loss": 1.0, "rate": 1.0, "seconds": 10**400}])
def test_what_no_iteration_can_have_left(tmp_path, value):
    trainer = make_trainer(tmp_path)
    trainer.step()
    good = trainer.checkpoint()
    with pytest.raises(Exception, match="has no usable 'unmeasured'"):
        trainer.restore(Checkpoint({**good.facts, "unmeasured": value}, good.arrays))
    old = {name: fact for name, fact in good.facts.items() if name != "unmeasured"}  # of an earlier version
    trainer.restore(Checkpoint(old, good.arrays))


def test_a_signal_is_heard_in_the_middle_of_a_measurement(here):
    """The held-out text is a hole of 65 MiB: to measure it takes a thousand iterations' time or more."""
    with open(here / "held_out.bin", "wb") as file:
        file.truncate(65 << 20)
    process = start("train", "tiny.cfg", "text.bin", *NO_END, "--valid-every", 1, "--valid", "held_out.bin", cwd=here)
    wait_until_it_listens(process)
    time.sleep(1)  # the first iteration is over in a hundredth of that
    with ends_soon() as pieces:
        process.terminate()
        _, err = process.communicate(timeout=100)
        checkpoint = read_checkpoint(here / "backup/tiny.checkpoint")
        pieces.append(checkpoint.facts["unmeasured"]["seconds"])  # a piece of a measurement takes a few iterations' time
    assert process.returncode == 143
    assert err.splitlines()[-1] == "pydarknet: saved backup/tiny.backup after iteration 1; --resume goes on"
    assert checkpoint.facts["iteration"] == 1 and checkpoint.facts["unmeasured"]
    assert checkpoint.facts["validation"]["best_iteration"] is None
    (here / "held_out.bin").write_bytes(text(500, seed=2))  # for the test has not so long to measure the other
    again = ("--resume", "--max-batches", 3, "--srand", 1, "--valid-every", 1, "--no-sample", "--valid", "held_out.bin")
    result = run("train", "tiny.cfg", "text.bin", *again, cwd=here)
    assert result.returncode == 0, result.stderr
    lines = [line.partition(":")[0] for line in result.stderr.splitlines()[1:]]
    assert lines == ["1", "held out", "2", "held out", "3", "held out"]
    whole = run("train", "tiny.cfg", "text.bin", *again[1:], "--backup", "whole", cwd=here)
    assert whole.returncode == 0
    assert bytes_of(here / "whole")["tiny.checkpoint"] == bytes_of(here / "backup")["tiny.checkpoint"]


# While nobody reads


def is_full(reader):
    """Wait until what is in the pipe, made as short as can be, grows no more."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # on Linux
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    before, since, until = -1, time.monotonic(), time.monotonic() + 60
    while time.monotonic() < until:
        (now,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))
        if now != before:
            before, since = now, time.monotonic()
        elif now and time.monotonic() - since > 1:
            return now
        time.sleep(0.02)
    pytest.fail(f"the pipe holds {before} bytes, and is not full")


def stop(process, number, reader):
    """Send the signal; the process must end soon though nobody reads from the pipe ``reader``."""
    with ends_soon(reads=False) as pieces:
        process.send_signal(number)
        assert process.wait(100) == 128 + number
        pieces.append(seconds_of(os.read(reader, 1 << 16).decode().splitlines()))


def check_saved(here, least):
    at = read_checkpoint(here / "backup/tiny.checkpoint").facts["iteration"]
    assert at >= least
    result = run("train", "tiny.cfg", "text.bin", "--resume", "--quiet", "--max-batches", at + 5, cwd=here)
    assert result.returncode == 0, result.stderr
    whole = run("train", "tiny.cfg", "text.bin", "--srand", 1, "--max-batches", at + 5, "--backup", "whole", cwd=here)
    assert whole.returncode == 0
    assert bytes_of(here / "whole")["tiny.checkpoint"] == bytes_of(here / "backup")["tiny.checkpoint"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_while_nobody_reads_standard_error(here, number):
    process = start("train", "tiny.cfg", "text.bin", *NO_END, cwd=here)
    assert is_full(process.stderr.fileno()) > 1000
    stop(process, number, process.stderr.fileno())
    check_saved(here, least=5)


SLOW_DISK = """if True:
    import os, sys, time
    from pathlib import Path
    from pydarknet.cli import main
    def fsync(file):
        Path("saving").touch()
        time.sleep(100)
    os.fsync = fsync
    sys.exit(main(sys.argv[1:]))
"""


def test_a_second_interrupt_while_nobody_reads(here):
    """It comes when the first has been heard, and what that one saves takes minutes: all ends at once, and nothing is lost."""
    assert run("train", "tiny.cfg", "text.bin", "--srand", 1, "--max-batches", 3, cwd=here).returncode == 0
    words = ("train", "tiny.cfg", "text.bin", *map(str, NO_END), "--processes", "2", "--resume")
    process = start_program(sys.executable, "-c", SLOW_DISK, *words, cwd=here, start_new_session=True)
    is_full(process.stderr.fileno())
    before, until = bytes_of(here / "backup"), time.monotonic() + 60
    process.send_signal(signal.SIGINT)
    while not (here / "saving").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (here / "saving").exists() and process.poll() is None
    with ends_soon():
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    wait_until_group_is_gone(process.pid)  # the worker
    assert bytes_of(here / "backup") == before
    (here / "saving").unlink()
    check_saved(here, least=3)


def test_a_signal_is_heard_while_nobody_reads_the_log(here):
    os.mkfifo(here / "log")
    reader = os.open(here / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = start("train", "tiny.cfg", "text.bin", *NO_END, "--log", "log", "--quiet", cwd=here)
        assert is_full(reader) > 1000
        stop(process, signal.SIGTERM, reader)
        check_saved(here, least=5)
    finally:
        os.close(reader)


def test_a_signal_is_heard_while_nobody_has_opened_the_log(here):
    os.mkfifo(here / "log")
    process = start("train", "tiny.cfg", "text.bin", *NO_END, "--log", "log", cwd=here)
    wait_until_it_listens(process)
    with ends_soon(reads=False):
        process.terminate()
        assert process.wait(100) == 143
    assert not list((here / "backup").glob("tiny*"))


def test_a_slow_reader_gets_all(here):
    """Whoever reads late, but reads, gets the last line as well."""
    process = start("train", "tiny.cfg", "text.bin", *NO_END, cwd=here, preexec_fn=heard_signals)
    is_full(process.stderr.fileno())
    reading = (line for line in process.stderr)
    next(reading)
    process.terminate()
    lines = list(reading)
    assert process.wait(60) == 143
    assert lines[-1].startswith("pydarknet: saved backup/tiny.backup after iteration ")
