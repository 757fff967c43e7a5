"""Darknet's weights files: literal bytes, round trips, and files that are damaged or cannot be written."""

import os
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

from pydarknet.darknet.dialect import ALEXEYAB, PJREDDIE
from pydarknet.darknet.weights import read_header, write_weights
from pydarknet.errors import PydarknetError, WeightsError
from pydarknet.network import load_network

as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="goes by other permissions")
posix = pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and resource limits")

# An LSTM with D=3, H=2 and a connected layer back to V=3: 2*4 + 6*4 + 8*4 + 9 numbers.
LSTM = "[net]\ninputs=3\n[lstm]\noutput=2\n{lstm}\n[connected]\noutput=3\nactivation=linear\n{connected}\n[softmax]\n"
GATES = {  # biases (2), then weights (2, 2) or (2, 3), row by row
    "wi": [10, 11, 12, 13, 14, 15],
    "ui": [50, 51, 52, 53, 54, 55, 56, 57],
    "wf": [20, 21, 22, 23, 24, 25],
    "uf": [60, 61, 62, 63, 64, 65, 66, 67],
    "wo": [30, 31, 32, 33, 34, 35],
    "uo": [70, 71, 72, 73, 74, 75, 76, 77],
    "wg": [40, 41, 42, 43, 44, 45],
    "ug": [80, 81, 82, 83, 84, 85, 86, 87],
}
CONNECTED = [1, 2, 3, 4, 5, 6, 7, 8, 9]  # biases (3), then weights (3, 2)
PJREDDIE_ORDER = "wi wf wo wg ui uf uo ug"
ALEXEYAB_ORDER = "wf wi wg wo uf ui ug uo"


def floats(*numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


def wide(major, minor, revision, seen=0):
    return struct.pack("<iiiQ", major, minor, revision, seen)


def narrow(major, minor, revision, seen=0):
    return struct.pack("<iiiI", major, minor, revision, seen)


def lstm_body(order):
    return b"".join(floats(*GATES[name]) for name in order.split())


P_FILE = wide(0, 2, 0, 7) + lstm_body(PJREDDIE_ORDER) + floats(*CONNECTED)


@pytest.fixture
def make(tmp_path):
    def make(text=LSTM, data=None, lstm="", connected="", **options):
        cfg = tmp_path / "net.cfg"
        cfg.write_text(text.format(lstm=lstm, connected=connected))
        if data is None:
            return load_network(cfg, srand=1, **options)
        (tmp_path / "in.weights").write_bytes(data)
        return load_network(cfg, tmp_path / "in.weights", srand=1, **options)

    return make


def saved(network, path, **options):
    network.save_weights(path, **options)
    return path.read_bytes()


def gate(network, name):
    matrix = network.layers[0].matrices[name]
    return [*matrix.biases, *matrix.weights.reshape(-1)]


def snapshot(network):
    block = network.parameters
    return block.values.tobytes(), block.statistics.tobytes(), network.seen, network.dialect


# The bytes


@pytest.mark.parametrize(
    ("header", "order", "dialect"),
    [
        (wide(0, 2, 0, 7), PJREDDIE_ORDER, PJREDDIE),
        (wide(0, 2, 4, 7), PJREDDIE_ORDER, PJREDDIE),
        (wide(0, 2, 5, 7), ALEXEYAB_ORDER, ALEXEYAB),
        (narrow(0, 1, 0, 7), PJREDDIE_ORDER, PJREDDIE),
        (narrow(0, 1, 5, 7), PJREDDIE_ORDER, PJREDDIE),
        (wide(1, 0, 0, 7), PJREDDIE_ORDER, PJREDDIE),  # the revision tells the fork
        (wide(1, 2, 4, 7), PJREDDIE_ORDER, PJREDDIE),
        (wide(1, 0, 5, 7), ALEXEYAB_ORDER, ALEXEYAB),
    ],
)
def test_header_and_order_of_an_lstm(make, tmp_path, header, order, dialect):
    network = make(data=header + lstm_body(order) + floats(*CONNECTED))
    assert (network.seen, network.dialect) == (7, dialect)
    for name, numbers in GATES.items():
        assert gate(network, name) == numbers, name
    assert network.layers[1].biases.value.tolist() == [1, 2, 3]
    assert network.layers[1].weights.value.tolist() == [[4, 5], [6, 7], [8, 9]]
    # What is written is the dialect's own version and order, whatever was read.
    for wanted, version, its_order in ((PJREDDIE, (0, 2, 0), PJREDDIE_ORDER), (ALEXEYAB, (0, 2, 5), ALEXEYAB_ORDER)):
        data = wide(*version, 7) + lstm_body(its_order) + floats(*CONNECTED)
        assert saved(network, tmp_path / "out", dialect=wanted) == data
        if wanted is dialect:
            assert saved(network, tmp_path / "out") == data


@pytest.mark.parametrize(
    ("header", "transposed"),
    [
        (wide(0, 2, 0, 9), False),
        (wide(1, 0, 0, 9), False),
        (wide(999, 999, 0, 9), False),
        (wide(0, 2, 2**31 - 1, 9), False),
        (narrow(0, 0, 0, 9), False),
        (narrow(0, 1, 0, 9), False),
        (narrow(1000, 0, 0, 9), False),
        (narrow(0, 1000, 0, 9), False),
        (narrow(1001, 0, 0, 9), True),
        (narrow(0, 1001, 0, 9), True),
        (narrow(2**31 - 1, 2**31 - 1, 0, 9), True),
    ],
)
def test_width_of_seen_and_transposed_matrices(make, tmp_path, header, transposed):
    text = "[net]\ninputs=2\n[connected]\noutput=3\n[connected]\noutput=2\nbatch_normalize=1\n[softmax]\n"
    body = floats(1, 2, 3, 4, 5, 6, 7, 8, 9) + floats(11, 12, 13, 14, 15, 16, 17, 18, 21, 22, 31, 32, 41, 42)
    network = make(text, header + body)
    assert network.seen == 9
    first, second = network.layers[0], network.layers[1].matrices["connected"]
    assert first.biases.value.tolist() == [1, 2, 3]
    assert first.weights.value.tolist() == ([[4, 7], [5, 8], [6, 9]] if transposed else [[4, 5], [6, 7], [8, 9]])
    assert second.biases.tolist() == [11, 12]
    assert second.weights.tolist() == ([[13, 15, 17], [14, 16, 18]] if transposed else [[13, 14, 15], [16, 17, 18]])
    assert second.scales.tolist() == [21, 22]
    assert second.rolling_mean.tolist() == [31, 32]
    assert second.rolling_variance.tolist() == [41, 42]
    # And what a file of this version would hold is written back.
    write_weights(network.layers, tmp_path / "out", 9, PJREDDIE, struct.unpack_from("<3i", header))
    assert (tmp_path / "out").read_bytes() == header + body


def test_transposed_matrices_of_an_lstm(make):
    network = make(data=narrow(1001, 0, 0) + lstm_body(PJREDDIE_ORDER) + floats(*CONNECTED), dialect="pjreddie")
    assert network.layers[0].matrices["wf"].weights.tolist() == [[22, 24], [23, 25]]
    assert network.layers[0].matrices["ug"].weights.tolist() == [[82, 84, 86], [83, 85, 87]]


def test_dialect_override(make):
    network = make(data=P_FILE, dialect="alexeyab")
    assert network.dialect is ALEXEYAB and gate(network, "wf") == GATES["wi"] and gate(network, "uo") == GATES["ug"]
    assert all(layer.dialect is ALEXEYAB for layer in network.layers)


@pytest.mark.parametrize("seen", [0, 2**32 - 1, 2**32, 2**32 + 5, 2**64 - 1])
def test_seen_takes_eight_bytes(make, tmp_path, seen):
    data = wide(0, 2, 0, seen) + P_FILE[20:]
    network = make(data=data)
    assert network.seen == seen and saved(network, tmp_path / "out") == data
    network.seen += 2**64  # a count that has outgrown them wraps, as in C, rather than losing the weights
    assert saved(network, tmp_path / "out") == data


def test_narrow_seen_is_unsigned(make):
    assert make(data=narrow(0, 1, 0, 2**32 - 1) + P_FILE[20:]).seen == 2**32 - 1


def test_dontload_and_dontsave(make, tmp_path):
    untouched = make().layers[1].weights.value.tolist()
    without_connected = wide(0, 2, 0, 7) + lstm_body(PJREDDIE_ORDER)
    network = make(data=without_connected, connected="dontload=1")
    assert gate(network, "wo") == GATES["wo"] and network.layers[1].weights.value.tolist() == untouched
    assert len(saved(network, tmp_path / "out")) == len(P_FILE)
    assert saved(make(data=P_FILE, connected="dontsave=1"), tmp_path / "out") == without_connected
    assert saved(make(data=P_FILE, lstm="dontsave=1"), tmp_path / "out") == wide(0, 2, 0, 7) + floats(*CONNECTED)
    with pytest.raises(WeightsError, match=f"too long: .* end at byte {len(without_connected)}, .* {len(P_FILE)}"):
        make(data=P_FILE, connected="dontload=1")


@pytest.mark.parametrize(
    ("case", "orders_differ"),
    [
        ("case1_lstm", True),
        ("case3_lstm_bn", True),
        ("case4_gru", True),
        ("case6_rnn_leaky", False),
        ("case8_connected_bn", False),
    ],
)
def test_darknets_own_files_are_written_back_byte_for_byte(tmp_path, case, orders_differ):
    folder = GOLDEN / "forward" / "pjreddie" / case
    network = load_network(folder / "case.cfg", folder / "case.weights")
    data = (folder / "case.weights").read_bytes()
    assert saved(network, tmp_path / "out") == data
    # Through the other dialect's order, and back.
    other = load_network(folder / "case.cfg")
    network.save_weights(tmp_path / "other", dialect=ALEXEYAB)
    assert ((tmp_path / "other").read_bytes()[20:] != data[20:]) == orders_differ
    other.load_weights(tmp_path / "other")
    assert other.dialect is ALEXEYAB and saved(other, tmp_path / "back", dialect=PJREDDIE) == data


@pytest.mark.parametrize(("option", "left"), [("", [0, 0]), ("dontload=1", [5, 6])])
def test_what_a_file_has_no_room_for_is_zero_then(make, tmp_path, option, left):
    """The biases of a [batchnorm], in a file of pjreddie: those of a file that was read before do not stay."""
    network = make(f"[net]\ninputs=2\n[batchnorm]\n{option}\n[softmax]\n")
    network.layers[0].biases.value[:] = 5, 6
    (tmp_path / "in.weights").write_bytes(wide(0, 2, 0) + (b"" if option else floats(1, 2, 3, 4, 5, 6)))
    network.load_weights(tmp_path / "in.weights")
    assert network.layers[0].biases.value.tolist() == left


def test_the_file_of_a_batchnorm_read_as_that_of_the_fork_has_biases(make):
    data = wide(0, 2, 0) + floats(7, 8, 1, 2, 3, 4, 5, 6)
    network = make("[net]\ninputs=2\n[batchnorm]\n[softmax]\n", data, dialect="alexeyab")
    assert network.layers[0].biases.value.tolist() == [7, 8]


def test_a_variance_may_be_zero_but_not_less(make, tmp_path):
    text = "[net]\ninputs=4\n[batchnorm]\n[softmax]\n"
    network = make(text, wide(0, 2, 0) + floats(*[1] * 8, 2, 0, 0.5, 0))
    assert network.layers[0].norm.rolling_variance.value.tolist() == [2, 0, 0.5, 0]
    with pytest.raises(WeightsError, match="rolling_variance holds -1.0 at byte 64: a variance is never below 0"):
        make(text, wide(0, 2, 0) + floats(*[1] * 8, 2, 0, 0.5, -1))


def test_float64_networks_write_float32(make, tmp_path):
    assert saved(make(data=P_FILE, dtype=np.float64), tmp_path / "out") == P_FILE


# Files that cannot be read


def nan_at(position, value=np.nan):
    return P_FILE[:position] + floats(value) + P_FILE[position + 4 :]


# wi takes bytes 20 to 44, its biases 20 to 28; ui begins at 116, its weights at 124; connected at 244.
BROKEN = {
    "empty": (b"", "too short: the header has 16 or 20 bytes, but the file ends at byte 0"),
    "version only": (P_FILE[:11], "the file ends at byte 11"),
    "cut in seen": (P_FILE[:19], "too short: the header has 20 bytes, but the file ends at byte 19"),
    "cut in narrow seen": (narrow(0, 1, 0)[:15], "the header has 16 bytes, but the file ends at byte 15"),
    "header only": (P_FILE[:20], r"layer 0 \[lstm\] wi.biases needs bytes 20 to 28, but the file ends at byte 20"),
    "one byte short": (P_FILE[:-1], r"layer 1 \[connected\] weights needs bytes 256 to 280, but .* byte 279"),
    "cut in the middle": (P_FILE[:130], r"\[lstm\] ui.weights needs bytes 124 to 148, .* byte 130 \(.* 280 bytes"),
    "cut between two": (P_FILE[:148], r"\[lstm\] uf.biases needs bytes 148 to 156, .* byte 148 "),
    "narrow header": (narrow(0, 2, 0) + P_FILE[20:], r"layer 1 \[connected\] weights needs .* byte 276"),
    "one byte long": (P_FILE + b"\0", "too long: the layers of this cfg end at byte 280, but the file at byte 281"),
    "wide header": (wide(0, 1, 0) + P_FILE[20:], "end at byte 276, but the file at byte 280"),
    "negative major": (struct.pack("<3i", -1, 2, 0) + P_FILE[12:], r"version -1\.2\.0 \(bytes 0 to 12\) is impossible"),
    "negative minor": (struct.pack("<3i", 0, -2, 0) + P_FILE[12:], r"version 0\.-2\.0 .* impossible"),
    "negative revision": (struct.pack("<3i", 0, 2, -5) + P_FILE[12:], r"version 0\.2\.-5 .* impossible"),
    "nan": (nan_at(128), r"layer 0 \[lstm\] ui.weights holds nan at byte 128: not a finite number"),
    "infinity": (nan_at(276, np.inf), r"layer 1 \[connected\] weights holds inf at byte 276"),
    "cfg": (b"[net]\nbatch=1\ninputs=256\n" * 20, "is a Darknet cfg, not a weights file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_and_change_nothing(make, tmp_path, name):
    data, message = BROKEN[name]
    network, path = make(data=P_FILE), tmp_path / "broken.weights"
    network.parameters.values += 1  # other numbers than the file's, for what is read of it must not stay
    before = snapshot(network)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=f"broken.weights: .*{message}") as caught:
        network.load_weights(path)
    assert snapshot(network) == before and "\n" not in str(caught.value)


@pytest.mark.parametrize("dialect", [None, "pjreddie", "alexeyab"])
def test_a_header_that_is_cut_is_told_in_any_dialect(make, tmp_path, dialect):
    network = make(data=P_FILE)
    (tmp_path / "broken.weights").write_bytes(P_FILE[:19])
    with pytest.raises(WeightsError, match="broken.weights: too short: the header has 20 bytes"):
        network.load_weights(tmp_path / "broken.weights", dialect)


def test_paths_that_cannot_be_read(make, tmp_path, monkeypatch):
    network = make(data=P_FILE)
    before = snapshot(network)
    (tmp_path / "link").symlink_to(tmp_path / "link")
    cases = {
        "missing": "No such file",
        ".": "a folder, pipe or device",
        "in.weights/x": "Not a directory",
        "nul\0": r"nul\\x00: .*null",
        "new\nline": r"new\\nline: .*No such file",
        "link": "symbolic links",
    }
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        cases["pipe"] = "a folder, pipe or device"
    for name, message in cases.items():
        for read in (network.load_weights, read_header):
            with pytest.raises(WeightsError, match=message) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # chmod would not stop a test that runs as root
    with pytest.raises(WeightsError, match="in.weights: cannot read the weights: Permission denied"):
        network.load_weights(tmp_path / "in.weights")
    assert snapshot(network) == before


numbers = st.sampled_from([0, 1, 2, 5, 999, 1000, 1001, -1, 2**31 - 1, -(2**31)]) | st.integers(-(2**31), 2**31 - 1)
position = st.integers(0, len(P_FILE) - 1)
damage = st.one_of(
    st.tuples(st.just("flip"), position, st.integers(1, 255)),
    st.tuples(st.just("cut"), position, st.integers(1, 300)),
    st.tuples(st.just("insert"), position, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("header"), st.tuples(numbers, numbers, numbers), st.integers(0, 2**64 - 1)),
)


def damaged(data, kind, where, what):
    if kind == "flip" and where < len(data):
        return data[:where] + bytes([data[where] ^ what]) + data[where + 1 :]
    if kind == "cut":
        return data[:where] + data[where + what :]
    if kind == "insert":
        return data[:where] + what + data[where:]
    if kind == "header":
        return wide(*where, what) + data[20:]
    return data


@settings(max_examples=200, deadline=None)
@given(st.lists(damage, min_size=1, max_size=4))
def test_damaged_files_raise_only_our_own_errors(tmp_path_factory, changes):
    data = P_FILE
    for change in changes:
        data = damaged(data, *change)
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "net.cfg").write_text(LSTM.format(lstm="", connected=""))
    (folder / "in.weights").write_bytes(data)
    network = load_network(folder / "net.cfg", srand=1)
    before = snapshot(network)
    try:
        network.load_weights(folder / "in.weights")
    except PydarknetError as error:
        assert isinstance(error, WeightsError) and "in.weights: " in str(error) and snapshot(network) == before
    else:
        assert np.isfinite(network.parameters.values).all()
        again = saved(network, folder / "out")
        network.load_weights(folder / "out")
        assert saved(network, folder / "out") == again


# Files that cannot be written


def fails_to_save(network, path, message, names):
    """Saving to ``path`` is a WeightsError, and the folder holds ``names`` as before."""
    folder = path.parent
    with pytest.raises(WeightsError, match=message) as caught:
        network.save_weights(path)
    assert "\n" not in str(caught.value)
    if folder.is_dir():
        assert sorted(file.name for file in folder.iterdir()) == sorted(names)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    return folder


def test_paths_that_cannot_be_written(make, tmp_path, out):
    network = make(data=P_FILE)
    (out / "folder").mkdir()
    names = ["old", "folder"]
    missing = "x: cannot save the weights: No such file or directory. Earlier files are as they were$"
    fails_to_save(network, tmp_path / "missing" / "x", missing, [])
    fails_to_save(network, out / "folder", "folder: cannot save the weights: Is a directory", names)
    fails_to_save(network, out / "old" / "x", "x: cannot save the weights: Not a directory", [])
    fails_to_save(network, out / "nul\0", r"nul\\x00: cannot save the weights: .*null", names)
    fails_to_save(network, out / ("n" * 256), "File name too long", names)
    assert (out / "old").read_bytes() == b"old"
    longest = out / ("n" * 255)  # the temporary file's name must not be longer
    assert saved(network, longest) == P_FILE


@as_root
def test_permissions(make, out):
    network = make(data=P_FILE)
    (out / "old").chmod(0o444)
    fails_to_save(network, out / "old", "Permission denied", ["old"])  # though a rename would do it
    (out / "old").chmod(0o644)
    out.chmod(0o555)
    try:
        fails_to_save(network, out / "old", "Permission denied", ["old"])
    finally:
        out.chmod(0o755)
    assert (out / "old").read_bytes() == b"old"


@posix
def test_links_and_what_is_no_file(make, tmp_path, out):
    network = make(data=P_FILE)
    os.mkfifo(out / "pipe")  # of /dev/null and the like, a rename would make a file
    (out / "circle").symlink_to(out / "circle")
    fails_to_save(network, out / "pipe", "pipe: cannot save the weights: Not a regular file", ["old", "pipe", "circle"])
    fails_to_save(network, out / "circle", "symbolic links", ["old", "pipe", "circle"])
    for target in (tmp_path / "elsewhere", out / "old"):  # new, and there already
        link = out / f"to_{target.name}"
        link.symlink_to(target)
        network.save_weights(link)
        assert link.is_symlink() and not target.is_symlink() and target.read_bytes() == P_FILE


@posix
def test_modes(make, out):
    network = make(data=P_FILE)
    (out / "old").chmod(0o640)
    mask = os.umask(0o027)
    try:
        network.save_weights(out / "old")
        network.save_weights(out / "new")
    finally:
        os.umask(mask)
    assert [(out / name).stat().st_mode & 0o7777 for name in ("old", "new")] == [0o640, 0o640]


@pytest.mark.parametrize(
    ("call", "fault", "raised"),
    [
        ("fsync", OSError(5, "Input/output error"), WeightsError),
        ("replace", OSError(28, "No space left on device"), WeightsError),
        ("fsync", KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_fault_on_the_way_leaves_the_old_file(make, out, monkeypatch, call, fault, raised):
    def fail(*_):
        raise fault

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(raised):
        make(data=P_FILE).save_weights(out / "old")
    assert [file.name for file in out.iterdir()] == ["old"] and (out / "old").read_bytes() == b"old"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_a_diverged_network_replaces_no_file(make, out, value):
    network = make(data=P_FILE, dtype=np.float64)
    network.layers[1].biases.value[1] = value  # 1e39 is finite in float64, but not in the file
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of numpy, which would be a line before the one that counts
        fails_to_save(network, out / "old", r"old: not saved: layer 1 \[connected\] biases holds .* not finite", ["old"])
    assert (out / "old").read_bytes() == b"old"


@posix
def test_a_full_disk_leaves_the_old_file(make, tmp_path, out):
    make(data=P_FILE)
    # A limit on the size of files stands for the full disk: write() fails part of the way.
    script = """if True:
        import resource, signal, sys
        from pydarknet import load_network
        from pydarknet.errors import WeightsError
        network = load_network(*sys.argv[1:3])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            network.save_weights(sys.argv[3])
        except WeightsError as error:
            print(error)
    """
    arguments = [tmp_path / "net.cfg", tmp_path / "in.weights", out / "old"]
    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "old: cannot save the weights: File too large. Earlier files are as they were" in found.stdout
    assert [file.name for file in out.iterdir()] == ["old"] and (out / "old").read_bytes() == b"old"
