"""Files that appear whole or not at all: a temporary sibling, fsync, rename. Also content hashes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ExpungeError, Pickled

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file, in a folder beside `path`, that replaces it on success and vanishes on failure.

    What killed writers left there goes too. Raises ExpungeError if the folder cannot be written or the disk is full;
    the old file then stays as it was.
    """
    check_writable(path)
    sweep(path.parent)
    temporary = _room(path) / str(threading.get_ident()) / path.name
    try:
        _touch(temporary)
        mode = temporary.stat().st_mode
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        temporary.chmod(mode)  # some writers replace the file by a private one
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
            temporary.parent.rmdir()
            _room(path).rmdir()
            _room(path).parent.rmdir()  # unless others write there


PART = ".part"
"""The folder of unfinished files: each process has one of its own in it, named HOST.PID, and there each thread."""


def _room(path: Path) -> Path:
    return path.parent / PART / f"{platform.node()}.{os.getpid()}"


def _touch(path: Path, tries: int = 100) -> None:
    """Makes an empty file and its folders, which others may be about to remove while they are empty."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except FileNotFoundError:
        if tries == 1:
            raise
        _touch(path, tries - 1)


def check_writable(path: Path) -> None:
    """Raises ExpungeError if a file at `path` could not be written; changes nothing on the disk."""
    try:
        path.exists()  # raises if the name is too long
        folder = next(p for p in path.absolute().parents if p.exists())
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write into {folder}")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> ExpungeError:
    """What is told of a file that could not be written."""
    reason = getattr(error, "strerror", None) or error
    return ExpungeError(f"cannot write {path}: {reason}; free some space or choose another --out")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Removes the unfinished files that killed writers on this machine left in the folder."""
    for room in (folder / PART).glob(f"{glob.escape(platform.node())}.*"):
        if not _alive(room.name.rpartition(".")[2]):
            shutil.rmtree(room, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / PART).rmdir()


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True


def write_text(path: Path, text: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append(path: Path, lines: Sequence[str]) -> None:
    """Adds lines in one write, after one that a kill cut short if there is such.

    Raises ExpungeError if the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(b"\n" * _torn(path) + "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise unwritable(path, error) from error


def _torn(path: Path) -> bool:
    """Whether the last line was cut short."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def home(name: str | Path) -> Path:
    """The path, with "~" for the user's own folder.

    Raises ExpungeError for a text that no path can be: too long, with a NUL, or of a user who is not there.
    """
    try:
        path = Path(name).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExpungeError(f"{str(name)[:80]!a} can be no path: {reason}; give another") from error
    return path


def lines(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file but for empty ones and comments (#). Raises ExpungeError if it cannot be read."""
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"cannot read {what} from {path}: {error}") from error
    return [line for line in found if line and not line.startswith("#")]


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def parsed(text: str | bytes, what: str) -> Any:
    """The value of a JSON text. Raises ExpungeError if it is none, nests without end, or holds half a character."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ExpungeError(f"{what} is not JSON: {error}") from error
    return value


SEAL = "sha256"
"""The key under which files keep a hash of all else that they hold."""


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal."""
    return {**value, SEAL: _digest(value)}


def unbroken(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is as it was sealed, or never was."""
    own = _digest(value)
    return bool(value.get(SEAL, own) == own)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in value.items() if k != SEAL})
    return hashlib.sha256(text.encode()).hexdigest()


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file of contiguous CPU copies of `tensors`; its seal covers tensors and metadata.

    Equal contents give equal bytes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = metadata | {SEAL: _seal(tensors, metadata)}
    with whole(path) as temporary:
        try:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, about)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        _order(temporary)


def _order(path: Path) -> None:
    """Sorts the metadata in a safetensors header, which the library writes in random order; the length stays."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) <= size:  # JSON spelt otherwise by another version of the library stays as it is
            file.seek(8)
            file.write(ordered.ljust(size))


def _seal(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    text = json.dumps({k: v for k, v in metadata.items() if k != SEAL}, sort_keys=True)
    return hashlib.sha256((hash_tensors(tensors) + text).encode()).hexdigest()


PICKLES = (b"\x80", b"PK\x03\x04")
"""First bytes of pickle files and of the zip files that torch.save writes."""


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors and the metadata.

    Raises ExpungeError if the file is missing, a pickle, truncated, not safetensors, does not match its sha256, or
    holds numbers of a kind that weights are not.
    """
    from safetensors import SafetensorError, safe_open

    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        if head.startswith(PICKLES):  # a safetensors file may start so too: its first bytes are a length
            raise Pickled(
                f"{path} is a pickle, which can run code when opened; convert it to safetensors first"
            ) from error
        raise ExpungeError(f"cannot read {path}: {error}; expected a whole .safetensors file") from error
    if SEAL in metadata and metadata[SEAL] != _seal(tensors, metadata):
        raise ExpungeError(f"{path} is damaged: its content does not match its sha256; copy or make it again")
    for name, tensor in tensors.items():
        if str(tensor.dtype).startswith(("torch.complex", "torch.float4")):
            raise ExpungeError(f"{name} in {path} is of {tensor.dtype}, which no weight is; save it as float32")
    return tensors, metadata


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, as hex. Raises ExpungeError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExpungeError(f"cannot read {path}: {error.strerror or error}") from error


def hash_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over sorted names, dtypes, shapes and bytes, as hex."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
