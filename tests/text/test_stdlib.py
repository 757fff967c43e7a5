"""The text of Python's standard library: what is taken, and what is not touched."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from places import ROOT
from runs import environment

from pydarknet.text.stdlib import MARK, build


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_it_joins_and_leaves_out(tmp_path):
    library = tmp_path / "lib"
    for name, data in {
        "b.py": b"b = 1\r\nb += 1",
        "a/c.py": b"c = '\xff'\n",
        "empty.py": b"",
        "a/test/t.py": b"no",
        "site-packages/s.py": b"no",
        "_sysconfigdata_x.py": b"no",
        "config-3/x.py": b"no",
        "encodings/cp1.py": b"no",
        "notes.txt": b"no",
    }.items():
        write(library / name, data)
    output = tmp_path / "new" / "out.txt"
    assert build(output, library=library) == (output.stat().st_size, 3)
    head, text = output.read_bytes().split(b"\n", 1)
    assert head.startswith(MARK)
    assert text == b"c = '\xff'\nb = 1\nb += 1\n"
    assert build(output, max_bytes=80, library=library)[0] == 80  # its own output may be replaced
    assert list(output.parent.iterdir()) == [output]


def test_no_other_file_is_replaced(tmp_path):
    mine = write(tmp_path / "mine.txt", b"a novel")
    result = run("corpus", "stdlib", mine)
    assert result.code == 1 and "mine.txt: already exists, and this command did not make it" in result.err
    assert mine.read_bytes() == b"a novel"
    result = run("corpus", "stdlib", tmp_path, "--overwrite")
    assert result.code == 1 and f"{tmp_path}: is no regular file: give another name" in result.err
    assert run("corpus", "stdlib", tmp_path, "--overwrite").code == 1
    assert run("corpus", "stdlib", mine, "--overwrite", "--max-bytes", 5000).code == 0
    assert mine.stat().st_size == 5000


def test_without_a_library(tmp_path):
    from pydarknet.errors import TextError

    with pytest.raises(TextError, match=r"no Python source here \(it may be in a zip file"):
        build(tmp_path / "out", library=tmp_path / "python311.zip")
    assert not (tmp_path / "out").exists()


def test_of_this_python(tmp_path):
    size, count = build(tmp_path / "stdlib.txt")
    if count < 400:
        pytest.skip("this Python does not have the whole standard library in source")
    assert 8e6 < size < 12e6
    text = (tmp_path / "stdlib.txt").read_bytes()
    assert b"\r" not in text and text.count(b"    def ") > 5000


def test_the_script_beside_the_data(tmp_path):
    """It works in a clone, with nothing installed and from any folder."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "build_stdlib_corpus.py").write_bytes((ROOT / "data" / "build_stdlib_corpus.py").read_bytes())
    (tmp_path / "pydarknet").symlink_to(ROOT / "pydarknet")
    command = [sys.executable, str(data / "build_stdlib_corpus.py"), "--max-bytes", "2000"]
    result = subprocess.run(command, cwd="/", env=environment(), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and Path(data / "stdlib.txt").stat().st_size == 2000, result
