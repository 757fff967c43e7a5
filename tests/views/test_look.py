"""``network.trace`` and ``look``: the numbers are the layer's own, the features those of the text, the page holds them."""

import base64
import json
import re
import tracemalloc

import numpy as np
import pytest
from command_line import done, make_network, run
from places import ROOT

from pydarknet import load_network
from pydarknet.errors import InputError
from pydarknet.inference.cells import features_of, find_cells, read_cells
from pydarknet.system import memory
from pydarknet.traces import BLOCK
from pydarknet.views import cells_page

TEXT = 'def f(x):\n    return "a (b" + [x][0]  # Ä漢\n\nIt\'s 12.\n' * 20
NAMES = {"lstm": "i f o g c tanh_c h", "gru": "r z q h", "rnn": "h"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("layer", NAMES)
def test_a_trace_is_what_the_layer_puts_out(tmp_path, layer):
    _, _, network = make_network(tmp_path, layer)
    data = np.frombuffer(TEXT.encode(), np.uint8)
    assert len(data) > 2 * BLOCK  # several blocks
    traced = network.trace(TEXT)
    assert set(traced[0]) == set(NAMES[layer].split())
    assert all(array.shape == (len(data), 6) for array in traced[0].values())
    h = network.layer_output(0, data[:, None])[:, 0]
    if layer == "rnn":  # its output is of a layer of its own, over h
        output = network.layers[0].matrices["output"]
        found = sigmoid(traced[0]["h"] @ output.weights.T + output.biases)
    else:
        found = traced[0]["h"]
    np.testing.assert_allclose(found, h, atol=1e-5)
    if layer == "lstm":
        a = traced[0]
        np.testing.assert_allclose(a["c"][1:], a["f"][1:] * a["c"][:-1] + a["i"][1:] * a["g"][1:], atol=1e-5)
        np.testing.assert_allclose(a["tanh_c"], np.tanh(a["c"]), atol=1e-5)
        np.testing.assert_allclose(a["h"], a["o"] * a["tanh_c"], atol=1e-5)


def test_a_trace_leaves_the_state_and_shows_itself(tmp_path):
    _, _, network = make_network(tmp_path)
    _, _, other = make_network(tmp_path)
    for net in (network, other):
        net.predict(np.array([[65], [66]]))
    traced = network.trace("xyz", names=["h"])
    assert set(traced[0]) == {"h"}
    np.testing.assert_array_equal(network.predict(np.array([[67]])), other.predict(np.array([[67]])))
    assert "<td>lstm<td>h<td>(3, 6)" in traced._repr_html_()
    assert network.trace(b"")[0] == {}
    with pytest.raises(InputError, match="one-dimensional"):
        network.trace(np.zeros((2, 2)))
    with pytest.raises(InputError):
        network.trace([300])


def test_features():
    text = 'a "b(" [1{2}]\n\t  C\'s\n'
    found = features_of(list(text), [r"\d", "^"])
    for name, digits in {  # written out by hand, a digit a character
        "quotes": "001110000000000000000",
        "brackets": "000000011111000000000",
        "depth": "000000011221000000000",
        "upper case": "000000000000000001000",
        "digits": "000000001010000000000",
        r"/\d/": "000000001010000000000",
        "indentation": "000000000000004566666",
    }.items():
        assert "".join(str(int(value)) for value in found[name]) == digits, name
    assert found["position"].tolist() == [*range(14), *range(7)]
    assert not found["/^/"].any()
    with pytest.raises(InputError, match="not a regular expression"):
        features_of("a", ["("])
    for pattern in ("a{99999999999999}", 5000 * "(" + 5000 * ")"):
        with pytest.raises(InputError, match="is not a regular expression"):
            features_of("a", [pattern])


@pytest.mark.parametrize(
    "text, quotes",
    [
        ("“Ja”, „ja“ „no” ", "1110001110011100"),
        ("‘I don’t’ x’s “’s”", "111111110000001110"),
        ("‚a‘ «b» »c« ‹d› ›e‹", "1100110011001100110"),
        ("« b », il »c", "111100000011"),
        ("「a『b』c」d", "11111100"),
        ('“two\nlines” "one\nline"', "1111111111001111000001"),
        ("“open\n\nnext ”so“", "1111100000000001"),
        ("a »b", "0011"),
        ("a» b", "0000"),
    ],
)
def test_quotes_that_differ_at_their_ends(text, quotes):
    found = features_of(text)["quotes"]
    assert "".join(str(int(value)) for value in found) == quotes


def test_brackets_of_full_width():
    found = features_of("（a［b］《c》）d【e】")
    assert "".join(str(int(value)) for value in found["depth"]) == "1122122100110"


def test_the_cells_that_are_found_are_those_that_correlate():
    random = np.random.default_rng(0)
    values = random.normal(size=(400, 5)).astype(np.float32)
    values[:, 4] = 0.5  # follows nothing
    feature = (values[:, 2] * -1 + random.normal(size=400)).astype(np.float32)
    found = find_cells(values, {"x": feature, "same": np.ones(400, np.float32)}, top=5)
    assert found["same"] == []
    assert found["x"][0] == (2, pytest.approx(np.corrcoef(values[:, 2], feature)[0, 1], abs=1e-5))
    assert dict(found["x"])[4] == 0


def test_cells_are_found_without_a_second_copy_of_their_values():
    values = np.zeros((100_000, 20), np.float32)
    tracemalloc.start()
    try:
        find_cells(values, {"x": np.arange(100_000, dtype=np.float32)})
        assert tracemalloc.get_traced_memory()[1] < values.nbytes / 2
    finally:
        tracemalloc.stop()


def test_a_text_that_the_memory_has_no_room_for(tmp_path, monkeypatch):
    _, _, network = make_network(tmp_path)
    needed = 1000 * 6 * (4 + 3)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed - 1)
    with pytest.raises(InputError, match=f"6 cells at 1,000 characters: this needs {needed:,} bytes"):
        read_cells(network, b"x" * 1000)
    monkeypatch.setattr(memory, "memory_at_hand", lambda: needed)
    read_cells(network, b"x" * 1000)


@pytest.mark.parametrize("layer", NAMES)
def test_the_page_holds_the_cells(tmp_path, layer):
    cfg, weights, network = make_network(tmp_path, layer)
    (tmp_path / "a<b.txt").write_text(TEXT, encoding="utf-8")
    done("look", cfg, weights, tmp_path / "a<b.txt", "--html", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "a&lt;b.txt" in html
    assert not re.search(r"https?://|src=|@import|url\(", html)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    assert data["text"] == TEXT
    ends = np.cumsum([len(c.encode()) for c in TEXT]) - 1
    traced = network.trace(TEXT)[0]
    views = {"value": traced["tanh_c" if layer == "lstm" else "h"], **{g: traced[g] for g in data["shares"]}}
    assert set(data["shares"]) == set({"lstm": "ifo", "gru": "rz", "rnn": ""}[layer])
    for name, array in views.items():
        packed = np.frombuffer(base64.b64decode(data["views"][name]), np.uint8).reshape(6, -1).astype(float)
        got = (packed / 127 - 1) * data["scale"] if name == "value" else packed / 255
        np.testing.assert_allclose(got, array[ends].T, atol=data["scale"] / 120)
        if name != "value":
            np.testing.assert_allclose(data["shares"][name][0], (array[ends] < 0.1).mean(axis=0), atol=1e-3)
            np.testing.assert_allclose(data["shares"][name][1], (array[ends] > 0.9).mean(axis=0), atol=1e-3)
    network.reset_state()
    p = network.predict(np.frombuffer(TEXT.encode(), np.uint8)[:, None])[ends, 0]
    symbols = np.frombuffer(base64.b64decode(data["next_symbols"]), np.uint8).reshape(-1, 5)
    np.testing.assert_allclose(np.take_along_axis(p, symbols.astype(int), 1), -np.sort(-p, axis=1)[:, :5], atol=1e-6)


def test_a_long_text_keeps_the_cells_that_matter(tmp_path, monkeypatch):
    _, _, network = make_network(tmp_path)
    cells = read_cells(network, TEXT.encode())
    monkeypatch.setattr(cells_page, "MOST", 2 * 4 * len(TEXT))
    assert cells_page.cells_that_fit(cells, {"x": [(4, 0.9)]}, 1) == [1, 4]
    assert cells_page.cells_that_fit(cells, {}, 5)[-1] == 5


def test_the_terminal_shows_one_cell(tmp_path):
    cfg, weights, network = make_network(tmp_path)
    (tmp_path / "t").write_text("ab\x1b[31m\n")
    values = network.trace("ab\x1b[31m\n")[0]["tanh_c"][:, 3]
    plain = done("look", cfg, weights, tmp_path / "t", "--cell", 3).decode()
    assert "\x1b" not in plain and "ab\\x1b[31m" in plain
    marks = plain.splitlines()[3]
    assert (marks + "  ")[:2] == "".join("=- +#"[int((v + 1) * 2.5)] for v in values[:2])
    coloured = done("look", cfg, weights, tmp_path / "t", "--cell", 3, "--color", "always").decode()
    assert "\x1b[30;48;5;" in coloured and "\x1b[31m" not in coloured
    assert done("look", cfg, weights, "-", "--cell", 3, stdin=b"ab\x1b[31m\n").decode() == plain


def test_blanks_are_blanks_and_a_stray_byte_is_shown_as_score_shows_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    blank, hidden = "a\u00a0b\u3000c\u2009d\u202fe", "\u2028\u202e\u200b\ufeff\u00ad\u0085"
    shown = blank + r"\u2028\u202e\u200b\ufeff\u00ad\u0085" + r"\x1b\xa0\x85\xff"
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "t").write_bytes((blank + hidden).encode() + b"\x1b\xa0\x85\xff")
    for command in "look", "score":
        assert shown in done(command, cfg, weights, tmp_path / "t", "--color", "never").decode(), command
        coloured = done(command, cfg, weights, tmp_path / "t", "--color", "always").decode()
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured).count(shown) == 1, command
        done(command, cfg, weights, tmp_path / "t", "--html", tmp_path / f"{command}.html")
    assert shown in re.sub("<span[^>]*>|</span>", "", (tmp_path / "score.html").read_text(encoding="utf-8"))
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "look.html").read_text(encoding="utf-8"))[1])
    assert "".join(data["escapes"].get(c, c) for c in data["text"]) == shown


def test_marks_stand_below_what_is_wide(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    cfg, weights, network = make_network(tmp_path)
    row = "漢e\u0301" * 13  # 2, 1 and 0 columns: another 漢 has no room
    (tmp_path / "t").write_text(3 * row, encoding="utf-8")
    values = network.trace(3 * row)[0]["tanh_c"][np.cumsum([len(c.encode()) for c in 3 * row]) - 1, 0]
    marks = ["=- +#"[min(4, int((v + 1) * 2.5))] for v in values]
    out = done("look", cfg, weights, tmp_path / "t", "--cell", 0).decode().splitlines()[2:]
    for n in range(3):
        below = "".join(mark * width for mark, width in zip(marks[39 * n : 39 * n + 39], [2, 1, 0] * 13)).rstrip()
        assert out[: 2 if below else 1] == [row, below][: 2 if below else 1]
        del out[: 2 if below else 1]
    assert not out and len({*marks}) > 1


def test_a_pattern_that_is_wide_is_followed_by_its_cells_at_the_same_place(tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "t").write_text("漢字漢 12", encoding="utf-8")
    lines = done("look", cfg, weights, tmp_path / "t", "--regex", "漢字漢|字漢字漢", "--regex", "1").decode().splitlines()
    wide, narrow = (next(line for line in lines if line.startswith(name)) for name in ("/漢", "/1/"))
    assert re.fullmatch(r"/漢字漢\|字漢字漢/  +\d \S+ .*", wide) and narrow.startswith("/1/" + " " * 14 + "     ")


@pytest.mark.parametrize(
    "options, message",
    [
        ("--cell 6", "layer 0 has the cells 0 to 5"),
        ("--layer 1", "layer 1 is not recurrent: choose from 0"),
        ("--gate r", "[lstm] has i f o"),
        ("--regex (", "is not a regular expression"),
        ("--html net.cfg", "give it another name"),
        ("--html no/page.html", "cannot write the page"),
    ],
)
def test_mistakes_are_a_line(tmp_path, monkeypatch, options, message):
    cfg, weights, _ = make_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text("text")
    before = cfg.read_bytes()
    result = run("look", cfg.name, weights.name, "t", *options.split())
    assert result.code == 1 and message in result.err and result.err.count("\n") == 1
    assert cfg.read_bytes() == before


def test_the_shipped_network_follows_brackets_indentation_and_position():
    network = load_network(ROOT / "cfg/rnn.cfg", ROOT / "weights/rnn.weights", batch=1)
    cells = read_cells(network, (ROOT / "docs/look-example.txt").read_bytes())
    found = find_cells(cells.values, features_of(cells.characters))
    rows = re.findall(r"^([a-z ]+?)  +(\d+) ([+-]\S+) ", (ROOT / "docs/look.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: (int(cell), float(r)) for name, cell, r in rows} == {
        name: (best[0][0], pytest.approx(best[0][1], abs=0.006))
        for name, best in found.items()  # written with two decimals
    }
    assert all(abs(found[name][0][1]) > 0.5 for name in ("brackets", "indentation", "position"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layer, value", [("lstm", 3e38), ("rnn", 3e38), ("gru", np.nan)])  # a gate bounds what a GRU holds
def test_weights_that_overflow_are_told_once(tmp_path, layer, value):
    _, _, network = make_network(tmp_path, layer)
    network.parameters.values[:] = np.where(np.arange(network.parameters.values.size) % 3, value, -value)
    with pytest.raises(InputError, match="not finite numbers: its weights overflow"):
        read_cells(network, TEXT.encode())


def test_a_crnn_is_an_rnn_to_look_into(tmp_path):
    cfg, weights, network = make_network(tmp_path, "crnn", "size=1\nhidden=5\nactivation=relu")
    (tmp_path / "a.txt").write_text(TEXT)
    read = read_cells(network, TEXT.encode())
    assert (read.type, read.name, read.gates, read.values.shape[1]) == ("crnn", "h", {}, 5)
    np.testing.assert_array_equal(read.values[:3], network.trace(TEXT[:3])[0]["h"])
    assert b"layer 0 [crnn], cell 2: h from " in done("look", cfg, weights, tmp_path / "a.txt", "--cell", 2)
