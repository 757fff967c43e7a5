"""What the tests of training share: a small cfg, a text, trainers of them, and processes that run the command line."""

import fcntl
import os
import pty
import random
import re
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pydarknet
from pydarknet import load_network
from pydarknet.text.corpus import Corpus
from pydarknet.training.backups import newest_checkpoint
from pydarknet.training.trainer import Trainer

# MPICH does nothing on a Linux without it.
SHARED_MEMORY = sys.platform != "linux" or Path("/dev/shm").is_dir()
LAYERS = """
[lstm]
output=7
[connected]
output=64
activation=linear
[softmax]
"""
NET = dict(inputs=64, batch=4, subdivisions=2, time_steps=5, learning_rate=0.5, momentum=0.9, decay=0.001, max_batches=30)


def cfg_text(layers=LAYERS, **net):
    """A cfg of ``layers`` whose [net] is :data:`NET` with changes; None takes a key out."""
    options = {key: value for key, value in {**NET, **net}.items() if value is not None}
    return "[net]\n" + "".join(f"{key}={value}\n" for key, value in options.items()) + layers


def write_cfg(folder, layers=LAYERS, name="tiny.cfg", **net):
    path = Path(folder) / name
    path.write_text(cfg_text(layers, **net))
    return str(path)


def text(size=3000, seed=1):
    """Bytes below 64 that have something to learn: words of a few letters."""
    letters = random.Random(seed)
    words = [bytes(letters.randrange(64) for _ in range(letters.randint(2, 6))) for _ in range(20)]
    return b"".join(letters.choice(words) for _ in range(size))[:size]


def write_text(folder, size=3000, name="text.bin", seed=1):
    path = Path(folder) / name
    path.write_bytes(text(size, seed))
    return str(path)


def make_trainer(folder, layers=LAYERS, size=3000, srand=3, corpus=None, jump=1 / 4, max_batches=None, validation=None, **net):
    """A trainer with many jumps. ``validation`` makes one from the network."""
    network = load_network(write_cfg(folder, layers, jump=jump, **net), srand=srand)
    corpus = corpus or Corpus.from_symbols(text(size))
    return Trainer(network, corpus, max_batches, srand, validation=validation and validation(network))


def environment():
    """That of a process that finds this very package, and takes one core."""
    source = str(Path(pydarknet.__file__).parent.parent)
    paths = [source] + [path for path in [os.environ.get("PYTHONPATH")] if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-m", "pydarknet", *map(str, arguments)]


def run(*arguments, cwd, **options):
    """Run the command line to its end; the CompletedProcess with text output."""
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run(command(*arguments), cwd=cwd, env=environment(), **options)


def shown_on_terminal(*arguments, cwd):
    """Run the command line where standard error is a terminal of 80 columns: the exit code, the output, and what was shown."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = start(*arguments, cwd=cwd, stderr=slave)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is closed
        while block := os.read(master, 4096):
            shown += block
    os.close(master)
    return process.wait(60), process.stdout.read(), shown


STARTED: list[subprocess.Popen] = []


def start(*arguments, **options):
    """Start the command line; standard output and error are pipes of text unless told otherwise."""
    return start_program(*command(*arguments), **options)


def start_program(*words, **options):
    """Start another program in the same way."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heard_signals, **options}
    process = subprocess.Popen(words, env=environment(), **pipes)
    STARTED.append(process)
    return process


def end_what_was_started():
    """Kill what a test has started and not ended."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def running_children():
    """The numbers of the processes that this one has started and that still run, as far as the system tells."""
    found = set()
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):
            found.update(filter(_runs, map(int, (task / "children").read_text().split())))
    return found


def _runs(pid):
    """Whether it has not ended; Python's own, which stays until the program ends, does not count."""
    with suppress(OSError):
        ended = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].startswith(b"Z")
        return not ended and b"multiprocessing.resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def heard_signals():
    """In a new process: signals do what they do by default. A shell's background job, or nohup, ignores some."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


HEARD = 2  # seconds: a signal is heard within one; the other is for the disk, to which the work is saved
PATIENCE = 3  # seconds more, at most, for a reader that does not read


SECONDS = re.compile(r' rate, (\S+) seconds, |"seconds": ([^,}]+)')  # of an iteration, in what a run says of it


def start_up_time():
    """Seconds that a process takes now to start and to end: what this machine has to do beside is in it."""
    begun = time.monotonic()
    run("--version", cwd=".", check=True)
    return time.monotonic() - begun


@contextmanager
def ends_soon(reads=True):
    """In the context a run is sent a signal and waited for: check that it takes not long.

    Not long are two seconds, what a run waits for one who does not read (unless somebody ``reads``), five times what this
    machine takes now to start a process, and ten times what the run had to end first, an iteration or a part of a
    measurement: the context appends its seconds to the list that it is given.
    """
    pieces, start_up, begun = [0.0], start_up_time(), time.monotonic()
    yield pieces
    took = time.monotonic() - begun
    most = HEARD + (0 if reads else PATIENCE) + 5 * max(start_up, start_up_time()) + 10 * max(pieces)
    assert took < most, f"it ended {took:.2f} s after the signal; not long is {most:.2f} s"


def seconds_of(lines):
    """Those of an iteration, as ``lines`` of a log or of standard error tell; not of the last, in which the signal has come."""
    told = [float(found[1] or found[2]) for found in map(SECONDS.search, lines) if found]
    return statistics.median(told[:-1] or [0.0])


def wait_until_it_listens(process):
    """Until a process of ``train`` takes the signals that stop it; before, they end Python as it starts."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():  # macOS
        time.sleep(5)
        return
    while process.poll() is None:
        caught = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.01)


def wait_until_group_is_gone(group):
    """Until no process of it is left; one that has ended is there until its parent, or init, has heard of that."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("a worker outlives its run")


def bytes_of(folder, *without):
    """The content of every file of a folder by name; hidden ones, such as locks, are left out."""
    return {
        path.name: path.read_bytes()
        for path in sorted(Path(folder).iterdir())
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(without or ("\0",))
    }


def workers_of(process):
    """The processes that one has started, as far as the system tells."""
    try:
        return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


def kill_some(process, moments):
    """Send SIGKILL to a run, one of its workers, or both, by the dice of ``moments``; return which."""
    workers = workers_of(process)
    whom = moments.choice(["run", "worker", "both"]) if workers else "run"
    if whom != "run":
        with suppress(ProcessLookupError):
            os.kill(moments.choice(workers), signal.SIGKILL)
    if whom != "worker":
        process.kill()
    return whom


def check_whole(here):
    """Every file that a killed run left under its own name is whole; return the newest checkpoint's iteration."""
    folder = here / "backup"
    if not folder.exists():
        return 0
    for path in folder.iterdir():
        if path.suffix in (".weights", ".backup"):
            load_network(here / "tiny.cfg", path)
    if not any(".checkpoint" in name for name in os.listdir(folder)):
        return 0
    return newest_checkpoint(folder, "tiny", _refuse).facts["iteration"]


def _refuse(warning):
    raise AssertionError(warning)
