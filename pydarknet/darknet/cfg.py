"""Darknet's cfg dialect: text in, a :class:`Cfg` of typed sections out.

A cfg is a list of sections, first ``[net]`` and then one section a layer, so section names repeat:

    [net]
    batch = 128
    [lstm]
    output = 1024

What Darknet lets pass in silence (a misspelt number is 0, an unknown activation is ReLU) is an error here
with file, line and text; a repeated or unknown key is a :class:`~pydarknet.errors.CfgWarning`.
Source: Darknet's ``src/parser.c`` (``read_cfg``, ``string_to_layer_type``) and ``src/option_list.c``.
"""

import difflib
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydarknet.darknet import recipes
from pydarknet.errors import CfgError, CfgWarning
from pydarknet.system.files import open_regular, show, why

NET = ("net", "network")  # the first section; the others are layers, whose names pydarknet.layers.registry knows

SET = 0  # in place of a line: the option comes from a setting
LONGEST = 256 << 10  # bytes or characters: a cfg has a few thousand, and more is some other file, given by mistake
WARNINGS = 10  # of one kind that are told; of the others, how many there are
INT_MIN, INT_MAX = -(2**31), 2**31 - 1  # Darknet keeps whole numbers in a C int
FLOAT_MAX = (2 - 2**-23) * 2.0**127  # and fractions in a C float

# Python's int() and float() also take 1_000, nan, inf and Arabic or full-width digits, which C does not.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass
class Section:
    """One section of a cfg: its options, read by type, each reading noted.

    Every reader returns ``default`` as it is when the key is absent (so None when no default is given), and raises
    :class:`CfgError` with the key's line when the value is not what was asked for. A value that stands in the file
    is never empty. Keys that nobody reads are reported by :meth:`Cfg.warn_unused`.
    """

    type: str  # "net", or the layer's type: as written, until the registry knows of an abbreviation
    name: str  # as written, without brackets: "network", "conn", ...
    path: str
    line: int  # of the header
    options: dict[str, tuple[str, int]] = field(default_factory=dict)  # key -> value, line (SET: of a setting, not of the file)
    written: dict[str, tuple[str, int]] = field(default_factory=dict)  # the same of the file alone
    asked: set[str] = field(default_factory=set)  # every key that was read or ignored

    def error(self, message: str, key: str | None = None) -> CfgError:
        """Build (not raise) an error that begins with ``file:line: [name]``, at the line of ``key`` if it is there."""
        return CfgError(f"{self._place(key)} {message}")

    def warn(self, message: str, key: str | None = None) -> None:
        """Warn (CfgWarning) at the same place."""
        _warn(f"{self._place(key)} {message}")

    def has(self, key: str) -> bool:
        """Whether the section sets ``key``; this alone does not count as reading it."""
        return key in self.options

    def text(self, key: str, default: str | None = None) -> str | None:
        """The value as it stands, without blanks."""
        self.asked.add(key)
        return self.options[key][0] if key in self.options else default

    def integer(self, key: str, default: int | None = None, minimum: int | None = None, maximum: int | None = None) -> Any:
        """A whole number that fits a C int. ``1.5``, of which Darknet's ``atoi`` would read 1, is an error."""
        value = self.text(key)
        return default if value is None else self._in_range(key, self._whole(key, value), minimum, maximum)

    def number(self, key: str, default: float | None = None, minimum: float | None = None, maximum: float | None = None) -> Any:
        """A finite number that fits a C float, in any of C's decimal spellings: ``1``, ``1.``, ``.5``, ``+1e-3``."""
        value = self.text(key)
        return default if value is None else self._in_range(key, self._fraction(key, value), minimum, maximum)

    def flag(self, key: str, default: bool = False) -> bool:
        """A whole number as yes or no: any but 0 is yes, for Darknet reads its flags as ints."""
        return bool(self.integer(key, default))

    def choice(self, key: str, default: str | None, choices: Iterable[str]) -> Any:
        """One of ``choices``, spelt exactly so."""
        value = self.text(key)
        if value is None:
            return default
        choices = list(choices)
        if value not in choices:
            raise self._bad(key, value, f"is not one of {', '.join(choices)}")
        return value

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers with commas between; empty when the key is absent."""
        return [self._whole(key, item) for item in self._items(key)]

    def numbers(self, key: str) -> list[float]:
        """A list of finite numbers with commas between; empty when the key is absent."""
        return [self._fraction(key, item) for item in self._items(key)]

    def ignore(self, *keys: str) -> None:
        """Pass over keys that Darknet knows and that mean nothing for text: no warning for them."""
        self.asked.update(keys)

    def unused(self) -> list[tuple[str, int]]:
        """The keys that nobody has asked for, each with its line."""
        return [(key, line) for key, (_, line) in self.options.items() if key not in self.asked]

    def _place(self, key: str | None = None) -> str:
        line = self.options[key][1] if key in self.options else self.line
        file = "--set" if line == SET else f"{self.path}:{line}"
        return f"{file}: [{_shown(self.name)[1:-1]}]"

    def _items(self, key: str) -> list[str]:
        value = self.text(key)
        return [] if value is None else value.split(",")

    def _whole(self, key: str, value: str) -> int:
        if not _WHOLE.fullmatch(value):
            raise self._bad(key, value, "is not a whole number")
        whole = float(value)  # exact as far as a C int goes, and unlike int() takes any number of digits
        if not INT_MIN <= whole <= INT_MAX:
            raise self._bad(key, value, f"is out of range: Darknet's whole numbers go from {INT_MIN} to {INT_MAX}")
        return int(whole)

    def _fraction(self, key: str, value: str) -> float:
        if not _NUMBER.fullmatch(value):
            raise self._bad(key, value, "is not a number")
        number = float(value)
        if abs(number) > FLOAT_MAX:
            raise self._bad(key, value, "is out of range: Darknet's numbers go from -3.4e38 to 3.4e38")
        return number

    def _in_range(self, key, number, minimum, maximum):
        if minimum is not None and number < minimum:
            raise self.error(f"{key}={number} is too small: it must be at least {minimum}", key)
        if maximum is not None and number > maximum:
            raise self.error(f"{key}={number} is too large: it must be at most {maximum}", key)
        return number

    def _bad(self, key: str, value: str, what: str) -> CfgError:
        whole_value = self.options[key][0]  # of a list, `value` is one item
        within = "" if value == whole_value else f" (in {_shown(whole_value)})"
        comment = "; a comment must have a line of its own" if "#" in whole_value or ";" in whole_value else ""
        return self.error(f"{key}={_shown(value)}{within} {what}{comment}", key)


@dataclass
class Cfg:
    """A whole cfg: ``[net]`` and the layers in order."""

    path: str
    net: Section
    layers: list[Section]
    lines: list[str] = field(default_factory=list)  # of the file
    settings: list[str] = field(default_factory=list)  # what :meth:`set` was given

    def set(self, setting: str) -> None:
        """Put an option in the place of the file's: ``net.learning_rate=.002``, ``lstm.output=256``, ``0.output=256``.

        The section is ``net``, a name, which means all sections of that name, or the number of a layer, from 0. Raises
        CfgError for what is no setting, and for a section that is not there.
        """
        place, _, value = setting.replace(" ", "").replace("\t", "").partition("=")
        name, _, key = place.partition(".")
        if not (name and key and value) or "\n" in setting or "\r" in setting or "\0" in setting:
            raise CfgError(f"--set {_shown(setting)}: is not SECTION.KEY=VALUE, such as net.learning_rate=.002")
        sections = [self.net] if name in NET else [section for section in self.layers if section.name == name]
        if name.isdecimal() and int(name[:9]) < len(self.layers):
            sections = [self.layers[int(name[:9])]]
        if not sections:
            names = ", ".join(dict.fromkeys(section.name for section in (self.net, *self.layers)))
            raise CfgError(
                f"--set {_shown(setting)}: {show(self.path)} has no such section: it has {_shown(names)[1:-1]}, "
                f"and layers 0 to {len(self.layers) - 1}"
            )
        for section in sections:
            section.options[key] = value, SET
        self.settings.append(setting)

    @property
    def changed(self) -> bool:
        """Whether :meth:`set` has changed what the file says."""
        return any(
            section.written.get(key, ("", 0))[0] != value
            for section in (self.net, *self.layers)
            for key, (value, _) in section.options.items()
        )

    def text_as_set(self) -> str:
        """The text of the file, comments and all, with what :meth:`set` put in the place of its options."""
        lines = list(self.lines)
        for section in (self.net, *self.layers):
            for key, (value, line) in section.options.items():
                if line == SET and key in section.written:
                    lines[section.written[key][1] - 1] = f"{key}={value}"
                elif line == SET:
                    lines[section.line - 1] += f"\n{key}={value}"
        return "\n".join(lines).rstrip("\n") + "\n"

    def as_text(self) -> str:
        """A cfg of the same meaning, settings included: no comments, a blank line between sections."""
        sections = ([f"[{section.name}]", *(f"{key}={value}" for key, (value, _) in section.options.items())]
                    for section in (self.net, *self.layers))  # fmt: skip
        return "\n\n".join("\n".join(lines) for lines in sections) + "\n"

    def warn_unused(self) -> None:
        """Warn of every key that nobody asked for, after Darknet's ``option_unused``; call it when all is read.

        Raises CfgError for one that was set on purpose, by :meth:`set`.
        """
        unused = [(section, key, line) for section in (self.net, *self.layers) for key, line in section.unused()]
        for section, key, line in unused:
            if line == SET:
                raise section.error(f"has no key {_shown(key)}{_hint(section, key)}", key)
        for section, key, _ in unused[:WARNINGS]:
            written = _shown(f"{key} = {section.options[key][0]}")
            _warn(f"{section._place(key)} Unused field: {written}{_hint(section, key)}")
        if len(unused) > WARNINGS:
            _warn(f"{show(self.path)}: {len(unused) - WARNINGS} more unused fields")


def parse_cfg(path: str | bytes | os.PathLike) -> Cfg:
    """Read a cfg file (UTF-8, with or without a byte order mark), or the recipe of that name where there is no such file.

    Raises :class:`CfgError` for a file that cannot be read, is too long or is not text, and all that
    :func:`parse_cfg_text` raises.
    """
    name = recipes.cfg_path(os.fsdecode(path))
    shown = show(name)
    try:
        with open_regular(name) as file:
            data = file.read(LONGEST + 1)
    except FileNotFoundError:
        known = ", ".join(recipes.names())
        raise CfgError(
            f"{shown}: cannot be read (No such file or directory): check the path, or take a recipe of pydarknet: {known}"
        ) from None
    except IsADirectoryError:
        raise CfgError(f"{shown}: is a directory: give a cfg file inside it") from None
    except OSError as error:
        raise CfgError(f"{shown}: cannot be read ({why(error)}): check the path and its permissions") from None
    except ValueError:  # open() says so of a NUL in the path
        raise CfgError(f"{shown}: is not a possible file name") from None
    _check_length(data, shown)
    return parse_cfg_text(data.decode("utf-8", "surrogateescape"), name)  # a comment may be in Latin-1


def parse_cfg_text(text: str, path: str) -> Cfg:
    """Parse the text of a cfg; ``path`` is what messages call it.

    All blanks and tabs are dropped, also inside values; a line that begins with ``#`` or ``;`` is a comment, and only
    such a line; of a key given twice in a section the first counts, with a warning. A file of ``[net]`` alone is
    fine here: whether the layers make a network is for the network to say.

    Raises :class:`CfgError` for text without sections, a first section that is not ``[net]``, a second ``[net]``, a
    option before any section or without ``=``, key or value, a NUL, and more than 256 KiB.
    Source: ``read_cfg`` and ``strip``, which also drop blanks everywhere.
    """
    sections: list[Section] = []
    repeated: list[str] = []
    file, path = path, show(path)  # messages must stay on their line
    _check_length(text, path)
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    for number, raw in enumerate(lines, start=1):
        line = raw.replace(" ", "").replace("\t", "")
        if "\0" in line:
            raise CfgError(f"{path}:{number}: holds a NUL byte, which no text has: is it a weights file? The cfg comes first")
        if not line or line[0] in "#;":
            continue
        if foreign := re.search("[\udc80-\udcff]", line):  # how Python decodes a byte that is not UTF-8
            byte = ord(foreign[0]) - 0xDC00
            raise CfgError(f"{path}:{number}: byte 0x{byte:02x} is not UTF-8 text: save the file as UTF-8, or is it no cfg?")
        if line[0] == "[":
            sections.append(_section(line, path, number))
            _check_net(sections)
        elif not sections:
            raise CfgError(f"{path}:{number}: {_shown(line)} stands before any section: a cfg begins with [net]")
        else:
            _add_option(sections[-1], line, number, repeated)
    if not sections:
        raise CfgError(f"{path}: holds no section: a cfg begins with [net]")
    for warning in repeated[:WARNINGS]:
        _warn(warning)
    if len(repeated) > WARNINGS:
        _warn(f"{path}: {len(repeated) - WARNINGS} more lines have no effect, as an earlier one has set their key")
    return Cfg(file, sections[0], sections[1:], lines)


def _check_length(text: str | bytes, shown: str) -> None:
    if len(text) > LONGEST:
        raise CfgError(f"{shown}: is over {LONGEST >> 10} KiB, too long for a cfg: is it another file?")


def _section(line: str, path: str, number: int) -> Section:
    """Open a section from its header, stripped of blanks."""
    name, bracket, rest = line[1:].partition("]")
    if not bracket:
        raise CfgError(f"{path}:{number}: {_shown(line)} has no closing ]")
    if rest:
        raise CfgError(f"{path}:{number}: {_shown(line)} goes on after the ]: comments must have lines of their own")
    return Section("net" if name in NET else name, name, path, number)


def _check_net(sections: list[Section]) -> None:
    """Hold the newest section against the rule: ``[net]`` first, and only there."""
    newest = sections[-1]
    if len(sections) == 1 and newest.type != "net":
        raise newest.error("is the first section: a cfg begins with [net]")
    if len(sections) > 1 and newest.type == "net":
        raise newest.error(f"is the second of its kind, after line {sections[0].line}: there must be one, at the top")


def _add_option(section: Section, line: str, number: int, repeated: list[str]) -> None:
    """Put ``key=value`` into its section, or a warning into ``repeated`` if it has the key."""
    key, _, value = line.partition("=")
    if not key or not value:
        raise CfgError(
            f"{section.path}:{number}: [{section.name}] {_shown(line)} is not key=value: complete it, or take the line out"
        )
    if key in section.options:
        first = section.options[key][1]
        repeated.append(
            f"{section.path}:{number}: [{section.name}] {_shown(line)} has no effect: "
            f"line {first} has set {_shown(key)}, and the first counts"
        )
    else:
        section.options[key] = section.written[key] = value, number


def _hint(section: Section, key: str) -> str:
    near = difflib.get_close_matches(key[:40], section.asked, n=1)
    return f": is it {near[0]!r} that you mean?" if near else ""


def _shown(text: str) -> str:
    """Text from a file, quoted for a one-line message: control characters escaped, and cut when long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _warn(message: str) -> None:
    warnings.warn(message, CfgWarning, stacklevel=3)
