"""Files that are whole or as they were, names that are free, and outputs that are no inputs."""

import errno
import os
import stat
import sys

import pytest
from command_line import make_network

from pydarknet.errors import InputError, TextError
from pydarknet.system import files
from pydarknet.system.files import (
    check_output,
    check_outside,
    check_writable,
    free_name,
    open_regular,
    reported,
    show,
    write_atomically,
)


def test_a_tool_does_not_write_over_what_it_reads(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "link.weights").symlink_to(weights)
    (tmp_path / "hard.weights").hardlink_to(weights)
    check_output(tmp_path / "new.weights", [cfg, weights])
    for out in (weights, cfg, tmp_path / "link.weights", tmp_path / "hard.weights", tmp_path / "." / "net.weights"):
        with pytest.raises(InputError, match="the output is another file of the same command"):
            check_output(out, [cfg, weights])


def test_an_output_in_a_current_folder_that_has_been_deleted(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = "^x: cannot be found: No such file or directory: is the current folder still there\\?$"
    for check in (lambda: check_output("x", ["/y"]), lambda: check_output("/y", ["x"]), lambda: check_outside("x", [tmp_path])):
        with pytest.raises(InputError, match=said):
            check()


def test_an_output_in_a_folder_that_is_read(tmp_path):
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    out = tmp_path / "texts" / "deep" / "out.txt"
    check_output(out, [tmp_path / "texts"])  # it is not there, so it is no text
    out.write_text("a text")
    with pytest.raises(InputError, match="out.txt: the output is a file of the folder .*texts, which is read"):
        check_output(out, [tmp_path / "texts"])

    for free in (tmp_path / "out.txt", tmp_path / "texts 2" / "out.txt"):  # beside it, under whatever name
        free.parent.mkdir(exist_ok=True)
        free.write_text("of an earlier time")
        check_output(free, [tmp_path / "texts"])


def test_an_output_that_is_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_text("a text")
    (tmp_path / "other").write_text("a text")
    with open(path) as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(InputError, match="text: the output is standard input: give it another name"):
            check_output(path, [])
        check_output(tmp_path / "other", [])
        check_output(tmp_path / "new", [])
    with open(os.devnull) as file:
        monkeypatch.setattr(sys, "stdin", file)
        check_output(os.devnull, [])  # nothing is lost


def test_free_names(tmp_path):
    path = tmp_path / "a_final.weights"
    assert free_name(path) == path
    path.touch()
    assert free_name(path) == tmp_path / "a_final.1.weights"
    (tmp_path / "a_final.1.weights").symlink_to("nowhere")
    assert free_name(path) == tmp_path / "a_final.2.weights"


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(TextError, match=": cannot read: a folder, pipe or device, not a regular file; so there"):
            with reported(TextError, path, "cannot read", "; so there"), open_regular(path):
                pass


def test_an_error_of_ours_is_left_as_it_is(tmp_path):
    with pytest.raises(InputError, match="^mine$"), reported(TextError, tmp_path, "cannot read"):
        raise InputError("mine")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_temporary_file_is_never_more_open_than_its_target(tmp_path, mode):
    path, seen = tmp_path / "secret", []
    path.write_bytes(b"old")
    path.chmod(mode)

    def chunks():
        yield b"new"
        (temporary,) = tmp_path.glob(".pydarknet-*.tmp")
        seen.append(stat.S_IMODE(temporary.stat().st_mode))

    write_atomically(path, chunks())
    assert seen == [0o600] and stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == b"new"


@pytest.mark.parametrize(("mask", "mode"), [(0, 0o666), (0o002, 0o664), (0o077, 0o600)])
def test_a_new_file_is_as_open_as_the_mask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", [b"new"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_file_system_that_keeps_no_modes(tmp_path, monkeypatch):
    def chmod(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "chmod", chmod)
    write_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync(tmp_path, monkeypatch, number, passes):
    def fsync(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fsync)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    if passes:
        write_atomically(path, [b"new"])
    else:
        with pytest.raises(OSError, match="Input/output error"):
            write_atomically(path, [b"new"])
    assert path.read_bytes() == (b"new" if passes else b"old")
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_known_before(tmp_path):
    path = tmp_path / "file"
    check_writable(path)
    path.write_bytes(b"")
    check_writable(path)
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        check_writable(path)
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)


@pytest.mark.parametrize("lacking", [os.W_OK, os.X_OK])
def test_a_folder_that_takes_no_new_file(tmp_path, monkeypatch, lacking):
    monkeypatch.setattr(files.os, "access", lambda path, mode: not mode & lacking)  # chmod would not stop root
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "new")


def test_a_path_as_a_message_can_hold_it():
    names = {"été 1.txt": "été 1.txt", "a\nb": r"a\nb", "b\udcff": r"b\udcff", b"caf\xc3\xa9": "café"}
    assert [show(name) for name in names] == list(names.values())
