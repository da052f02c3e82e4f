"""Checkpoints: all comes back, damage is noticed, and no kill loses both old and new."""

import builtins
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from hashlib import sha256

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ldm_edu import checkpoint, checkpoint_files
from ldm_edu.checkpoint import load, load_into, read_config, save
from ldm_edu.errors import CheckpointError, InputError, StorageError

FILES = ["MANIFEST.json", "config.json", "model.safetensors", "state.safetensors"]


@pytest.fixture(autouse=True)
def _spare_the_disk(monkeypatch):
    """Only a power cut tells a synced file from another, and no test cuts the power."""
    monkeypatch.setattr(os, "fsync", os.fstat)


def save_number(folder, number):
    model = {"weight": torch.full((3, 2), float(number)), "bias": torch.zeros(0)}
    save(folder, {"number": number}, {"model": model, "state": {"step": torch.tensor(number)}})


def load_number(folder):
    """The number of a whole checkpoint: its files must agree."""
    config, tensors = load(folder)
    number = config["number"]
    assert tensors["state"]["step"].item() == number
    assert tensors["model"]["weight"].tolist() == [[number] * 2] * 3
    assert tensors["model"]["bias"].shape == (0,)
    return number


def litter(folder):
    return sorted(set(os.listdir(folder.parent)) - {folder.name})


def only_one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- round trip


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
DTYPES += [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    tensor = torch.randint(-3, 4, shape).to(dtype)
    save(tmp_path / "c", {}, {"part": {"key": tensor}})
    _, tensors = load(tmp_path / "c")
    back = tensors["part"]["key"]
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert back.device.type == "cpu"
    assert torch.equal(back, tensor)
    back.zero_()  # the caller's own, writable


def test_not_finite_numbers_keep_their_bits(tmp_path):
    tensor = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    save(tmp_path / "c", {}, {"part": {"key": tensor}})
    back = load(tmp_path / "c")[1]["part"]["key"]
    assert torch.equal(back.view(torch.int32), tensor.view(torch.int32))


def test_views_shared_storage_and_parameters(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    group = {
        "a": base,
        "again": base,
        "t": base.T,
        "row": base[1],
        "wide": base[:1].expand(5, 4),
    }
    group["parameter"] = nn.Parameter(base)
    save(tmp_path / "c", {}, {"part": group})
    back = load(tmp_path / "c")[1]["part"]
    assert back.keys() == group.keys()
    for key, tensor in group.items():
        assert torch.equal(back[key], tensor.detach())
        assert not back[key].requires_grad
    assert (tmp_path / "c" / "part.safetensors").stat().st_size < 2000  # views, not their base


def test_no_tensors_and_empty_groups(tmp_path):
    save(tmp_path / "c", {"a": 1}, {})
    assert load(tmp_path / "c") == ({"a": 1}, {})
    save(tmp_path / "c", {}, {"none": {}})
    assert load(tmp_path / "c") == ({}, {"none": {}})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(config=st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_config_comes_back(tmp_path, config):
    save(tmp_path / "c", config, {})
    assert load(tmp_path / "c")[0] == config
    assert read_config(tmp_path / "c") == config


def test_tuples_come_back_as_lists(tmp_path):
    save(tmp_path / "c", {"channels": (1, (2, 3))}, {})
    assert read_config(tmp_path / "c") == {"channels": [1, [2, 3]]}


def test_parents_are_made_and_paths_may_be_odd(tmp_path, monkeypatch):
    for name in ["a/b/c", "with space", "[glob*?]", "ünï", ".hidden"]:
        save_number(tmp_path / name, 3)
        assert load_number(tmp_path / name) == 3
    monkeypatch.chdir(tmp_path)
    save_number("relative/", 4)
    assert load_number("relative") == 4


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    save_number(tmp_path / "step1", 1)
    (tmp_path / "latest").symlink_to("step1")
    save_number(tmp_path / "latest", 2)
    assert (tmp_path / "latest").is_symlink()
    assert load_number(tmp_path / "step1") == load_number(tmp_path / "latest") == 2


def test_other_users_may_read_a_checkpoint(tmp_path):
    (tmp_path / "plain").mkdir()
    save_number(tmp_path / "c", 1)
    assert (tmp_path / "c").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_load_writes_nothing(tmp_path):
    save_number(tmp_path / "c", 1)
    (tmp_path / "c").rename(tmp_path / ".c.old")
    before = sorted(tmp_path.rglob("*"))
    assert load_number(tmp_path / "c") == 1
    assert checkpoint.exists(tmp_path / "c")
    assert not checkpoint.exists(tmp_path / "other")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_card_beside_the_files_may_be_read_but_is_never_deleted(tmp_path):
    save_number(tmp_path / "c", 1)
    (tmp_path / "c" / "README.md").write_text("how it was trained")
    assert load_number(tmp_path / "c") == 1
    with pytest.raises(StorageError, match=r"README\.md"):
        save_number(tmp_path / "c", 2)
    assert load_number(tmp_path / "c") == 1
    assert litter(tmp_path / "c") == []


def test_a_damaged_checkpoint_may_be_replaced(tmp_path):
    save_number(tmp_path / "c", 1)
    (tmp_path / "c" / "MANIFEST.json").write_text("{}")
    (tmp_path / "c" / ".ipynb_checkpoints").mkdir()
    save_number(tmp_path / "c", 2)
    assert load_number(tmp_path / "c") == 2


# ---- refusals


@pytest.mark.parametrize(
    "config",
    [
        {1: "a"},
        {"a": {"b": [{None: 1}]}},
        {"a": torch.zeros(1)},
        {"a": {1, 2}},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": b"bytes"},
        ["a"],
        None,
    ],
    ids=str,
)
def test_a_config_that_is_not_json(tmp_path, config):
    with pytest.raises(InputError, match="config") as caught:
        save(tmp_path / "c", config, {})
    only_one_line(caught)
    assert os.listdir(tmp_path) == []


def test_a_config_that_holds_itself(tmp_path):
    config = {}
    config["me"] = config
    with pytest.raises(InputError, match="config"):
        save(tmp_path / "c", config, {})


@pytest.mark.parametrize(
    "tensors",
    [
        {"../up": {}},
        {"": {}},
        {".hidden": {}},
        {"a/b": {}},
        {3: {}},
        {"unet": {}, "UNet": {}},
        {"part": {"key": [1.0]}},
        {"part": {5: torch.zeros(1)}},
        {"part": {"__metadata__": torch.zeros(1)}},
        {"part": {"key": torch.zeros(2, 2).to_sparse()}},
        {"part": {"key": torch.zeros(2, device="meta")}},
    ],
    ids=str,
)
def test_tensors_that_cannot_be_stored(tmp_path, tensors):
    with pytest.raises(InputError) as caught:
        save(tmp_path / "c", {}, tensors)
    only_one_line(caught)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["", "a\0b", None, 3, "/"], ids=repr)
def test_folders_that_are_no_paths(folder):
    for call in (load, read_config, lambda f: save(f, {}, {})):
        with pytest.raises(InputError):
            call(folder)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", 1.5])
def test_devices_that_are_not_there(tmp_path, device):
    save_number(tmp_path / "c", 1)
    with pytest.raises(InputError, match="device"):
        load(tmp_path / "c", device=device)


def test_save_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").mkdir()
    for name in ["thesis", "file", "file/inside"]:
        with pytest.raises(StorageError) as caught:
            save_number(tmp_path / name, 1)
        assert str(tmp_path / "file" if "file" in name else name) in only_one_line(caught)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "text"
    save_number(tmp_path / "empty", 1)
    assert load_number(tmp_path / "empty") == 1
    assert litter(tmp_path / "empty") == ["file", "thesis"]


@pytest.mark.parametrize("sibling", [".c.old", ".c.new"])
def test_save_deletes_no_sibling_it_did_not_write(tmp_path, sibling):
    (tmp_path / sibling).mkdir()
    (tmp_path / sibling / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="notes"):
        save_number(tmp_path / "c", 1)
    assert (tmp_path / sibling / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("read", [load, read_config])
def test_load_says_what_it_found(tmp_path, read):
    def message(folder):
        with pytest.raises(CheckpointError) as caught:
            read(folder)
        return only_one_line(caught)

    assert "no checkpoint at" in message(tmp_path / "missing" / "c")
    (tmp_path / "file.txt").write_text("text")
    assert "is a file" in message(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    assert "MANIFEST.json" in message(tmp_path / "empty")
    for name in FILES:
        save_number(tmp_path / "c", 1)
        (tmp_path / "c" / name).unlink()
        if read is load or name in FILES[:2]:
            assert name in message(tmp_path / "c")
        shutil.rmtree(tmp_path / "c")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl", ".CKPT"])
def test_pickles_are_refused_with_a_way_out(tmp_path, suffix):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    (tmp_path / "folder").mkdir()
    pickle = tmp_path / "folder" / f"model{suffix}"
    torch.save({"weight": Bomb()}, pickle)
    (tmp_path / "folder" / "config.json").write_text("{}")
    for place in (pickle, tmp_path / "folder"):
        with pytest.raises(CheckpointError, match="run code") as caught:
            load(place)
        assert "weights_only=True" in only_one_line(caught)
        assert "save_file" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_in_a_tensor_file_is_never_opened(tmp_path):
    save_number(tmp_path / "c", 1)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "c" / "model.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        load(tmp_path / "c")


def forge(folder, manifest):
    """A manifest with a right seal, as only malice or a later version writes it."""
    head = json.dumps(manifest, indent=2).removesuffix("\n}")
    seal = f',\n  "sha256": "{sha256(head.encode()).hexdigest()}"\n}}\n'
    (folder / "MANIFEST.json").write_text(head + seal)


def entry(data):
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def test_a_later_format_asks_for_an_update(tmp_path):
    save_number(tmp_path / "c", 1)
    manifest = json.loads((tmp_path / "c" / "MANIFEST.json").read_text())
    del manifest["sha256"]
    forge(tmp_path / "c", manifest)
    assert load_number(tmp_path / "c") == 1  # the forgery is otherwise perfect
    forge(tmp_path / "c", manifest | {"version": 2, "files": "elsewhere"})
    with pytest.raises(CheckpointError, match=r"format 2.*update"):
        load(tmp_path / "c")


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b"\xff", b"[" * 100_000], ids=len)
@pytest.mark.parametrize("read", [load, read_config])
def test_forged_configs(tmp_path, config, read):
    (tmp_path / "config.json").write_bytes(config)
    forge(tmp_path, {"version": 1, "files": {"config.json": entry(config)}})
    with pytest.raises(CheckpointError, match="JSON"):
        read(tmp_path)


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "sub/secret", "..", ""])
def test_a_forged_manifest_reaches_no_other_folder(tmp_path, outside):
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    names = {"config.json": entry(b"{}"), outside: entry(b"secret")}
    forge(folder, {"version": 1, "files": names})
    with pytest.raises(CheckpointError, match="path"):
        load(folder)


@pytest.mark.parametrize("files", [None, [], "x", {"config.json": 3}, {"config.json": {}}, {}])
def test_forged_file_lists(tmp_path, files):
    forge(tmp_path, {"version": 1, "files": files})
    with pytest.raises(CheckpointError, match="lists no"):
        load(tmp_path)


def test_forged_tensors(tmp_path):
    for data in (b"", b"x" * 100, b"\xff" * 8):
        (tmp_path / "config.json").write_bytes(b"{}")
        (tmp_path / "m.safetensors").write_bytes(data)
        names = {"config.json": entry(b"{}"), "m.safetensors": entry(data)}
        forge(tmp_path, {"version": 1, "files": names})
        with pytest.raises(CheckpointError, match="safetensors"):
            load(tmp_path)


# ---- damage


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage") / "c"
    save_number(folder, 1)
    return folder, {name: (folder / name).read_bytes() for name in FILES}


@contextmanager
def damaged(folder, name, data):
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_every_byte_is_guarded(good, name):
    folder, whole = good
    for place in range(len(whole[name])):
        data = bytearray(whole[name])
        data[place] ^= 1 << place % 8
        read = read_config if name in FILES[:2] and place % 2 else load
        with damaged(folder, name, data), pytest.raises(CheckpointError):
            read(folder)
    assert load_number(folder) == 1


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(FILES))
def test_any_other_bytes_are_noticed(good, data, name):
    folder, whole = good
    cut = st.integers(0, len(whole[name]) - 1).map(lambda n: whole[name][:n])
    longer = st.binary(min_size=1, max_size=9).map(lambda tail: whole[name] + tail)
    bits = st.integers(0, 8 * len(whole[name]) - 1).map(lambda bit: flip(whole[name], bit))
    bad = data.draw(cut | longer | bits | st.binary(max_size=40))
    with damaged(folder, name, bad), pytest.raises(CheckpointError) as caught:
        load(folder)
    assert name in only_one_line(caught)


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- kills


class Kill(BaseException):
    """The process is gone: nothing runs after it, not even clean-up."""


class Disk:
    """The k-th call that changes the disk fails; a dead process makes no further call."""

    CALLS = ("mkdir", "rename", "fsync", "unlink", "rmdir", "open", "write")

    def __init__(self, monkeypatch, fail_at, how, after=False):
        self.calls, self.fail_at, self.how, self.after = 0, fail_at, how, after
        for name in self.CALLS[:5]:
            real = getattr(os, name)
            monkeypatch.setattr(os, name, self.wrapped(real))
        real_open = builtins.open

        def opened(file, mode="r", *args, **kwargs):
            if "x" not in mode:
                return real_open(file, mode, *args, **kwargs)
            return Handle(self, self.wrapped(real_open)(file, mode, *args, **kwargs))

        monkeypatch.setattr(builtins, "open", opened)

    def wrapped(self, real):
        def call(*args, **kwargs):
            if self.fails() and not self.after:
                raise self.how
            result = None
            try:
                result = real(*args, **kwargs)
            finally:
                if self.calls == self.fail_at and self.after:
                    if hasattr(result, "close"):
                        result.close()
                    raise self.how
            return result

        return call

    def fails(self):
        self.calls += 1
        if isinstance(self.how, Kill) and self.calls > self.fail_at:
            raise self.how
        return self.calls == self.fail_at


class Handle:
    """A file whose failing write leaves half of the bytes."""

    def __init__(self, disk, real):
        self.disk, self.real = disk, real

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.real.close()

    def __getattr__(self, name):
        return getattr(self.real, name)

    def write(self, data):
        if self.disk.fails():
            self.real.write(data[: len(data) // 2])
            raise self.disk.how
        return self.real.write(data)


def failing_save(folder, number, fail_at, how, after=False):
    """Save with the fault injected; return whether it came to pass, and what was raised."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, fail_at, how, after)
        try:
            save_number(folder, number)
        except (Kill, KeyboardInterrupt, StorageError) as raised:
            return True, raised
        return disk.calls >= fail_at, None


def whole_number(folder, allowed):
    if None in allowed:
        try:
            return load_number(folder)
        except CheckpointError as error:
            assert "no checkpoint at" in str(error)  # noqa: PT017 - absent, and nothing worse
            return None
    return load_number(folder)


def settled(folder, number):
    save_number(folder, number)
    assert load_number(folder) == number
    assert litter(folder) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "replacing"])
def test_a_kill_at_any_call_leaves_old_or_new(tmp_path, first, after):
    folder, seen = tmp_path / "c", set()
    for fail_at in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        if not first:
            save_number(folder, 1)
        happened, raised = failing_save(folder, 2, fail_at, Kill(), after)
        if not happened:
            break
        assert isinstance(raised, Kill)
        allowed = {None if first else 1, 2}
        number = whole_number(folder, allowed)
        assert number in allowed
        seen.add(number)
        settled(folder, 3)
    assert fail_at > 15  # the faults did reach the save
    assert seen == allowed


def test_a_kill_while_cleaning_up_after_a_kill(tmp_path):
    folder = tmp_path / "c"
    for first_at in range(1, 100):
        for second_at in range(1 + first_at % 4, 100, 4):
            shutil.rmtree(folder, ignore_errors=True)
            save_number(folder, 1)
            first_happened, _ = failing_save(folder, 2, first_at, Kill())
            before = load_number(folder)
            happened, _ = failing_save(folder, 3, second_at, Kill())
            assert load_number(folder) in {before, 3}
            settled(folder, 4)
            if not happened:
                break
        if not first_happened:
            break
    assert first_at > 15
    assert second_at > 15


MADE_ROOM = 2  # the calls that make the parent and the temporary folder


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "replacing"])
def test_ctrl_c_at_any_call_leaves_old_or_new(tmp_path, first, after):
    folder = tmp_path / "c"
    for fail_at in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        if not first:
            save_number(folder, 1)
        happened, raised = failing_save(folder, 2, fail_at, KeyboardInterrupt(), after)
        if not happened:
            break
        assert isinstance(raised, KeyboardInterrupt)
        number = whole_number(folder, {None if first else 1})
        assert number in {None if first else 1, 2}
        assert litter(folder) == [] or number == 2 or fail_at <= MADE_ROOM
        settled(folder, 3)
    assert fail_at > 15


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("first", [True, False], ids=["first", "replacing"])
def test_a_failing_call_keeps_the_old_and_leaves_nothing(tmp_path, first, code):
    folder, errors = tmp_path / "c", 0
    for fail_at in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        if not first:
            save_number(folder, 1)
        problem = OSError(code, os.strerror(code))
        happened, raised = failing_save(folder, 2, fail_at, problem)
        if not happened:
            break
        if raised is None:  # only the old one could not be deleted
            assert load_number(folder) == 2
        else:
            assert os.strerror(code) in str(raised)
            assert str(folder) in str(raised)
            assert "\n" not in str(raised)
            assert folder.exists() != first
            assert first or load_number(folder) == 1
            assert litter(folder) == []
            errors += 1
        settled(folder, 3)
    assert errors > 10


SIGKILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from ldm_edu.checkpoint import load, save

folder, numbers = Path(sys.argv[1]), set()
random.seed(0)
save(folder, {"number": 0}, {"model": {"w": torch.zeros(1000)}})
saved, tell = os.pipe()
for round in range(40):
    child = os.fork()
    if child == 0:
        start = load(folder)[0]["number"]
        for number in range(start + 1, start + 10_000):
            weights = {"w": torch.full((1000,), float(number))}
            save(folder, {"number": number}, {"model": weights})
            os.write(tell, b".")
        os._exit(0)
    for _ in range(random.randint(1, 3)):  # saves, however slow this machine is
        os.read(saved, 1)
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    config, tensors = load(folder)
    assert tensors["model"]["w"].unique().tolist() == [config["number"]]
    assert config["number"] >= max(numbers, default=0), "an older one came back"
    numbers.add(config["number"])
save(folder, {}, {})
assert os.listdir(folder.parent) == [folder.name], os.listdir(folder.parent)
print(len(numbers), "different")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_real_kills(tmp_path):
    command = [sys.executable, "-c", SIGKILLS, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10  # the children did save


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_a_disk_that_is_really_full(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        save_number(tmp_path / "c", 1)
        with pytest.raises(StorageError, match="space"):
            save(tmp_path / "c", {}, {"big": {"w": torch.zeros(50_000)}})
        assert litter(tmp_path / "c") == []
        assert load_number(tmp_path / "c") == 1
        settled(tmp_path / "c", 2)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(checkpoint_files.fcntl is None, reason="no locks on this system")
def test_saves_and_loads_at_the_same_time(tmp_path):
    folder, problems = tmp_path / "c", []
    save_number(folder, 0)

    def repeat(action):
        try:
            for _ in range(40):
                action()
        except BaseException as error:
            problems.append(error)

    actions = [lambda: save_number(folder, 1), lambda: save_number(folder, 2)]
    actions += [lambda: load_number(folder), lambda: read_config(folder)]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert load_number(folder) in {1, 2}
    assert litter(folder) == []


def test_without_locks_it_still_saves(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "fcntl", None)
    save_number(tmp_path / "c", 1)
    settled(tmp_path / "c", 2)


def test_somebody_else_removing_the_temporary_folder_does_no_harm(tmp_path, monkeypatch):
    folder = tmp_path / "c"
    save_number(folder, 1)
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == 3:
            shutil.rmtree(tmp_path / ".c.new")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError):
        save_number(folder, 2)
    assert load_number(folder) == 1
    assert litter(folder) == []


# ---- load_into


def test_load_into_copies_everything_and_widens_floats():
    source, target = nn.BatchNorm2d(3).half(), nn.BatchNorm2d(3)
    nn.init.normal_(source.weight)
    load_into(target, source.state_dict(), "norm")
    assert target.weight.dtype == torch.float32
    assert torch.equal(target.weight, source.weight.float())


def change(tensors, **changes):
    tensors = dict(tensors) | changes
    return {key: value for key, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.zeros(3)}, "weight is (3) in the file, (4) in the model; 0 missing"),
        ({"bias": None}, "bias is absent in the file, (4) in the model; 1 missing"),
        (
            {"extra": torch.zeros(2)},
            "extra is (2) in the file, absent in the model; 0 missing, 1",
        ),
        (
            {"num_batches_tracked": torch.tensor(0.5)},
            "is () in the file, () torch.int64 in the",
        ),
        (
            {"bias": torch.zeros(4, dtype=torch.long)},
            "bias is (4) torch.int64 in the file, (4)",
        ),
        (
            {
                "weight": torch.zeros(4, 3),
                "bias": None,
                "running_var": None,
                "x": torch.ones(1),
            },
            "weight is (4,3) in the file, (4) in the model; 2 missing, 1 unexpected, 1 unlike",
        ),
    ],
)
def test_load_into_names_the_first_mismatch_and_changes_nothing(changes, message):
    model = nn.BatchNorm2d(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = {key: value + 1 for key, value in before.items()}
    with pytest.raises(CheckpointError) as caught:
        load_into(model, change(other, **changes), "unet")
    assert message in only_one_line(caught)
    assert str(caught.value).startswith("unet: checkpoint is for another model: first mismatch")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
