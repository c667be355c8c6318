"""PyTorch's files read without PyTorch: both formats, written here by hand and, where it is installed, by PyTorch."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from tfcq.errors import UserError
from tfcq.features.torch_pickle import MAGIC_NUMBER, PROTOCOL, read_state_dict

ARRAYS = {
    "first.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "steps": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "half": np.array([0.5, -2.0], np.float16),
    "flags": np.array([True, False]),
}
STORAGES = {"float32": "FloatStorage", "int64": "LongStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
            "bool": "BoolStorage", "bfloat16": "BFloat16Storage"}


class Storage:
    """What the pickler below writes as a persistent id."""

    def __init__(self, key, content, kind):
        self.key, self.content, self.kind = key, content, kind


class Tensor:
    """A view, pickled as PyTorch pickles a tensor."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


@pytest.fixture(autouse=True)
def torch_names(monkeypatch):
    """Modules that only have the names which a pickle of PyTorch mentions."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is written")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    torch._utils, utils._rebuild_tensor_v2 = utils, _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def tensors(arrays):
    found = collections.OrderedDict()
    for number, (name, array) in enumerate(arrays.items()):
        steps = tuple(int(step // array.itemsize) for step in array.strides)
        found[name] = Tensor(Storage(str(number), array.tobytes(), array.dtype.name), 0, array.shape, steps)
    found._metadata = collections.OrderedDict(version=1)  # as PyTorch's modules leave it
    return found


def pickled(value, storages):
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Storage):
                return None
            storages[thing.key] = thing
            kind = getattr(sys.modules["torch"], STORAGES[thing.kind])
            count = len(thing.content) // (2 if thing.kind == "bfloat16" else np.dtype(thing.kind).itemsize)
            identity = ("storage", kind, thing.key, "cpu", getattr(thing, "count", count))
            return identity if self.zipped else (*identity, None)

    pickler = Pickler(stream, protocol=2)
    pickler.zipped = "zipped" in storages
    storages.pop("zipped", None)
    pickler.dump(value)
    return stream.getvalue()


def stream_bytes(value, system=None, keys=None):
    storages = {}
    body = pickled(value, storages)
    keys = sorted(storages) if keys is None else keys
    parts = [pickle.dumps(part, 2) for part in (MAGIC_NUMBER, PROTOCOL, system or {"little_endian": True})]
    parts += [body, pickle.dumps(keys, 2)]
    for key in keys:
        if key in storages:
            content = storages[key].content
            width = 2 if storages[key].kind == "bfloat16" else np.dtype(storages[key].kind).itemsize
            parts.append(struct.pack("<q", len(content) // width) + content)
    return b"".join(parts)


def zip_bytes(value, order=b"little", damage=lambda content: content):
    storages = {"zipped": True}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(value, storages))
        archive.writestr("archive/byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", damage(storage.content))
    return stream.getvalue()


def read(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_state_dict(path)


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
def test_a_state_dict_comes_back(tmp_path, write):
    found = read(tmp_path, write(tensors(ARRAYS)))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].flags.owndata
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
def test_views_share_a_storage_with_offset_and_strides(tmp_path, write):
    storage = Storage("9", np.arange(12, dtype=np.float32).tobytes(), "float32")
    found = read(tmp_path, write({
        "transposed": Tensor(storage, 0, (4, 3), (1, 4)),
        "row": Tensor(storage, 4, (4,), (1,)),
        "same": Tensor(storage, 5, (3,), (0,)),
    }))
    whole = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(found["transposed"], whole.T)
    np.testing.assert_array_equal(found["row"], whole[1])
    np.testing.assert_array_equal(found["same"], [5, 5, 5])


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
@pytest.mark.parametrize("offset, shape, strides, expected", [
    (1, (3, 4), (4, 1), r"'a' \[3, 4\] inside its storage of 12 elements, received one that ends at 13"),
    (0, (3, 4), (5, 1), "ends at 14"),
    (0, (3, 4), (-4, 1), "a damaged one"),
    (-1, (3,), (1,), "a damaged one"),
    (0, (3, 4), (1,), "a damaged one"),
    (0, (True,), (1,), "a damaged one"),
    (0, [3], (1,), "a damaged one"),
    (0, (2**62, 2), (0, 1), "ends at 9223372036854775808"),  # would fill the memory with copies
    (0, (2, 2), (2**62, 1), "ends at 4611686018427387906"),
])
def test_views_may_not_leave_their_storage(tmp_path, write, offset, shape, strides, expected):
    storage = Storage("0", bytes(48), "float32")
    with pytest.raises(UserError, match=f"weights.pth: expected .*{expected}"):
        read(tmp_path, write({"a": Tensor(storage, offset, shape, strides)}))


class Dangerous:
    def __reduce__(self):
        return print, ("this code ran",)


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
def test_a_pickle_runs_no_code_of_its_own(tmp_path, write, capsys):
    with pytest.raises(UserError, match="names (builtins|__builtin__).print, which is refused"):
        read(tmp_path, write({"a": Dangerous()}))
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
@pytest.mark.parametrize("value, expected", [
    ([1, 2], "expected a state dict, received list"),
    ({"epoch": 3}, "expected tensors by name, received int under 'epoch'"),
    ({"state_dict": {"a": 1}}, "received dict under 'state_dict'"),
    ({"a": Storage("0", bytes(8), "float32")}, "received _Storage under 'a'"),
    ({"a": Tensor(Storage("0", bytes(4), "bfloat16"), 0, (2,), (1,))}, "names torch.BFloat16Storage, which is refused"),
    ({"a": Tensor("no storage", 0, (2,), (1,))}, "expected a tensor under 'a', received a damaged one"),
])
def test_other_contents_are_refused(tmp_path, write, value, expected):
    with pytest.raises(UserError, match=expected):
        read(tmp_path, write(value))


def test_a_truncated_stream_is_named_wherever_it_ends(tmp_path):
    whole = stream_bytes(tensors(ARRAYS))
    for length in range(0, len(whole), 2):
        with pytest.raises(UserError, match="weights.pth: .*(truncated|another pickle|fetch the file again)") as caught:
            read(tmp_path, whole[:length])
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="the end of the file after the last storage, received more"):
        read(tmp_path, whole + b"\0")


@pytest.mark.parametrize("write", [stream_bytes, zip_bytes])
def test_damaged_bytes_give_user_errors_or_other_numbers_only(tmp_path, write):
    whole = write(tensors(ARRAYS))
    random = np.random.RandomState(0)
    refused = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << random.randint(8)
        try:
            read(tmp_path, bytes(damaged))
        except UserError:
            refused += 1
    assert refused > len(whole) / 12


def test_a_truncated_or_damaged_archive_is_named(tmp_path):
    whole = zip_bytes(tensors(ARRAYS))
    for length in range(1, len(whole), 40):
        with pytest.raises(UserError, match="weights.pth: "):
            read(tmp_path, whole[:length])
    place = whole.index(ARRAYS["first.weight"].tobytes())
    with pytest.raises(UserError, match="a damaged archive"):  # its checksum tells
        read(tmp_path, whole[:place] + b"\xff" + whole[place + 1:])
    with pytest.raises(UserError, match="expected 96 bytes in storage 0, received 95"):
        read(tmp_path, zip_bytes(tensors(ARRAYS), damage=lambda content: content[:-1]))
    with pytest.raises(UserError, match="little-endian machine"):
        read(tmp_path, zip_bytes(tensors(ARRAYS), order=b"big"))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("something", b"else")
    with pytest.raises(UserError, match="one data.pkl, received a zip archive with 0"):
        read(tmp_path, stream.getvalue())


@pytest.mark.parametrize("content, expected", [
    (b"", "truncated or damaged in its header .EOFError"),
    (b"\x89PNG\r\n", "truncated or damaged in its header"),
    (pickle.dumps(1) + pickle.dumps(2) + pickle.dumps(3), "received another pickle"),
    (stream_bytes({}, system={"little_endian": False}), "little-endian machine"),
    (stream_bytes({}, keys=["5"]), "expected the keys of 0 storages, received others"),
])
def test_other_files_are_refused(tmp_path, content, expected):
    with pytest.raises(UserError, match=expected):
        read(tmp_path, content)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="/no/such.pth: cannot be read .No such file"):
        read_state_dict("/no/such.pth")
