"""Where intents are kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, Iterator, Protocol

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class IntentStore(Protocol):
    """Durable memory of intents, by name. What is kept is a JSON object."""

    def get(self, name: str) -> dict[str, Any] | None:
        """What is kept under the name."""

    def put(self, name: str, kept: dict[str, Any]) -> None:
        """Keeps it, as safely as the store can, before it returns."""

    def remove(self, name: str) -> None:
        """Forgets it."""

    def names(self) -> list[str]:
        """All names."""

    def alone(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Held by one at a time."""


class MemoryStore:
    """Kept until the process ends: retries only."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, name: str) -> dict[str, Any] | None:
        """See :class:`IntentStore`."""
        text = self._kept.get(name)
        return None if text is None else json.loads(text)

    def put(self, name: str, kept: dict[str, Any]) -> None:
        """See :class:`IntentStore`."""
        self._kept[name] = json.dumps(kept)

    def remove(self, name: str) -> None:
        """See :class:`IntentStore`."""
        self._kept.pop(name, None)

    def names(self) -> list[str]:
        """See :class:`IntentStore`."""
        return list(self._kept)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """See :class:`IntentStore`."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield


class FileStore:
    """Kept in a folder, a file an intent: written, flushed to the disk, and only then renamed into place (and the folder
    flushed), so that a crash leaves the old or the new. Shared by threads and, except on Windows, by processes.

    The folder is made with access for its owner only: bodies are stored as they are.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).expanduser()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._memory = MemoryStore()

    def get(self, name: str) -> dict[str, Any] | None:
        """See :class:`IntentStore`. Raises ``ValueError`` if the file is damaged: that is never an absent intent."""
        try:
            kept = json.loads(self._path(name).read_text("utf-8"))
        except FileNotFoundError:
            return None
        if not isinstance(kept, dict) or kept.get("name") != name:
            raise ValueError(f"{self._path(name)} is damaged")
        return kept

    def put(self, name: str, kept: dict[str, Any]) -> None:
        """See :class:`IntentStore`."""
        path = self._path(name)
        draft = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        with open(draft, "w", encoding="utf-8", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            json.dump({**kept, "name": name}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        self._flush()

    def remove(self, name: str) -> None:
        """See :class:`IntentStore`."""
        self._path(name).unlink(missing_ok=True)
        self._flush()

    def names(self) -> list[str]:
        """See :class:`IntentStore`."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                found.append(str(json.loads(path.read_text("utf-8"))["name"]))
        return found

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """See :class:`IntentStore`. The lock ends with the process that holds it."""
        if fcntl is None:
            with self._memory.alone(name):
                yield
            return
        path = self._path(name).with_suffix(".lock")
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Whoever held it may have removed it: then others lock another file.
                if not _is_still(file, path):
                    continue
                yield
                path.unlink(missing_ok=True)
                return
            finally:
                os.close(file)

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode('utf-8')).hexdigest()}.json"

    def _flush(self) -> None:
        if os.name == "nt":
            return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
