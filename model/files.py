"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import msgspec

from model.errors import UserError


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes; of a folder, that of what ``sha256sum`` prints for its files, by relative path in order of bytes.

    Raises:
        UserError: as :func:`folder_files` does.
    """
    if path.is_dir():
        lines = [sha256(file).encode() + b"  " + os.fsencode(file.relative_to(path).as_posix()) + b"\n" for file in folder_files(path)]
        return hashlib.sha256(b"".join(lines)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_bytes(path: Path) -> int:
    """Of a file, or of all files of a folder; raises as :func:`folder_files` does."""
    return sum(file.stat().st_size for file in (folder_files(path) if path.is_dir() else (path,)))


def folder_files(folder: Path) -> list[Path]:
    """The files of a folder at any depth, in the order of their relative paths.

    Raises:
        UserError: it is a link or holds one, which could lead out of it, or something else that is neither file nor folder.
    """
    entries = [folder, *folder.rglob("*")]
    for entry in entries:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise UserError(f"{entry} is neither file nor folder; links are not followed, copy what it stands for")
    return sorted((entry for entry in entries if entry.is_file()), key=lambda file: os.fsencode(file.relative_to(folder).as_posix()))


def require_inside(name: str, where: object) -> str:
    """``name``, relative to a folder that it does not lead out of; a :class:`UserError` that names the file it stands in otherwise."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"{where} names {name!r}, which leads out of its folder; names are relative to it")
    return name


def _umask() -> int:
    mask = os.umask(0)  # there is no way to read it but to set it
    os.umask(mask)
    return mask


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary place for ``path``; rename it to ``path`` when the block ends, remove it when the block fails.

    What a killed process has left of the same file goes, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _place_beside(path) as folder:
            # Of the same name: writers go by the suffix. Not mkstemp: the result should have ordinary permissions.
            temporary = folder / path.name
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # some writers make their files private
            os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # of a disk that is full the system says no more than that
        raise


@contextmanager
def _place_beside(path: Path) -> Iterator[Path]:
    """An empty hidden folder for what is to become ``path``: the first of ``.NAME.0``, ``.NAME.1`` ... that no living process holds.

    It is told by a lock, as for :func:`scratch_folder`, and of the folder, because some writers put another file in the place of theirs.
    The names are few so that leftovers are found without listing a parent that may hold 100,000 files.
    """
    for number in itertools.count():
        folder = path.with_name(f".{path.name}.{number}")
        lock = _lock_folder(folder)
        if lock is not None:
            break
    try:
        for leftover in folder.iterdir():
            leftover.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock_folder(folder: Path) -> int | None:
    """Make ``folder`` if it is not there; a descriptor that holds its lock, ``None`` where another one does."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # its owner has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        except FileNotFoundError:  # removed between the two
            pass
        except BlockingIOError:
            os.close(lock)
            return None
        os.close(lock)


@contextmanager
def only_here(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold ``folder`` against other processes that do the same; ``waiting`` is called first where another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in ``parent`` whose name begins with ``prefix``, for as long as the block lasts.

    A killed process cannot remove its own: the next one that asks for the same ``parent`` and ``prefix`` does. Whose process is alive is
    told by a lock, which ends with it.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        _remove_unlocked(leftover)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


_YOUNG = 60
"""Seconds: younger folders may belong to a process that has not come to lock them yet."""


def _remove_unlocked(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_mtime < _YOUNG:
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another process was faster, or it is no folder
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def _holds_something_else(path: Path, marker: str) -> bool:
    """Whether ``path`` is there and neither an earlier result nor an empty folder."""
    for _ in range(3):  # what is seen while another process exchanges it is not there at the next look
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return True
        if not names or marker in names:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def atomic_folder(path: Path, marker: str) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; put it in the place of ``path`` when the block ends, remove it when the block fails.

    A folder that is there already is replaced only when it is empty or holds a file called ``marker``, so that a slip in an output path
    never deletes somebody's folder.

    Raises:
        UserError: ``path`` is something else.
    """
    if _holds_something_else(path, marker):
        raise UserError(f"{path} exists and is no earlier result ({marker} is missing in it); choose another output folder")
    with scratch_folder(path.parent, f".{path.name}.") as workspace:
        fresh = workspace / "new"
        fresh.mkdir()
        yield fresh
        for attempt in itertools.count():
            # POSIX cannot swap folders in one step: a kill between these two leaves none, and the old one in the workspace.
            with suppress(FileNotFoundError):
                os.rename(path, workspace / f"old{attempt}")
            try:
                os.rename(fresh, path)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise  # those two: another process has put the same result there in between


def write_json(path: Path, value: object) -> None:
    """Write anything that msgspec encodes as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
