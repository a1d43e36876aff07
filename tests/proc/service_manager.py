"""A small stand-in for systemd: hears a service, keeps the descriptors that it gives, passes them to the next start."""

from __future__ import annotations

import array
import os
import socket
import sys
import threading
from pathlib import Path

_STARTER = """
import fcntl, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
    sock.connect(sys.argv[1])
    names, fds = [], []
    while True:
        data, got, _, _ = socket.recv_fds(sock, 4096, 1)
        if not data:
            break
        names.append(data.decode())
        fds += got
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 1000) for fd in fds]
for fd in fds:
    os.close(fd)
for at, fd in enumerate(high):
    os.dup2(fd, 3 + at)
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServiceManager:
    """``prefix`` and ``env`` are for the service; ``kept`` is what it has given, by name."""

    def __init__(self, folder: Path) -> None:
        self.kept: dict[str, int] = {}
        self.said: list[str] = []
        self._lock = threading.Lock()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._give = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._give.bind(str(folder / "give"))
        self._give.listen()
        self.env = {"NOTIFY_SOCKET": str(folder / "notify")}
        self.prefix = [sys.executable, "-c", _STARTER, str(folder / "give")]
        self._threads = [threading.Thread(target=it, daemon=True) for it in (self._hear, self._pass_on)]

    def __enter__(self) -> ServiceManager:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._notify, self._give):
            sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in (self._notify, self._give):
            sock.close()
        self.forget()

    def forget(self) -> None:
        """As a manager does when the service is stopped for good."""
        with self._lock:
            for fd in self.kept.values():
                os.close(fd)
            self.kept.clear()

    def _hear(self) -> None:
        while True:
            try:
                data, rights, _, _ = self._notify.recvmsg(4096, socket.CMSG_LEN(4 * 8), socket.MSG_CMSG_CLOEXEC)
            except OSError:
                return
            if not data:
                return
            fds = array.array("i")
            for *_, packed in rights:
                fds.frombytes(packed)
            self._obey(dict(line.split("=", 1) for line in data.decode().splitlines()), list(fds))

    def _obey(self, words: dict[str, str], fds: list[int]) -> None:
        name = words.get("FDNAME", "")
        with self._lock:
            self.said += [f"{key}={value}" for key, value in words.items()]
            if "FDSTORE" in words:
                assert name.isprintable(), name
                assert ":" not in name
                assert name not in self.kept, f"{name} is given twice"
                self.kept[name] = fds.pop()
            elif "FDSTOREREMOVE" in words and name in self.kept:
                os.close(self.kept.pop(name))
        for fd in fds:
            os.close(fd)

    def _pass_on(self) -> None:
        while True:
            try:
                caller, _ = self._give.accept()
            except OSError:
                return
            with caller, self._lock:
                for name, fd in self.kept.items():
                    socket.send_fds(caller, [name.encode()], [fd])
