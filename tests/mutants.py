"""Would the tests notice any small change? Mutates one module in a copy of the project, function by function, with mutmut.

    python3 tests/mutants.py training/validation.py                  # by the tests of its folder
    python3 tests/mutants.py text/corpus.py text training/test_trainer.py

Of each change only the tests are run that reach its function. In the end those changes are shown that no test noticed: many
change nothing that matters (a message's words, a cache's size); what is left asks for a test. Wants the extra `mutation`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planted import copy_project

MESSAGES = r"^\s*(raise\b|f?\"|\(?yield f?\"|warnings\.warn)"  # lines whose changes are those of words

# Processes that a test starts run the changed code too; but while mutmut asks which test reaches what, they know nothing of it.
HOOK = """\
import os

if os.environ.get("MUTANT_UNDER_TEST") == "stats":
    del os.environ["MUTANT_UNDER_TEST"]
"""


def main(words):
    if not words or words[0].startswith("-"):
        sys.exit(__doc__)
    module, tests = words[0], words[1:] or [str(Path(words[0]).parent)]
    with tempfile.TemporaryDirectory() as folder:
        copy, hook = Path(folder, "project"), Path(folder, "hook")
        copy_project(copy)
        if not (copy / "pydarknet" / module).is_file():
            sys.exit(f"pydarknet/{module}: there is no such module")
        with open(copy / "pyproject.toml", "a") as file:
            file.write(_settings(module, tests, sorted(path.name for path in copy.iterdir())))
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        (copy / "mutants").mkdir()  # it stands on the path below: Python remembers what was not there
        environment = {**os.environ, "PYTHONPATH": f"{copy / 'mutants'}{os.pathsep}{hook}", "OPENBLAS_NUM_THREADS": "1"}
        begun = time.monotonic()
        found = _mutmut("run", "--max-children", "2", cwd=copy, env=environment)
        if found.returncode:
            print(found.stdout[-3000:], found.stderr[-3000:])
            return 1
        counts, unnoticed = {}, []
        for line in _mutmut("results", "--all", "True", cwd=copy, env=environment).stdout.splitlines():
            name, _, status = line.strip().rpartition(": ")
            counts[status] = counts.get(status, 0) + 1
            if status in ("survived", "no tests"):
                unnoticed.append(name)
        before = None
        for name in unnoticed:  # module.xǁClassǁfunction__mutmut_3
            function = name.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("x").strip("_ǁ").replace("ǁ", ".")
            if function != before:
                print(f"\n{function}")
            before, shown = function, _mutmut("show", name, cwd=copy, env=environment).stdout.splitlines()
            print("".join(f"  {line}\n" for line in shown if line[:1] in "-+" and line[:3] not in ("---", "+++")), end="")
        summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        print(f"{module}: {summary} ({(time.monotonic() - begun) / 60:.0f} min)")
    return 0


def _settings(module, tests, names):
    places = [str(Path("tests") / place) for place in tests]
    return f"""
[tool.mutmut]
source_paths = ["pydarknet"]
only_mutate = ["pydarknet/{module}"]
do_not_mutate_patterns = ['''{MESSAGES}''']
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {places}
also_copy = {[name for name in names if name != "pydarknet"]}
use_git_change_detection = false
timeout_constant = 10.0
"""


def _mutmut(*words, **options):
    return subprocess.run([sys.executable, "-m", "mutmut", *words], capture_output=True, text=True, check=False, **options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
