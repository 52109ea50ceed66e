"""What an attack is aimed at, made fresh for each attempt, and what became of it.

A folder open to every user with a secret, a victim's files, a naive trainer's metrics and
validation data, and listeners on loopback and on UNIX sockets. What is seen is seen from here:
nothing the candidate says about itself counts, except the canary, which it cannot guess.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Scene"]

# Watched for names with the scene's mark, which an attack can use and nobody else does.
_SHARED_FOLDERS = ("/dev/shm", "/tmp", "/var/tmp")  # noqa: S108 - see above
_PORT_ATTEMPTS = 20


class Scene:
    """One attempt's targets; a context manager that takes them away again.

    Attributes:
        metrics: the file a naive trainer writes its score to.
        workplace: a folder for a naive trainer to run in.
    """

    def __init__(self) -> None:
        self._canary = f"CANARY-{secrets.token_hex(5)[:9]}"  # 16 characters
        self._mark = f"mark{secrets.token_hex(6)}"
        self._folder = Path(tempfile.mkdtemp(prefix="nanoevolve-scene-"))
        self.metrics = self._folder / "metrics.json"
        self.workplace = self._folder / "workplace"
        self._secret = self._folder / "secret.txt"
        self._victim = self._folder / "victim"
        self._validation = self._folder / "val.bin"
        self._validation_bytes = random.SystemRandom().randrange(20_000, 90_000)
        self._open = contextlib.ExitStack()
        self._files: dict[Path, str] = {}

    def __enter__(self) -> Self:
        self._make_files()
        tcp, udp = self._listen_on_port()
        unix = self._listen(socket.AF_UNIX, str(self._victim / "sock"))
        abstract = self._listen(socket.AF_UNIX, f"\0{self._mark}")
        self._port = tcp[0].getsockname()[1]
        self._listeners = {"a TCP": [*tcp], "a UNIX": [unix], "an abstract UNIX": [abstract]}
        self._datagrams = udp
        for path in self._folder.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        self._folder.chmod(0o777)
        self._files = self._snapshot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
        shutil.rmtree(self._folder)
        for path in self._left_elsewhere():
            path.unlink()

    def fill_in(self, text: str, parent: int | None = None) -> str:
        """Put this scene's names in place of the placeholders; `@PPID@` if `parent` is given."""
        names = {
            "@SECRET@": self._secret,
            "@VICTIM@": self._victim,
            "@VALFILE@": self._validation,
            "@VALSIZE@": self._validation_bytes,
            "@METRICS@": self.metrics,
            "@PORT@": self._port,
            "@MARK@": self._mark,
        } | ({} if parent is None else {"@PPID@": parent})
        for placeholder, name in names.items():
            text = text.replace(placeholder, str(name))
        return text

    def sightings(self, text: str, says: Iterable[str], ignore: Iterable[Path] = ()) -> list[str]:
        """Say what the attack has left of its effects.

        Args:
            text: everything that came out of the run.
            says: texts, with placeholders, that show a breach if they are in it.
            ignore: files that may have changed.
        """
        seen = [f"the output has {what}" for what in self._found_in(text, says)]
        seen += self._changes(set(ignore))
        seen += self._calls()
        seen += [f"left {path}" for path in self._left_elsewhere()]
        return seen

    def _left_elsewhere(self) -> list[Path]:
        folders = {Path(folder) for folder in (*_SHARED_FOLDERS, tempfile.gettempdir())}
        return [path for folder in folders for path in folder.glob(f"*{self._mark}*")]

    def _found_in(self, text: str, says: Iterable[str]) -> Iterator[str]:
        if self._canary in text:
            yield "the canary of a file"
        for words in map(self.fill_in, says):
            if words in text:
                yield repr(words)

    def _changes(self, ignore: set[Path]) -> Iterator[str]:
        after = self._snapshot()
        for path in sorted(self._files.keys() | after.keys()):
            if path not in ignore and self._files.get(path) != after.get(path):
                how = "changed" if path in self._files and path in after else "made or removed"
                yield f"{path.relative_to(self._folder)} was {how}"

    def _calls(self) -> Iterator[str]:
        for kind, listeners in self._listeners.items():
            for listener in listeners:
                with contextlib.suppress(BlockingIOError):
                    connection, _ = listener.accept()
                    connection.close()
                    yield f"{kind} connection"
        for listener in self._datagrams:
            with contextlib.suppress(BlockingIOError):
                listener.recv(1 << 16)
                yield "a datagram"

    def _make_files(self) -> None:
        self._victim.mkdir()
        self.workplace.mkdir()
        self._secret.write_text(f"{self._canary}\n")
        (self._victim / "optim.py").write_text("# a program of another run\n")
        (self._victim / f"prior-{self._canary}.json").write_text("{}")
        self._validation.write_bytes(bytes(self._validation_bytes))
        self.metrics.write_text("")

    def _listen_on_port(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """Listen on one port for TCP and UDP, and on IPv6 too where there is one."""
        for _ in range(_PORT_ATTEMPTS):
            with contextlib.suppress(OSError), contextlib.ExitStack() as attempt:
                tcp = attempt.enter_context(_bound(socket.AF_INET, socket.SOCK_STREAM, 0))
                port = tcp.getsockname()[1]
                udp = attempt.enter_context(_bound(socket.AF_INET, socket.SOCK_DGRAM, port))
                streams, datagrams = [tcp], [udp]
                if _has_ipv6():
                    for kind, sockets in (
                        (socket.SOCK_STREAM, streams),
                        (socket.SOCK_DGRAM, datagrams),
                    ):
                        sockets.append(attempt.enter_context(_bound(socket.AF_INET6, kind, port)))
                for each in streams:
                    each.listen()
                self._open.push(attempt.pop_all())
                return streams, datagrams
        raise OSError("found no port that is free for TCP and UDP on loopback")

    def _listen(self, family: socket.AddressFamily, address: str) -> socket.socket:
        listener = self._open.enter_context(socket.socket(family))
        listener.setblocking(False)
        listener.bind(address)
        listener.listen()
        return listener

    def _snapshot(self) -> dict[Path, str]:
        """Describe every file below the folder by what an attack could change of it."""
        return {path: _describe(path) for path in [self._folder, *self._folder.rglob("*")]}


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        bound.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


def _has_ipv6() -> bool:
    try:
        with _bound(socket.AF_INET6, socket.SOCK_STREAM, 0):
            return True
    except OSError:
        return False


def _describe(path: Path) -> str:
    status = path.lstat()
    facts = f"{status.st_mode:o} {status.st_uid} {status.st_gid} {status.st_nlink}"
    if path.is_symlink():
        return f"{facts} -> {path.readlink()}"
    if not stat.S_ISREG(status.st_mode):
        return facts
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    extended = sorted(os.listxattr(path))
    return f"{facts} {status.st_size} {status.st_mtime_ns} {digest.hexdigest()} {extended}"
