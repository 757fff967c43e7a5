"""The files of a text: found in order, kept open within bounds, parsed as tokens, and every way they can disappoint."""

import bz2
import gzip
import lzma
import os
import pickle
import resource
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydarknet.errors import TextError
from pydarknet.text import stores
from pydarknet.text import tokens as token_files
from pydarknet.text.corpus import Corpus
from pydarknet.text.tokens import read_token_file, read_tokens

ON_DISK = {"in_memory": 0}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Finding files


def test_a_folder_is_walked_in_order_without_hidden_or_empty_files(tmp_path):
    for name in ("b", "a", "sub/z", "sub/.hidden", ".git/config", "sub/deep/c", "Z"):
        write(tmp_path / "text" / name, f"<{name}>".encode())
    write(tmp_path / "text" / "empty", b"")
    text = Corpus.open([tmp_path / "text"])
    assert bytes(text.symbols(0, len(text)).astype(np.uint8)) == b"<Z><a><b><sub/z><sub/deep/c>"
    assert [os.path.basename(name) for name in text.names] == ["Z", "a", "b", "z", "c"]
    assert len(Corpus.open([str(tmp_path / "text" / ".git"), tmp_path / "text" / "empty"])) == 13  # asked for by name


def test_the_order_is_not_that_of_the_disk(tmp_path, monkeypatch):
    walk, names = os.walk, [f"{number:02}" for number in range(12)]

    def backwards(*arguments, **options):
        for parent, folders, files in walk(*arguments, **options):
            folders.sort(reverse=True)
            files.sort(reverse=True)
            yield parent, folders, files

    for name in names:
        write(tmp_path / "text" / f"folder {name}" / f"file {name}", f"<in {name}>".encode())
        write(tmp_path / "text" / f"file {name}", f"<{name}>".encode())
    monkeypatch.setattr(os, "walk", backwards)
    text = Corpus.open(tmp_path / "text")
    expected = "".join(f"<{name}>" for name in names) + "".join(f"<in {name}>" for name in names)
    assert bytes(text.symbols(0, len(text)).astype(np.uint8)).decode() == expected


@pytest.mark.parametrize("tokenized", [False, True])
def test_links_loops_and_pipes(tmp_path, tokenized):
    folder = tmp_path / "text"
    write(folder / "a", b"1 2 ")
    write(folder / "sub" / "b", b"3 4 ")
    write(tmp_path / "outside", b"5 6 ")
    (folder / "sub" / "up").symlink_to(folder)  # a circle
    (folder / "again").symlink_to(folder / "a")
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "self").symlink_to(folder / "self")
    (folder / "link").symlink_to(tmp_path / "outside")
    os.link(folder / "a", folder / "hard")
    os.mkfifo(folder / "pipe")
    text = Corpus.open([folder, folder / "a", folder / "sub"], tokenized)
    assert text.symbols(0, 20)[: len(text)].tolist() == ([1, 2, 5, 6, 3, 4] if tokenized else list(b"1 2 5 6 3 4 "))
    with pytest.raises(TextError, match="pipe: neither a file nor a folder"):
        Corpus.open(folder / "pipe")


@pytest.mark.parametrize("tokenized", [False, True])
def test_texts_that_cannot_be_used(tmp_path, tokenized):
    write(tmp_path / "folder" / ".hidden", b"1 2")
    write(tmp_path / "folder" / "empty", b"")
    cases = {
        "missing": "missing: cannot read this text: No such file",
        "folder": "folder: there is no text in this folder",
        "folder/empty": "empty: the text is empty",
        "nul\0": "cannot read this text: .*null",
    }
    for name, message in cases.items():
        with pytest.raises(TextError, match=message) as caught:
            Corpus.open(tmp_path / name, tokenized)
        assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    with pytest.raises(TextError, match="one: the text is only one (byte|token): there is nothing to predict"):
        Corpus.open(write(tmp_path / "one", b"7"), tokenized)
    with pytest.raises(TextError, match="no path given"):
        Corpus.open([], tokenized)


@pytest.mark.parametrize("tokenized", [False, True])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, tokenized):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "secret", b"1 2")  # chmod would not stop a test that runs as root
    monkeypatch.setattr("builtins.open" if tokenized else "os.open", refuse)
    with pytest.raises(TextError, match="secret: cannot read this text: Permission denied"):
        Corpus.open(path, tokenized)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    write(tmp_path / "text" / "a", b"abc"), write(tmp_path / "text" / "closed" / "b", b"def")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(TextError, match="/closed: cannot read this text: Permission denied"):
        Corpus.open(tmp_path / "text")


def test_a_name_with_odd_characters_stays_on_one_line(tmp_path):
    with pytest.raises(TextError) as caught:
        Corpus.open(tmp_path / "a\nb\udcff")
    assert r"a\nb" in str(caught.value) and str(caught.value).isprintable()


def test_an_empty_text_names_the_first_paths(tmp_path):
    paths = [write(tmp_path / name, b"") for name in "abcd"]
    for count, shown in ((1, "a"), (3, "a, .*b, .*c"), (4, "a, .*b, .*c, ...")):
        with pytest.raises(TextError, match=f"^[^,]*{shown}: the text is empty; give a text of at least two bytes$"):
            Corpus.open(paths[:count])


# What is no text

WEIGHTS = struct.pack("<3iQ8f", 0, 2, 0, 7, *range(8))
CHECKPOINT = b"PYDNCKPT" + bytes(99)


@pytest.mark.parametrize("tokenized", [False, True])
def test_a_folder_of_texts_passes_over_what_pydarknet_wrote(tmp_path, tokenized):
    folder = tmp_path / "text"
    write(folder / "a", b"1 2 "), write(folder / "c", b"3 4 ")
    write(folder / "b", WEIGHTS)
    with pytest.warns(UserWarning, match="text/b: skipped, as it belongs to a network and is no text$"):
        text = Corpus.open(folder, tokenized)
    assert text.symbols(0, len(text)).tolist() == ([1, 2, 3, 4] if tokenized else list(b"1 2 3 4 "))
    for more in (1, 2):
        write(folder / f"b{more}", CHECKPOINT)
        with pytest.warns(UserWarning, match=f"text/b and {more} more: skipped"):
            assert len(Corpus.open(folder, tokenized)) == len(text)


@pytest.mark.parametrize("tokenized", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WEIGHTS, "is a Darknet weights file, not a text: it belongs before the texts, or after --weights"),
        (CHECKPOINT, "is a checkpoint of pydarknet, not a text: it belongs before the texts, or use --resume"),
        (b"%PDF-1.7", "is a PDF, not a text: give the text that is in it"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, tokenized, content, message):
    with pytest.raises(TextError, match=f"/one: {message}"):
        Corpus.open([write(tmp_path / "text", b"1 2"), write(tmp_path / "one", content)], tokenized)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "a saved web page; it is read as it stands"),
        (b"[net]\ninputs=3\n", "a Darknet cfg; it is read as it stands"),
        (b'{"iteration": 1, "loss": 2}\n', "a training log of pydarknet; it is read as it stands"),
        (b"1 " * 30, "a file of token numbers: without -tokenized it is read as digits"),
    ],
)
def test_a_file_that_may_be_no_text_is_read_with_a_warning(tmp_path, content, message):
    with pytest.warns(UserWarning, match=f"/one: looks like {message}"):
        text = Corpus.open(write(tmp_path / "one", content))
    assert bytes(text.symbols(0, len(text)).astype(np.uint8)) == content


def test_token_numbers_are_expected_of_a_token_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Corpus.open(write(tmp_path / "one", b"1 " * 30), tokenized=True)) == 30


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_is_read_as_what_is_in_it(tmp_path, compress):
    paths = [write(tmp_path / "a", compress(b"abc" * 99)), write(tmp_path / "b", b"de")]
    text = Corpus.open(paths)
    assert bytes(text.symbols(0, len(text)).astype(np.uint8)) == b"abc" * 99 + b"de"
    assert (text.locate(296), text.locate(298)) == (f"{paths[0]}: byte 296", f"{paths[1]}: byte 1")
    alone = Corpus.open(paths[0])
    assert (len(alone), alone.names) == (297, [str(paths[0])])
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    with pytest.raises(TextError, match=r"/a: is compressed with \w+, and damaged: "):
        Corpus.open(paths)


def test_a_file_that_only_begins_as_if_it_were_compressed(tmp_path):
    message = "/a: cannot read this text: Unknown compression method; check the name and its permissions$"
    with pytest.raises(TextError, match=message):
        Corpus.open(write(tmp_path / "a", b"\x1f\x8b" + bytes(99)))


# Large texts


def test_more_files_than_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "_descriptor_limit", lambda: 3)
    for i in range(20):
        write(tmp_path / f"{i:02}", bytes([i]) * 10)
    text = Corpus.open(tmp_path, **ON_DISK)
    np.testing.assert_array_equal(text.gather(np.arange(0, 200, 10), 9)[0], np.arange(20))
    assert len(text._store._descriptors) == 3
    write(tmp_path / "x", b"z" * 10).replace(tmp_path / "00")  # closed by now, so the old one is out of reach
    with pytest.raises(TextError, match="00: another file has taken its place"):
        text.symbols(0, 1)


@pytest.mark.parametrize(("allowed", "kept"), [(1, 1), (64, 32), (1023, 511), (1 << 20, 512), (resource.RLIM_INFINITY, 512)])
def test_half_of_the_files_that_may_be_open_is_left_to_others(monkeypatch, allowed, kept):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: {resource.RLIMIT_NOFILE: (allowed, 1 << 20)}[kind])
    assert stores._descriptor_limit() == kept


def test_a_copy_in_another_process_opens_its_own_files(tmp_path):
    text = Corpus.open(write(tmp_path / "a", b"abc"), **ON_DISK)
    copy = pickle.loads(pickle.dumps(text))
    text.close()
    assert copy._store._descriptors == {} and copy.symbols(0, 3).tolist() == list(b"abc")
    copy.close()


def test_a_closed_text_is_opened_again_when_it_is_read(tmp_path):
    text = Corpus.open(write(tmp_path / "a", b"abcd"), **ON_DISK)
    descriptor = next(iter(text._store._descriptors.values()))
    text.close()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    assert text.symbols(0, 2).tolist() == list(b"ab")


def test_a_system_that_reads_less_than_it_is_asked_for(tmp_path, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, count, at: pread(descriptor, min(count, 3), at))
    text = Corpus.open(write(tmp_path / "a", b"0123456789"), **ON_DISK)
    assert bytes(text.symbols(1, 8).astype(np.uint8)) == b"12345678"


def test_a_text_as_large_as_may_be_is_in_memory(tmp_path):
    path = write(tmp_path / "a", b"abcdef")
    small, large = Corpus.open(path, in_memory=6), Corpus.open(path, in_memory=5)
    path.write_bytes(b"abc")
    assert len(small.symbols(0, 6)) == 6
    with pytest.raises(TextError, match="shrunk"):
        large.symbols(0, 6)


def test_descriptors_are_closed_with_the_last_part(tmp_path):
    valid = Corpus.open(write(tmp_path / "a", b"abcd"), **ON_DISK).split(0.5)[1]
    descriptor = next(iter(valid._store._descriptors.values()))
    os.fstat(descriptor)
    del valid
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_five_gigabytes_need_little_memory(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(5 << 30)
        file.seek((5 << 30) - 3)
        file.write(b"end")
    if path.stat().st_blocks * 512 > 100 << 20:
        path.unlink()
        pytest.skip("this file system has no sparse files")
    # 2000 calls of 64 streams touch 128,000 pages all over the file: 4 GB if it were mapped.
    script = """if True:
        import resource, sys
        import numpy as np
        from pydarknet.text.corpus import Corpus
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        text = Corpus.open(sys.argv[1])
        assert len(text) == 5 << 30
        assert text.gather([len(text) - 3], 3)[:, 0].tolist() == [*b"end", 0]
        rng = np.random.default_rng(0)
        for _ in range(2000):
            assert text.gather(rng.integers(0, len(text) - 99, 64), 64).max() == 0
        text.digest(); text.split(0.1)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> (20 if sys.platform == "darwin" else 10))
    """
    found = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 50, "MB"  # measured: 1 or 2


# Tokens


@given(tokens=st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=40), data=st.data(), block=st.integers(1, 40))
def test_token_files_at_any_block_size(tmp_path_factory, tokens, data, block):
    blanks = st.text(" \t\n\v\f\r", min_size=1, max_size=3)
    words = [data.draw(blanks) + str(token) for token in tokens]
    path = tmp_path_factory.mktemp("tokens") / "t"
    path.write_bytes("".join([*words, data.draw(st.sampled_from(["", "\n"]))]).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_files, "_TOKEN_BLOCK", block)
        text = Corpus.open(path, tokenized=True)
    assert text.symbols(0, len(text)).tolist() == tokens
    assert text.max_symbol == max(tokens)


def test_token_files_are_joined_and_checked_against_the_network(tmp_path):
    paths = [write(tmp_path / "a", b"1 20\n300"), write(tmp_path / "b", b" \n"), write(tmp_path / "c", b"007 5\r\n")]
    text = Corpus.open(paths, tokenized=True)
    np.testing.assert_array_equal(text.gather([0, 3], 6).T, [[1, 20, 300, 7, 5, 1, 20], [7, 5, 1, 20, 300, 7, 5]])
    with pytest.raises(TextError, match="a: token 2: symbol 300 is out of range"):
        text.gather([0, 3], 6, vocabulary=300)
    assert text.locate(3).endswith("c: token 0")
    assert Corpus.open(paths[::2], tokenized=True).symbols(0, 5).tolist() == [1, 20, 300, 7, 5]
    alone = Corpus.open(paths[0], tokenized=True)
    assert (alone.names, alone.locate(2)) == ([str(paths[0])], f"{paths[0]}: token 2")


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
@pytest.mark.parametrize(
    ("data", "line", "word"),
    [
        (b"1 2\n3 x1 4\n", 2, "'x1'"),
        (b"1 2\n3\n12a", 3, "'12a'"),
        (b"-5", 1, "'-5'"),
        (b"1\n2.5 3", 2, "'2.5'"),
        (b"1\n\n2147483648 x", 3, "'2147483648'"),
        (b"1 99999999999999999999999", 1, r"'9+'"),
        (b"1 21474836470 2", 1, "'21474836470'"),
        (b"\nx", 2, "'x'"),
        (b"1 \x00", 1, r"'\\x00'"),
        (b"7\n\xff\xfe8", 2, r"'\\xff\\xfe8?'"),
        (b"1 2\n" + b"y" * 100_000, 2, "'y+'"),
    ],
)
def test_words_that_are_not_tokens(tmp_path, monkeypatch, block, data, line, word):
    monkeypatch.setattr(token_files, "_TOKEN_BLOCK", block)
    path = write(tmp_path / "t", data)
    with pytest.raises(TextError, match=rf"t:{line}: {word} is not a token \(a whole number") as caught:
        Corpus.open(path, tokenized=True)
    assert len(str(caught.value)) < 200 + len(str(path))


def test_every_byte_is_a_digit_a_blank_or_refused(tmp_path):
    refused = []
    for byte in range(256):
        path = write(tmp_path / "t", b"1" + bytes([byte]) + b"2")
        try:
            assert read_token_file(path).tolist() == ([1, 2] if byte in b" \t\n\v\f\r" else [int(path.read_text())])
        except TextError:
            refused.append(byte)
    assert refused == [byte for byte in range(256) if byte not in b"0123456789 \t\n\v\f\r"]


@pytest.mark.parametrize("read", [read_tokens, read_token_file])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, read):
    plain, marked = write(tmp_path / "plain", b"12\n3\n"), write(tmp_path / "marked", b"\xef\xbb\xbf12\n3\n")
    assert list(read(marked)) == list(read(plain))


@pytest.mark.parametrize("read", [read_tokens, read_token_file])
def test_files_that_are_not_there(tmp_path, read):
    message = "missing: cannot read this text: No such file or directory; check the name and its permissions$"
    with pytest.raises(TextError, match=message):
        read(tmp_path / "missing")


def test_vocabulary(tmp_path):
    path = write(tmp_path / "v", b"the\n<NEWLINE>\n\n caf\xc3\xa9 \n\\n\nlast")
    assert read_tokens(path) == [b"the", b"\n", b"", b" caf\xc3\xa9 ", b"\\n", b"last"]
    assert read_tokens(write(tmp_path / "w", b"a\r\n<NEWLINE>\r\n")) == [b"a", b"\n"]
    assert read_tokens(write(tmp_path / "w", b"a\n\r\n")) == [b"a", b"\r"]
    for name, message in (("missing", "cannot read"), (".", "cannot read"), ("empty", "empty; it needs one token")):
        write(tmp_path / "empty", b"")
        with pytest.raises(TextError, match=message):
            read_tokens(tmp_path / name)
