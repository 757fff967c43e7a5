"""What a stranger gets: recipes by name far from the clone, and a distribution that is whole."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from command_line import run
from places import ROOT
from runs import environment, write_text

from pydarknet.darknet import recipes
from pydarknet.darknet.cfg import parse_cfg


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.names() == sorted(path.name for path in (ROOT / "cfg").glob("*.cfg"))
    for name in ("rnn.cfg", "rnn"):
        assert parse_cfg(name).net.integer("inputs") == 256
    result = run("ops", "gru-2min")
    assert result.code == 0 and b"gru" in result.out
    write_text(tmp_path, 4000, "text.txt")
    assert run("train", "rnn.cfg", "text.txt", "--max-batches", 1, "--quiet").code == 0
    assert (tmp_path / "backup" / "rnn_final.weights").exists()


def test_a_file_of_that_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rnn.cfg").write_text("[net]\ninputs=7\n")
    assert parse_cfg("rnn.cfg").net.integer("inputs") == 7


@pytest.mark.parametrize("name", ["none.cfg", "./rnn.cfg", "some/rnn.cfg", "..", "x" * 5000])
def test_no_other_name_is_a_recipe(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    result = run("ops", name)
    assert result.code == 1 and result.err.count("\n") == 1


def test_an_unknown_recipe_lists_those_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "take a recipe of pydarknet: equal-gru.cfg, " in run("ops", "none.cfg").err


def test_the_page_of_the_package_index_has_no_relative_links():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / settings["readme"]).read_text()
    assert "](" not in page and "<img" not in page


def test_every_room_is_in_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "pydarknet").rglob("__init__.py")}
    assert {*settings["packages"]} == rooms | {"pydarknet.recipes"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_and_source_distribution(tmp_path):
    """Both are built; the wheel, installed elsewhere, trains, chooses a network, and writes; the sources pass theirs."""

    def do(*words, cwd=tmp_path, **variables):
        plain = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
        result = subprocess.run(words, cwd=cwd, env={**plain, **variables}, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    do(sys.executable, "-m", "venv", tmp_path / "build")
    build = tmp_path / "build" / "bin" / "python"
    do(build, "-m", "pip", "install", "-q", "build", "twine")
    do(build, "-m", "build", "--outdir", tmp_path / "dist", ROOT)
    do(build, "-m", "twine", "check", "--strict", *(tmp_path / "dist").iterdir())
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    held = zipfile.ZipFile(wheel).namelist()
    assert {"pydarknet/py.typed", "pydarknet/recipes/rnn.cfg", "pydarknet/text/stdlib.py"} <= {*held}

    do(sys.executable, "-m", "venv", tmp_path / "use")
    do(tmp_path / "use" / "bin" / "python", "-m", "pip", "install", "-q", wheel)
    pydarknet = tmp_path / "use" / "bin" / "pydarknet"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    do(pydarknet, "corpus", "stdlib", "stdlib.txt", cwd=elsewhere)
    do(pydarknet, "train", "rnn.cfg", "stdlib.txt", "--max-batches", "20", cwd=elsewhere)
    assert do(pydarknet, "generate", "rnn.cfg", "backup/rnn_final.weights", "-len", "50", "-seed", "def ", cwd=elsewhere)
    do(pydarknet, "new", "my.cfg", "--text", "stdlib.txt", "--minutes", ".2", "--set", "gru.output=70", cwd=elsewhere)
    assert "\noutput=70\n" in (elsewhere / "my.cfg").read_text()
    words = ("--minutes", ".2", "--set", "net.max_batches=3", "--name", "run7")
    do(pydarknet, "train", "stdlib.txt", *words, cwd=elsewhere)
    assert do(pydarknet, "generate", "backup/run7.cfg", "backup/run7_final.weights", "-len", "50", cwd=elsewhere)

    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    do(tmp_path / "use" / "bin" / "python", "-m", "pip", "install", "-q", f"{source}[test]")
    do(tmp_path / "use" / "bin" / "python", "-m", "pytest", "-q", "tests/test_docs.py", "tests/test_recipes.py", cwd=source)
