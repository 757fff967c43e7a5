"""A network chosen for a text: ``train`` without a cfg, ``new``; and ``--set`` and ``--name``."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import pytest
from command_line import done, run
from runs import shown_on_terminal, text, write_cfg

from pydarknet import Corpus, load_network
from pydarknet.cli.commands import to_copy
from pydarknet.system.locks import hold
from pydarknet.training import recipe as recipes
from pydarknet.training.backups import base_of_text
from pydarknet.training.checkpoint import read_checkpoint
from pydarknet.training.recipe import make_recipe

SHORT = ("--set", "net.max_batches=20", "--processes", "1", "-srand", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "SIZES", (8, 12, 16))
    (tmp_path / "novel.txt").write_bytes(bytes(32 + byte for byte in text(40000)))
    return tmp_path


def test_a_text_is_enough(here):
    result = run("train", "novel.txt", "--minutes", ".1", *SHORT)
    assert result.code == 0, result
    told = result.err.splitlines()
    assert told[0] == "pydarknet: novel.txt: 36,000 characters to learn from, 4,000 held out"
    assert "a GRU of " in told[1] and " passes in " in told[2]
    assert all(len(line) <= 80 for line in told[:3]), told
    assert b"Best on the held-out text: backup/novel_best.weights" in result.out
    cfg = (here / "backup/novel.cfg").read_text()
    assert cfg.startswith("# --set net.max_batches=20\n# novel.txt: 36,000") and "\nmax_batches=20\n" in cfg
    assert " in 20 iterations, " in told[2] and "# The streams begin at equal distances" in cfg, "what is said is what is done"
    network = load_network("backup/novel.cfg", "backup/novel_final.weights")
    assert network.inputs == 128 and network.schedule.max_batches == 20
    assert done("generate", "backup/novel.cfg", "backup/novel_final.weights", "-len", "10")


def test_a_text_that_is_not_ascii_is_told_by_the_character_too(here):
    (here / "roman.txt").write_text("Ein Stück für Flöte. " * 2000, encoding="utf-8")
    result = run("train", "roman.txt", "--minutes", ".1", *SHORT)
    told = rb"Best on the held-out text: \S+, ([\d.]+) bits per byte, ([\d.]+) per character of UTF-8, after iteration"
    best, bits = map(float, re.search(told, result.out).groups())
    assert bits == pytest.approx(best * 24 / 21, rel=2e-3) and result.out.count(b"UTF-8") == 1


def test_a_busy_machine_has_time_for_a_few_iterations_all_the_same(here, monkeypatch):
    corpus = Corpus.open("novel.txt")
    clock = iter(range(0, 10**6, 3))  # seconds: each look at it is three later
    monkeypatch.setattr(recipes.time, "perf_counter", lambda: float(next(clock)))
    for seconds in 6, 0.5, -7:
        recipe = make_recipe(corpus, 1000, seconds)
        assert recipe.max_batches >= 1 and 0 <= recipe.weight_dropout <= 0.5


def test_the_iterations_are_those_of_the_network_with_its_settings(here):
    """Sixty times the units take many times as long: the same seconds hold fewer iterations."""
    corpus = Corpus.open("novel.txt")
    small, large = (make_recipe(corpus, 1000, 6, settings=[f"gru.output={units}"]) for units in (8, 500))
    assert large.max_batches < small.max_batches / 4
    made = make_recipe(corpus, 1000, 6, settings=["net.learning_rate=1e30", "net.max_batches=3"])
    assert made.max_batches == 3 and made.why[2].startswith("0.0") and " in 3 iterations" in made.why[2]


def test_a_layer_of_the_chosen_network_can_be_set(here):
    words = ("--minutes", ".1", *SHORT, "--set", "dropout.probability=.125", "--set", "2.activation=relu")
    assert run("train", "novel.txt", *words).code == 0
    network = load_network("backup/novel.cfg")
    assert network.layers[1].probability == 0.125 and network.layers[2].activation.name == "relu"


@pytest.mark.parametrize("words", [("--name=-q",), ("--backup=-z",), ("--", "-t.txt")])
def test_the_commands_that_are_told_work(here, words):
    (here / "novel.txt").rename(here / "-t.txt")
    texts = () if "--" in words else ("./-t.txt",)
    result = run("train", "--minutes", ".1", *SHORT, *texts, *words)
    told = dict(line.split(": ", 1) for line in result.out.decode().splitlines() if ": " in line)
    for line in told["Write text"], told["Train on"]:
        assert run(*shlex.split(line)[1:]).code == 0, line


def test_the_command_for_another_text_takes_the_chosen_network(here):
    words = ("train", "novel.txt", *SHORT, "--patience", "9", "--name=-q", "--backup=-z")
    assert run(*words, "--minutes", ".1").code == 0
    (here / "novel.txt").write_text("another text\n" * 500)
    result = run(*words, "--minutes", ".1", "--resume")
    line = result.err.rpartition("from the weights: ")[2]
    told = shlex.split(line)[1:]
    assert told[:3] == ["train", "./-z/-q.cfg", "novel.txt"] and "./-z/-q_best.weights" in told and "--minutes" not in told
    assert told[-4::2] == ["--valid-fraction", "--valid-parts"]
    assert run(*told, "--quiet").code == 0


def test_new_tells_a_command_for_a_text_that_begins_with_a_dash(here):
    (here / "novel.txt").rename(here / "-t.txt")
    result = run("new", "my.cfg", "--text=-t.txt", "--minutes", ".1", "--set", "net.max_batches=3")
    line = result.out.decode().partition("train it with: ")[2]
    assert run(*shlex.split(line)[1:]).code == 0


def test_a_log_and_a_picture_in_the_folder_of_the_run_which_is_still_to_be_made(here):
    pytest.importorskip("matplotlib")
    words = ("--minutes", ".1", *SHORT, "--quiet", "--log", "backup/log.jsonl", "--plot", "backup/curves.svg")
    assert run("train", "novel.txt", *words).code == 0
    assert (here / "backup/curves.svg").is_file() and (here / "backup/log.jsonl").is_file()


def test_going_on_keeps_what_the_cfg_says_of_itself(here):
    words = ("train", "novel.txt", *SHORT)
    assert run(*words, "--minutes", ".1").code == 0
    before = (here / "backup/novel.cfg").read_bytes()
    assert run(*words, "--resume", "--max-batches", "22").code == 0
    assert (here / "backup/novel.cfg").read_bytes() == before
    assert run(*words, "--set", "net.clip_norm=2", "--resume", "--max-batches", "24").code == 1, "another run"


def test_a_folder_that_holds_its_own_backups(here, monkeypatch):
    folder = here / "texts"
    folder.mkdir()
    (here / "novel.txt").rename(folder / "novel.txt")
    monkeypatch.chdir(folder)
    assert run("train", ".", "--minutes", ".1", *SHORT).code == 0
    assert load_network("backup/texts.cfg", "backup/texts_final.weights").seen
    result = run("train", ".", *SHORT, "--resume", "--max-batches", "22")
    assert result.code == 0 and "skipped, as it belongs to a network" in result.err
    result = run("train", ".", "--minutes", ".1", *SHORT)
    assert result.code == 0 and "texts.checkpoint as texts_22.checkpoint" in result.err


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("novel.txt", "novel"),
        ("a/novel.txt", "novel"),
        ("novel.v2.txt", "novel_v2"),
        ("novel.txt.gz", "novel"),
        (".hidden.txt", "hidden"),
        ("...", "text"),
        ("/", "text"),
        ("novel", "novel"),
    ],
)
def test_the_name_that_a_text_gives_to_its_files(path, base):
    assert base_of_text(path) == base


def test_the_name_of_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert base_of_text(".") == base_of_text("./") == tmp_path.name
    assert base_of_text("..") == tmp_path.parent.name


@pytest.mark.parametrize("word", ["plain.txt", "a b", "it's", "odd\nna\x1bmé\\'.txt", "\udcff\n"])
def test_a_command_to_copy_means_the_same_to_bash(word):
    line = to_copy(["printf", "%s", word])
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == os.fsencode(word)


def test_the_chosen_run_goes_on_exactly(here):
    assert run("train", "novel.txt", "--minutes", ".1", *SHORT).code == 0
    cfg = (here / "backup/novel.cfg").read_bytes()
    whole = (here / "backup/novel_final.weights").read_bytes()
    again = ("train", "backup/novel.cfg", "novel.txt", "--backup", "again", "--valid-fraction", ".1", "--valid-every", "20")
    options = ("--processes", "1", "-srand", "1")
    assert run(*again, *options, "--max-batches", "10").code == 0  # its rate falls towards 10, so this is another run
    result = run("train", "novel.txt", "--minutes", ".1", "--resume", "--max-batches", "30", *options)
    told = "--minutes counts when a run begins, and this one goes on from its checkpoint; --max-batches N makes it longer\n"
    assert result.code == 0 and told in result.err
    assert (here / "backup/novel.cfg").read_bytes() == cfg
    assert (here / "backup/novel_final.1.weights").read_bytes() == whole
    network = load_network("backup/novel.cfg", "backup/novel_final.weights")
    assert network.seen == 30 * network.streams * network.time_steps


def test_an_earlier_cfg_is_kept(here):
    assert run("train", "novel.txt", "--minutes", ".1", *SHORT).code == 0
    before = (here / "backup/novel.cfg").read_bytes()
    result = run("train", "novel.txt", "--minutes", ".1", "--set", "net.max_batches=3", "--processes", "1")
    assert result.code == 0 and "novel.cfg as novel.1.cfg" in result.err
    assert (here / "backup/novel.1.cfg").read_bytes() == before
    cfg = (here / "backup/novel.cfg").read_bytes()
    assert b"max_batches=3\n" in cfg
    words = ("train", "backup/novel.1.cfg", "novel.txt", "--name", "novel", "--set", "net.max_batches=21")
    assert run(*words, "--processes", "1").code == 0, "the one it goes by is written again under the name of the run"
    assert (here / "backup/novel.2.cfg").read_bytes() == cfg


def test_a_terminal_shows_what_is_tried(here):
    code, out, shown = shown_on_terminal("new", "my.cfg", "--text", "novel.txt", "--minutes", ".1", cwd=here)
    assert code == 0 and out.startswith("Wrote my.cfg; train it with: ")
    tried = re.findall(r"how fast is a GRU of (\d+) here\?", shown.decode())
    assert tried[0] == "320" and len(tried) >= 3 and min(int(size) for size in tried) < 320
    last = shown.decode().replace("\r\n", "\r").split("\r")[-4:]
    assert last[0].startswith("pydarknet: novel.txt: ") and last[-1] == "", "the line of the trials is wiped away"


def test_the_time_is_kept(here, monkeypatch):
    """By the clock of the processor: between the trials and the run the machine may become busy."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    begun = time.process_time()
    assert run("train", "novel.txt", "--minutes", ".1", "--processes", "1", "--quiet").code == 0
    assert 0.5 * 6 < time.process_time() - begun < 2 * 6


def test_new_writes_a_cfg_and_nothing_else(here):
    result = run("new", "my.cfg", "--text", "novel.txt", "--minutes", ".1", "--set", "gru.output=5")
    assert result.code == 0
    told = rb"Wrote my.cfg; train it with: pydarknet train my.cfg novel.txt --valid-fraction 0.1 --valid-parts 4 "
    told += rb"--valid-every \d+\n"
    assert re.fullmatch(told, result.out)
    assert {path.name for path in here.iterdir()} == {"my.cfg", "novel.txt"}
    assert load_network("my.cfg").layers[0].outputs == 5
    refused = run("new", "my.cfg", "--text", "novel.txt", "--minutes", ".1")
    assert refused.code == 1 and "my.cfg: already exists" in refused.err
    assert run("new", "my.cfg", "--text", "novel.txt", "--minutes", ".1", "--overwrite").code == 0
    (here / "tokens.txt").write_text(" ".join(str(byte % 50) for byte in text(20000)))
    result = run("new", "tokens.cfg", "--text", "tokens.txt", "--tokenized", "--minutes", ".1")
    assert b" train tokens.cfg tokens.txt --tokenized --valid-fraction" in result.out
    assert "18,000 tokens to learn from" in (here / "tokens.cfg").read_text()


def test_settings_and_name_with_a_cfg(here):
    write_cfg(here, inputs=128, layers="\n[lstm]\noutput=7\n[connected]\noutput=128\nactivation=linear\n[softmax]\n")
    words = (
        "train",
        "tiny.cfg",
        "novel.txt",
        "--set",
        "net.max_batches=4",
        "--set",
        "0.output=9",
        "--set",
        "connected.learning_rate=2",
    )
    assert run(*words, "--name", "run7", "--log", "log.jsonl").code == 0
    assert sorted(path.name for path in (here / "backup").iterdir() if not path.name.startswith(".")) == [
        "run7.cfg", "run7.checkpoint", "run7_final.weights",
    ]  # fmt: skip
    network = load_network("backup/run7.cfg", "backup/run7_final.weights")
    assert network.layers[0].outputs == 9 and network.layers[1].learning_rate == 2
    head, *steps = map(json.loads, (here / "log.jsonl").read_text().splitlines())
    assert steps[-1]["iteration"] == 4
    assert "--set 0.output=9" in head["command"] and "[lstm]\noutput=9\n" in head["cfg"], "a log says what was set"
    assert read_checkpoint("backup/run7.checkpoint").facts["cfg"][1] == ["lstm", {"output": "9"}], "and so does a checkpoint"
    assert run(*words, "--name", "run7", "--resume", "--max-batches", "6").code == 0
    other = run("train", "tiny.cfg", "novel.txt", "--name", "run7", "--resume", "--max-batches", "9")
    assert other.code == 1 and "[lstm] output was 9, and is 7" in other.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("train",), 2, "Missing argument 'TEXT'"),
        (("train", "none.txt"), 1, "none.txt: cannot read this text: No such file or directory"),
        (("train", "none.cfg"), 2, "Missing argument 'TEXT'"),
        (("train", "x.weights", "novel.txt"), 2, "give the cfg that x.weights was trained with before it"),
        (("train", "tiny.cfg", "novel.txt", "--minutes", "3"), 2, "--max-batches N says how long to train"),
        (("train", "novel.txt", "--resume"), 1, "backup/novel.checkpoint: there is no checkpoint to go on from"),
        (("train", "short.txt"), 1, "short.txt: too short to choose a network by: without what is held out it has 45 bytes"),
        (("train", "novel.txt", "--minutes", "nan"), 2, "'nan' is not a number."),
        (("train", "novel.txt", "--minutes", "5m"), 2, "'5m' is not a number."),
        (("train", "novel.txt", "tiny.cfg"), 2, "tiny.cfg is a cfg: give it before the text"),
        (("train", "novel.txt", "--minutes", "9", "--set", "net.foo=1"), 1, "--set: [net] has no key 'foo'"),
        (("train", "novel.txt", "--minutes", "9", "--set", "net.max_batches=0"), 1, "means no training"),
        (("train", "folder", "--minutes", "9"), 1, "folder: there is no text in this folder"),
        (
            ("train", "novel.txt", "--minutes", "9", "--plot", "no/such.svg"),
            1,
            "no/such.svg: cannot write the picture: No such",
        ),
        (("train", "novel.txt", "--minutes", "9", "--log", "no/such.jsonl"), 1, "no/such.jsonl: cannot write the log: No such"),
        (("train", "novel.txt", "--minutes", "9", "--log", "short.txt"), 1, "short.txt: is not a log of pydarknet"),
        (("train", ".", "--minutes", "9", "--tensorboard", "x"), 1, "x: would be a file of the folder ., which is read"),
        (("train", ".", "--minutes", "9", "--tensorboard", "."), 1, "which is read: put it elsewhere"),
        (("train", ".", "--minutes", "9", "--plot", "x.svg"), 1, "x.svg: would be a file of the folder ., which is read"),
        (("train", "novel.txt", "--minutes", "9", "--backup", "short.txt"), 1, "short.txt: cannot save weights in this folder"),
        (("train", "novel.txt", "--minutes", "9", "--name", "x" * 260), 1, "File name too long; give a shorter --name"),
        (
            ("new", "no/such/my.cfg", "--text", "novel.txt", "--minutes", "9"),
            1,
            "cannot write the cfg: No such file or directory",
        ),
        (("train", "tiny.cfg", "novel.txt", "--set", "lstm.output=x"), 1, "--set: [lstm] output='x' is not a whole number"),
        (("train", "tiny.cfg", "novel.txt", "--set", "gru.output=3"), 1, "tiny.cfg has no such section: it has net, lstm,"),
        (("train", "tiny.cfg", "novel.txt", "--set", "net.lerning_rate=3"), 1, "is it 'learning_rate' that you mean?"),
        (("train", "tiny.cfg", "novel.txt", "--set", "net.batch"), 1, "is not SECTION.KEY=VALUE"),
        (("train", "tiny.cfg", "novel.txt", "--set", "9.output=3"), 1, "layers 0 to 2"),
        (("train", "tiny.cfg", "novel.txt", "--name", "a/b"), 2, "cannot begin the name of a file"),
        (("new", "my.cfg"), 2, "Missing option '--text'"),
        (("new", "novel.txt", "--text", "novel.txt", "--overwrite"), 1, "the output is another file of the same command"),
    ],
)
def test_mistakes(here, words, code, says):
    write_cfg(here)
    (here / "short.txt").write_bytes(b"a" * 50)
    (here / "folder").mkdir()
    write_cfg(here / "folder")
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    result = run(*words)
    assert result.code == code and says in result.err, result
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before
    assert "how fast" not in result.err, "it is told before the trials"


def test_what_cannot_be_drawn_is_told_before_the_trials(here, monkeypatch):
    for name in ("matplotlib", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    for words, says in (("--plot", "x.svg"), "a picture needs matplotlib"), (("--tensorboard", "x"), "needs tensorboardX"):
        result = run("train", "novel.txt", "--minutes", "9", *words)
        assert result.code == 1 and says in result.err and "how fast" not in result.err


def test_a_log_that_another_run_is_writing_is_told_before_the_trials(here):
    with open("log.jsonl", "w") as other:
        hold(other)
        result = run("train", "novel.txt", "--minutes", "9", "--log", "log.jsonl")
    assert result.code == 1 and result.err.endswith("log.jsonl: another run is writing this log: give the log another name\n")
    assert "how fast" not in result.err and sorted(os.listdir()) == ["log.jsonl", "novel.txt"]
