"""Join the source of Python's own standard library into one text to train on: data/stdlib.txt.

Every machine with Python has it, so nothing is downloaded. Needs nothing but Python 3.11 or newer:

    python data/build_stdlib_corpus.py

It takes the ``*.py`` files under ``sysconfig.get_path("stdlib")``, sorted by name, and leaves out

- ``site-packages`` and ``dist-packages``, ``sitecustomize.py`` and ``usercustomize.py``: not the library;
- ``test``, ``tests``, ``idle_test``: half of the whole, and full of deliberately broken text;
- ``encodings`` and ``pydoc_data``: tables of character codes and a dump of the manual, which would teach
  a small network little of Python;
- ``_sysconfigdata*`` and ``config-*``: written when Python was built, and different on every machine.

Line ends become newlines, and each file ends with one; all else is left as it is, byte for byte.
The same Python always gives the same text.
"""

import argparse
import os
import platform
import sys
import sysconfig
import tempfile
from pathlib import Path

MARK = b"# The source of the standard library of Python "
FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
FILES = {"sitecustomize.py", "usercustomize.py"}


def source_files(library):
    """Return the files to join, sorted by their path below ``library`` in the same order on every system."""
    found = []
    for parent, folders, names in os.walk(library):
        folders[:] = [name for name in folders if name not in FOLDERS and not name.startswith(("config-", "."))]
        for name in names:
            if name.endswith(".py") and name not in FILES and not name.startswith(("_sysconfigdata", ".")):
                found.append(Path(parent, name))
    return sorted(found, key=lambda path: path.relative_to(library).as_posix())


def read_source(path):
    """Return the bytes of a file with plain newlines, the last line's too; an empty file stays empty."""
    source = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return source if source.endswith(b"\n") or not source else source + b"\n"


def build(library, output, max_bytes=None, force=False):
    """Write the corpus to ``output``, whole or not at all; return (size in bytes, number of files).

    Raises ValueError: no source in ``library``, or ``output`` is a file that this script did not write.
    """
    if output.exists() and not (output.is_file() and (force or is_ours(output))):
        raise ValueError(f"{output}: is there already and is not a text of this script; --force replaces a file")
    files = source_files(library)
    if not files:
        raise ValueError(
            f"{library}: no Python source here (it may be in a zip file, or left out of a small installation); "
            f"use another Python, or train on any other text"
        )
    text, count = bytearray(MARK + platform.python_version().encode() + b", joined by build_stdlib_corpus.py.\n"), 0
    for path in files:
        if max_bytes is not None and len(text) >= max_bytes:
            break
        text += read_source(path)
        count += 1
    if max_bytes is not None:
        del text[max(max_bytes, len(MARK)) :]  # the last file is cut; the mark tells whose text this is
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)
    return len(text), count


def is_ours(path):
    """Whether a file begins as this script's own output does."""
    with open(path, "rb") as file:
        return file.read(len(MARK)) == MARK


def write_atomically(path, data):
    """Write beside ``path`` and rename, so that a half-written text never bears the name."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(arguments=None):
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        description="Join the source of Python's standard library into one text to train on.",
        epilog="example: python data/build_stdlib_corpus.py --max-bytes 1000000 --output /tmp/small.txt",
    )
    beside = Path(__file__).with_name("stdlib.txt")
    parser.add_argument("--output", type=Path, default=beside, metavar="FILE", help="(default: stdlib.txt beside this script)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="stop after N bytes (default: take all)")
    parser.add_argument("--force", action="store_true", help="replace a file that this script did not write")
    options = parser.parse_args(arguments)
    if options.max_bytes is not None and options.max_bytes < 1:
        parser.error("--max-bytes must be at least 1")
    try:
        size, count = build(Path(sysconfig.get_path("stdlib")), options.output, options.max_bytes, options.force)
    except (OSError, ValueError) as error:
        print(f"build_stdlib_corpus: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {size:,} bytes from {count} files of Python {platform.python_version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
