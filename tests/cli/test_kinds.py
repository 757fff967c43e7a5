"""What is a text and what is not, by content: weights, checkpoints, archives, tokens, and folders that hold backups."""

import bz2
import gzip
import lzma
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from runs import bytes_of

from pydarknet import Corpus
from pydarknet.errors import TextError
from pydarknet.system.kinds import kind_of
from pydarknet.text import stores

QUIET = ("--max-batches", 4, "--quiet")


@pytest.fixture
def here(here):
    """The folder with a trained backup/ in it."""
    result = run("train", "tiny.cfg", "text.bin", *QUIET, "--srand", 1, "--log", "run.jsonl", "--valid-fraction", 0.1)
    assert result.code == 0, result
    return here


def refused(*arguments, says):
    before = bytes_of("."), bytes_of("backup")
    result = run(*arguments)
    assert (result.code, result.err.count("\n"), result.out) == (1, 1, b""), result
    assert says in result.err, result.err
    assert (bytes_of("."), bytes_of("backup")) == before


@pytest.mark.parametrize("name", ["tiny_final.weights", "tiny_best.weights", "tiny.checkpoint"])
@pytest.mark.parametrize("as_name", ["same", "notes.txt"])
def test_weights_and_checkpoints_are_no_text_wherever_they_stand(here, name, as_name):
    file = Path("backup", name)
    if as_name != "same":
        file = shutil.copy(file, as_name)
    kind = "a checkpoint of pydarknet" if "checkpoint" in name else "a Darknet weights file"
    refused("train", "tiny.cfg", "text.bin", file, says=f"{file}: is {kind}, not a text: it belongs before the texts, or ")
    refused("train", "tiny.cfg", "text.bin", "--valid", file, says=f"{file}: is {kind}, not a text")
    refused("valid", "tiny.cfg", "backup/tiny_final.weights", file, says=f"{file}: is {kind}, not a text")


def test_the_first_path_is_known_by_its_content(here):
    """Weights and checkpoints under any name are what to start from."""
    shutil.copy("backup/tiny_final.weights", "old.bin")
    result = run("train", "tiny.cfg", "old.bin", "text.bin", "--max-batches", 6, "--backup", "b")
    assert result.code == 0 and result.err.startswith("5: ")
    shutil.copy("backup/tiny.checkpoint", "stopped")
    result = run("train", "tiny.cfg", "stopped", "text.bin", "--valid-fraction", 0.1, "--max-batches", 6, "--backup", "c")
    assert result.code == 0 and "going on from stopped after iteration 4" in result.err


def test_a_folder_of_texts_may_hold_the_backups_of_a_training(here):
    """Trained twice in it: what pydarknet wrote is never learned."""
    os.mkdir("texts")
    shutil.move("text.bin", "texts/a.txt")
    shutil.move("backup", "texts/backup")
    shutil.move("run.jsonl", "texts/run.jsonl")
    shutil.copy("texts/backup/tiny_final.weights", "texts/renamed.txt")
    with pytest.warns(UserWarning, match=r"texts/renamed.txt and \d more: skipped, as it belongs to a network"):
        assert len(Corpus.open("texts")) == 3000
    os.chdir("texts")
    result = run("train", "../tiny.cfg", ".", *QUIET, "--valid-fraction", 0.1, "--resume")
    assert "nothing to do" in result.err  # the same text as before: only this stops it
    result = run("train", "../tiny.cfg", ".", "--max-batches", 6, "--quiet", "--valid-fraction", 0.1, "--resume")
    assert result.code == 0, result


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")])
def test_compressed_texts_are_read(here, compress, suffix):
    text = Path("text.bin").read_bytes()
    Path(f"text.{suffix}").write_bytes(compress(text))
    corpus = Corpus.open([f"text.{suffix}", "text.bin"])
    assert len(corpus) == 6000 and bytes(corpus.symbols(0, 3000).astype(np.uint8)) == text
    assert corpus.locate(3001) == "text.bin: byte 1"
    assert run("train", "tiny.cfg", f"text.{suffix}", *QUIET, "--backup", "b").code == 0
    Path(f"cut.{suffix}").write_bytes(compress(text)[:-20])
    with pytest.raises(TextError, match=rf"cut.{suffix}: is compressed with \w+, and damaged"):
        Corpus.open(f"cut.{suffix}")


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")])
def test_a_compressed_text_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch, compress, suffix):
    path = tmp_path / f"text.{suffix}"
    path.write_bytes(compress(bytes(32 << 20)))
    monkeypatch.setattr(stores, "memory_at_hand", lambda: 4 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(TextError, match=f"text.{suffix}: takes more than 2,097,152 bytes unpacked, too much"):
            Corpus.open(path)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(stores, "memory_at_hand", lambda: 64 << 20)
    assert len(Corpus.open(path)) == 32 << 20
    (tmp_path / "plain.txt").write_bytes(b"more")
    with pytest.raises(TextError, match=f"text.{suffix}: takes more than 33,554,432 bytes unpacked with the files before it"):
        Corpus.open([tmp_path / "plain.txt", path])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04" + bytes(99), "a zip archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd"),
        (b"%PDF-1.7\n" + bytes(99), "a PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a git-lfs pointer"),
    ],
)
def test_what_holds_no_text_is_named(here, content, kind):
    Path("book.txt").write_bytes(content)
    refused("train", "tiny.cfg", "book.txt", says=f"book.txt: is {kind}")


def test_token_numbers_without_the_option(here):
    Path("tokens.txt").write_text(" ".join(str(n % 64) for n in range(200)))
    result = run("train", "tiny.cfg", "tokens.txt", *QUIET, "--backup", "b")
    assert "warning: tokens.txt: looks like a file of token numbers: without -tokenized it is read as digits" in result.err
    assert run("train", "tiny.cfg", "tokens.txt", "-tokenized", *QUIET, "--backup", "c").err == ""


def test_blanks_by_the_thousand_take_no_time():
    head = b"1 " * 20 + b" " * 30000 + b"total"
    begun = time.process_time()
    assert kind_of(head) is None
    assert time.process_time() - begun < 0.5


def test_a_byte_order_mark_in_token_files(here):
    Path("tokens.txt").write_bytes(b"\xef\xbb\xbf" + b"1 2 3 " * 50)
    assert Corpus.open("tokens.txt", tokenized=True).symbols(0, 3).tolist() == [1, 2, 3]
    from pydarknet.text.tokens import read_tokens

    Path("names.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read_tokens("names.txt") == [b"one", b"two"]


@pytest.mark.parametrize("path", ["/dev/zero", "fifo"])
def test_a_vocabulary_without_an_end_is_refused(here, path):
    if path == "fifo":
        os.mkfifo(path)
    refused(
        "generate",
        "tiny.cfg",
        "backup/tiny_final.weights",
        "-tokens",
        path,
        says="a folder, pipe or device, not a regular file",
    )
