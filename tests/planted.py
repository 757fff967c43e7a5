"""Do the tests notice? Plants small faults in a copy of the project, one at a time, and runs the tests that should fail.

    python3 tests/planted.py            # all of them: half an hour
    python3 tests/planted.py lock bar   # those with one of these words in their names

Most of them once passed the whole suite though they change what a user gets. A fault that no test notices, or whose place in
the code is no longer found, is an error: then the entry is brought up to date, or a test written.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SECONDS = 300  # for the tests of one fault; one that makes them hang has been noticed
HANGS = "the time limit"


class Fault(NamedTuple):
    name: str
    file: str  # in pydarknet/
    old: str  # stands there just once
    new: str
    tests: str  # in tests/, as pytest takes them


FAULTS = [
    Fault(
        "valid --adapt is ignored by the command",
        "cli/valid.py",
        "nats=Adaptation(network, adapt).nats if adapt else None",
        "nats=None",
        "cli/test_valid.py",
    ),
    Fault(
        "a layer's own rate is ignored in adaptation",
        "inference/dynamic_evaluation.py",
        "self._optimizer.update(block, self.rate, n)",
        "block.values -= self.rate / n * block.gradients",
        "inference/test_dynamic_evaluation.py",
    ),
    Fault(
        "the best weights are written after the checkpoint that knows of them",
        "training/backups.py",
        """        if step.valid_loss is not None and self.trainer.validation.best_iteration == step.iteration:
            self._save_weights(self.best)
        if step.iteration % self.keep_every == 0:
            self._save_weights(self._numbered(step.iteration))
        if step.iteration % self.backup_every == 0:
            self.save()
""",
        """        if step.iteration % self.keep_every == 0:
            self._save_weights(self._numbered(step.iteration))
        if step.iteration % self.backup_every == 0:
            self.save()
        if step.valid_loss is not None and self.trainer.validation.best_iteration == step.iteration:
            self._save_weights(self.best)
""",
        "training/test_backups.py",
    ),
    Fault(
        "workers hear SIGTERM and SIGHUP",
        "training/processes.py",
        "{signal.SIGINT, signal.SIGTERM, signal.SIGHUP}",
        "{signal.SIGINT}",
        "training/test_processes.py",
    ),
    Fault(
        "workers hear SIGINT",
        "training/processes.py",
        "{signal.SIGINT, signal.SIGTERM, signal.SIGHUP}",
        "{signal.SIGTERM, signal.SIGHUP}",
        "training/test_processes.py",
    ),
    Fault(
        "offsets are not wrapped at the end of the text",
        "training/trainer.py",
        "self.offsets[:] = (self.offsets + T) % len(self.corpus)",
        "self.offsets[:] = self.offsets + T",
        "training/test_trainer.py training/test_resume.py",
    ),
    Fault(
        "a weights file that is refused leaves half a network",
        "darknet/weights.py",
        """        values = [_read_array(file, path, label, array, header.transposed) for label, array in fields]
    for (_, array), value in zip(fields, values):
        array[...] = value
""",
        """        for label, array in fields:
            array[...] = _read_array(file, path, label, array, header.transposed)
""",
        "darknet/test_weights.py",
    ),
    Fault(
        "the sweep takes the user's own *.tmp",
        "training/backups.py",
        'glob(".pydarknet-" + 16 * "[0-9a-f]" + ".tmp")',
        'glob("*.tmp")',
        "training/test_backups.py",
    ),
    Fault(
        "the sweep takes hidden *.tmp of others",
        "training/backups.py",
        'glob(".pydarknet-" + 16 * "[0-9a-f]" + ".tmp")',
        'glob(".*.tmp")',
        "training/test_backups.py",
    ),
    Fault(
        "the digest of a text samples it from 4 KiB on",
        "text/corpus.py",
        "_HASH_WHOLE = 64 << 20",
        "_HASH_WHOLE = 4 << 10",
        "text/test_corpus.py training/test_resume.py",
    ),
    Fault(
        "the variance of a single stream is about the wrong mean",
        "layers/batchnorm.py",
        """            squares = (z - self.rolling_mean[gates]) ** 2
            mean, variance = self._roll(self.rolling_mean[gates], z), self._roll(self.rolling_variance[gates], squares)
""",
        """            mean = self._roll(self.rolling_mean[gates], z)
            variance = self._roll(self.rolling_variance[gates], (z - mean) ** 2)
""",
        "layers/test_batchnorm.py layers/test_gradients.py",
    ),
    Fault(
        "the permissions of a replaced file are not kept",
        "system/files.py",
        "os.chmod(temporary, mode)",
        "pass",
        "system/test_files.py darknet/test_weights.py training/test_backups.py",
    ),
    Fault(
        "a temporary file is more open than its target",
        "system/files.py",
        "0o666 if mode is None else 0o600",
        "0o666",
        "system/test_files.py",
    ),
    Fault(
        "the files of a folder are not sorted",
        "text/stores.py",
        "for name in sorted(names):",
        "for name in names:",
        "text/test_stores.py",
    ),
    Fault(
        "the folders of a folder are not sorted",
        "text/stores.py",
        'sorted(name for name in folders if not name.startswith("."))',
        '(name for name in folders if not name.startswith("."))',
        "text/test_stores.py",
    ),
    Fault(
        "the limit of open files is not halved",
        "text/stores.py",
        "min(512, soft // 2)",
        "min(512, soft)",
        "text/test_stores.py",
    ),
    Fault(
        "the second Ctrl-C does nothing",
        "cli/signals.py",
        "if at_once:  # an exception could be lost",
        "if False:  # an exception could be lost",
        "training/test_faults.py::test_a_second_interrupt_ends_at_once training/test_stopping.py",
    ),
    Fault(
        "a measurement goes on when a signal has come",
        "training/validation.py",
        "if interrupted and interrupted():",
        "if False:",
        "training/test_stopping.py",
    ),
    Fault(
        "a measurement that was given up is forgotten",
        "training/trainer.py",
        '"unmeasured": self._unmeasured,',
        '"unmeasured": None,',
        "training/test_stopping.py",
    ),
    Fault(
        "a signal is not heard while nobody reads",
        "cli/signals.py",
        "signal.setitimer(signal.ITIMER_REAL, PATIENCE)",
        "pass",
        "training/test_stopping.py",
    ),
    Fault(
        "a message shows control characters as they are",
        "errors.py",
        "if not message.isprintable():",
        "if False:",
        "cli/test_fuzz_findings.py",
    ),
    Fault(
        "the .previous of an older run is kept",
        "training/backups.py",
        "self.previous.unlink(missing_ok=True)",
        "pass",
        "training/test_backups.py",
    ),
    Fault(
        "a MemoryError is not caught",
        "cli/__init__.py",
        "if isinstance(error, MemoryError):",
        "if False:",
        "cli/test_streams.py",
    ),
    Fault(
        "a run that memory fails is not saved",
        "cli/run.py",
        "except Exception as first:  # of a mistake in the program too: the work is not lost with it",
        "except (PydarknetError, BrokenPipeError) as first:",
        "cli/test_train.py::test_an_error_on_the_way_loses_nothing",
    ),
    Fault(
        "memory: the path of version 2 of the control groups",
        "system/memory.py",
        '"/sys/fs/cgroup/memory.max"',
        '"/sys/fs/cgroup/memory.high"',
        "system/test_memory.py",
    ),
    Fault(
        "memory: the path of version 1 of the control groups",
        "system/memory.py",
        '"/sys/fs/cgroup/memory/memory.limit_in_bytes"',
        '"/sys/fs/cgroup/memory/memory.usage_in_bytes"',
        "system/test_memory.py",
    ),
    Fault(
        "memory: the hard limit in place of the soft one",
        "system/memory.py",
        "limit, _ = resource.getrlimit",
        "_, limit = resource.getrlimit",
        "system/test_memory.py",
    ),
    Fault(
        "memory: Adam's third array",
        "system/memory.py",
        "3 if network.optimizer_options.adam else 2",
        "2",
        "system/test_memory.py",
    ),
    Fault(
        "memory: the softmax",
        "system/memory.py",
        "kept = network.inputs * T * B * itemsize + ",
        "kept = ",
        "system/test_memory.py",
    ),
    Fault(
        "memory: the tapes",
        "system/memory.py",
        "kept += sum(layer.tape_bytes(T, B) for layer in network.layers)",
        "pass",
        "system/test_memory.py",
    ),
    Fault(
        "memory: the gradients of a layer", "system/memory.py", "total += 2 * sum(", "total += sum(", "system/test_memory.py"
    ),
    Fault(
        "valid of a tokenized text is primed with two newlines",
        "cli/valid.py",
        'else b"" if tokenized else DEFAULT_SEED',
        "else DEFAULT_SEED",
        "cli/test_valid.py",
    ),
    Fault(
        "numpy's settings for errors do not reach the threads",
        "system/threads.py",
        "with np.errstate(**settings):",
        "with np.errstate():",
        "system/test_threads.py",
    ),
    Fault(
        "a thread that is refused once is done without",
        "system/threads.py",
        "if time.monotonic() > until:",
        "if until:",
        "system/test_threads.py",
    ),
    Fault(
        "a thread that has ended without a word is waited for",
        "system/threads.py",
        "thread() is None for thread",
        "thread() is self for thread",
        "system/test_threads.py",
    ),
    Fault(
        "a run does not wait for the others",
        "system/threads.py",
        "            self._meet(0)\n        except _Over:\n            raise",
        "        except _Over:\n            raise",
        "system/test_threads.py",
    ),
    Fault(
        "the matrix library keeps all its threads",
        "network.py",
        "with blas_limited(1),",
        "with blas_limited(10**6),",
        "test_network.py",
    ),
    Fault(
        "own threads are never chosen",
        "sharing.py",
        "threads=min(_cores(), MOST_THREADS) if pays else 1",
        "threads=1",
        "test_sharing.py test_network.py",
    ),
    Fault(
        "the threads that were chosen are not used",
        "network.py",
        "team_of(sharing.threads) as team",
        "team_of(1) as team",
        "test_network.py",
    ),
    Fault(
        "a token that equals the vocabulary's size passes in gather",
        "text/corpus.py",
        "rows.max() >= vocabulary",
        "rows.max() > vocabulary",
        "text",
    ),
    Fault(
        "the largest symbol that equals the vocabulary's size spares the look in gather",
        "text/corpus.py",
        "vocabulary <= self.max_symbol",
        "vocabulary < self.max_symbol",
        "text",
    ),
    Fault(
        "a symbol that equals the inputs passes at the start",
        "training/trainer.py",
        "if corpus.max_symbol < inputs:",
        "if corpus.max_symbol <= inputs:",
        "training/test_trainer.py",
    ),
    Fault(
        "the scan for such a symbol passes it over",
        "training/trainer.py",
        "if symbols.max() >= inputs:",
        "if symbols.max() > inputs:",
        "training/test_trainer.py",
    ),
    Fault(
        "a token that equals the lines of its file is written",
        "cli/generate.py",
        "if symbol >= len(tokens):",
        "if symbol > len(tokens):",
        "cli/test_generate.py",
    ),
    Fault(
        "a symbol that equals the inputs passes to the network",
        "network.py",
        "symbols.max() < self.inputs:",
        "symbols.max() <= self.inputs:",
        "test_network.py",
    ),
    Fault(
        "the scan of the symbols skips the last one of each block",
        "text/corpus.py",
        "self.symbols(start, min(BLOCK, self._length - start))",
        "self.symbols(start, min(BLOCK - 1, self._length - start))",
        "training/test_trainer.py",
    ),
    Fault(
        "the descriptor of a lock that another holds leaks",
        "system/locks.py",
        "            self.close()\n            raise\n",
        "            raise\n",
        "system training/test_backups.py",
    ),
    Fault(
        "the bar of a run that goes on begins at 0",
        "cli/progress.py",
        "initial=trainer.iteration",
        "initial=0",
        "cli/test_train.py",
    ),
    Fault(
        "split rounds the part that is held out down",
        "text/corpus.py",
        "round((stop - start) * fraction)",
        "int((stop - start) * fraction)",
        "text/test_corpus.py",
    ),
    Fault(
        "the tape of (T, B) is used for (B, T)",
        "layers/gated.py",
        "self._tape.shape != (T, B, team.count):",
        "(*sorted(self._tape.shape[:2]), self._tape.shape[2]) != (*sorted((T, B)), team.count):",
        "test_network.py",
    ),
    Fault(
        "the tape of a team is used for one of another size",
        "layers/gated.py",
        "self._tape.shape != (T, B, team.count):",
        "self._tape.shape[:2] != (T, B):",
        "system/test_threads.py test_network.py",
    ),
    Fault(
        "the tape of an [rnn] of (T, B) is used for (B, T)",
        "layers/rnn.py",
        "if self._shape == (T, B):",
        "if self._shape in ((T, B), (B, T)):",
        "test_network.py",
    ),
    Fault(
        "dropout keeps its part of the streams",
        "network.py",
        "                layer.streams_part = None\n",
        "                pass\n",
        "training/test_processes.py test_network.py",
    ),
    Fault(
        "of checkpoints: a run that goes on rotates one away that cannot be read",
        "training/backups.py",
        "            if self._resumed and readable:\n",
        "            if self._resumed:\n",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: one before the newest that cannot be read is thrown away",
        "training/backups.py",
        "if not of_use or (",
        "if (",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "a step with which not all went well is not put back",
        "cli/run.py",
        "if pending:",
        "if False:",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "a step is logged when it has been saved",
        "cli/run.py",
        """            for report in reports:
                report(step, sample)
            with stop.undisturbed():
                backups.after(step)
                pending = False
""",
        """            with stop.undisturbed():
                backups.after(step)
                pending = False
            for report in reports:
                report(step, sample)
""",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "an iteration that is put back is logged twice",
        "cli/log.py",
        "while goes_on and unfinished and end",
        "while False and end",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "a held-out text is read again at every save",
        "training/validation.py",
        '{"text": self.text_digest,',
        '{"text": self.corpus.digest(),',
        "training/test_faults.py",
    ),
    Fault(
        "of checkpoints: a new run throws the good one away before one that cannot be read",
        "training/backups.py",
        "(not readable or self._begun_with(self.previous))",
        "self._begun_with(self.previous)",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: permissions are not kept",
        "training/backups.py",
        ", mode_of=self.checkpoint)",
        ")",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: a link is not followed",
        "training/backups.py",
        "return Path(os.path.realpath(path)) if os.path.islink(path) else path",
        "return path",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: a long header is read",
        "training/checkpoint.py",
        "    if length > LONGEST_HEADER:\n",
        "    if length > 1 << 31:\n",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: one that is longer than the memory is read",
        "training/checkpoint.py",
        "    _check_memory(size, path)\n",
        "",
        "cli/test_checkpoints.py",
    ),
    Fault(
        "of checkpoints: another name that is free no more is replaced",
        "system/files.py",
        "            os.link(path, name, follow_symlinks=False)\n",
        "            os.rename(path, name)\n            return name\n",
        "cli/test_checkpoints.py",
    ),
]


def main(words):
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not chosen:
        sys.exit(f"no fault has one of these words in its name: {' '.join(words)}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        copy_project(copy)
        return _plant_all(chosen, copy)


def copy_project(copy):
    """Copy all files that git knows to the folder ``copy``."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)


def _plant_all(chosen, copy):
    wrong = 0
    for fault in chosen:
        file, begun = copy / "pydarknet" / fault.file, time.monotonic()
        text = file.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            verdict = f"ERROR: its place stands {text.count(fault.old)} times in {fault.file}"
        else:
            file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
            failed = _failed(copy, [f"tests/{place}" for place in fault.tests.split()])
            file.write_text(text, encoding="utf-8")
            verdict = f"noticed by {failed}" if failed else "NOT NOTICED"
            if failed not in (None, HANGS) and _failed(copy, [failed]):
                verdict = f"ERROR: {failed} fails without it too"
        wrong += not verdict.startswith("noticed")
        print(f"{fault.name}: {verdict} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} faults were noticed")
    return 1 if wrong else 0


def _failed(copy, tests):
    """The first of the ``tests`` that fails in the ``copy``, or None."""
    words = ["-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        found = subprocess.run(
            [sys.executable, "-m", "pytest", *words], cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return HANGS
    if found.returncode == 0:
        return None
    lines = [line for line in found.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not lines:
        sys.exit(f"pytest could not run: {found.stdout}{found.stderr}")
    return lines[0].split(" - ")[0].split(" ", 1)[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
