"""Checkpoints at the command line: what a run finds in its folder is kept, and what it leaves can be gone on from."""

import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run
from runs import bytes_of, cfg_text, shown_on_terminal, write_cfg, write_text

from pydarknet.cli.log import JsonLog
from pydarknet.errors import CheckpointError, TextError, TrainingError, WeightsError
from pydarknet.system.locks import Lock
from pydarknet.training.backups import Backups, newest_checkpoint
from pydarknet.training.checkpoint import LONGEST_HEADER, read_checkpoint, write_checkpoint
from pydarknet.training.samples import Samples
from pydarknet.training.trainer import Trainer

NEWER = b"PYDNCKPT\x02\0\0\0\0\0\0\0 of a newer version"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path)
    write_text(tmp_path)
    return tmp_path / "backup"


def train(*words, code=0):
    result = run("train", "tiny.cfg", "text.bin", "-srand", "1", "--quiet", *map(str, words))
    assert result.code == code, result
    return result


@pytest.mark.parametrize("content", [NEWER, b"cut off"])
def test_one_that_cannot_be_read_outlives_the_run_that_goes_on_without_it(here, content):
    train("--max-batches", 6, "--save-every", 3)
    before = (here / "tiny.checkpoint.previous").read_bytes()
    (here / "tiny.checkpoint").write_bytes(content)
    result = train("--resume", "--max-batches", 15, "--save-every", 3)
    assert "trying the one before it" in result.err and "tiny.checkpoint as tiny_unreadable.checkpoint" in result.err
    assert (here / "tiny_unreadable.checkpoint").read_bytes() == content
    assert read_checkpoint(here / "tiny.checkpoint").facts["iteration"] == 15
    assert before not in bytes_of(here).values(), "the run's own older ones are rotated as ever"


def test_going_on_from_the_one_before_leaves_it_until_a_newer_one_is_whole(here):
    train("--max-batches", 6, "--save-every", 3)
    before = (here / "tiny.checkpoint.previous").read_bytes()
    (here / "tiny.checkpoint").write_bytes(NEWER)
    train("--resume", "--max-batches", 4)
    assert (here / "tiny.checkpoint.previous").read_bytes() == before


def test_a_new_run_keeps_the_good_one_before_one_that_cannot_be_read(here):
    train("--max-batches", 8, "--save-every", 3)
    good = (here / "tiny.checkpoint.previous").read_bytes()
    (here / "tiny.checkpoint").write_bytes((here / "tiny.checkpoint").read_bytes()[:500])
    train("--max-batches", 4)
    assert (here / "tiny_6.checkpoint").read_bytes() == good and (here / "tiny_unreadable.checkpoint").stat().st_size == 500


def test_a_new_one_that_cannot_be_read_does_not_take_the_place_of_a_good_one(here):
    train("--max-batches", 6, "--save-every", 3)
    good = (here / "tiny.checkpoint").read_bytes()
    (here / "tiny.checkpoint.new").write_bytes(NEWER)
    train("--resume", "--max-batches", 7)
    assert (here / "tiny.checkpoint.previous").read_bytes() == good
    assert (here / "tiny_unreadable.checkpoint").read_bytes() == NEWER


def test_what_came_under_the_other_name_meanwhile_is_not_replaced(here):
    train("--max-batches", 2)
    earlier = (here / "tiny_final.weights").read_bytes()
    # Written when the run has announced tiny_final.1.weights, and before it needs it.
    code = """if True:
        import sys
        from pathlib import Path
        from pydarknet.cli import main, run
        tell = run.tell
        def told(line):
            tell(line)
            if "are kept" in str(line):
                Path("backup/tiny_final.1.weights").write_text("precious")
        run.tell = told
        sys.exit(main(sys.argv[1:]))
    """
    words = ["train", "tiny.cfg", "text.bin", "--quiet", "--max-batches", "3"]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    assert (here / "tiny_final.1.weights").read_text() == "precious"
    assert (here / "tiny_final.1.1.weights").read_bytes() == earlier


def test_one_of_an_impossible_iteration_is_kept_too(here):
    train("--max-batches", 2)
    path = here / "tiny.checkpoint"
    earlier = read_checkpoint(path)
    write_checkpoint(path, replace(earlier, facts=earlier.facts | {"iteration": 10**300}))
    content = path.read_bytes()
    train("--max-batches", 3)
    assert (here / "tiny_unreadable.checkpoint").read_bytes() == content


def test_going_on_keeps_the_weights_of_an_earlier_run(here):
    """Those that the run itself did not come to: it ended before them, or had no held-out text."""
    held_out = ("--valid", write_text(here.parent, 300, "other.bin", seed=2), "--valid-every", 2)
    train("--max-batches", 6, "--save-every", 2, *held_out)
    earlier = bytes_of(here)
    train("--max-batches", 2, "--save-every", 2, "-srand", 2)
    result = train("--resume", "--max-batches", 6, "--save-every", 2, *held_out)
    for name in "tiny_4", "tiny_6", "tiny_best":
        assert f"{name}.weights as {name}.1.weights" in result.err
        assert (here / f"{name}.1.weights").read_bytes() == earlier[f"{name}.weights"]


def test_the_backup_of_an_earlier_run_is_kept_by_a_run_that_ends_before_its_own(here):
    train("--max-batches", 6, "--save-every", 3)
    earlier = (here / "tiny.backup").read_bytes()
    train("--max-batches", 2, "-srand", 2)
    train("--resume", "--max-batches", 6, "--save-every", 3)
    assert (here / "tiny.1.backup").read_bytes() == earlier and not (here / "tiny.2.backup").exists()


def test_weights_that_the_run_itself_wrote_before_it_was_killed_get_no_other_name(here):
    """Between them and the checkpoint, which stayed that of the iteration before."""
    train("--max-batches", 6, "--save-every", 2, "--backup", "whole")
    train("--max-batches", 2, "--save-every", 2)
    (here / "tiny_4.weights").write_bytes(Path("whole/tiny_4.weights").read_bytes())
    (here / "tiny_final.weights").write_bytes(Path("whole/tiny_final.weights").read_bytes())
    train("--resume", "--max-batches", 6, "--save-every", 2)
    assert bytes_of(here) == bytes_of("whole")


@pytest.mark.parametrize("gone", [False, True])
def test_the_one_that_a_run_begins_with_is_kept(here, gone):
    """Also the one before the newest, of which a new run has no use otherwise, and where it is the only one."""
    train("--max-batches", 6, "--save-every", 3)
    train("--resume", "--max-batches", 8)
    before = (here / "tiny.checkpoint.previous").read_bytes()
    if gone:
        (here / "tiny.checkpoint").unlink()
    words = ("train", "tiny.cfg", "backup/tiny.checkpoint.previous", "text.bin", "--quiet", "--max-batches", 12)
    result = run(*words, "--save-every", 3)
    assert result.code == 0 and "tiny.checkpoint.previous as tiny_6.checkpoint" in result.err, result
    assert (here / "tiny_6.checkpoint").read_bytes() == before


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_its_permissions_stay_as_they_are(here, mode):
    train("--max-batches", 2)
    os.chmod(here / "tiny.checkpoint", mode)
    train("--resume", "--max-batches", 3)
    assert stat.S_IMODE((here / "tiny.checkpoint").stat().st_mode) == mode
    assert stat.S_IMODE((here / "tiny.checkpoint.previous").stat().st_mode) == mode


def test_a_link_is_followed(here, tmp_path):
    train("--max-batches", 2)
    (tmp_path / "real").mkdir()
    (here / "tiny.checkpoint").rename(tmp_path / "real/c")
    (here / "tiny.checkpoint").symlink_to("../real/c")
    train("--resume", "--max-batches", 3)
    assert (here / "tiny.checkpoint").is_symlink()
    assert read_checkpoint(tmp_path / "real/c").facts["iteration"] == 3
    train("--resume", "--max-batches", 4)
    assert read_checkpoint(tmp_path / "real/c.previous").facts["iteration"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("filler", [b"[],", b"{},", b'"a",'])
def test_a_long_header_takes_no_memory(here, filler):
    here.mkdir()
    header = b'{"facts": {"a": [' + filler * ((32 << 20) // len(filler)) + b"0]}}"
    (here / "tiny.checkpoint").write_bytes(struct.pack("<8sII", b"PYDNCKPT", 1, len(header)) + header + bytes(16))
    told, kilobytes = refused_with_memory()
    assert f"and {LONGEST_HEADER:,} are the most" in told and kilobytes < 150_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_that_is_almost_all_holes_takes_no_memory(here):
    here.mkdir()
    with_holes(here / "tiny.checkpoint", 1 << 28)
    told, kilobytes = refused_with_memory()
    assert "does not agree with its checksum" in told and kilobytes < 150_000


def test_one_that_is_longer_than_the_memory_is_refused_before_it_is_read(here):
    here.mkdir()
    with_holes(here / "tiny.checkpoint", 1 << 42)
    told = train("--resume", code=1).err
    assert re.search(r"tiny.checkpoint: reading this checkpoint needs [\d,]{17} bytes of memory, and [\d,]+ can be had: ", told)


def with_holes(path, size):
    """Write what could be a checkpoint of ``size`` bytes of zeros, but for its checksum; on the disk it takes hardly any."""
    header = json.dumps({"facts": {}, "arrays": [["values", "<f4", [size // 4]]]}).encode()
    path.write_bytes(struct.pack("<8sII", b"PYDNCKPT", 1, len(header)) + header)
    os.truncate(path, 16 + len(header) + size + 16)


def refused_with_memory():
    """What ``train --resume`` says, in a process of its own, and the kilobytes of memory that it took."""
    code = """if True:
        import sys
        from pydarknet.cli import main
        code = main(sys.argv[1:])
        print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
        sys.exit(code)
    """
    words = ["train", "tiny.cfg", "text.bin", "--resume"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert found.returncode == 1
    return found.stderr, int(found.stdout.split()[1])


def test_a_header_that_is_too_long_for_a_checkpoint_is_told_in_a_line(here, tmp_path, monkeypatch):
    assert LONGEST_HEADER == 1 << 20
    monkeypatch.setattr("pydarknet.training.checkpoint.LONGEST_HEADER", 1000)
    layers = "[dropout]\nprobability=.00000000000000000000000000000000001\n" * 40
    (tmp_path / "tiny.cfg").write_text(cfg_text(f"{layers}[connected]\noutput=64\n[softmax]\n"))
    result = train("--max-batches", 1, code=1)
    assert result.err.endswith("1,000 are the most. Earlier files are as they were\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_iteration", 10**400),
        ("best_iteration", 10**200),
        ("best_iteration", 5),
        ("best_iteration", 1.0),
        ("best_iteration", None),
        ("best_iteration", 0),
        ("since_cut", 10**400),
        ("since_lowest", -1),
        ("rate_factor", 1e300),
        ("rate_factor", -0.5),
        ("rate_factor", 0.0),
        ("rate_factor", 0.3),
        ("rate_factor", 2.0**-5),
        ("rate_factor", True),
        ("best_loss", 10**400),
        ("best_loss", "1"),
        ("lowest_loss", -1.0),
        ("recent", [1.0] * 9),
        ("recent", [-1.0]),
    ],
)
def test_measurements_that_no_run_can_have(here, name, value):
    words = ("--valid-fraction", ".1", "--valid-every", "2")
    train("--max-batches", 4, *words)
    earlier = read_checkpoint(here / "tiny.checkpoint")
    facts = json.loads(json.dumps(earlier.facts))
    facts["validation"][name] = value
    write_checkpoint(here / "tiny.checkpoint", replace(earlier, facts=facts))
    result = train("--resume", "--max-batches", 5, *words, code=1)
    assert result.err == f"pydarknet: backup/tiny.checkpoint: has no usable {name!r} of its validation\n"


UNMEASURED = {"loss": 1.0, "rate": 0.1, "seconds": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("avg_loss", -1.7e308),
        ("avg_loss", 1.7e308),
        ("unmeasured", UNMEASURED | {"loss": -1.0}),
        ("unmeasured", UNMEASURED | {"loss": 1.7e308}),
        ("unmeasured", UNMEASURED | {"rate": -0.1}),
        ("unmeasured", UNMEASURED | {"seconds": -1e-9}),
    ],
)
def test_losses_that_no_run_can_have(here, name, value):
    train("--max-batches", 4)
    spoil(here / "tiny.checkpoint", **{name: value})
    assert train("--resume", "--max-batches", 5, code=1).err == f"pydarknet: backup/tiny.checkpoint: has no usable {name!r}\n"


def test_an_iteration_that_is_still_to_be_measured_has_an_average(here):
    train("--max-batches", 4)
    spoil(here / "tiny.checkpoint", avg_loss=None, unmeasured=UNMEASURED)
    result = train("--resume", "--max-batches", 5, code=1)
    assert result.err == "pydarknet: backup/tiny.checkpoint: has no usable 'unmeasured'\n"


def test_an_iteration_while_the_clock_stood_still_is_shown_on_a_terminal(here):
    train("--max-batches", 4)
    spoil(here / "tiny.checkpoint", unmeasured=UNMEASURED | {"seconds": 0.0})
    words = ("train", "tiny.cfg", "text.bin", "--resume", "--max-batches", 5)
    code, _, shown = shown_on_terminal(*words, cwd=here.parent)
    assert code == 0 and b"Traceback" not in shown, shown


def spoil(path, **facts):
    """Put other ``facts`` into the checkpoint at ``path``."""
    earlier = read_checkpoint(path)
    write_checkpoint(path, replace(earlier, facts=earlier.facts | facts))


def test_final_weights_that_could_not_be_written_are_written_by_going_on(here):
    train("--max-batches", 4, "--backup", "whole")
    (here / "tiny_final.weights").mkdir(parents=True)
    code = "from pydarknet.training import backups; backups.Backups._check = lambda self: None; " \
           "import sys; from pydarknet.cli import main; sys.exit(main(sys.argv[1:]))"  # fmt: skip
    words = ["train", "tiny.cfg", "text.bin", "-srand", "1", "--quiet", "--max-batches", "4"]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    told = found.stderr.splitlines()
    assert found.returncode == 1 and "tiny_final.weights: cannot save the weights" in told[-1]
    assert told[-2] == "pydarknet: saved backup/tiny.checkpoint after iteration 4; --resume goes on"
    (here / "tiny_final.weights").rmdir()
    result = train("--resume", "--max-batches", 4)
    assert b"Saved backup/tiny_final.weights" in result.out
    assert (here / "tiny_final.weights").read_bytes() == Path("whole/tiny_final.weights").read_bytes()
    assert "nothing to do" in train("--resume", "--max-batches", 4, code=1).err


def test_a_folder_that_is_taken_away_is_made_again(here):
    code = """if True:
        import shutil, sys
        from pydarknet.cli import main
        from pydarknet.training.backups import Backups
        begun, calls = Backups.begin, []
        def begin(self):
            begun(self)
            calls.append(1)
            if len(calls) == 1:
                shutil.rmtree("backup")
        Backups.begin = begin
        sys.exit(main(sys.argv[1:]))
    """
    words = ["train", "tiny.cfg", "text.bin", "--quiet", "--max-batches", "4", "--save-every", "3"]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    assert {"tiny_final.weights", "tiny_3.weights", "tiny.checkpoint"} <= set(os.listdir(here))
    train("--resume", "--max-batches", 6)


def test_the_newest_is_read_while_no_other_run_can_save(here, monkeypatch):
    """Else a run that just ends could save a newer one, which the run that goes on from the older would replace."""
    train("--max-batches", 2)
    read, others = newest_checkpoint, []

    def looked(*arguments):
        monkeypatch.setattr("pydarknet.cli.train.newest_checkpoint", read)
        others.append(train("--resume", "--max-batches", 9, code=1))
        return read(*arguments)

    monkeypatch.setattr("pydarknet.cli.train.newest_checkpoint", looked)
    train("--resume", "--max-batches", 4)
    assert "backup: another run is saving tiny.* in this folder" in others[0].err


def taking_the_folder_away_before_step(monkeypatch, number, then):
    """Patch the run that comes first: before that iteration its folder is removed, and ``then()`` happens."""
    step = Trainer.step

    def stepped(trainer):
        if trainer.iteration + 1 == number:
            monkeypatch.setattr(Trainer, "step", step)
            shutil.rmtree("backup")
            then()
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", stepped)


def test_a_folder_that_is_made_again_is_locked_again(here, monkeypatch):
    refused, save = [], Backups.save_final

    def looked(backups):
        monkeypatch.setattr(Backups, "save_final", save)
        refused.append(train("--max-batches", 2, code=1).err)
        return save(backups)

    monkeypatch.setattr(Backups, "save_final", looked)
    taking_the_folder_away_before_step(monkeypatch, 2, lambda: None)
    train("--max-batches", 4, "--save-every", 3)
    assert "another run is saving tiny.*" in refused[0]


@pytest.mark.parametrize("number", [2, 5])  # before the first checkpoint, and after it
def test_a_lock_that_is_taken_away_alone_is_made_again(here, monkeypatch, number):
    """The files beside it are the run's own still, and keep their names."""
    refused, step = [], Trainer.step
    words = ("--max-batches", 7, "--save-every", 3, "--valid-fraction", 0.1, "--valid-every", 1)
    train(*words)
    whole = bytes_of(here)
    shutil.rmtree(here)

    def stepped(trainer):
        if trainer.iteration + 1 == number:
            (here / ".tiny.lock").unlink()
        if trainer.iteration == 6:
            monkeypatch.setattr(Trainer, "step", step)
            refused.append(train("--max-batches", 2, code=1).err)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", stepped)
    result = train(*words)
    assert bytes_of(here) == whole and "another run is saving tiny.*" in refused[0] and "meanwhile" not in result.err


def test_a_resumed_run_does_not_call_its_own_files_anothers(here):
    """Best weights that its checkpoint does not know of, as after a kill between two saves."""
    train("--max-batches", 3, "--save-every", 3)
    (here / "tiny_final.weights").rename(here / "tiny_best.weights")
    result = train("--max-batches", 6, "--valid", "text.bin", "--resume")
    told = (
        "backup holds files that may be another run's; if they are, they are kept: tiny_best.weights as tiny_best.1.weights\n"
    )
    assert told in result.err


def test_a_folder_that_another_run_has_made_again_is_left_to_it(here, monkeypatch):
    locks = []

    def taken():
        here.mkdir()
        locks.append(Lock(here / ".tiny.lock"))

    taking_the_folder_away_before_step(monkeypatch, 2, taken)
    assert "another run is saving tiny.*" in train("--max-batches", 4, code=1).err and bytes_of(here) == {}
    locks[0].close()


def test_what_another_run_left_in_a_folder_that_was_taken_away_is_kept(here, monkeypatch):
    taking_the_folder_away_before_step(monkeypatch, 2, lambda: train("--max-batches", 3, "-srand", 2))
    told = "warning: backup: tiny.checkpoint, tiny_final.weights: made by another run meanwhile, and kept under other names\n"
    assert told in train("--max-batches", 6).err
    assert sorted(bytes_of(here)) == ["tiny.checkpoint", "tiny_3.checkpoint", "tiny_final.1.weights", "tiny_final.weights"]


@pytest.mark.parametrize("content", [None, NEWER])
def test_a_read_only_one_of_an_earlier_run(here, content):
    """It can be kept under another name, and the run's own can be replaced."""
    train("--max-batches", 6, "--save-every", 3)
    path = here / "tiny.checkpoint"
    if content:
        path.write_bytes(content)
    earlier = path.read_bytes()
    path.chmod(0o444)
    train("--max-batches", 9, "--save-every", 3, *(["--resume"] if content else []))
    assert read_checkpoint(path).facts["iteration"] == 9 and path.stat().st_mode & stat.S_IWUSR
    kept = here / ("tiny_unreadable.checkpoint" if content else "tiny_6.checkpoint")
    assert kept.read_bytes() == earlier and stat.S_IMODE(kept.stat().st_mode) == 0o444


def test_two_that_cannot_be_read_get_two_names(here):
    here.mkdir()
    (here / "tiny.checkpoint").write_bytes(b"one")
    (here / "tiny.checkpoint.previous").write_bytes(b"two")
    result = train("--max-batches", 1)
    assert "tiny.checkpoint as tiny_unreadable.checkpoint" in result.err
    assert "tiny.checkpoint.previous as tiny_unreadable.1.checkpoint" in result.err
    assert (here / "tiny_unreadable.checkpoint").read_bytes() == b"one"
    assert (here / "tiny_unreadable.1.checkpoint").read_bytes() == b"two"


def test_going_on_to_an_iteration_that_is_past_makes_no_final_weights(here):
    train("--max-batches", 8)
    (here / "tiny_final.weights").unlink()
    assert "8 iterations are done already and max_batches is 4" in train("--resume", "--max-batches", 4, code=1).err
    assert not (here / "tiny_final.weights").exists()


def test_a_cfg_that_is_not_of_the_run_is_kept_when_it_goes_on(here):
    train("--max-batches", 2)
    (here / "tiny.cfg").write_text("# my own\n")
    result = train("--resume", "--max-batches", 3, "--set", "net.max_batches=20")
    assert "tiny.cfg as tiny.1.cfg" in result.err and (here / "tiny.1.cfg").read_text() == "# my own\n"


def test_what_is_kept_beside_a_new_cfg_is_kept_together(here):
    """A run that ends before its first save leaves nothing of the one before that would go on beside another cfg."""
    train("--max-batches", 6, "--save-every", 3, "--set", "net.learning_rate=.1")
    earlier = bytes_of(here)
    code = "import os; from pydarknet.training.trainer import Trainer; Trainer.step = lambda self: os._exit(9); " \
           "import sys; from pydarknet.cli import main; sys.exit(main(sys.argv[1:]))"  # fmt: skip
    words = ["train", "tiny.cfg", "text.bin", "--quiet", "--set", "net.learning_rate=.2"]
    assert subprocess.run([sys.executable, "-c", code, *words], capture_output=True).returncode == 9
    left = bytes_of(here)
    assert left["tiny_6.checkpoint"] == earlier["tiny.checkpoint"] and left["tiny.1.cfg"] == earlier["tiny.cfg"]
    assert left["tiny_final.1.weights"] == earlier["tiny_final.weights"] and "tiny.checkpoint" not in left
    assert "there is no checkpoint to go on from" in train("--resume", code=1).err


@pytest.mark.parametrize("words", [(), ("--set", "lstm.output=8")])
def test_what_is_named_in_the_end_is_there(here, words):
    """Though the folder was taken away after the best measurement."""
    code = """if True:
        import shutil, sys
        from pydarknet.cli import main
        from pydarknet.training.trainer import Trainer
        step = Trainer.step
        def stepped(self):
            found = step(self)
            if found.iteration == 7:
                shutil.rmtree("backup")
            return found
        Trainer.step = stepped
        sys.exit(main(sys.argv[1:]))
    """
    Path("other.bin").write_bytes(bytes(range(40, 60)) * 20)  # what is learned of the text makes it worse here
    options = ["--max-batches", "9", "--valid", "other.bin", "--valid-every", "2", *words]
    words = ["train", "tiny.cfg", "text.bin", "-srand", "1", "--no-sample", *options]
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    told = dict(line.split(": ", 1) for line in found.stdout.splitlines() if ": " in line)
    _, _, cfg, weights, *_ = told["Write text"].split()
    assert os.path.isfile(cfg) and os.path.isfile(weights)
    best = told["Best on the held-out text"].partition(",")[0]
    assert best == "(its weights are gone)" or os.path.isfile(best)
    assert run(*told["Train on"].split()[1:], "--quiet").code == 0


def test_a_run_begun_from_one_tells_how_it_goes_on_and_leaves_the_log_of_the_first(here):
    train("--max-batches", 8, "--save-every", 3, "--log", "log.jsonl")
    before = Path("log.jsonl").read_text()
    words = ("-srand", "1", "--no-sample", "--print-every", "1000")
    begun = run("train", "tiny.cfg", "backup/tiny.checkpoint.previous", "text.bin", *words, "--backup", "b",
                "--max-batches", "7", "--log", "log.jsonl")  # fmt: skip
    assert begun.code == 0 and Path("log.jsonl").read_text().startswith(before), "all lines of the first run"
    weights = run("train", "tiny.cfg", "backup/tiny_final.weights", "text.bin", *words, "--backup", "c", "-clear",
                  "--dialect", "pjreddie", "--max-batches", "7")  # fmt: skip
    for result in begun, weights:
        line = result.out.decode().partition("Train on:   ")[2]
        again = run(*line.split()[1:])
        assert again.code == 0, (line, again)


def once(monkeypatch, owner, name, fails):
    """Let ``owner.name`` raise what ``fails(*arguments)`` gives, the first time that it gives something."""
    real, done = getattr(owner, name), []

    def patched(*arguments, **options):
        error = None if done else fails(*arguments)
        if error:
            done.append(error)
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, patched)
    return done


def refused(path):
    return WeightsError(f"{path}: cannot save the weights: Permission denied")


FAULTS = {
    "the best weights": (Backups, "_save_weights", lambda self, path: path == self.best and refused(path)),
    "weights along the way": (Backups, "_save_weights", lambda self, path: path.name == "tiny_4.weights" and refused(path)),
    "a line of the log": (
        JsonLog,
        "_put",
        lambda self, lines: '"iteration": 3,' in lines[0] and TrainingError("the disk is full"),
    ),
    "a sample": (Samples, "after", lambda self, step, measured: step.iteration == 5 and TextError("no words")),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("held_out", [True, False])
def test_what_could_not_be_written_once_is_written_by_going_on(here, monkeypatch, fault, held_out):
    """Going on after an error, a run leaves what it would have left without, the log included."""
    if fault == "the best weights" and not held_out:
        pytest.skip("there are none")
    words = [
        *("--valid-fraction", ".2", "--valid-every", "2") * held_out,
        "--save-every",
        2,
        "--max-batches",
        6,
        "--sample-every",
        1,
    ]
    train(*words, "--backup", "whole", "--log", "whole.jsonl")
    owner, name, fails = FAULTS[fault]
    done = once(monkeypatch, owner, name, fails)
    result = train(*words, "--log", "log.jsonl", code=1)
    assert done and "; --resume goes on\n" in result.err
    train(*words, "--resume", "--log", "log.jsonl")
    left, expected = bytes_of(here), bytes_of(here.parent / "whole")
    del left["tiny.checkpoint.previous"], expected["tiny.checkpoint.previous"]  # that of the error is beside the others
    assert left == expected
    of_time = ("time", "seconds", "command", "started")
    found, expected = (
        [
            {key: value for key, value in json.loads(line).items() if key not in of_time}
            for line in Path(log).read_text().splitlines()
        ]
        for log in ("log.jsonl", "whole.jsonl")
    )
    assert found == expected


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_beside_a_save_leaves_no_hole_in_the_log(here, moment):
    code = """if True:
        import os, sys
        from pydarknet.cli import main
        from pydarknet.training.backups import Backups
        real, moment = Backups.save, sys.argv[1]
        def save(self):
            if moment == "after":
                real(self)
            if self.trainer.iteration == 4:
                os._exit(9)
            return real(self)
        Backups.save = save
        sys.exit(main(sys.argv[2:]))
    """
    words = [
        "train",
        "tiny.cfg",
        "text.bin",
        "-srand",
        "1",
        "--quiet",
        "--save-every",
        "2",
        "--max-batches",
        "6",
        "--log",
        "log.jsonl",
    ]
    assert subprocess.run([sys.executable, "-c", code, moment, *words]).returncode == 9
    train("--resume", "--save-every", 2, "--max-batches", 6, "--log", "log.jsonl")
    records = map(json.loads, Path("log.jsonl").read_text().splitlines())
    assert [record["iteration"] for record in records if "avg_loss" in record] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("save_every", [2, 100])
def test_a_save_that_fails_after_an_error_is_told_with_what_is_lost(here, monkeypatch, save_every):
    once(monkeypatch, Trainer, "_iterate", lambda self: self.iteration == 3 and TextError("text.bin: gone"))
    once(
        monkeypatch,
        Backups,
        "_save_checkpoint",
        lambda self: self.trainer.iteration == 3 and CheckpointError("a: the disk is full"),
    )
    result = train("--save-every", save_every, "--max-batches", 6, code=1)
    what = "--resume goes on after iteration 2" if save_every == 2 else "there is no checkpoint to go on from"
    told = ["a: the disk is full", f"not saved after iteration 3; {what}", "text.bin: gone"]
    assert result.err.splitlines() == [f"pydarknet: {line}" for line in told]


def test_a_run_that_went_on_tells_where_the_next_does(here, monkeypatch):
    train("--max-batches", 3)
    once(monkeypatch, Backups, "_save_checkpoint", lambda self: CheckpointError("a: the disk is full"))
    told = train("--resume", "--max-batches", 5, code=1).err.splitlines()
    assert told[-2:] == [
        "pydarknet: not saved after iteration 5; --resume goes on after iteration 3",
        "pydarknet: a: the disk is full",
    ]


def test_a_folder_that_became_a_link_to_itself_is_named(here, monkeypatch):
    def leave(self, step):
        if step.iteration == 2:
            here.rename(here.with_name("elsewhere"))
            here.symlink_to(here.name)

    once(monkeypatch, Backups, "after", leave)
    result = train("--save-every", 3, "--max-batches", 6, code=1)
    assert "pydarknet: backup: cannot save weights in this folder: Too many levels of symbolic links\n" in result.err
    assert "pydarknet: not saved after iteration 3; there is no checkpoint to go on from\n" in result.err


@pytest.mark.parametrize("resume", [True, False])
def test_one_before_the_newest_that_cannot_be_read_is_kept(here, resume):
    train("--max-batches", 6, "--save-every", 3)
    (here / "tiny.checkpoint.previous").write_bytes(NEWER)
    result = train("--max-batches", 9, "--save-every", 3, *["--resume"] * resume)
    assert "tiny.checkpoint.previous as tiny_unreadable.checkpoint" in result.err and "another run's" not in result.err
    assert (here / "tiny_unreadable.checkpoint").read_bytes() == NEWER
    assert read_checkpoint(here / "tiny.checkpoint.previous").facts["iteration"] == 6
