"""The files of a text: found in order, kept open within bounds, parsed as tokens, and every way they can disappoint."""

import os
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydarknet.errors import TextError
from pydarknet.text import stores
from pydarknet.text import tokens as token_files
from pydarknet.text.corpus import Corpus
from pydarknet.text.tokens import read_tokens

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


def test_a_name_with_odd_characters_stays_on_one_line(tmp_path):
    with pytest.raises(TextError) as caught:
        Corpus.open(tmp_path / "a\nb\udcff")
    assert r"a\nb" in str(caught.value) and str(caught.value).isprintable()


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


def test_vocabulary(tmp_path):
    path = write(tmp_path / "v", b"the\n<NEWLINE>\n\n caf\xc3\xa9 \n\\n\nlast")
    assert read_tokens(path) == [b"the", b"\n", b"", b" caf\xc3\xa9 ", b"\\n", b"last"]
    assert read_tokens(write(tmp_path / "w", b"a\r\n<NEWLINE>\r\n")) == [b"a", b"\n"]
    assert read_tokens(write(tmp_path / "w", b"a\n\r\n")) == [b"a", b"\r"]
    for name, message in (("missing", "cannot read"), (".", "cannot read"), ("empty", "empty; it needs one token")):
        write(tmp_path / "empty", b"")
        with pytest.raises(TextError, match=message):
            read_tokens(tmp_path / name)
