"""Packed models by name, folder, zip file or address: found, checked, and kept as folders of this machine.

Every file is compared with the size and SHA-256 that release.json states, and files that it does not name are not taken.
That guards against damage. Whoever can write release.json can write the weights; the digest of the whole, in an address as
`#sha256=HEX`, guards against that.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from tfcq.command_line import presets
from tfcq.config.fields import suggestion
from tfcq.errors import UserError
from tfcq.machine import files, paths
from tfcq.machine.terminal import say
from tfcq.workdir import packed

CACHE = "~/.cache/tfcq/models"
TIMEOUT_SECONDS = 30.0
LARGEST_BYTES = 2**34
"""Of a packed model, and of its release.json a thousandth of it."""

_HUB = "hf://"
_PIECE = 2**20
_SAID_EVERY = 64 * _PIECE


def unpacked(
    place: str | os.PathLike, workdir: str | os.PathLike = "", cache_dir: str | os.PathLike = "", refresh: bool = False
) -> pathlib.Path:
    """The folder of a packed model, which is a workdir.

    Args:
        place: a name, one of `names()`; a folder; a zip file; https://HOST/PATH.zip, with #sha256=HEX if that is known; or
            hf://OWNER/REPOSITORY or hf://OWNER/REPOSITORY@REVISION of the Hugging Face Hub (the extra `hub`).
        workdir: a new folder for it; "": one in the cache, which a later call takes again.
        cache_dir: folder of the cache; "": `CACHE`.
        refresh: whether an address is asked again even if the cache has what it gave before.

    Raises:
        UserError: no such model, an address that cannot be reached, damaged files, or a folder that cannot be written.
    """
    if not isinstance(place, str | os.PathLike):
        raise UserError(f"place: expected a name, a folder, a zip file or an address, received {place!r}")
    text = os.fspath(place)
    cache = pathlib.Path(paths.folder(cache_dir or CACHE, "cache_dir", local=True))
    target = pathlib.Path(paths.folder(workdir, "workdir", local=True)) if workdir else None
    if target is not None and target.exists():
        raise UserError(f"workdir {target}: expected a new folder, found one that exists")
    known = cache / "places" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    is_address = "://" in text
    if is_address and not target and not refresh and (kept := _kept(known, cache)):
        return kept
    beside = target.parent if target else cache
    with files.writing("workdir" if target else "cache_dir", target or cache), _source(text, beside) as source:
        folder = _copied(source, target, cache)
        if is_address and not target:
            known.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(known, json.dumps({"place": text, "folder": folder.name}, indent=2) + "\n")
    return folder


def names() -> list[str]:
    """The names of the packed models that lie beside the presets' results."""
    return sorted(path.stem for path in (presets.folder() / "results").glob("*/*.zip") if path.stem == path.parent.name)


class _Source:
    """Files of a packed model that are read but not trusted.

    Args:
        label: what messages call it.
        opened: function from a file's name to the open file and its size; KeyError or OSError if there is none.
    """

    def __init__(self, label: str, opened: Callable[[str], tuple[IO[bytes], int]]) -> None:
        self.label, self._opened = label, opened

    def description(self) -> bytes:
        """The content of release.json."""
        try:
            file, size = self._opened(packed.FILE)
        except (KeyError, FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{self.label}: expected a packed model, found no {packed.FILE}; tfcq pack makes one") from error
        except OSError as error:
            raise self._unreadable(packed.FILE, error) from error
        with file:
            if size > LARGEST_BYTES // 1000:
                raise UserError(f"{self.label}: expected {packed.FILE} of a packed model, received {size} bytes")
            return file.read(size)

    def copy(self, name: str, to: pathlib.Path, num_bytes: int, sha256: str) -> None:
        """Copies a file and checks it."""
        try:
            file, size = self._opened(name)
        except (KeyError, FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{self.label}: expected {name}, which {packed.FILE} names, found none") from error
        except OSError as error:
            raise self._unreadable(name, error) from error
        digest = hashlib.sha256()
        if size == num_bytes:
            to.parent.mkdir(parents=True, exist_ok=True)
            with file, open(to, "wb") as copy:
                while (left := num_bytes - copy.tell()) and (piece := file.read(min(left, _PIECE))):
                    digest.update(piece)
                    copy.write(piece)
        if size != num_bytes or digest.hexdigest() != sha256:
            raise UserError(f"{self.label}: {name} is damaged: its size or digest is not that in {packed.FILE}; get it again")

    def _unreadable(self, name, error):
        return UserError(f"{self.label}: {name} cannot be read: {error.strerror or error}")


@contextlib.contextmanager
def _source(text: str, beside: pathlib.Path) -> Iterator[_Source]:
    """What lies at a place; a download lies in the folder `beside` meanwhile, whose disk has the model in the end."""
    if text.startswith(_HUB):
        yield _of_folder(text, _from_hub(text))
    elif text.startswith(("https://", "http://")):
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=beside) as scratch:
            path = pathlib.Path(scratch) / "model.zip"
            _download(text, path)
            with _of_zip(text.partition("#")[0], path) as source:
                yield source
    elif "://" in text:
        raise UserError(f"place {text}: expected a name, folder or zip file, or an address of https:// or hf://")
    elif text in names():
        with _of_zip(text, presets.folder() / "results" / text / f"{text}.zip") as source:
            yield source
    else:
        path = pathlib.Path(paths.to_read(text, "place"))
        if path.is_dir():
            yield _of_folder(str(path), path)
        elif path.is_file():
            with _of_zip(str(path), path) as source:
                yield source
        else:
            there = f"one of the names {', '.join(names())}" if names() else "a name (this installation comes with no models)"
            hint = suggestion(text, names())
            raise UserError(f"place {text}: expected {there}, a folder, a zip file or an address, found none{hint}")


def _of_folder(label, folder):
    def opened(name):
        path = folder / name
        return open(path, "rb"), path.stat().st_size

    return _Source(label, opened)


@contextlib.contextmanager
def _of_zip(label, path):
    """A zip file with release.json at its top, or in the one folder there."""
    try:
        with zipfile.ZipFile(path) as archive:
            top = next((name for name in archive.namelist() if name.rpartition("/")[2] == packed.FILE), packed.FILE)
            before = top.removesuffix(packed.FILE)

            def opened(name):
                info = archive.getinfo(before + name)
                return archive.open(info), info.file_size

            yield _Source(label, opened)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # RuntimeError: encrypted
        raise UserError(f"{label}: expected a zip file of a packed model, received another or a damaged file: {error}") from error


def _copied(source, target, cache):
    """A folder with the files of a source: `target`, or one in the cache, named by the digest of its description."""
    text = source.description()
    release = packed.Packed.from_json(text, f"{source.label} {packed.FILE}")
    total = sum(one["bytes"] for one in release.files.values())
    if total > LARGEST_BYTES:
        raise UserError(f"{source.label}: expected at most {LARGEST_BYTES:,} bytes, its files have {total:,}")
    folder = target or cache / f"{release.name}-{hashlib.sha256(text).hexdigest()[:12]}"
    if not target and _is_whole(folder, release, text):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    files.check_room("workdir" if target else "cache_dir", folder.parent, total)
    with tempfile.TemporaryDirectory(prefix=f".{release.name}-", dir=folder.parent) as scratch:
        new = pathlib.Path(scratch) / "model"
        for name, one in release.files.items():
            source.copy(name, new / name, one["bytes"], one["sha256"])
        (new / packed.FILE).write_bytes(text)
        if not target:
            if _is_whole(folder, release, text):
                return folder  # another process was faster, and may be reading it
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(FileExistsError, OSError) if not target else contextlib.nullcontext():
            new.replace(folder)  # another process may have been faster
    if not _is_whole(folder, release, text):
        raise UserError(f"{folder}: expected the files of {source.label}, found others")
    return folder


def _is_whole(folder, release, text):
    """Whether the files of a packed model lie in a folder: `text`, its description, and the others by their sizes."""

    def size(name):
        try:
            return (folder / name).stat().st_size
        except OSError:
            return None

    # What is measured of an unpacked model is added to these.
    grown = {"metrics.jsonl", "metrics.json"}
    try:
        if (folder / packed.FILE).read_bytes() != text:
            return False
    except OSError:
        return False
    return all(size(name) == one["bytes"] or name in grown and size(name) is not None for name, one in release.files.items())


def _kept(known, cache):
    """The folder that an address gave before; None if it is not whole."""
    try:
        folder = cache / pathlib.PurePath(json.loads(known.read_text())["folder"]).name
        text = (folder / packed.FILE).read_bytes()
        return folder if _is_whole(folder, packed.Packed.from_json(text, folder), text) else None
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _download(text, path):
    address, mark, fragment = text.partition("#")
    kind, _, wanted = fragment.lower().partition("=")
    if mark and (kind != "sha256" or not re.fullmatch("[0-9a-f]{64}", wanted)):  # what is not understood would not be checked
        raise UserError(f"place {text}: expected #sha256= and 64 hexadecimal digits after the address, received #{fragment}")
    digest, received, said = hashlib.sha256(), 0, 0
    say(f"fetching {address}")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, open(path, "wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            files.check_room(f"fetching {address}", path.parent, expected)
            while piece := answer.read(_PIECE):
                received += len(piece)
                if received > LARGEST_BYTES:
                    raise UserError(f"{address}: expected at most {LARGEST_BYTES:,} bytes, received more")
                digest.update(piece)
                file.write(piece)
                if received - said >= _SAID_EVERY:
                    said = received
                    say(f"fetched {received / 1e6:.0f} MB" + (f" of {expected / 1e6:.0f}" if expected else ""))
            if received < expected:
                raise UserError(f"{address}: expected {expected} bytes, the answer ended after {received}; try again")
    except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
        code = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise UserError(f"{address}: cannot be fetched: {code}{reason}") from error
    if wanted and digest.hexdigest() != wanted:
        raise UserError(f"{address}: expected a file of SHA-256 {wanted}, received one of {digest.hexdigest()}")


def _from_hub(text):
    """The folder of a repository of the Hugging Face Hub, in that library's cache."""
    repository, _, revision = text.removeprefix(_HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"place {text}: expected hf://OWNER/REPOSITORY or hf://OWNER/REPOSITORY@REVISION")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(f"place {text}: needs the package huggingface_hub (pip install tfcq[hub])") from error
    say(f"fetching {text}")
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(repository, revision=revision or None))
    except Exception as error:  # its errors have many classes, and those of the HTTP library below it
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{text}: cannot be fetched: {reason}") from error
