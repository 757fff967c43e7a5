"""The checkpoint file: its bytes, and that nothing but a whole and honest one is read."""

import contextlib
import hashlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydarknet.errors import CheckpointError
from pydarknet.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

FACTS = {"seen": 12, "avg_loss": 1.5, "random": {"state": 2**127 + 1}, "nothing": None, "word": "é"}
ARRAYS = {"values": np.array([[1, 2, 3]], np.float32), "offsets": np.array([7], np.int64), "none": np.zeros(0, np.float32)}


def sealed(header, data=b"", version=1, magic=b"PYDNCKPT", length=None):
    """The bytes of a checkpoint file with its checksum; ``header`` is bytes or what JSON can hold."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = magic + struct.pack("<II", version, len(header) if length is None else length) + header + data
    return body + hashlib.blake2b(body, digest_size=16).digest()


def refused(path, content, match):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_literal_bytes(tmp_path):
    write_checkpoint(tmp_path / "c", Checkpoint({"seen": 12}, {"h": np.array([[1, -2]], np.float32), "t": np.array([3])}))
    header = b'{"facts": {"seen": 12}, "arrays": [["h", "<f4", [1, 2]], ["t", "<i8", [1]]]}'
    body = (
        b"PYDNCKPT"
        + b"\x01\x00\x00\x00"
        + bytes((len(header), 0, 0, 0))
        + header
        + b"\x00\x00\x80\x3f"
        + b"\x00\x00\x00\xc0"
        + b"\x03"
        + 7 * b"\x00"
    )
    assert (tmp_path / "c").read_bytes() == body + hashlib.blake2b(body, digest_size=16).digest()


def test_what_is_written_is_read(tmp_path):
    arrays = {
        **ARRAYS,
        "doubles": np.random.default_rng(0).normal(size=(2, 3, 4)),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    write_checkpoint(tmp_path / "c", Checkpoint(FACTS, arrays))
    found = read_checkpoint(tmp_path / "c")
    assert found.facts == FACTS and found.path == str(tmp_path / "c")
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def test_numbers_are_written_in_the_order_of_the_format(tmp_path):
    write_checkpoint(tmp_path / "c", Checkpoint({}, {"a": np.array([1, -2], ">f4")}))
    found = read_checkpoint(tmp_path / "c").arrays["a"]
    assert found.dtype == "<f4" and found.tolist() == [1, -2]


def test_any_changed_byte_and_any_cut_is_found(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, Checkpoint({"seen": 1}, ARRAYS))
    good = path.read_bytes()
    for at in range(len(good)):
        refused(path, good[:at] + bytes((good[at] ^ 0x10,)) + good[at + 1 :], "damaged|no checkpoint|version")
        refused(path, good[:at], "damaged|no checkpoint")
    refused(path, good + b"\0", r"damaged: it should have \d+ bytes, and has")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is no checkpoint"),
        (b"[net]\ninputs=256\n", "is no checkpoint of pydarknet: it is a Darknet cfg$"),
        (b"Once upon a time there was a text.\n" * 9, "is no checkpoint of pydarknet: it is a text$"),
        (b"\x89\xff\x00\x01" * 9, "is no checkpoint of pydarknet$"),
        (sealed({"facts": {}, "arrays": []}, version=2), "is of version 2, and this pydarknet reads version 1"),
        (
            sealed({"facts": {}, "arrays": []}, length=2**32 - 1),
            "its header should go to byte 4294967311, but the file ends at",
        ),
        (sealed(b"{"), "its header cannot be understood"),
        (sealed(b"\xff\xfe"), "its header cannot be understood"),
        (sealed(b"[" * 100000), "its header cannot be understood"),
        (sealed(b'{"facts": {"seen": ' + b"9" * 5000 + b'}, "arrays": []}'), "its header cannot be understood"),
        (sealed(b'{"facts": {"loss": NaN}, "arrays": []}'), "its header cannot be understood"),
        (sealed([]), "its header cannot be understood"),
        (sealed({"facts": [], "arrays": []}), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": {}}), "its header cannot be understood"),
        (sealed({"facts": {}}), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4"]]}), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "|O", [1]]]}, bytes(8)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", ["<f4"], [1]]]}, bytes(4)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [-1]]]}), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [1.0]]]}, bytes(4)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [True]]]}, bytes(4)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [0, 2**62, 2**62]]]}), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [1] * 100]]}, bytes(4)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [[1, "<f4", [1]]]}, bytes(4)), "its header cannot be understood"),
        (sealed({"facts": {}, "arrays": [["a", "<f4", [1]], ["a", "<f4", [1]]]}, bytes(8)), "its header cannot be understood"),
        # As many bytes as no machine has: told from the file's length, before any memory is taken.
        (sealed({"facts": {}, "arrays": [["a", "<f8", [2**40]]]}), "it should have 8796093022"),
    ],
)
def test_hostile_headers(tmp_path, content, match):
    refused(tmp_path / "c", content, match)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_raise_nothing_else(tmp_path_factory, data):
    """A sealed header of random JSON, with arrays or not, is read or refused; never anything else."""
    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    )
    field = st.tuples(
        st.sampled_from("ab"), st.sampled_from(["<f4", "<i8", "<f2"]), st.lists(st.integers(-1, 5) | st.integers(), max_size=3)
    ).map(list)
    header = {
        "facts": data.draw(st.dictionaries(st.text(max_size=5), json_values, max_size=4)),
        "arrays": data.draw(st.lists(field, max_size=3) | json_values),
    }
    path = tmp_path_factory.getbasetemp() / "random.checkpoint"
    path.write_bytes(sealed(header, data.draw(st.binary(max_size=60))))
    with contextlib.suppress(CheckpointError):
        read_checkpoint(path)


def test_a_run_that_diverged_replaces_nothing(tmp_path):
    path = tmp_path / "c"
    write_checkpoint(path, Checkpoint({}, ARRAYS))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="not saved: momentum holds numbers that are not finite"):
        write_checkpoint(path, Checkpoint({}, {"momentum": np.array([1, np.inf], np.float32)}))
    with pytest.raises(CheckpointError, match="cannot save the checkpoint: .*not JSON"):
        write_checkpoint(path, Checkpoint({"avg_loss": np.inf}, ARRAYS))  # no checkpoint that has it can be read
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c"]


def test_places_that_hold_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint: No such file"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="a folder, pipe or device"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        read_checkpoint("a\0b")
    with pytest.raises(CheckpointError, match="cannot save the checkpoint: No such file.*. Earlier files are as they were$"):
        write_checkpoint(tmp_path / "no" / "folder", Checkpoint({}, {}))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="a folder, pipe or device"):
        read_checkpoint(tmp_path / "pipe")


def test_a_fact_of_the_right_kind():
    assert Checkpoint({"seen": 12}, {}).fact("seen", str, int) == 12


@pytest.mark.parametrize("value", [True, "12", 1.0, None])
def test_a_fact_of_another_kind(value):
    with pytest.raises(CheckpointError, match="place: has no usable 'seen'"):
        Checkpoint({"seen": value}, {}, "place").fact("seen", int)
