"""Run one fuzz target: ``python fuzz/run.py NAME [libFuzzer options]``, NAME being cfg, weights, checkpoint or tokens.

A target is a module ``fuzz_NAME.py`` with ``SEEDS``, a list of byte strings to begin with, and
``one_input(data)``, which may raise nothing but a PydarknetError; it may have ``OPTIONS`` of libFuzzer. See README.md beside
this file.
"""

import importlib
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python fuzz/run.py {'|'.join(TARGETS)} [libFuzzer options]")
    name, options = sys.argv[1], sys.argv[2:]
    import atheris

    with atheris.instrument_imports(include=["pydarknet"]):
        target = importlib.import_module(f"fuzz_{name}")
    corpus, findings = HERE / "corpus" / name, HERE / "findings"
    findings.mkdir(exist_ok=True)
    corpora = []
    if all(option.startswith("-") for option in options):  # else the files or folders to use are given
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.SEEDS):
            (corpus / f"seed-{number}").write_bytes(seed)
        corpora = [str(corpus)]
    # Atheris 3.0 never frees the result of a comparison of arrays, so `tokens` grows with the time: a higher limit.
    # An input that takes a minute is a finding too: something is quadratic.
    defaults = [f"-artifact_prefix={findings}/{name}-", "-rss_limit_mb=4096", "-timeout=60", *getattr(target, "OPTIONS", [])]
    # libFuzzer starts itself anew, by a shell, to merge.
    itself = shlex.join([sys.executable, __file__, name])
    atheris.Setup([itself, *defaults, *options, *corpora], guarded(target.one_input))
    atheris.Fuzz()


def guarded(one_input):
    """``one_input`` without the errors that are a right answer: a PydarknetError of one line that a terminal shows as it is."""
    from pydarknet.errors import LONGEST, PydarknetError

    def run(data):
        try:
            one_input(data)
        except PydarknetError as error:
            message = str(error)
            if not message.isprintable():
                raise AssertionError(f"a message with a line end or another control character: {message!a}") from error
            if len(message) > LONGEST:
                raise AssertionError(f"a message of {len(message)} characters") from error

    return run


if __name__ == "__main__":
    main()
