"""Files that are whole or as they were, names that are free, and outputs that are no inputs."""

import errno
import os
import stat

import pytest
from command_line import make_network

from pydarknet.errors import InputError, TextError
from pydarknet.system import files
from pydarknet.system.files import check_output, check_writable, free_name, open_regular, reported, write_atomically


def test_a_tool_does_not_write_over_what_it_reads(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "link.weights").symlink_to(weights)
    (tmp_path / "hard.weights").hardlink_to(weights)
    check_output(tmp_path / "new.weights", [cfg, weights])
    for out in (weights, cfg, tmp_path / "link.weights", tmp_path / "hard.weights", tmp_path / "." / "net.weights"):
        with pytest.raises(InputError, match="the output is another file of the same command"):
            check_output(out, [cfg, weights])


def test_an_output_in_a_folder_that_is_read(tmp_path):
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    out = tmp_path / "texts" / "deep" / "out.txt"
    check_output(out, [tmp_path / "texts"])  # it is not there, so it is no text
    out.write_text("a text")
    with pytest.raises(InputError, match="out.txt: the output is a file of the folder .*texts, which is read"):
        check_output(out, [tmp_path / "texts"])


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
