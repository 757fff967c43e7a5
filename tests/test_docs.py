"""What the documentation says is so: its commands are understood, its Python runs, its links lead somewhere."""

import importlib.util
import re
import shlex
import warnings
from pathlib import Path

import click
import pytest
from places import ROOT

from pydarknet import PydarknetError, load_network
from pydarknet.cli import COMMANDS, cli
from pydarknet.layers.registry import section_types
from pydarknet.optim.schedules import POLICIES

README = ROOT / "README.md"
CFG_PAGE, PYTHON_PAGE = ROOT / "docs" / "cfg.md", ROOT / "docs" / "python.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("fuzz/*.md"), *ROOT.glob("weights/*.md")]
)
NETWORK = "[connected]\noutput=256\nactivation=linear\n[softmax]\n"


def split(page):
    """The text of a page without its code blocks, and the (line, language, content) of these, also of those in lists."""
    prose, code, inside = [], [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.fullmatch(r"( *)```(\w*)", line)
        if fence and inside is None:
            inside, (indent, language) = [], fence.groups()
        elif fence:
            code.append((number - len(inside), language, "".join(text + "\n" for text in inside)))
            inside = None
        elif inside is not None:
            inside.append(line.removeprefix(indent))
        else:
            prose.append(line)
    assert inside is None, f"{page}: a code block has no end"
    return "\n".join(prose), code


def blocks(page, *languages):
    """The (line, content) of a page's code blocks in these languages; "" is none."""
    return [(line, content) for line, language, content in split(page)[1] if language in languages]


def commands():
    """(place, words) of every use of pydarknet's command line in the documentation."""
    for page in PAGES:
        for start, content in blocks(page, "sh", ""):
            for line, text in enumerate(content.splitlines(), start):
                words = shlex.split(text, comments=True) if re.search(r"(^|-m |&& )pydarknet ", text) else []
                while words:
                    end = next((n for n, word in enumerate(words) if word in ("&&", "|", "<", ">", ";")), len(words))
                    command, words = words[:end], words[end + 1 :]
                    if command[1:3] == ["-m", "pydarknet"]:
                        command = command[2:]
                    if command[:1] == ["pydarknet"]:
                        yield f"{page.relative_to(ROOT)}:{line}", command[1:]


def parse(words, group=cli):
    """Let click read a command line as it would, and do nothing."""
    if words == ["-h"]:
        return
    command = group.get_command(None, words[0])
    assert command is not None, f"there is no command {words[0]}"
    if isinstance(command, click.Group):
        parse(words[1:], command)
    else:
        command.make_context(words[0], list(words[1:]), **cli.context_settings)


USES = list(commands())


@pytest.mark.parametrize(("place", "words"), USES, ids=[place for place, _ in USES])
def test_commands_are_understood(place, words):
    try:
        parse(words)
    except click.ClickException as error:
        pytest.fail(f"{place}: pydarknet {' '.join(words)}: {error.format_message()}")


def test_every_command_is_shown():
    assert {words[0] for _, words in USES} == {*COMMANDS}


@pytest.mark.parametrize("words", [["train", "c", "t", "--no-such"], ["no-such"], ["generate", "c"], ["rnn", "valid", "c"]])
def test_the_check_sees_what_is_wrong(words):
    with pytest.raises((click.ClickException, AssertionError)):
        parse(words)


def test_the_command_page_is_that_of_the_help():
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python docs/make_commands.py"


def test_ci_runs_the_readmes_test_command():
    (pattern,) = re.findall(r"grep -F '(.*)' README.md", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if pattern in line]
    assert lines == ['python3 -m pip install ".[test]" && python3 -m pytest']
    assert any(lines[0] in content for _, content in blocks(README, "sh"))


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """In a folder with a tiny network in the place of cfg/rnn.cfg, and a small text."""
    (tmp_path / "cfg").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "cfg" / "rnn.cfg").write_text("[net]\ninputs=256\nbatch=2\ntime_steps=5\n[lstm]\noutput=4\n" + NETWORK)
    (tmp_path / "data" / "stdlib.txt").write_text("import this\n" * 20)
    monkeypatch.chdir(tmp_path)
    (found,) = blocks(PYTHON_PAGE, "python")
    exec(compile("\n" * (found[0] - 1) + found[1], str(PYTHON_PAGE), "exec"), {})
    head, _, text = capsys.readouterr().out.partition("most likely next byte: b'")
    assert len(head.splitlines()) == 20 and len(text) > 100


def test_the_plain_lstm_of_the_page_is_the_fast_one(capsys):
    """The page's code as a student would run it: the differences it prints are rounding errors of float64."""
    page = ROOT / "docs" / "lstm.md"
    plain, trial, *quoted = (content for _, content in blocks(page, "python"))
    functions = plain[plain.index("def sigmoid") :]
    assert len([line for line in functions.splitlines() if line.strip()]) < 30
    exec(compile(plain + trial, str(page), "exec"), {})
    differences = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(differences) == 2 and max(differences) < 1e-14
    engine = "".join((ROOT / "pydarknet" / "layers" / name).read_text() for name in ("lstm.py", "gated.py"))
    for piece in quoted:
        for line in piece.splitlines():
            assert line.strip() in engine, f"docs/lstm.md shows a line that is not in the code: {line}"


def anchors(page):
    """The anchors of a page's headings, as GitHub names them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", split(page)[0], re.M)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", split(page)[0]):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}: there is no such heading"


def sections_of_readme():
    """From the README's table: the types of a section, and its options with their defaults (None if there are none)."""
    text = CFG_PAGE.read_text(encoding="utf-8").partition("## Layers and options")[2].partition("\n## ")[0]
    for names, options in re.findall(r"^\| (`\[.*?) \|(.*)\|$", text, re.M):
        pairs = [option.partition("=") for option in re.findall(r"`([A-Za-z_]\w*(?:=[^`]*)?)`", options)]
        yield re.findall(r"`\[(\w+)\]`", names), {key: value or None for key, _, value in pairs}


def test_the_readme_lists_the_sections_and_policies():
    assert {name for names, _ in sections_of_readme() for name in names} == {"net", "network", *section_types()}
    text = CFG_PAGE.read_text(encoding="utf-8").partition("`policy` is ")[2].partition("\n\n")[0]
    assert all(f"`{policy}`" in text for policy in POLICIES)


@pytest.mark.parametrize(("names", "options"), list(sections_of_readme()), ids=[names[0] for names, _ in sections_of_readme()])
def test_the_readmes_options_are_those_that_are_read(tmp_path, names, options):
    """A cfg with every option at the default that the README gives: none is unknown, and none changes the network."""
    name = names[0]
    given = {key: value for key, value in options.items() if value is not None}
    default = {"adam": "1"} if name == "net" else {}  # B1, B2 and eps are read with it alone
    given |= default

    def network(given, file):
        net = {"inputs": "256", **(given if name == "net" else {})}
        section = {"size": "1", **given} if name == "crnn" else given
        lines = ["[net]", *(f"{key}={value}" for key, value in net.items())]
        if name not in ("net", "softmax", "cost"):
            lines += [f"[{name}]", *(f"{key}={value}" for key, value in section.items())]
        lines += ["[connected]", "output=256", "activation=linear", "[softmax]"]
        lines += [f"{key}={value}" for key, value in given.items()] if name == "softmax" else []
        lines += ["[cost]", *(f"{key}={value}" for key, value in given.items())] if name == "cost" else []
        (tmp_path / file).write_text("\n".join(lines))
        dialect = "alexeyab" if name == "rnn" else None  # the only one in which it has a `logistic`
        return load_network(tmp_path / file, srand=1, dialect=dialect)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_given, by_default = network(given, "given.cfg"), network(default, "default.cfg")
    assert as_given.schedule == by_default.schedule
    assert as_given.optimizer_options == by_default.optimizer_options
    assert (as_given.streams, as_given.time_steps) == (by_default.streams, by_default.time_steps)
    for a, b in zip(as_given.layers, by_default.layers, strict=True):
        simple = (bool, int, float, str)
        assert {key: value for key, value in vars(a).items() if isinstance(value, simple)} == {
            key: value for key, value in vars(b).items() if isinstance(value, simple)
        }
    assert (as_given.parameters.values == by_default.parameters.values).all()
    asked = {key for section in (as_given.cfg.net, *as_given.cfg.layers) for key in section.asked}
    assert {*options} <= asked


def test_the_errors_shown_are_those_that_are_written(tmp_path, monkeypatch, recwarn):
    """The messages about bad.cfg, from cfgs with those mistakes."""
    monkeypatch.chdir(tmp_path)
    shown = "\n".join(content for page in PAGES for _, content in blocks(page, ""))
    net = "[net]\ninputs=256\nbatch=8\n{}=20\n\n\n\n\n[lstm]\noutput={}\n" + NETWORK
    for text in (net.format("time_steps", "3O"), net.format("timesteps", 32), "[net]\ninputs=256\n[convolutional]\n"):
        Path("bad.cfg").write_text(text)
        try:
            load_network("bad.cfg")
            message = f"warning: {recwarn.pop().message}"
        except PydarknetError as error:
            message = str(error)
        assert f"pydarknet: {message}\n" in shown
