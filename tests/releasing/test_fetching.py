"""Packed models from folders, zip files, a web server and the Hub; damaged, other and unreachable ones."""

import hashlib
import http.server
import shutil
import socket
import sys
import threading
import types
import zipfile

import pytest

import tfcq
from tfcq.errors import UserError
from tfcq.releasing import fetching


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(packed_zip, tmp_path):
    return fetching.unpacked(packed_zip, tmp_path / "a folder")


@pytest.fixture
def web(packed_zip):
    """A web server: address, its zip file, what was asked."""
    web = types.SimpleNamespace(content=packed_zip.read_bytes(), asked=[], length=None)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            web.asked.append(self.path)
            found = self.path == "/tiny_digits.zip"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(web.length or len(web.content)) if found else "0")
            self.end_headers()
            if found:
                self.wfile.write(web.content)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    web.address = f"http://127.0.0.1:{server.server_address[1]}/tiny_digits.zip"
    yield web
    server.shutdown()
    server.server_close()


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_zip_file_and_a_folder_are_copied_into_the_cache_and_not_touched(packed_zip, folder, cache):
    before = files_of(folder)
    found = fetching.unpacked(packed_zip, cache_dir=cache)
    assert found.parent == cache and files_of(found) == before
    assert fetching.unpacked(folder, cache_dir=cache) == found  # the same model is there once
    time = (found / "release.json").stat().st_mtime_ns
    assert fetching.unpacked(packed_zip, cache_dir=cache) == found and (found / "release.json").stat().st_mtime_ns == time
    assert [one.name for one in cache.iterdir()] == [found.name]  # nothing is left over


def test_a_cached_model_that_is_not_whole_is_copied_again_and_new_metrics_are_kept(packed_zip, cache):
    found = fetching.unpacked(packed_zip, cache_dir=cache)
    with open(found / "metrics.jsonl", "a") as file:
        file.write("{}\n")
    assert (fetching.unpacked(packed_zip, cache_dir=cache) / "metrics.jsonl").read_text().endswith("{}\n")
    (found / "config.json").unlink()
    assert (fetching.unpacked(packed_zip, cache_dir=cache) / "config.json").exists()


def test_an_address_is_asked_once_unless_it_is_to_be_refreshed(web, cache, capsys):
    found = fetching.unpacked(web.address, cache_dir=cache)
    assert capsys.readouterr().out == f"fetching {web.address}\n"
    assert fetching.unpacked(web.address, cache_dir=cache) == found and len(web.asked) == 1
    assert fetching.unpacked(web.address, cache_dir=cache, refresh=True) == found and len(web.asked) == 2
    (found / "data.json").unlink()
    assert fetching.unpacked(web.address, cache_dir=cache) == found and len(web.asked) == 3
    assert tfcq.Run.from_pretrained(web.address, cache).workdir == found


def test_an_address_with_a_digest_is_compared_with_it(web, cache):
    right, wrong = hashlib.sha256(web.content).hexdigest(), "0" * 64
    assert fetching.unpacked(f"{web.address}#sha256={right}", cache_dir=cache).is_dir()
    with pytest.raises(UserError, match=f"expected a file of SHA-256 {wrong}, received one of {right}"):
        fetching.unpacked(f"{web.address}#sha256={wrong}", cache_dir=cache)
    assert fetching.unpacked(f"{web.address}#sha256={right.upper()}", cache_dir=cache).is_dir()
    for fragment in ("sha256=abc", "sha256=", f"sha265={right}", "main", ""):  # none goes unchecked
        with pytest.raises(UserError, match="expected #sha256= and 64 hexadecimal digits after the address"):
            fetching.unpacked(f"{web.address}#{fragment}", cache_dir=cache)


def test_what_an_address_does_wrong_is_one_line(web, cache):
    with pytest.raises(UserError, match="other.zip: cannot be fetched: 404 Not Found"):
        fetching.unpacked(web.address.replace("tiny_digits", "other"), cache_dir=cache)
    web.length = len(web.content) + 5
    with pytest.raises(UserError, match="the answer ended after|cannot be fetched: .*bytes"):
        fetching.unpacked(web.address, cache_dir=cache)
    web.length, web.content = None, b"<html>"
    with pytest.raises(UserError, match="expected a zip file of a packed model, received another or a damaged file"):
        fetching.unpacked(web.address, cache_dir=cache)
    with pytest.raises(UserError, match="http://127.0.0.1:9/x.zip: cannot be fetched: .*refused"):
        fetching.unpacked("http://127.0.0.1:9/x.zip", cache_dir=cache)
    with pytest.raises(UserError, match="a file.zip: cannot be fetched: URL can't contain control characters"):
        fetching.unpacked("http://127.0.0.1:9/a file.zip", cache_dir=cache)
    for answer in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", b"SSH-2.0-x\r\n\r\n"):
        with socket.create_server(("127.0.0.1", 0)) as other:
            threading.Thread(target=answer_once, args=(other, answer)).start()
            with pytest.raises(UserError, match="x.zip: cannot be fetched: ") as caught:
                fetching.unpacked(f"http://127.0.0.1:{other.getsockname()[1]}/x.zip", cache_dir=cache)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="expected a name, folder or zip file, or an address of https:// or hf://"):
        fetching.unpacked("ftp://x/y.zip", cache_dir=cache)
    assert not list(cache.glob("tiny*"))


def answer_once(server, content):
    connection, _ = server.accept()
    with connection:
        connection.recv(2**16)
        connection.sendall(content)


@pytest.mark.parametrize("damage", ["data", "encrypted"])
def test_a_damaged_or_encrypted_zip_file_is_one_line(packed_zip, cache, tmp_path, damage):
    content = bytearray(packed_zip.read_bytes())
    with zipfile.ZipFile(packed_zip) as archive:
        largest = max(archive.infolist(), key=lambda info: info.compress_size)
    if damage == "data":
        start = largest.header_offset + 30 + len(largest.filename) + 40
        content[start : start + 20] = bytes(255 - value for value in content[start : start + 20])
    else:
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            start = content.find(mark)
            while start >= 0:
                content[start + place] |= 1
                start = content.find(mark, start + 4)
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match="expected a zip file of a packed model, received another or a damaged file"):
        fetching.unpacked(tmp_path / "x.zip", cache_dir=cache)


def test_a_cached_model_with_another_description_is_copied_again(packed_zip, cache):
    found = fetching.unpacked(packed_zip, cache_dir=cache)
    before = (found / "release.json").read_bytes()
    for damaged in (b"{", None):
        (found / "release.json").unlink() if damaged is None else changed(found, "release.json", damaged)
        assert (fetching.unpacked(packed_zip, cache_dir=cache) / "release.json").read_bytes() == before


def test_a_model_that_another_process_puts_there_meanwhile_stays(packed_zip, cache, monkeypatch):
    copy, others = fetching._Source.copy, []

    def copy_with_another(self, *arguments):
        copy(self, *arguments)
        if not others:
            others.append(None)
            others[0] = fetching.unpacked(packed_zip, cache_dir=cache)
            (others[0] / "report.md").touch()

    monkeypatch.setattr(fetching._Source, "copy", copy_with_another)
    assert fetching.unpacked(packed_zip, cache_dir=cache) == others[0] and (others[0] / "report.md").exists()


@pytest.mark.parametrize("place", [None, 3])
def test_a_place_is_a_text_or_a_path(place):
    with pytest.raises(UserError, match=f"place: expected a name, a folder, a zip file or an address, received {place}"):
        tfcq.Run.from_pretrained(place)


def changed(folder, name, content):
    (folder / name).write_bytes(content)


def test_damaged_files_are_refused_and_not_kept(folder, cache):
    content = (folder / "data.json").read_bytes()
    for damaged in (content[:-1], content[:-2] + b"x\n"):
        changed(folder, "data.json", damaged)
        with pytest.raises(UserError, match="data.json is damaged: its size or digest is not that in release.json; get it again"):
            fetching.unpacked(folder, cache_dir=cache)
    (folder / "data.json").unlink()
    with pytest.raises(UserError, match="expected data.json, which release.json names, found none"):
        fetching.unpacked(folder, cache_dir=cache)
    assert not list(cache.glob("*"))
    (folder / "release.json").unlink()
    with pytest.raises(UserError, match="expected a packed model, found no release.json; tfcq pack makes one"):
        fetching.unpacked(folder, cache_dir=cache)


def test_a_source_that_cannot_be_read_is_blamed_not_the_cache(folder, cache):
    (folder / "data.json").unlink()
    (folder / "data.json").mkdir()
    with pytest.raises(UserError, match="a folder: data.json cannot be read: Is a directory$"):
        fetching.unpacked(folder, cache_dir=cache)


def test_a_download_without_room_is_refused_before_it_begins(web, cache, monkeypatch):
    free = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match=f"fetching {web.address}"):
        fetching.unpacked(web.address, cache_dir=cache)
    assert not [*cache.iterdir()]


def test_files_that_the_description_does_not_name_are_not_taken(folder, cache):
    changed(folder, "setup.py", b"print('mine')")
    assert not (fetching.unpacked(folder, cache_dir=cache) / "setup.py").exists()


def test_a_zip_file_may_have_the_files_at_its_top(folder, cache, tmp_path):
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
        for name in files_of(folder):
            archive.write(folder / name, name)
    assert files_of(fetching.unpacked(tmp_path / "flat.zip", cache_dir=cache)) == files_of(folder)


def test_a_name_is_that_of_a_model_beside_the_results(folder, cache, tmp_path, monkeypatch, packed_zip):
    there = tmp_path / "configs" / "results" / "tiny_digits"
    there.mkdir(parents=True)
    shutil.copy(packed_zip, there / "tiny_digits.zip")
    monkeypatch.setattr(fetching.presets, "folder", lambda: tmp_path / "configs")
    assert fetching.names() == ["tiny_digits"]
    assert files_of(fetching.unpacked("tiny_digits", cache_dir=cache)) == files_of(folder)
    with pytest.raises(UserError, match="place tiny_digit: expected one of the names tiny_digits, .* found none.*tiny_digits"):
        fetching.unpacked("tiny_digit", cache_dir=cache)


def test_a_workdir_is_a_new_folder(packed_zip, tmp_path):
    with pytest.raises(UserError, match="workdir .*: expected a new folder, found one that exists"):
        fetching.unpacked(packed_zip, tmp_path)


def test_a_zip_file_where_a_run_is_expected_is_told_to_be_unpacked(packed_zip):
    with pytest.raises(UserError, match="which is a file; a packed model becomes a folder by tfcq unpack$"):
        tfcq.Run(packed_zip).metrics()


def test_the_hub_is_asked_by_its_library(folder, cache, monkeypatch):
    asked = []

    def snapshot_download(repository, revision):
        asked.append((repository, revision))
        if repository == "nobody/nothing":
            raise ValueError("401 Client Error.\nRepository Not Found")
        return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    found = fetching.unpacked("hf://people/tiny@v1", cache_dir=cache)
    assert asked == [("people/tiny", "v1")] and files_of(found) == files_of(folder)
    assert fetching.unpacked("hf://people/tiny@v1", cache_dir=cache) == found and len(asked) == 1
    with pytest.raises(UserError, match="hf://nobody/nothing: cannot be fetched: 401 Client Error. Repository Not Found"):
        fetching.unpacked("hf://nobody/nothing", cache_dir=cache)
    with pytest.raises(UserError, match="expected hf://OWNER/REPOSITORY"):
        fetching.unpacked("hf://people", cache_dir=cache)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub \(pip install tfcq\[hub\]\)"):
        fetching.unpacked("hf://people/other", cache_dir=cache)
