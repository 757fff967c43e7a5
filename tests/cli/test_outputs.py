"""Which files a command changes: its outputs, and nothing else."""

import pytest
from command_line import make_network, run
from runs import write_cfg, write_text

from pydarknet.cli import COMMANDS
from pydarknet.darknet import recipes

LINES = {  # of every command: words, and what it writes
    "corpus": ("stdlib out.txt --max-bytes 5000", {"out.txt"}),
    "new": ("new.cfg --text text.bin --minutes .1", {"new.cfg"}),
    "train": ("tiny.cfg text.bin --log log.jsonl", {"backup", "log.jsonl"}),
    "generate": ("net.cfg net.weights -len 20 --seed-file proof.txt", set()),
    "generatetactic": ("net.cfg net.weights proof.txt -len 20", set()),
    "valid": ("net.cfg net.weights proof.txt other --per-character each.txt", {"each.txt"}),
    "validtactic": ("net.cfg net.weights proof.txt", set()),
    "plot": ("run.jsonl", set()),
    "report": ("run.jsonl -o page.html", {"page.html"}),
    "compose": ("net.cfg net.weights -seed a", set()),
    "look": ("net.cfg net.weights proof.txt --html page.html", {"page.html"}),
    "score": ("net.cfg net.weights proof.txt --html page.html", {"page.html"}),
    "vec": ("net.cfg net.weights proof.txt", set()),
    "average": ("net.cfg out.weights net.weights net.weights", {"out.weights"}),
    "convert": ("net.cfg net.weights out.weights --to alexeyab", {"out.weights"}),
    "denormalize": ("net.cfg net.weights out.weights --cfg-out out.cfg", {"out.weights", "out.cfg"}),
    "ops": ("net.cfg", set()),
    "partial": ("net.cfg net.weights out.weights 1", {"out.weights"}),
    "statistics": ("net.cfg net.weights", set()),
    "export": ("net.cfg net.weights out.safetensors", {"out.safetensors"}),
    "import": ("model.safetensors out.cfg out.weights", {"out.cfg", "out.weights"}),
    "rnn": ("valid net.cfg net.weights", set()),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_network(tmp_path)
    write_cfg(tmp_path, max_batches=2), write_text(tmp_path)
    (tmp_path / "proof.txt").write_bytes(b"goal >>intros.\n")
    (tmp_path / "run.jsonl").write_text('{"iteration": 1, "loss": 2.5}\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text.txt").write_bytes(b"more text\n")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_command_is_forgotten():
    assert {*COMMANDS} <= {*LINES}


@pytest.mark.parametrize("command", LINES)
def test_a_command_writes_its_outputs_and_changes_nothing_else(folder, command):
    words, outputs = LINES[command]
    if "safetensors" in words:
        pytest.importorskip("safetensors", reason="needs safetensors: pip install '.[safetensors]'")
        run("export", "net.cfg", "net.weights", "model.safetensors", "--overwrite")
    before = files(folder)
    result = run(command, *words.split(), stdin=b"goal >>intros.\n")
    assert result.code == 0, result
    after = files(folder)
    assert {path: after.get(path) for path in before} == before
    assert {path.relative_to(folder).parts[0] for path in after if path not in before} == outputs


@pytest.mark.parametrize("command", [name for name, (_, outputs) in LINES.items() if outputs and name != "train"])
def test_no_output_is_an_input_through_whatever_name(folder, command):
    """Each input, as it is and through a link, in the place of each output."""
    words, outputs = LINES[command]
    inputs = sorted({word for word in words.split() if (folder / word).is_file()})
    for name in inputs:
        (folder / f"link-{name}").symlink_to(name)
        (folder / f"hard-{name}").hardlink_to(folder / name)
    before = files(folder)
    for output in outputs:
        for path in [*inputs, *(kind + name for kind in ("link-", "hard-", "./") for name in inputs), "other/text.txt"]:
            if path == "other/text.txt" and command != "valid":
                continue
            result = run(command, *(path if word == output else word for word in words.split()))
            assert (result.code, result.out) == (1, b"") and result.err.count("\n") == 1, (path, result)
            assert files(folder) == before, path


@pytest.mark.parametrize("command", [name for name, (words, outputs) in LINES.items() if outputs and "net.cfg" in words])
def test_no_output_is_the_recipe_that_is_read_by_its_name(folder, command, monkeypatch):
    words, outputs = LINES[command]
    recipe = folder / "recipes" / "net.cfg"
    recipe.parent.mkdir()
    (folder / "net.cfg").rename(recipe)
    monkeypatch.setattr(recipes, "FOLDERS", (recipe.parent,))
    before = files(folder)
    for output in outputs:
        result = run(command, *("recipes/net.cfg" if word == output else word for word in words.split()))
        assert result.code == 1 and result.err.count("\n") == 1 and "recipes/net.cfg: " in result.err, result
        assert files(folder) == before


def test_no_backup_replaces_the_recipe_that_is_read_by_its_name(folder, monkeypatch):
    recipe = folder / "recipes" / "net.cfg"
    recipe.parent.mkdir()
    (folder / "tiny.cfg").rename(recipe)
    monkeypatch.setattr(recipes, "FOLDERS", (recipe.parent,))
    (folder / "net.cfg").unlink()
    before = recipe.read_bytes()
    words = ("--set", "net.max_batches=1", "--backup", "recipes", "--overwrite")
    result = run("train", "net.cfg", "text.bin", *words)
    assert result.code == 1 and "recipes/net.cfg: " in result.err and recipe.read_bytes() == before, result


@pytest.mark.parametrize("command", ["denormalize", "import"])
@pytest.mark.parametrize("output", ["out.cfg", "out.weights"])
def test_of_two_outputs_none_is_written_where_one_cannot_be(folder, command, output):
    words = LINES[command][0]
    if command == "import":
        pytest.importorskip("safetensors", reason="needs safetensors: pip install '.[safetensors]'")
        run("export", "net.cfg", "net.weights", "model.safetensors", "--overwrite")
    before = files(folder)
    result = run(command, *words.replace(output, f"missing/{output}").split())
    assert result.code == 1 and result.err.startswith(f"pydarknet: missing/{output}: cannot ")
    assert files(folder) == before
