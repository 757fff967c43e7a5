"""What is typed: options with one dash or two, mistyped words, help, completion."""

import os
import re
import subprocess
import sys

import click
import pytest
from command_line import done, make_network, run
from runs import environment, write_cfg, write_text

from pydarknet.cli import COMMANDS, SECTIONS, cli
from pydarknet.cli.commands import Number


def leaves(group=cli, path=()):
    """(words, command) of every command that isn't a group."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(None, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(leaves())


def error_of(*arguments):
    result = run(*arguments)
    assert (result.code, result.out) == (2, b""), result
    return result.err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ("ops", "net.cfg", "{}"),
        ("ops", "--{}"),
        ("{}",),
        ("train", "net.cfg", "text", "--valid-fraction", "{}"),
        ("train", "net.cfg", "text", "--max-batches", "{}"),
        ("train", "net.cfg", "text", "--name", "/{}"),
        ("score", "net.cfg", "net.weights", "text", "--by", "{}"),
    ],
    ids=" ".join,
)
def test_what_was_typed_forges_no_line_and_stays_short(words):
    for bad, shown in (
        ("x\npydarknet: all is saved", r"x\npydarknet: all is saved"),
        ("x\u202ey\x1b[31mz", r"x\u202ey\x1b[31mz"),
        ("x" * 100_000, "x ... "),
    ):
        result = run(*(word.format(bad) for word in words))
        usage, hint, empty, error, *more = result.err.splitlines()
        assert (result.code, result.out, empty, more) == (2, b"", "", [])
        assert usage.startswith("Usage: pydarknet ") and hint.startswith("Try 'pydarknet ")
        assert error.startswith("Error: ") and error.isprintable() and shown in error.replace("\\\\", "\\")
        assert len(error) < 2200


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("path", [path for path in LEAVES if path[0] != "rnn"], ids=" ".join)
def test_every_long_option_works_with_one_dash_and_with_two(path, dashes):
    command = LEAVES[path]
    for option in command.params:
        if isinstance(option, click.Option):
            name = dashes + option.opts[-1].lstrip("-")
            choices = getattr(option.type, "choices", None)
            known = {click.IntRange: "1", Number: ".5"}
            value = [] if option.is_flag else [choices[0] if choices else known.get(type(option.type), "1")]
            context = command.make_context(path[-1], [name, *value], resilient_parsing=True, **cli.context_settings)
            assert context.params[option.name] not in (None, False), name
            joined = command.make_context(path[-1], ["=".join([name, *value])], resilient_parsing=True, **cli.context_settings)
            assert joined.params == context.params


def test_one_dash_acts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path), write_text(tmp_path)
    done("train", "tiny.cfg", "text.bin", "-backup", "there", "-max-batches", 2, "-log", "log.jsonl", "-srand=1")
    assert (tmp_path / "there" / "tiny_final.weights").exists() and (tmp_path / "log.jsonl").exists()
    assert b"Saved" in done("train", "tiny.cfg", "text.bin", "-backup", "there", "-max-batches", 4, "-resume")


def test_a_value_may_look_like_an_option(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    assert done("generate", cfg, weights, "-seed", "-len", "-len", 0) == b"-len\n"
    assert done("generate", cfg, weights, "-seed", "--", "-len", 0) == b"--\n"
    assert done("generate", "-len", 0, "-seed", "x", "--", cfg, weights) == b"x\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["generate", "a", "b", "-lenn", "5"], "No such option '-lenn'. Did you mean -len?"),
        (["generate", "a", "b", "--lenn=5"], "No such option '--lenn'. Did you mean --len?"),
        (["generate", "a", "b", "-LEN", "5"], "No such option '-LEN'. Did you mean -len?"),
        (["generate", "a", "b", "-sedd", "5"], "No such option '-sedd'. Did you mean -seed?"),
        (["train", "a", "b", "-resumee"], "No such option '-resumee'. Did you mean -resume?"),
        (["train", "a", "b", "-max_batches", "3"], "No such option '-max_batches'. Did you mean -max-batches?"),
        (["valid", "a", "b", "--stream", "3"], "No such option '--stream'. Did you mean --streams?"),
        (["ops", "a", "-qqq"], "No such option '-qqq'."),
        (["ops", "a", "-q"], "No such option '-q'."),
        (["-verison"], "No such option '-verison'. Did you mean -version?"),
        (["trian", "a", "b"], "No such command 'trian'. Did you mean train?"),
        (["genrate"], "No such command 'genrate'. Did you mean generate"),
        (["Train"], "No such command 'Train'. Did you mean train?"),
        (["stat"], "No such command 'stat'. Did you mean statistics?"),
        (["qqq"], "No such command 'qqq'."),
        (["rnn", "vaild", "a"], "No such command 'vaild'. Did you mean valid"),
        (["ops", "a", "--dialect", "pjredie"], "'pjredie' is not one of pjreddie, alexeyab. Did you mean pjreddie?"),
        (["convert", "a", "b", "c", "-to", "alexeyAB"], "'alexeyAB' is not one of pjreddie, alexeyab. Did you mean alexeyab?"),
        (["ops", "a", "--dialect", "qqq"], "'qqq' is not one of pjreddie, alexeyab."),
    ],
)
def test_a_mistyped_word_is_named_with_what_it_resembles(arguments, says):
    line = error_of(*arguments)
    assert says in line
    assert says.endswith("?") is ("Did you mean" in line) or "Did you mean" in says


# darknet rnn


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cfg(tmp_path, max_batches=2), write_text(tmp_path)
    return make_network(tmp_path)


@pytest.mark.parametrize(
    ("words", "passed_over"),
    [
        (["-clear", "1"], ["1"]),
        (["-clear", "0"], ["0"]),
        (["-clear=1"], ["-clear=1"]),
        (["-gpus", "0,1"], ["-gpus", "0,1"]),
        (["-dont_show"], ["-dont_show"]),
        (["-dont_show", "-thresh", "-1"], ["-dont_show", "-thresh", "-1"]),
        (["-prefix", "out", "--no-such"], ["-prefix", "out", "--no-such"]),
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_darknets_train_passes_over_what_it_does_not_know(trained, words, passed_over, place):
    line = ["tiny.cfg", "-file", "text.bin", "-backup", "".join(words) + place]
    line = [*words, *line] if place == "before" else [*line, *words]
    result = run("rnn", "train", *line)
    assert result.code == 0, result
    warned = re.findall(r"^pydarknet: warning: '(.*)' is ignored: neither", result.err, re.MULTILINE)
    assert warned == passed_over, result.err
    assert b"Saved" in result.out


def test_darknet_reads_two_words(trained):
    cfg, weights, _ = trained
    expected = done("rnn", "valid", cfg, weights, stdin=b"some text")
    result = run("rnn", "valid", cfg, weights, "more.txt", "-unknown", "-clear", "1", "words", stdin=b"some text")
    assert (result.code, result.out) == (0, expected)
    assert result.err.count("is ignored") == 4
    result = run("rnn", "valid", "-unknown", cfg, weights, stdin=b"some text")  # a file isn't the value of -unknown
    assert (result.code, result.out) == (0, expected)


def test_what_resembles_an_option_is_said(trained):
    cfg, weights, _ = trained
    result = run("rnn", "generate", cfg, weights, "-lenn", "3", "-len", "0")
    assert result.code == 0 and "'-lenn' is ignored" in result.err and "Did you mean -len" in result.err


def test_a_missing_cfg_is_an_error_still(trained):
    result = run("rnn", "train", "-clear", "none.cfg", "-file", "text.bin")
    assert result.code == 1 and "none.cfg: cannot be read" in result.err
    assert run("rnn", "train", "-clear", "1").code == 2


# Help and completion


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_has_an_example_to_be_copied_and_all_options(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = done(*path, "-h").decode()
    (example,) = re.findall(r"^ *Example: ((?:.* \\\n)*.*)$", text, re.MULTILINE)
    example = re.sub(r" \\\n +", " ", example)
    assert example.startswith(f"pydarknet {' '.join(path)} ") and "..." not in example
    assert example in " ".join(LEAVES[path].help.split()) + " "
    for option in LEAVES[path].params:
        if isinstance(option, click.Option) and not option.hidden:
            assert re.search(rf"^  .*{re.escape(option.opts[-1])}\b", text, re.MULTILINE), option.opts
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and not [line for line in lines if line.endswith("...") and "Usage" not in line]


def test_a_long_example_is_broken_where_a_shell_goes_on():
    assert '-len 500 \\\n      -seed "def "\n' in done("generate", "-h").decode()


def test_the_options_of_large_commands_stand_in_sections():
    text = done("train", "-h").decode()
    heads = [line for line in text.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert len(heads) >= 4 and heads[-1] == "Other options:", heads
    for path, command in LEAVES.items():
        names = [name for names in command.sections.values() for name in names]
        assert {*names} <= {parameter.name for parameter in command.params}, path


def test_the_commands_stand_in_sections_with_whole_summaries(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = done("-h").decode()
    assert [line[:-1] for line in text.splitlines() if line in {f"{title}:" for title in SECTIONS}] == list(SECTIONS)
    assert "..." not in text.partition("Options:")[2]
    whole = " ".join(text.split())
    assert "Fold batch norm into the weights and write them to OUT; the network computes the same" in whole
    assert all(re.search(rf"^  {name}  +\S", text, re.MULTILINE) for name in COMMANDS)


def complete(*words):
    """What bash is offered for the last of ``words``."""
    instruction = {"_PYDARKNET_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    out = subprocess.run(
        [sys.executable, "-m", "pydarknet"], env={**environment(), **instruction}, capture_output=True, text=True, check=True
    ).stdout
    return [line.partition(",")[2] for line in out.splitlines()]


def test_completion():
    assert complete("pydarknet", "gen") == ["generate", "generatetactic"]
    assert complete("pydarknet", "rnn", "va") == ["valid", "validtactic"]
    assert complete("pydarknet", "train", "--valid-f") == ["--valid-fraction"]
    assert complete("pydarknet", "generate", "-se")[:1] == ["-seed"]
    assert complete("pydarknet", "train", "-backup", "b", "-pat") == ["-patience"]  # declared with two dashes
    assert complete("pydarknet", "convert", "a", "b", "c", "--to", "al") == ["alexeyab"]


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_the_shells_script(shell):
    if shell == "bash" and not os.path.exists("/bin/bash"):
        pytest.skip("no bash here")
    result = subprocess.run(
        [sys.executable, "-m", "pydarknet"],
        env={**environment(), "_PYDARKNET_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and "_PYDARKNET_COMPLETE" in result.stdout, result
