"""Darknet's cfg dialect: what is read, what is warned of, and what each error says."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydarknet.darknet import recipes
from pydarknet.darknet.cfg import FLOAT_MAX, LONGEST, WARNINGS, parse_cfg, parse_cfg_text
from pydarknet.errors import CfgError, CfgWarning
from pydarknet.optim.schedules import Schedule

# Of the shape of Darknet's own gru.cfg and crnn.train.cfg: blanks round =, commented options, lists, empty sections.
STOCK = """[net]
inputs=256

# Test
batch = 1
time_steps=1

; Train
# batch = 512

momentum=0.9
learning_rate=0.1
policy=steps
steps=1000,1500
scales=.1,.1

[gru]
batch_normalize=1
output = 1024

[crnn]
size=1
pad=0
hidden=64
output = 64
activation=leaky

[connected]
output=256
activation=linear

[softmax]

[cost]
type=sse

"""


def lstm(options):
    """The [lstm] section of a small cfg; its options begin on line 3."""
    return parse_cfg_text("[net]\n[lstm]\n" + options, "x.cfg").layers[0]


def message_of(call, *arguments, **options):
    """What the CfgError of a call says; it must be one line."""
    with pytest.raises(CfgError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def message_of_text(text):
    return message_of(parse_cfg_text, text, "x.cfg")


def test_a_cfg_of_the_stock_shape_is_read():
    cfg = parse_cfg_text(STOCK, "gru.cfg")
    assert (cfg.path, cfg.net.type, cfg.net.line) == ("gru.cfg", "net", 1)
    assert [layer.type for layer in cfg.layers] == ["gru", "crnn", "connected", "softmax", "cost"]
    assert cfg.net.integer("batch") == 1
    assert cfg.net.number("momentum") == 0.9
    assert cfg.net.integers("steps") == [1000, 1500]
    assert cfg.net.numbers("scales") == [0.1, 0.1]
    gru, crnn = cfg.layers[:2]
    assert (gru.line, gru.integer("output"), gru.flag("batch_normalize")) == (17, 1024, True)
    assert crnn.choice("activation", "logistic", ["linear", "leaky"]) == "leaky"
    assert cfg.layers[3].options == {}


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems_change_nothing(end):
    ours, theirs = parse_cfg_text(STOCK, "x"), parse_cfg_text(STOCK.replace("\n", end), "x")
    assert theirs == ours


def test_a_byte_order_mark_is_passed_over(tmp_path):
    file = tmp_path / "bom.cfg"
    file.write_bytes(b"\xef\xbb\xbf[net]\ninputs=3\n")
    assert parse_cfg(file).net.integer("inputs") == 3


def test_blanks_are_dropped_everywhere():
    section = lstm("  out put\t= 1 0\t2 4 \n \t# a comment may be indented\n")
    assert section.integer("output") == 1024


def test_a_value_may_hold_an_equals_sign():
    assert lstm("a=b=c\n").text("a") == "b=c"


# Values


@pytest.mark.parametrize(
    "written, number",
    [("0", 0), ("+3", 3), ("-7", -7), ("007", 7), ("2147483647", 2**31 - 1), ("-2147483648", -(2**31)), ("0" * 5000 + "5", 5)],
)
def test_whole_numbers(written, number):
    assert lstm(f"k={written}").integer("k") == number


@pytest.mark.parametrize("written", ["1O24", "1.5", "1.", "1e3", "1_000", "-", "0x10", "١٢", "１", "nan", "1\x0b"])
def test_what_is_no_whole_number(written):
    assert message_of(lstm(f"k={written}").integer, "k") == f"x.cfg:3: [lstm] k={written!r} is not a whole number"


@pytest.mark.parametrize("written", ["2147483648", "-2147483649", "9" * 5000])
def test_whole_numbers_end_where_a_c_int_ends(written):
    assert "out of range: Darknet's whole numbers go from" in message_of(lstm(f"k={written}").integer, "k")


@pytest.mark.parametrize(
    "written, number",
    [
        ("1.", 1),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("+3", 3),
        ("-2.5E+1", -25),
        ("3.4028234e38", 3.4028234e38),
        ("1e-999", 0),
        (str(FLOAT_MAX), FLOAT_MAX),
    ],
)
def test_numbers(written, number):
    assert lstm(f"k={written}").number("k") == number


@pytest.mark.parametrize("written", ["nan", "inf", "-inf", "1_0.5", "1,5", ".", "e5", "1e", "0x1p3", "٣.٥", "1..2"])
def test_what_is_no_number(written):
    assert message_of(lstm(f"k={written}").number, "k") == f"x.cfg:3: [lstm] k={written!r} is not a number"


@pytest.mark.parametrize("written", ["1e999", "-3.5e38"])
def test_numbers_are_finite_in_a_c_float(written):
    assert "out of range" in message_of(lstm(f"k={written}").number, "k")


def test_limits_are_named():
    section = lstm("dropout=1.5\noutput=0")
    assert message_of(section.number, "dropout", maximum=1) == "x.cfg:3: [lstm] dropout=1.5 is too large: it must be at most 1"
    assert message_of(section.integer, "output", minimum=1) == "x.cfg:4: [lstm] output=0 is too small: it must be at least 1"
    assert "dropout=1.5 is too small: it must be at least 2" in message_of(section.number, "dropout", minimum=2)
    assert "output=0 is too large: it must be at most -1" in message_of(section.integer, "output", maximum=-1)
    assert section.number("dropout", minimum=1.5, maximum=1.5) == 1.5
    assert section.integer("output", minimum=0, maximum=0) == 0


def test_an_absent_key_gives_the_default():
    section = lstm("")
    assert section.integer("k", 7, minimum=9) == 7  # as it is: the default is the caller's business
    assert section.number("k", 0.5) == 0.5
    assert section.text("k", "t") == "t"
    assert section.choice("k", "a", ["a", "b"]) == "a"
    assert section.flag("k", True) is True and section.flag("k") is False
    assert section.integers("k") == [] and section.numbers("k") == []
    assert section.integer("k") is None and section.text("k") is None


@pytest.mark.parametrize("written, truth", [("0", False), ("1", True), ("2", True), ("-1", True)])
def test_flags_are_whole_numbers(written, truth):
    assert lstm(f"k={written}").flag("k") is truth


def test_a_flag_in_words_is_an_error():
    assert "k='true' is not a whole number" in message_of(lstm("k=true").flag, "k")


def test_an_item_of_a_list_is_blamed_by_itself():
    assert message_of(lstm("k=1,x,3").integers, "k") == "x.cfg:3: [lstm] k='x' (in '1,x,3') is not a whole number"
    assert message_of(lstm("k=.5,").numbers, "k") == "x.cfg:3: [lstm] k='' (in '.5,') is not a number"


def test_a_choice_names_what_there_is():
    assert (
        message_of(lstm("activation=tahn").choice, "activation", "linear", ["linear", "tanh"])
        == "x.cfg:3: [lstm] activation='tahn' is not one of linear, tanh"
    )


@pytest.mark.parametrize("read", ["integer", "number", "flag", "integers", "numbers"])
def test_a_comment_behind_a_value_is_hinted_at(read):
    assert message_of(getattr(lstm("k=5 # five"), read), "k").endswith("; a comment must have a line of its own")


def test_a_comment_behind_a_choice_is_hinted_at():
    assert "a comment must have a line of its own" in message_of(
        lstm("activation=tanh ; x").choice, "activation", "tanh", ["tanh"]
    )


def test_errors_are_placed_at_the_key_or_else_at_the_header():
    section = lstm("a=1\nb=2")
    assert str(section.error("no", "b")) == "x.cfg:4: [lstm] no"
    assert str(section.error("no", "c")) == str(section.error("no")) == "x.cfg:2: [lstm] no"


# Warnings


def test_of_a_key_given_twice_the_first_counts_with_a_warning():
    with pytest.warns(CfgWarning) as caught:
        section = lstm("output=5\noutput=6")
    assert section.integer("output") == 5
    assert [str(w.message) for w in caught] == [
        "x.cfg:4: [lstm] 'output=6' has no effect: line 3 has set 'output', and the first counts"
    ]


def test_keys_that_nobody_asked_for_are_told():
    cfg = parse_cfg_text("[net]\nmomentun=.8\nheight=1\n[lstm]\noutput=3\nzz=1\n", "x.cfg")
    cfg.net.number("momentum")
    cfg.net.ignore("height", "width")
    cfg.layers[0].integer("output")
    assert cfg.layers[0].has("zz")  # looking is not reading
    assert cfg.net.unused() == [("momentun", 2)]
    with pytest.warns(CfgWarning) as caught:
        cfg.warn_unused()
    assert [str(w.message) for w in caught] == [
        "x.cfg:2: [net] Unused field: 'momentun = .8': is it 'momentum' that you mean?",
        "x.cfg:6: [lstm] Unused field: 'zz = 1'",
    ]


@pytest.mark.parametrize(("line", "last"), [("a=1", "more lines have no effect"), ("a{}=1", "more unused fields")])
def test_of_warnings_without_end_the_first_are_told(line, last):
    def warned():
        cfg = parse_cfg_text("[net]\na=0\n" + "".join(f"{line.format(n)}\n" for n in range(1000)), "x.cfg")
        cfg.net.ignore("a")
        cfg.warn_unused()

    with pytest.warns(CfgWarning) as caught:
        warned()
    messages = [str(w.message) for w in caught]
    assert len(messages) == WARNINGS + 1 and messages[0].startswith("x.cfg:3: ")
    assert messages[-1].startswith(f"x.cfg: {1000 - WARNINGS} {last}")


# Text that is no cfg


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "x.cfg: holds no section: a cfg begins with [net]"),
        ("\n# only a comment\n", "x.cfg: holds no section: a cfg begins with [net]"),
        ("batch=1\n[net]\n", "x.cfg:1: 'batch=1' stands before any section: a cfg begins with [net]"),
        ("\n[lstm]\noutput=5\n", "x.cfg:2: [lstm] is the first section: a cfg begins with [net]"),
        ("[net]\n[lstm]\n[net]\n", "x.cfg:3: [net] is the second of its kind, after line 1"),
        ("[net]\n[net]\n", "x.cfg:2: [net] is the second of its kind, after line 1"),
        ("[net]\n[lstm]]\n", "x.cfg:2: '[lstm]]' goes on after the ]"),
        ("[net]\n[lstm\n", "x.cfg:2: '[lstm' has no closing ]"),
        ("[net]\n[lstm] # x\n", "x.cfg:2: '[lstm]#x' goes on after the ]: comments must have lines of their own"),
        ("[net]\n[lstm]\noutput\n", "x.cfg:3: [lstm] 'output' is not key=value"),
        ("[net]\n[lstm]\noutput=\n", "x.cfg:3: [lstm] 'output=' is not key=value"),
        ("[net]\n[lstm]\n=5\n", "x.cfg:3: [lstm] '=5' is not key=value"),
        ("[net]\nbatch=\x001\n", "x.cfg:2: holds a NUL byte"),
    ],
)
def test_text_that_is_no_cfg(text, said):
    assert message_of_text(text).startswith(said)


def test_long_lines_are_cut_in_messages():
    assert len(message_of_text("[net]\n" + "x" * 10_000)) < 300


# Files that are no cfg


def test_files_that_cannot_be_read(tmp_path):
    assert f"{tmp_path}: is a directory" in message_of(parse_cfg, tmp_path)
    missing = tmp_path / "missing.cfg"
    assert f"{missing}: cannot be read (No such file or directory)" in message_of(parse_cfg, missing)
    assert "is not a possible file name" in message_of(parse_cfg, "a\0b")


def test_a_recipe_is_found_by_its_name_where_there_is_no_such_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_cfg("rnn").path == parse_cfg("rnn.cfg").path == recipes.find("rnn")
    assert message_of(parse_cfg, "missing").endswith("take a recipe of pydarknet: " + ", ".join(recipes.names()))
    (tmp_path / "rnn.cfg").write_text("[net]\ninputs=3\n")
    cfg = parse_cfg("rnn.cfg")
    assert (cfg.path, cfg.net.integer("inputs")) == ("rnn.cfg", 3)


def test_an_unreadable_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locked.cfg").write_text("[net]")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # chmod would not stop a test that root runs
    assert message_of(parse_cfg, "locked.cfg").startswith("locked.cfg: cannot be read (Permission denied)")


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "latin1.cfg"
    file.write_bytes(b"[net]\ncaf\xe9=1\n")
    assert message_of(parse_cfg, file).startswith(f"{file}:2: byte 0xe9 is not UTF-8 text")


@pytest.mark.parametrize("comment", [b"# caf\xe9 \xff", b"  ; \xc4hnlich"])
def test_a_comment_in_latin_1_is_a_comment(tmp_path, comment):
    file = tmp_path / "latin1.cfg"
    file.write_bytes(b"[net]\n" + comment + b"\ninputs=3\n")
    assert parse_cfg(file).net.integer("inputs") == 3


def test_a_file_that_is_too_large(tmp_path):
    file = tmp_path / "large.cfg"
    with open(file, "wb") as handle:
        handle.truncate(LONGEST + 1)
    assert message_of(parse_cfg, file).startswith(f"{file}: is over 256 KiB, too long for a cfg")
    file.write_text("[net]\n#" + (LONGEST - 7) // 2 * "é")  # which has fewer characters than bytes
    assert parse_cfg(file).lines[1].endswith("é")
    file.write_text("[net]\n#" + LONGEST // 2 * "é")
    assert "is over 256 KiB" in message_of(parse_cfg, file)
    assert message_of_text("[net]\n" + LONGEST * "#").startswith("x.cfg: is over 256 KiB")


# Settings

SMALL = "[net]\ninputs=3\n[lstm]\noutput=5\n[lstm]\noutput=6\n[softmax]\n"


def set_in(text, *settings):
    cfg = parse_cfg_text(text, "x.cfg")
    for setting in settings:
        cfg.set(setting)
    return cfg


def test_a_setting_takes_the_place_of_an_option_of_all_sections_of_its_name_or_of_one_layer():
    outputs = [[layer.integer("output") for layer in set_in(SMALL, *words).layers[:2]]
               for words in (["lstm.output=7"], ["0.output=7"], ["1.output=7"], ["lstm.output=7", "0.output=8"])]  # fmt: skip
    assert outputs == [[7, 7], [7, 6], [5, 7], [8, 7]]
    for net in ("net", "network"):
        assert set_in(SMALL, f"{net}.inputs=4").net.integer("inputs") == 4
        assert set_in(SMALL.replace("net", "network"), f"{net}.inputs=4").net.integer("inputs") == 4
    assert set_in(SMALL, "net.a.b=1").net.text("a.b") == "1"
    cfg = set_in(SMALL, "net . policy =\t a=b.c")  # blanks go, as in a file, and the first = is the one
    assert cfg.net.text("policy") == "a=b.c" and cfg.settings == ["net . policy =\t a=b.c"]


@pytest.mark.parametrize("setting", ["", "net", "net.inputs", "net.inputs=", "net.=3", ".inputs=3", "net=3", "net.a=3\n",
                                     "net.a=3\r", "net.a=\x003"])  # fmt: skip
def test_what_is_no_setting(setting):
    assert "is not SECTION.KEY=VALUE" in message_of(set_in, SMALL, setting)


@pytest.mark.parametrize("section", ["gru", "3", "-1", "9" * 5000])
def test_a_setting_for_a_section_that_is_not_there(section):
    message = message_of(set_in, SMALL, f"{section}.output=3")
    assert message.endswith("x.cfg has no such section: it has net, lstm, softmax, and layers 0 to 2")


def test_mistakes_of_a_setting_are_placed_there():
    cfg = set_in(SMALL, "lstm.output=x")
    assert message_of(cfg.layers[1].integer, "output") == "--set: [lstm] output='x' is not a whole number"
    cfg = set_in(SMALL, "1.outptu=3")
    cfg.net.integer("inputs")
    for layer in cfg.layers:
        layer.integer("output")
    assert message_of(cfg.warn_unused) == "--set: [lstm] has no key 'outptu': is it 'output' that you mean?"


def test_a_cfg_written_as_text_means_the_same():
    cfg = set_in(STOCK.replace("[net]", "[network]"), "net.batch=7", "gru.tanh=1")
    assert (
        cfg.as_text().startswith("[network]\ninputs=256\nbatch=7\n") and "\n\n[softmax]\n\n[cost]\ntype=sse\n" in cfg.as_text()
    )
    again = parse_cfg_text(cfg.as_text(), "y.cfg")
    for before, after in zip((cfg.net, *cfg.layers), (again.net, *again.layers), strict=True):
        assert (before.type, before.name) == (after.type, after.name)
        assert {key: before.text(key) for key in before.options} == {key: after.text(key) for key in after.options}


def test_a_cfg_with_settings_keeps_its_comments():
    text = "# why\n[net]\nbatch = 3\n\n# the layer\n[lstm]\noutput=5\n[lstm]\n[softmax]\n"
    cfg = parse_cfg_text(text, "x.cfg")
    assert not cfg.changed and cfg.text_as_set() == text
    cfg.set("lstm.output=5")
    assert cfg.changed, "the second has no output of its own"
    cfg = parse_cfg_text(text, "x.cfg")
    cfg.set("net.batch=3")
    assert not cfg.changed
    for setting in "net.batch=4", "net.batch=7", "1.output=9", "1.input_rate=5", "net.adam=1":
        cfg.set(setting)
    assert cfg.changed and cfg.text_as_set() == (
        "# why\n[net]\nadam=1\nbatch=7\n\n# the layer\n[lstm]\noutput=5\n[lstm]\noutput=9\ninput_rate=5\n[softmax]\n"
    )
    assert parse_cfg_text(cfg.text_as_set(), "y.cfg").layers[1].text("input_rate") == "5"


# Damage


def read_everything(path):
    """Read each option of a file in every way that the package could."""
    cfg = parse_cfg(path)
    readers = [lambda s: Schedule.from_section(s)]
    for name in ("integer", "number", "flag", "integers", "numbers", "text"):
        readers += [
            lambda s, key=key, name=name: getattr(s, name)(key) for section in [cfg.net, *cfg.layers] for key in section.options
        ]
    readers.append(lambda s: s.choice("activation", "tanh", ["tanh", "leaky"]))
    for section in [cfg.net, *cfg.layers]:
        for read in readers:
            try:
                read(section)
            except CfgError as error:
                assert "\n" not in str(error)
    cfg.warn_unused()


PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [
            b"[net]",
            b"[",
            b"]",
            b"=",
            b"#",
            b"\n",
            b"\r",
            b",",
            b"-",
            b"e9",
            b"999999999999",
            b"[yolo]\n",
            b"policy=poly\n",
            b"policy=sgdr\n",
            b"policy=exp\n",
            b"\xef\xbb\xbf",
        ]
    ),
)
DAMAGE = st.lists(st.tuples(st.integers(0, len(STOCK)), st.integers(0, 12), PIECES), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "damaged.cfg"


@given(damage=DAMAGE)
@settings(max_examples=200, deadline=None)
def test_damage_raises_only_our_own_errors(damaged_file, damage):
    data = STOCK.encode()
    for start, length, piece in damage:
        data = data[:start] + piece + data[start + length :]
    damaged_file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CfgWarning)
        try:
            read_everything(damaged_file)
        except CfgError as error:
            assert "\n" not in str(error)
