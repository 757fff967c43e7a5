"""The files of a run: names, what is there at any moment, and what a fault leaves."""

import errno
import os
import re
import time

import numpy as np
import pytest
from runs import bytes_of, make_trainer, text

from pydarknet.darknet.weights import read_header
from pydarknet.errors import CheckpointError, PydarknetError, TrainingError, WeightsError
from pydarknet.system.files import show
from pydarknet.system.locks import Lock
from pydarknet.text.corpus import Corpus
from pydarknet.training import backups as backups_module
from pydarknet.training.backups import Backups, base_name, newest_checkpoint
from pydarknet.training.checkpoint import read_checkpoint
from pydarknet.training.validation import Validation


def train(trainer, folder, every=None, resumed=False, stop=None):
    with Backups(trainer, folder, every, resumed) as backups:
        for step in trainer.run():
            backups.after(step)
            if step.iteration == stop:
                return backups.save()
        return backups.save_final()


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


@pytest.mark.parametrize(("path", "base"), [("cfg/rnn.cfg", "rnn"), ("/a.b/rnn.train.cfg", "rnn"), ("rnn", "rnn")])
def test_base_is_darknets(path, base):
    assert base_name(path) == base


def test_names(tmp_path):
    trainer = make_trainer(
        tmp_path, max_batches=10, validation=lambda network: Validation(network, Corpus.from_symbols(text(100)), every=2)
    )
    assert train(trainer, tmp_path / "new" / "folder", every=4) == tmp_path / "new" / "folder" / "tiny_final.weights"
    assert names(tmp_path / "new" / "folder") == [
        "tiny.backup",
        "tiny.checkpoint",
        "tiny.checkpoint.previous",
        "tiny_4.weights",
        "tiny_8.weights",
        "tiny_best.weights",
        "tiny_final.weights",
    ]
    assert read_checkpoint(tmp_path / "new" / "folder" / "tiny.checkpoint").facts["iteration"] == 10
    assert read_checkpoint(tmp_path / "new" / "folder" / "tiny.checkpoint.previous").facts["iteration"] == 8


def test_darknets_intervals(tmp_path, monkeypatch):
    backups = Backups(make_trainer(tmp_path), tmp_path)
    assert (backups.backup_every, backups.keep_every) == (100, 10000)
    backups.backup_every, backups.keep_every = 3, 6
    for step in backups.trainer.run():
        backups.after(step)
        if step.iteration == 7:
            break
    assert names(tmp_path) == ["tiny.backup", "tiny.cfg", "tiny.checkpoint", "tiny.checkpoint.previous", "tiny_6.weights"]


def test_best_weights_are_those_of_the_best_measurement(tmp_path):
    trainer = make_trainer(
        tmp_path, max_batches=8, validation=lambda network: Validation(network, Corpus.from_symbols(text(100)), every=2)
    )
    losses = iter([3, 2, 2.5, 4])
    trainer.validation.measure = lambda interrupted: next(losses)
    values = {}
    with Backups(trainer, tmp_path) as backups:
        for step in trainer.run():
            backups.after(step)
            values[step.iteration] = trainer.network.parameters.values.copy()
    trainer.network.load_weights(tmp_path / "tiny_best.weights")
    np.testing.assert_array_equal(trainer.network.parameters.values, values[4])


# Going on


def test_the_best_weights_are_there_before_the_checkpoint_that_knows_of_them(tmp_path, monkeypatch):
    write, known = backups_module.write_checkpoint, []

    def looked(path, checkpoint, mode_of=None):
        best = checkpoint.facts["validation"]["best_iteration"]
        header = read_header(tmp_path / "tiny_best.weights")
        assert header.seen == best * trainer.samples
        known.append(best)
        write(path, checkpoint, mode_of)

    monkeypatch.setattr(backups_module, "write_checkpoint", looked)
    held_out = lambda network: Validation(network, Corpus.from_symbols(text(500)), every=1)  # noqa: E731
    trainer = make_trainer(tmp_path, validation=held_out, max_batches=20)
    with Backups(trainer, tmp_path, every=1) as backups:
        for step in trainer.run():
            backups.after(step)
    assert len(known) == 20 and len(set(known)) > 3


def test_the_newest_good_one(tmp_path):
    train(make_trainer(tmp_path, max_batches=6), tmp_path, every=2)
    warned = []
    newest = newest_checkpoint(tmp_path, "tiny", warned.append)
    assert newest.facts["iteration"] == 6 and not warned
    damaged = bytearray((tmp_path / "tiny.checkpoint").read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "tiny.checkpoint").write_bytes(damaged)
    newest = newest_checkpoint(tmp_path, "tiny", warned.append)
    assert newest.path.endswith("tiny.checkpoint.previous") and newest.facts["iteration"] == 4
    assert len(warned) == 1 and "tiny.checkpoint: the checkpoint is damaged" in warned[0]
    (tmp_path / "tiny.checkpoint.previous").write_bytes(b"")
    with pytest.raises(CheckpointError, match="previous: is no checkpoint"):
        newest_checkpoint(tmp_path, "tiny", warned.append)
    with pytest.raises(CheckpointError, match="tiny.checkpoint: there is no checkpoint to go on from"):
        newest_checkpoint(tmp_path / "elsewhere", "tiny", warned.append)


def test_only_the_oldest_is_not_passed_over(tmp_path):
    train(make_trainer(tmp_path, max_batches=6), tmp_path, every=2)
    newest = tmp_path / "tiny.checkpoint"
    backups_module._new(newest).write_bytes(b"damaged")
    newest.write_bytes(b"damaged")
    warned = []
    assert newest_checkpoint(tmp_path, "tiny", warned.append).facts["iteration"] == 4
    assert ["tiny.checkpoint.new: is no" in warned[0], "tiny.checkpoint: is no" in warned[1]] == [True, True]
    for path in (backups_module._new(newest), backups_module._previous(newest)):
        path.unlink()
    with pytest.raises(CheckpointError, match="tiny.checkpoint: is no checkpoint"):
        newest_checkpoint(tmp_path, "tiny", pytest.fail)


def test_an_earlier_run_that_was_killed_between_two_renames_is_kept_too(tmp_path):
    train(make_trainer(tmp_path, max_batches=30), tmp_path, every=10, stop=17)
    earlier = (tmp_path / "tiny.checkpoint").read_bytes()
    (tmp_path / "tiny.checkpoint").rename(tmp_path / "tiny.checkpoint.new")
    train(make_trainer(tmp_path, srand=8, max_batches=5), tmp_path)
    assert (tmp_path / "tiny_17.checkpoint").read_bytes() == earlier


@pytest.mark.parametrize("killed_at", range(3))
def test_a_good_one_is_there_between_any_two_renames(tmp_path, monkeypatch, killed_at):
    class Killed(BaseException):
        pass

    trainer = make_trainer(tmp_path, max_batches=9)
    replace, calls = os.replace, []

    def counted(*arguments):
        if os.fspath(arguments[1]).find(".checkpoint") > 0:
            if len(calls) == killed_at:
                raise Killed
            calls.append(arguments)
        replace(*arguments)

    with Backups(trainer, tmp_path) as backups:
        iterations = []
        for iteration in (1, 2, 3):
            trainer.step()
            if iteration == 3:
                monkeypatch.setattr(os, "replace", counted)
                with pytest.raises(Killed):
                    backups.save()
            else:
                backups.save()
        iterations.append(newest_checkpoint(tmp_path, "tiny", pytest.fail).facts["iteration"])
        # Killed before the new one has its first name, the one before counts; then the new one does.
        assert iterations == [2 if killed_at == 0 else 3]
        monkeypatch.setattr(os, "replace", replace)
        trainer.step()
        backups.save()
    assert newest_checkpoint(tmp_path, "tiny", pytest.fail).facts["iteration"] == 4


def test_a_new_run_keeps_the_checkpoint_of_an_earlier_one(tmp_path):
    train(make_trainer(tmp_path, max_batches=30), tmp_path, every=10, stop=17)
    earlier = (tmp_path / "tiny.checkpoint").read_bytes()
    trainer = make_trainer(tmp_path, srand=8, max_batches=5)
    with Backups(trainer, tmp_path) as backups:
        assert backups.kept[tmp_path / "tiny.checkpoint"] == tmp_path / "tiny_17.checkpoint"
        trainer.step()
        assert (tmp_path / "tiny.checkpoint").read_bytes() == earlier  # nothing happens before there is something new
        backups.save()
        # One of the earlier run's would be taken for this run's, if the new one were damaged.
        assert not (tmp_path / "tiny.checkpoint.previous").exists()
        trainer.step()
        backups.save()
    assert (tmp_path / "tiny_17.checkpoint").read_bytes() == earlier
    assert read_checkpoint(tmp_path / "tiny.checkpoint").facts["iteration"] == 2
    assert read_checkpoint(tmp_path / "tiny.checkpoint.previous").facts["iteration"] == 1
    # A run that goes on with it has nothing to keep.
    trainer.restore(read_checkpoint(tmp_path / "tiny.checkpoint"))
    assert Backups(trainer, tmp_path, resumed=True).kept == {}


# What an earlier run left

LEFT = ("tiny.backup", "tiny.checkpoint", "tiny_final.weights", "tiny_best.weights", "tiny_4.weights", "tiny_8.weights")


def leave(folder):
    """What an earlier run left, and what this one will not write; each file holds its name."""
    folder.mkdir()
    for name in (*LEFT, "tiny_2.weights", "tiny_5.weights", "tiny_10.weights", "tiny_04.weights", "other_4.weights"):
        (folder / name).write_text(name)


def at_iteration_2(folder, **options):
    trainer = make_trainer(folder, max_batches=8, **options)
    for _ in range(2):
        trainer.step()
    return trainer


def held_out(network):
    return Validation(network, Corpus.from_symbols(text(100)), every=2)


def test_every_file_that_a_new_run_replaces_is_kept_and_no_other(tmp_path):
    folder = tmp_path / "backup"
    leave(folder)
    with Backups(at_iteration_2(tmp_path, validation=held_out), folder, every=2) as backups:
        kept = backups.kept.copy()
        assert {path.name: name.name for path, name in kept.items()} == {
            "tiny.backup": "tiny.1.backup",
            "tiny.checkpoint": "tiny_unreadable.checkpoint",
            "tiny_final.weights": "tiny_final.1.weights",
            "tiny_best.weights": "tiny_best.1.weights",
            "tiny_4.weights": "tiny_4.1.weights",
            "tiny_8.weights": "tiny_8.1.weights",
        }
        for step in backups.trainer.run():
            backups.after(step)
        backups.save_final()
    for path, name in kept.items():
        assert name.read_text() == path.name and path.read_bytes() != name.read_bytes()
    assert (folder / "tiny_2.weights").read_text() == "tiny_2.weights"


def test_without_a_held_out_text_the_best_weights_stay_where_they_are(tmp_path):
    leave(tmp_path / "backup")
    with Backups(at_iteration_2(tmp_path), tmp_path / "backup") as backups:
        assert tmp_path / "backup" / "tiny_best.weights" not in backups.kept


def test_overwriting_keeps_nothing(tmp_path):
    leave(tmp_path / "backup")
    with Backups(at_iteration_2(tmp_path), tmp_path / "backup", overwrite=True) as backups:
        assert backups.kept == {}


def test_a_run_that_goes_on_keeps_the_end_that_it_had(tmp_path):
    folder = tmp_path / "backup"
    train(make_trainer(tmp_path, max_batches=3), folder)
    before = (folder / "tiny_final.weights").read_bytes()
    trainer = make_trainer(tmp_path, max_batches=5)
    trainer.restore(read_checkpoint(folder / "tiny.checkpoint"))
    train(trainer, folder, resumed=True)
    assert names(folder) == ["tiny.checkpoint", "tiny.checkpoint.previous", "tiny_final.1.weights", "tiny_final.weights"]
    assert (folder / "tiny_final.1.weights").read_bytes() == before
    assert read_header(folder / "tiny_final.weights").seen == 5 * trainer.samples


def test_a_file_that_cannot_be_kept_is_not_replaced(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    leave(tmp_path / "backup")
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "rename", refused)
    with Backups(at_iteration_2(tmp_path), tmp_path / "backup") as backups:
        for _ in range(2):  # the second is that of a run that saves what it has after the first has failed
            with pytest.raises(TrainingError, match=r"/tiny\..*: cannot keep this file of an earlier run as .*: Operation not"):
                backups.save()
    for name in "tiny.backup", "tiny.checkpoint":
        assert (tmp_path / "backup" / name).read_text() == name


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_name_that_was_free_and_is_no_more(tmp_path, monkeypatch, hard_links):
    def refused(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    leave(tmp_path / "backup")
    if not hard_links:
        monkeypatch.setattr(os, "link", refused)
    with Backups(at_iteration_2(tmp_path), tmp_path / "backup") as backups:
        (tmp_path / "backup" / "tiny.1.backup").mkdir()
        backups.save()
    assert (tmp_path / "backup" / "tiny.1.1.backup").read_text() == "tiny.backup"


CFG = "[net]\n# \xe9 and a stray byte: \udcff\n"


def with_cfg(folder, cfg_text):
    """Begin a run that brings its own cfg; the files of the folder, and what was kept."""
    with Backups(make_trainer(folder), folder / "backup", cfg_text=cfg_text) as backups:
        kept = {path.name: name.name for path, name in backups.kept.items()}
        backups.begin()
        return bytes_of(folder / "backup"), kept


def test_a_cfg_of_its_own_stands_beside_the_weights(tmp_path):
    first, second = CFG.encode("utf-8", "surrogateescape"), b"[net]\n"
    assert with_cfg(tmp_path, None) == ({}, {})
    assert with_cfg(tmp_path, CFG) == ({"tiny.cfg": first}, {})
    assert with_cfg(tmp_path, CFG) == ({"tiny.cfg": first}, {})  # the same: no file of another run
    assert with_cfg(tmp_path, "[net]\n") == ({"tiny.cfg": second, "tiny.1.cfg": first}, {"tiny.cfg": "tiny.1.cfg"})
    assert with_cfg(tmp_path, None)[1] == {}  # it will not be written, so it stays


def test_a_cfg_that_cannot_be_saved(tmp_path):
    with Backups(make_trainer(tmp_path), tmp_path / "backup", cfg_text=CFG) as backups:
        backups.cfg.mkdir()
        with pytest.raises(TrainingError, match="tiny.cfg: cannot save the cfg: Is a directory"):
            backups.begin()


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that not even root can read")
def test_a_cfg_that_cannot_be_read(tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "tiny.cfg").symlink_to("/proc/self/mem")
    with pytest.raises(TrainingError, match="tiny.cfg: cannot read this cfg: Input/output error"):
        Backups(make_trainer(tmp_path), tmp_path / "backup", cfg_text=CFG)


# Faults


@pytest.mark.parametrize(
    "name", ["tiny.backup", "tiny.checkpoint.previous", "tiny_final.weights", "tiny_best.weights", "tiny.cfg", "tiny_4.weights"]
)
def test_what_could_not_be_written_is_told_before_the_training(tmp_path, name):
    (tmp_path / "backup" / name).mkdir(parents=True)
    trainer = make_trainer(tmp_path, validation=held_out, max_batches=8)
    with pytest.raises(
        TrainingError, match=f"/{name}: cannot be written: Is a directory; choose another folder with --backup DIR$"
    ):
        Backups(trainer, tmp_path / "backup", every=2, cfg_text=CFG)


def test_a_file_that_may_not_be_written_does_not_matter_when_it_is_kept(tmp_path):
    leave(tmp_path / "backup")
    (tmp_path / "backup" / "tiny.backup").chmod(0o444)
    with Backups(at_iteration_2(tmp_path), tmp_path / "backup"):
        pass
    with pytest.raises(TrainingError, match="tiny.backup: cannot be written: Permission denied"):
        Backups(at_iteration_2(tmp_path), tmp_path / "backup", overwrite=True)


def test_two_runs_in_a_folder(tmp_path):
    trainer = make_trainer(tmp_path)
    with Backups(trainer, tmp_path):
        with pytest.raises(TrainingError, match=r"another run is saving tiny.\* in this folder"):
            Backups(trainer, tmp_path)
        trainer.network.cfg.path = "other.cfg"
        with Backups(trainer, tmp_path):  # another name is kept apart
            pass
    trainer.network.cfg.path = "tiny.cfg"
    with Backups(trainer, tmp_path):  # and the lock goes with its owner
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    Lock(tmp_path / "lock").close()


def test_folders_that_cannot_be(tmp_path):
    trainer = make_trainer(tmp_path)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", "/proc/none", "a\0b"):
        message = f"^{re.escape(show(folder))}: cannot save weights in this folder: .*; choose another with --backup DIR$"
        with pytest.raises(TrainingError, match=message):
            Backups(trainer, folder)
    (tmp_path / "open" / ".tiny.lock").mkdir(parents=True)  # when it is the lock that stands in the way, it is named
    with pytest.raises(TrainingError, match="/open/.tiny.lock: cannot save weights in this folder: Is a directory"):
        Backups(trainer, tmp_path / "open")
    if os.geteuid():  # nothing is forbidden to root
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(TrainingError, match="cannot save weights in this folder: Permission denied"):
            Backups(trainer, tmp_path / "closed")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    """One of mode 333; root may list even that."""

    def refused(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    trainer = make_trainer(tmp_path)
    monkeypatch.setattr(type(tmp_path), "iterdir", refused)
    message = f"^{re.escape(show(tmp_path))}: cannot list this folder: Permission denied; choose another with --backup DIR$"
    with pytest.raises(TrainingError, match=message):
        Backups(trainer, tmp_path)


@pytest.mark.parametrize("after", range(8))
def test_a_full_disk_at_any_point_of_a_save(tmp_path, monkeypatch, after):
    """The ``after``-th write or rename of a save fails: a clear error, and every file is an old one or a new one."""
    trainer = make_trainer(tmp_path)
    trainer.step()
    with Backups(trainer, tmp_path) as backups:
        backups.save()
        before = bytes_of(tmp_path)
        trainer.step()
        calls = []

        def failing(real):
            def call(*arguments, **options):
                calls.append(real)
                if len(calls) > after:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync))
            patch.setattr(os, "replace", failing(os.replace))
            try:
                backups.save()
            except PydarknetError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
                assert isinstance(error, (WeightsError, CheckpointError))
            else:
                assert len(calls) <= after + 2  # the folder's own fsync may fail unsaid
        found = bytes_of(tmp_path)
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
        if found["tiny.backup"] != before["tiny.backup"]:
            trainer.network.load_weights(tmp_path / "tiny.backup")
            assert trainer.iteration == 2
        newest = newest_checkpoint(tmp_path, "tiny", pytest.fail)
        assert newest.facts["iteration"] in (1, 2)


def test_parameters_that_are_not_finite_replace_nothing(tmp_path):
    trainer = make_trainer(tmp_path)
    step = trainer.step()
    with Backups(trainer, tmp_path, every=1) as backups:
        backups.save()
        before = bytes_of(tmp_path)
        trainer.network.parameters.values[5] = np.inf
        for save in (backups.save, backups.save_final, lambda: backups.after(step)):
            with pytest.raises(TrainingError, match="iteration 1: the parameters are not finite: training has diverged"):
                save()
    assert bytes_of(tmp_path) == before


def test_what_a_killed_process_left_is_swept_in_time(tmp_path):
    old, new = (tmp_path / f".pydarknet-{digit * 16}.tmp" for digit in "0f")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - backups_module.FORGOTTEN - 5,) * 2)
    others = [tmp_path / name for name in ("notes.tmp", ".hidden.tmp", ".pydarknet-notes.tmp", old.name[1:], f"{old.name}.txt")]
    for path in others:
        path.write_bytes(b"precious")
        os.utime(path, (0, 0))
    for n in range(1, 21):  # what cannot be looked at keeps none of the others
        (tmp_path / f".pydarknet-{n:016x}.tmp").symlink_to("nowhere")
    Backups(make_trainer(tmp_path), tmp_path)
    assert not old.exists() and new.exists()  # the new one may be another run's, being written
    assert all(path.read_bytes() == b"precious" for path in others)
