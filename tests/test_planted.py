"""The planted faults can be planted: what each changes stands in the code just once, and the tests that it names are there."""

import ast

import pytest
from places import ROOT
from planted import FAULTS


def test_no_two_have_one_name():
    names = [fault.name for fault in FAULTS]
    assert len({*names}) == len(names)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_place_and_its_tests(fault):
    text = (ROOT / "pydarknet" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1 and fault.new != fault.old
    for place in fault.tests.split():
        path, _, name = place.partition("::")
        path = ROOT / "tests" / path
        files = [path] if path.suffix else [*path.glob("test_*.py")]
        assert files and all(file.is_file() for file in files), f"there are no tests/{place}"
        if name:
            functions = [
                part.name for part in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(part, ast.FunctionDef)
            ]
            assert name in functions, f"there is no tests/{place}"
