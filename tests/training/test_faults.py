"""Real processes that are stopped, killed, and run out of room: what they say, and what they leave."""

import fcntl
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import (
    LAYERS,
    bytes_of,
    check_whole,
    ends_soon,
    environment,
    kill_some,
    run,
    seconds_of,
    start,
    wait_until_it_listens,
    write_cfg,
    write_text,
)

from pydarknet import load_network
from pydarknet.training.checkpoint import read_checkpoint

NO_END = ("--max-batches", 10**9)


@pytest.fixture
def here(tmp_path):
    write_cfg(tmp_path, LAYERS.replace("[connected]", "[dropout]\nprobability=.2\n[connected]"))
    write_text(tmp_path)
    return tmp_path


def train(here, *arguments, **options):
    return start("train", "tiny.cfg", "text.bin", *arguments, cwd=here, **options)


def lines_until(process, iteration):
    """Read standard error up to the line of ``iteration``."""
    for line in process.stderr:
        if line.startswith(f"{iteration}: "):
            return
    pytest.fail(f"ended before iteration {iteration}: code {process.wait(60)}")


def iteration_of(path):
    return read_checkpoint(path).facts["iteration"]


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_run_saves_and_says_how_to_go_on(here, number, code):
    process = train(here, *NO_END, "--save-every", 10**6, "--srand", 1)
    lines_until(process, 20)
    with ends_soon() as pieces:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        pieces.append(seconds_of(err.splitlines()))
    assert process.returncode == code and out == ""
    last = err.splitlines()[-1]
    at = iteration_of(here / "backup/tiny.checkpoint")
    assert at >= 20
    assert last == f"pydarknet: saved backup/tiny.backup after iteration {at}; --resume goes on"
    assert "Traceback" not in err
    assert "\npydarknet: finishing this iteration; Ctrl-C again stops now, without saving\n" in err
    assert load_network(here / "tiny.cfg", here / "backup/tiny.backup").seen == 20 * at

    result = run("train", "tiny.cfg", "text.bin", "--resume", "--max-batches", at + 5, cwd=here)
    assert result.returncode == 0, result.stderr
    whole = run("train", "tiny.cfg", "text.bin", "--srand", 1, "--max-batches", at + 5, "--backup", "whole", cwd=here)
    assert whole.returncode == 0
    assert bytes_of(here / "whole")["tiny.checkpoint"] == bytes_of(here / "backup")["tiny.checkpoint"]


def test_a_second_interrupt_ends_at_once(here):
    """In an iteration of a minute: the first is answered at once, the second ends it. An earlier run's files stay."""
    assert run("train", "tiny.cfg", "text.bin", "--max-batches", 3, cwd=here).returncode == 0
    before = bytes_of(here / "backup")
    write_cfg(here, LAYERS.replace("output=7", "output=300"), batch=1600, subdivisions=100, time_steps=500)
    process = train(here, *NO_END, "--processes", 1)
    wait_until_it_listens(process)
    time.sleep(0.5)  # the first iteration begins
    with ends_soon():
        process.send_signal(signal.SIGINT)
        answer = itertools.dropwhile(lambda line: "finishing" not in line, process.stderr)
        assert next(answer) and process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1] == "pydarknet: interrupted"
    assert len(before) == 2 and bytes_of(here / "backup") == before


def test_an_ignored_interrupt_stays_ignored(here):
    """As in a shell script that puts the training in the background."""
    process = train(here, *NO_END, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    lines_until(process, 5)
    process.send_signal(signal.SIGINT)
    lines_until(process, 50)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def kill_and_resume(here, kills, iterations, save_every, seed, more=()):
    """Train with ``kills`` SIGKILLs at random moments, and to the end then: all is as in the undisturbed run.

    Where ``more`` options start workers, it is the run, one of them, or both that are killed.

    Returns the iteration of the newest checkpoint after each kill. A moment is a random number of
    iterations and some milliseconds, which a save takes as well; or a time at which Python is still
    starting. On average the kills come in the first three fifths of the run, however busy the machine.
    """
    whole = ("--srand", 1, "--max-batches", iterations, "--save-every", save_every, *more)
    undisturbed = run(
        "train", "tiny.cfg", "text.bin", *whole, "--backup", "whole", "--log", "whole.jsonl", cwd=here, timeout=600
    )
    whole += ("--log", "log.jsonl")
    assert undisturbed.returncode == 0, undisturbed.stderr
    moments, found = random.Random(seed), []
    for _ in range(kills):
        process = train(here, *whole, *(["--resume"] if check_whole(here) else []))
        said = []
        if moments.random() < 0.85:
            lines = moments.randint(1, round(1.4 * iterations / kills))
            said = list(itertools.islice(process.stderr, lines))
            time.sleep(moments.uniform(0, 0.02))
        else:
            time.sleep(moments.uniform(0, 0.3))
        whom = kill_some(process, moments)
        said += process.stderr
        process.communicate()
        if process.returncode == 0:
            break  # so fast a machine that the run was done before the kill: nothing is left to kill
        ended = "a process that shared the work has ended" in said[-1] if said else False
        assert process.returncode == -signal.SIGKILL or (process.returncode == 1 and ended and whom != "run"), said[-5:]
        assert not [line for line in said if "Traceback" in line or "warning" in line], said
        found.append(check_whole(here))
    else:
        result = run("train", "tiny.cfg", "text.bin", *whole, "--resume", cwd=here, timeout=600)
        assert result.returncode == 0, result.stderr
    a, b = bytes_of(here / "whole"), bytes_of(here / "backup")
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == b[name], f"{name} differs"
    assert losses_of(here / "log.jsonl") == losses_of(here / "whole.jsonl")
    return found


def losses_of(log):
    """What the log says of the iterations of its last run, without times, and samples, which go by the time."""
    runs = log.read_text().split('{"pydarknet"')
    records = [json.loads(line) for line in runs[-1].splitlines()[1:]]
    names = "iteration", "loss", "avg_loss", "valid_loss", "rate"
    return [[record.get(name) for name in names] for record in records if "sample" not in record]


def test_killed_at_five_random_moments(here):
    found = kill_and_resume(here, kills=5, iterations=800, save_every=10, seed=3)
    assert len(found) > 1 and found == sorted(found) and found[-1] > 0, found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_fifty_random_moments(here):
    found = kill_and_resume(here, kills=50, iterations=6000, save_every=10, seed=11)
    assert found == sorted(found)
    assert len(found) > 40 and len(set(found)) > 25, f"hardly a run got further than the one before: {found}"
    cut_off = list((here / "backup").glob(".pydarknet-*.tmp"))
    assert cut_off, "no kill came in the middle of a save"  # 14 and 18 of the 50 did, where it was measured


@pytest.mark.slow  # eight minutes beside much other work
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are used on Linux only")
def test_killed_fifty_times_with_workers_and_a_held_out_text(here):
    """The run, a worker, or both; the best weights are always those that the checkpoint knows of."""
    more = ("--processes", 2, "--valid-fraction", 0.1, "--valid-every", 10)
    found = kill_and_resume(here, kills=50, iterations=2500, save_every=10, seed=3, more=more)
    assert found == sorted(found) and len(set(found)) > 20, found
    checkpoint = read_checkpoint(here / "backup/tiny.checkpoint")
    assert checkpoint.facts["validation"]["best_iteration"] > 0 and (here / "backup/tiny_best.weights").exists()


def test_killed_in_the_middle_of_a_save(here):
    """The process kills itself when half of a file is written, then when it is written but has not its name yet."""
    program = """if True:
        import os, signal, sys
        import pydarknet.system.files
        from pydarknet.cli import main
        at, left = sys.argv[1], int(sys.argv[2])
        def deadly(real):
            def call(*arguments):
                global left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)
            return call
        setattr(os, at, deadly(getattr(os, at)))
        sys.exit(main(sys.argv[3:]))
    """
    whole = ("train", "tiny.cfg", "text.bin", "--srand", "1", "--max-batches", "30", "--save-every", "5")
    assert run(*whole, "--backup", "whole", cwd=here).returncode == 0
    for at in ("fsync", "replace"):
        for left in (5, 6, 7):
            resume = ["--resume"] if check_whole(here) else []
            process = subprocess.run(
                [sys.executable, "-c", program, at, str(left), *whole, *resume],
                cwd=here,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert process.returncode == -signal.SIGKILL, process.stderr
            check_whole(here)
    result = run(*whole, "--resume", cwd=here)
    assert result.returncode == 0 and "warning" not in result.stderr
    assert bytes_of(here / "whole")["tiny.checkpoint"] == bytes_of(here / "backup")["tiny.checkpoint"]


# Room


def test_a_size_limit_during_a_save(here):
    """`ulimit -f`: the earlier weights and the checkpoint stay, the run ends with an error and goes on when there is room."""
    whole = ("train", "tiny.cfg", "text.bin", "--srand", 1)
    assert run(*whole, "--max-batches", 10, cwd=here).returncode == 0
    before = bytes_of(here / "backup")
    weights = len(before["tiny_final.weights"])
    # Too little for weights; enough for weights but not for a checkpoint, which has the momentum as well.
    for limit, what in (
        (weights // 2, "tiny.backup: cannot save the weights"),
        (weights + 100, "tiny.checkpoint.new: cannot save the checkpoint"),
    ):
        result = run(
            *whole,
            "--resume",
            "--max-batches",
            40,
            "--save-every",
            20,
            cwd=here,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert result.returncode == 1
        last = result.stderr.splitlines()[-1]
        if "weights" in what:
            what = "tiny_20.weights: cannot save the weights"  # the first that is due
        assert last == f"pydarknet: backup/{what}: File too large. Earlier files are as they were"
        after = bytes_of(here / "backup")
        assert not [name for name in os.listdir(here / "backup") if name.endswith(".tmp")]
        for name in ("tiny_final.weights", "tiny.checkpoint"):
            assert after[name] == before[name], name
        load_network(here / "tiny.cfg", here / "backup/tiny_final.weights")
    result = run(*whole, "--resume", "--max-batches", 40, cwd=here)
    assert result.returncode == 0, result.stderr
    assert run(*whole, "--max-batches", 40, "--backup", "whole", cwd=here).returncode == 0
    assert bytes_of(here / "whole")["tiny_final.weights"] == bytes_of(here / "backup")["tiny_final.weights"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_log_on_a_full_disk(here):
    result = run("train", "tiny.cfg", "text.bin", "--log", "/dev/full", cwd=here)
    assert (result.returncode, result.stderr) == (1, "pydarknet: /dev/full: cannot write the log: No space left on device\n")


def test_a_log_whose_disk_fills_up_on_the_way(here):
    """`ulimit -f`, above what the weights and the checkpoint need."""
    limit = 1 << 16
    result = run(
        *("train", "tiny.cfg", "text.bin", "--log", "log.jsonl", *NO_END),
        cwd=here,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.returncode == 1
    saved, last = result.stderr.splitlines()[-2:]
    assert last == "pydarknet: log.jsonl: cannot write the progress: File too large"
    at = iteration_of(here / "backup/tiny.checkpoint")
    assert at > 1 and saved.startswith(f"pydarknet: saved backup/tiny.backup after iteration {at}")  # nothing is lost


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_standard_error_on_a_full_disk(here):
    with open("/dev/full", "w") as full:
        process = train(here, stderr=full)
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert iteration_of(here / "backup/tiny.checkpoint") == 1


def test_a_folder_that_cannot_be_written_to(here):
    (here / "file").write_text("precious")
    result = run("train", "tiny.cfg", "text.bin", "--backup", "file", cwd=here)
    assert (result.returncode, result.stderr) == (
        1,
        "pydarknet: file: cannot save weights in this folder: File exists; choose another with --backup DIR\n",
    )
    assert (here / "file").read_text() == "precious"
    if os.geteuid():  # nothing is forbidden to root
        (here / "closed").mkdir(mode=0o500)
        result = run("train", "tiny.cfg", "text.bin", "--backup", "closed", cwd=here)
        assert result.returncode == 1 and "closed: cannot save weights in this folder: Permission denied" in result.stderr


# Company


def test_two_runs_in_one_folder(here):
    first = train(here, *NO_END)
    lines_until(first, 3)
    second = run("train", "tiny.cfg", "text.bin", "--max-batches", 3, cwd=here)
    assert (second.returncode, second.stderr) == (
        1,
        "pydarknet: backup: another run is saving tiny.* in this folder; "
        "wait for it, or choose another folder with --backup DIR\n",
    )
    first.kill()  # which leaves the lock's file, but no lock
    first.communicate(timeout=60)
    assert run("train", "tiny.cfg", "text.bin", "--max-batches", 3, cwd=here).returncode == 0


def test_whoever_listened_has_gone(here):
    """`pydarknet train ... 2>&1 | head`: the work is saved, and nobody is told, as nobody is there."""
    process = train(here, *NO_END, "--save-every", 10**6)
    lines_until(process, 10)
    process.stderr.close()
    process.stdout.close()
    assert process.wait(60) == 141
    assert iteration_of(here / "backup/tiny.checkpoint") >= 10


def test_standard_output_closed(here):
    process = train(here, "--max-batches", 400)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 141 and "Traceback" not in errors and "Exception" not in errors
    assert (here / "backup/tiny_final.weights").exists()


def test_no_standard_error_at_all(here):
    process = train(here, preexec_fn=lambda: os.close(2), stderr=None)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.startswith("Saved backup/tiny_final.weights\n")


# The text


@pytest.mark.parametrize("held_out", [(), ("--valid-fraction", 0.01, "--valid-every", 10**6)])
def test_a_text_that_shrinks_under_a_running_trainer(here, held_out):
    """A text over 64 MiB stays on the disk; this one is a hole of that size, which takes no room."""
    with open(here / "large.bin", "wb") as file:
        file.truncate(66 << 20)
    process = start("train", "tiny.cfg", "large.bin", *NO_END, "--save-every", 10**6, *held_out, cwd=here)
    lines_until(process, 20)
    os.truncate(here / "large.bin", 100)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in err
    at = iteration_of(here / "backup/tiny.checkpoint")
    saved, last = err.splitlines()[-2:]
    assert at >= 20 and saved == f"pydarknet: saved backup/tiny.backup after iteration {at}; --resume goes on"
    assert last.startswith("pydarknet: large.bin: the file has shrunk while in use: byte ")


def test_a_text_that_changes_does_not_matter_to_a_run_that_has_read_it(here):
    whole = run("train", "tiny.cfg", "text.bin", "--srand", 1, "--max-batches", 300, "--backup", "whole", cwd=here)
    assert whole.returncode == 0
    process = train(here, "--srand", 1, "--max-batches", 300)
    lines_until(process, 1)
    Path(here / "text.bin").write_bytes(b"")
    assert process.communicate(timeout=60) and process.returncode == 0
    assert bytes_of(here / "whole")["tiny_final.weights"] == bytes_of(here / "backup")["tiny_final.weights"]


def test_memory_that_is_not_given(here):
    """A limit below what is needed: told with the bytes, and by no traceback."""
    write_cfg(here, "\n[lstm]\noutput=6000\n[connected]\noutput=64\nactivation=linear\n[softmax]\n")
    result = run(
        "train", "tiny.cfg", "text.bin", cwd=here, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    )
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "tiny.cfg:12: [lstm] the parameters up to here need 1,164,672,000 bytes" in result.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a call of Linux")
def test_memory_that_runs_out_on_the_way(here):
    """The limit comes down to little more than the run has: it saves what it has done, and goes on when there is more."""
    write_cfg(here, LAYERS.replace("output=7", "output=200"))
    write_text(here, 65_000, "held_out.bin", seed=2)
    words = ("train", "tiny.cfg", "text.bin", "--srand", 1, "--processes", 1, "--max-batches", 200, "--no-sample")
    words += ("--valid", "held_out.bin", "--valid-every", 200)  # in 64 streams, which takes 13 MB
    process = start(*words, cwd=here)
    fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)  # so that it is not far ahead of what is read
    lines_until(process, 20)
    (size,) = (line.split()[1] for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmSize" in line)
    limit = int(size) * 1024 + 5_000_000
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1 and "Traceback" not in err
    saved, last = err.splitlines()[-2:]
    assert saved == "pydarknet: saved backup/tiny.backup after iteration 200; --resume goes on"
    assert last.startswith("pydarknet: out of memory: ") and "a smaller batch" in last
    assert iteration_of(here / "backup/tiny.checkpoint") == 200
    assert run(*words, "--resume", cwd=here).returncode == 0
    assert run(*words, "--backup", "whole", cwd=here).returncode == 0
    assert bytes_of(here / "whole")["tiny.checkpoint"] == bytes_of(here / "backup")["tiny.checkpoint"]
