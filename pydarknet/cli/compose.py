"""``pydarknet compose``: a text that a user and a network write in turn, in the terminal."""

import os
import shutil
import sys
from contextlib import suppress

import click

from pydarknet.cli.commands import Number, command
from pydarknet.cli.generate import temperature_option
from pydarknet.cli.options import cfg_argument, dialect_option, srand_option, weights_argument
from pydarknet.cli.streams import in_colour, tell
from pydarknet.errors import InputError, PydarknetError, TextError
from pydarknet.inference.composition import Composition
from pydarknet.network import load_network
from pydarknet.system.files import reported, show, write_atomically
from pydarknet.views.characters import columns_of

HELP = """\
a line        goes on with the text as you typed it; begin it with a blank for a word of its own
1, 2, 3       takes this continuation
Enter         shows others
/undo         takes the last piece back
/temp X       sets the temperature: lower is safer, higher is wilder
/line         ends the line of the text
/save FILE    writes the text to FILE, which must be new or written by this command before
/quit         leaves; a text that has not been saved is printed first
//            begins a line of the text with a slash, as in //like this"""
GAP = 3  # columns between two continuations
NARROWEST = 28  # columns of one beside another
STACKED = 3  # lines of one below another
SHOWN = 6  # last lines of the text
PROMPT = "> "
LONGEST = 1 << 20  # characters of a line of standard input, which may be a device without line ends


@command()
@cfg_argument
@weights_argument
@click.option("-seed", "--seed", default="", help="What the text begins with.")
@click.option("--count", type=click.IntRange(1, 9), default=3, show_default=True, metavar="N", help="Continuations at once.")
@click.option("-len", "--len", "length", type=click.IntRange(1), default=120, show_default=True, help="Characters of each.")
@temperature_option
@click.option("--top-p", type=Number(0, 1, min_open=True), metavar="P", help="As in `generate`.")
@srand_option("continuations")
@dialect_option
def compose(cfg, weights, seed, count, length, temperature, top_p, srand, dialect):
    """Write a text together with the network of CFG and WEIGHTS.

    Type a beginning; the network shows how it could go on. Take one of its continuations by number, type on, or press Enter for
    others; /help lists what else can be typed. Standard input may be a file of such lines.

    Example: pydarknet compose cfg/shakespeare.cfg weights/shakespeare.weights -seed "ROMEO:"
    """
    network = load_network(cfg, weights, batch=1, time_steps=1, dialect=dialect)
    session = _Session(Composition(network, srand, temperature=temperature, top_p=top_p), count, length)
    session.composition.add(seed)
    session.begin()
    try:
        for line in _lines():
            if not session.obey(line):
                break
    finally:
        session.leave()


class _Session:
    """What has been typed so far, and what is on the screen."""

    def __init__(self, composition, count, length):
        self.composition, self._count, self._length = composition, count, length
        self._proposed: list[str] = []
        self._saved_as: set[str] = set()
        self._saved = ""
        self._colours = in_colour()
        if sys.stdin.isatty():
            click.echo("Type a beginning, or press Enter; /help says what else, /quit leaves.")

    def begin(self):
        """Show how the text that it begins with could go on. Raises InputError for a control out of its range."""
        if self.composition.text:
            self._propose()
        else:
            self.composition.continuations(1, 1)

    def obey(self, line):
        """Do what ``line`` says; return whether to go on. A mistake is a line on the screen."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                return self._command(*line[1:].split(maxsplit=1))
            word = line.strip()
            if word.isascii() and word.isdecimal() and not line.startswith(" "):
                self._take(word)
            elif line:
                self.composition.add(line[1:] if line.startswith("//") else line)
            self._propose()
        except PydarknetError as error:
            tell(error)
        return True

    def _take(self, digits):
        number = int(digits[-9:]) if not digits[:-9].strip("0") else 0  # of thousands of digits Python makes no number
        if not 1 <= number <= len(self._proposed):
            there_are = f": give 1 to {len(self._proposed)}" if self._proposed else " yet: press Enter for some"
            raise InputError(f"there is no continuation {digits}{there_are}")
        self.composition.add(self._proposed[number - 1])

    def _command(self, name="", rest=""):
        if name == "quit":
            return False
        if name == "undo":
            if not self.composition.undo():
                raise InputError("there is nothing to take back")
            self._propose()
        elif name == "line":
            self.composition.add("\n")
            self._propose()
        elif name == "temp":
            self._set_temperature(rest)
        elif name == "save":
            self._save(rest)
        elif name == "help":
            click.echo(HELP)
        else:
            raise InputError(f"/{show(name)} is none of /undo /line /temp /save /help /quit; // begins a line with a slash")
        return True

    def _set_temperature(self, text):
        before = self.composition.controls["temperature"]
        try:
            temperature = float(text)
        except ValueError:
            raise InputError(f"/temp needs a number, such as /temp .7; it is {before:g}") from None
        self.composition.controls["temperature"] = temperature
        try:
            self._propose()
        except InputError:
            self.composition.controls["temperature"] = before
            raise

    def _save(self, path):
        if not path:
            raise InputError("/save needs a name: /save FILE")
        if os.path.lexists(path) and path not in self._saved_as:
            raise InputError(f"{show(path)}: already exists: save under another name")
        with reported(InputError, path, "cannot save the text"):
            write_atomically(path, [self.composition.text.encode("utf-8", "surrogateescape")])
        self._saved_as.add(path)
        self._saved = self.composition.text
        click.echo(f"Saved {show(path)}")

    def leave(self):
        """Print what would be lost."""
        if self.composition.text != self._saved:
            click.echo(_visible(self.composition.text))

    def _propose(self):
        self._proposed = self.composition.continuations(self._count, self._length)
        width = shutil.get_terminal_size().columns - 1
        click.echo()
        for line in _wrapped(_visible(self.composition.text), width)[-SHOWN:]:
            click.echo(self._styled(line, "1"))
        click.echo()
        for line in proposals([_visible(text) for text in self._proposed], width, self._styled):
            click.echo(line)

    def _styled(self, text, style):
        return f"\033[{style}m{text}\033[0m" if self._colours and text else text


def proposals(texts, width, styled):
    """The lines that show the ``texts``, numbered: side by side where there is room, else one below the other."""
    beside = (width - GAP * (len(texts) - 1)) // len(texts)
    if beside < NARROWEST:
        for number, text in enumerate(texts, 1):
            for row, line in enumerate(_wrapped(text, width - 3)[:STACKED]):
                yield (styled(f"{number}", "36") + "  " if row == 0 else "   ") + line
        return
    columns = [_wrapped(text, beside - 3) for text in texts]
    for row in range(max(map(len, columns))):
        cells = []
        for number, lines in enumerate(columns, 1):
            line = lines[row] if row < len(lines) else ""
            head = styled(f"{number}", "36") + "  " if row == 0 else "   "
            cells.append(head + line + " " * (beside - 3 - columns_of(line)))
        yield (" " * GAP).join(cells).rstrip()


def _wrapped(text, width):
    """``text`` in lines of at most ``width`` columns, broken at blanks where there are any."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for character in paragraph:
            line += character
            if columns_of(line) > width:
                blank = line.rfind(" ", 0, len(line) - 1)
                place = blank + 1 if blank > len(line) // 2 else len(line) - 1
                lines.append(line[:place].rstrip(" "))
                line = line[place:]
        lines.append(line)
    return lines


def _visible(text):
    """A text as a terminal can show it: tabs as blanks, control characters as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else "    " if c == "\t" else ascii(c)[1:-1] for c in text)


def _lines():
    """The lines that are typed, or those of standard input, without their ends; until there are no more."""
    if not sys.stdin.isatty():
        while line := _line_of_input():
            yield line.rstrip("\r\n")
        return
    read = _reader()
    while True:
        try:
            yield read()
        except EOFError:  # Ctrl-D
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            raise


def _line_of_input():
    """The next line of standard input with its end, or nothing at the end of all. Raises TextError."""
    with reported(TextError, "standard input", "cannot read this text"):
        line = sys.stdin.readline(LONGEST + 1)
    if len(line) > LONGEST:
        raise TextError(f"standard input: a line of more than {LONGEST:,} characters: give shorter ones")
    return line


def _reader():
    """A function that reads a line with the editing and the history of a shell, as far as it can be had."""
    try:
        from prompt_toolkit import PromptSession
    except ImportError:
        tell("with prompt_toolkit (pip install prompt_toolkit) lines can be edited better")
        with suppress(ImportError):
            import readline  # noqa: F401 (it is input() that uses it)
        return lambda: input(PROMPT)
    session: PromptSession = PromptSession()
    return lambda: session.prompt(PROMPT)
