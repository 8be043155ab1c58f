"""Pickles of plain data are read; a pickle of anything else never gets to do anything."""

import collections
import decimal
import io
import os
import pickle
import pickletools

import numpy as np
import pytest

from modalign.data.pickles import read_plain_pickle

RNG = np.random.default_rng(0)
PLAIN = {
    "floats": RNG.normal(size=(3, 4)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.normal(size=(3, 4))),
    "big endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "bools": np.array([True, False]),
    "half": np.ones(2, np.float16),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "objects": np.array([["id", 3], ["other", None]], dtype=object),
    "lists": np.array([[1], [2, 3]], dtype=object),
    "empty": np.zeros((0, 5)),
    "scalar": np.float64(2.5),
    "nested": {"a": [1, 2.5, "x", b"y", None, True], "t": (1, (2,))},
}


def equal(left, right):
    if isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and all(map(equal, left.flat, right.flat))
    return left == right


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_comes_back(tmp_path, name, protocol):
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({name: PLAIN[name]}, protocol))
    assert equal(read_plain_pickle(file)[name], PLAIN[name])


def test_arrays_may_be_written_to(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.zeros(3)))
    read_plain_pickle(tmp_path / "a.pkl")[0] = 1


def test_the_names_of_older_and_newer_numpy_are_both_known(tmp_path):
    text = pickle.dumps(PLAIN["floats"], 2)
    renamed = text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert renamed != text or b"numpy.core.multiarray" in text
    (tmp_path / "a.pkl").write_bytes(renamed)
    assert equal(read_plain_pickle(tmp_path / "a.pkl"), PLAIN["floats"])


def test_bytes_that_python_2_wrote_as_text(tmp_path):
    """The array of two doubles as Python 2.7 and NumPy 1.16 pickle it: its bytes are a str."""
    raw = np.array([1.5, -2.0]).tobytes()
    program = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x10" + raw + b"tb."
    )
    (tmp_path / "a.pkl").write_bytes(program)
    assert read_plain_pickle(tmp_path / "a.pkl").tolist() == [1.5, -2.0]


class Command:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "posix.system"), (eval, "eval"), (exec, "exec"), (open, r"(_io|io).open"), (__import__, "__import__")],
)
def test_a_pickle_that_runs_code_does_not_run_it(tmp_path, function, named, protocol):
    mark = tmp_path / "was here"
    commands = {
        os.system: f"touch '{mark}'",
        eval: f"open({str(mark)!r}, 'w')",
        exec: f"open({str(mark)!r}, 'w')",
        __import__: "antigravity",
    }
    arguments = (str(mark), "w") if function is open else (commands[function],)
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({"train": [Command(function, *arguments)]}, protocol))
    with pytest.raises(ValueError, match=f"holds .*{named}, and only dict, list"):
        read_plain_pickle(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (decimal.Decimal(1), "decimal.Decimal"),
        ({1, 2}, "set"),
        (1j, "complex"),
        (np.zeros(2, [("a", "f4"), ("b", "i4")]), "dtype 'V8'"),
        (np.zeros(2, "M8[s]"), "dtype 'M8'"),
        (np.ma.masked_array([1.0]), "numpy.ma"),
        (np.random.default_rng(0), "numpy.random"),
    ],
)
def test_what_is_not_plain_is_named(tmp_path, value, named):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([value]))
    with pytest.raises(ValueError, match=f"a.pkl holds .*{named}"):
        read_plain_pickle(tmp_path / "a.pkl")


def program(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def number(value):
    return b"J" + int(value).to_bytes(4, "little", signed=True)


DTYPE = b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY_ARRAY = RECONSTRUCT + b"cnumpy\nndarray\n" + number(0) + b"\x85U\x01b\x87R"


def state(*parts):
    return b"(" + b"".join(parts) + b"tb"


OBJECTS = DTYPE + b"U\x02O8" + number(0) + number(1) + b"\x87R"
FORGED = OBJECTS + state(number(3), b"U\x01|", b"N", b"N", b"N", number(8), number(8), number(0))


@pytest.mark.parametrize(
    ("forged", "named"),
    [
        # addresses as bytes of an array of objects, by a dtype whose flags say that it holds none
        (EMPTY_ARRAY + state(number(1), number(1), b"\x85", FORGED, b"\x89", b"U\x08AAAAAAAA"), "objects that are not"),
        (RECONSTRUCT + b"cnumpy\ndtype\n" + number(0) + b"\x85U\x01b\x87R", "a class of its own"),
        # attributes of the functions that answer
        (RECONSTRUCT + b"}U\x04nameU\x01xsb", "a change of a function"),
        (RECONSTRUCT + b"N}U\x05_makeU\x01xs\x86b", "a change of a function"),
        (RECONSTRUCT, "StandIn"),
        (DTYPE + b"U\x02V8\x85R", "dtype 'V8'"),
        (DTYPE + number(3) + b"\x85R", "dtype 3"),
        (b"U\x01aQ", "outside the file"),
        (b"c_codecs\nencode\nU\x03abcU\x05rot13\x86R", "encoded as 'rot13'"),
        (b"c__builtin__\nbytes\n" + number(9) + b"\x85R", "bytes made of something else"),
        (b"cos\nsystem\n", "os.system"),
        (b"cnumpy\nload\n", "numpy.load"),
        (b"cmodalign.data.pickles\nread_plain_pickle\n", "modalign.data.pickles"),
    ],
)
def test_a_forged_program_is_refused(tmp_path, forged, named):
    pickletools.dis(program(forged), io.StringIO())  # the program itself is well-formed
    (tmp_path / "a.pkl").write_bytes(program(forged))
    with pytest.raises(ValueError, match=f"a.pkl holds .*{named}"):
        read_plain_pickle(tmp_path / "a.pkl")


def test_every_file_cut_short_is_refused_in_words(tmp_path):
    whole = pickle.dumps({"a": PLAIN["floats"], "b": PLAIN["objects"]})
    file = tmp_path / "a.pkl"
    for length in range(len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"must be a whole pickle file|holds|an empty file"):
            read_plain_pickle(file)


def test_noise_is_refused_in_words(tmp_path):
    whole = bytearray(pickle.dumps({"a": PLAIN["floats"], "b": "text"}, 2))
    file = tmp_path / "a.pkl"
    refused = 0
    for _ in range(200):
        changed = bytearray(whole)
        changed[RNG.integers(2, len(whole))] = RNG.integers(256)
        file.write_bytes(changed)
        try:
            read_plain_pickle(file)
        except ValueError as error:
            refused += "must be a whole pickle file" in str(error) or "holds" in str(error)
    assert refused > 50


def test_an_array_that_holds_itself_is_refused(tmp_path):
    loop = np.empty(1, object)
    loop[0] = loop
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(loop))
    with pytest.raises(ValueError, match="cannot be read"):
        read_plain_pickle(tmp_path / "a.pkl")


def test_no_file():
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere.pkl"):
        read_plain_pickle("nowhere.pkl")
