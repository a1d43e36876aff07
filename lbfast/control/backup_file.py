"""The backup file: a zip with a manifest and a checksum for each file in it, or that zip encrypted.  Pure.

Encrypted it is one line of magic, one line of JSON (scrypt's parameters, salt, nonce) and the zip under AES-256-GCM,
with both lines as associated data.  Everything is read with suspicion: whoever made it may be hostile.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

FORMAT: Final = "lbfast backup"
VERSION: Final = 1
MAGIC: Final = b"lbfast-encrypted-backup 1\n"
MANIFEST: Final = "manifest.json"
MOST_FILES: Final = 1_000
MOST_FILE: Final = 64 << 20  # bytes of one file when unpacked
MOST_ALL: Final = 256 << 20
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 1}  # 32 MiB, a tenth of a second
_MOST_N: Final = 1 << 18
_BROKEN: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, OverflowError),
)
_NAME: Final = re.compile(r"[a-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")


class BackupError(ValueError):
    """A file that cannot be restored; the text says what is wrong with it."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds: who made it and when, and the files by name."""

    about: Mapping[str, Any]
    files: Mapping[str, bytes]

    def text(self, name: str) -> str:
        try:
            return self.files[name].decode()
        except KeyError:
            raise BackupError(f"the backup has no {name}") from None
        except UnicodeDecodeError:
            raise BackupError(f"{name} in the backup is not UTF-8") from None


def pack(backup: Backup, passphrase: str = "") -> bytes:
    """The file's bytes."""
    files = dict(sorted(backup.files.items()))
    for name in files:
        _check_name(name)
    listed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = {"format": FORMAT, "version": VERSION, **backup.about, "files": listed}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        for name, data in files.items():
            archive.writestr(name, data)
    return _encrypt(stream.getvalue(), passphrase) if passphrase else stream.getvalue()


def unpack(content: bytes, passphrase: str = "") -> Backup:
    """What a file holds; BackupError when it is damaged, foreign, hostile, or the passphrase is wrong."""
    if content.startswith(MAGIC):
        content = _decrypt(content, passphrase)
    elif not content.startswith(b"PK"):
        raise BackupError("this is not a backup of lbfast")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read(archive)
    except BackupError:
        raise
    except (*_BROKEN, OSError, ValueError) as error:
        raise BackupError(f"the backup is damaged: {error}") from None


def is_encrypted(content: bytes) -> bool:
    return content.startswith(MAGIC)


def _read(archive: zipfile.ZipFile) -> Backup:
    entries = archive.infolist()
    _check_entries(entries)
    manifest = _manifest(archive)
    listed: Mapping[str, Any] = manifest["files"]
    names = [entry.filename for entry in entries if entry.filename != MANIFEST]
    if sorted(names) != sorted(listed):
        odd = sorted(set(names) ^ set(listed))
        raise BackupError(f"the backup is damaged: {odd[0]!r} is not both in the file and in its manifest")
    files = {name: _content(archive, name, listed[name]) for name in names}
    return Backup({key: value for key, value in manifest.items() if key != "files"}, files)


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES:
        raise BackupError(f"the file holds {len(entries)} files, a backup has at most {MOST_FILES}")
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise BackupError("the file holds two files of the same name")
    for entry in entries:
        _check_name(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BackupError(f"{entry.filename!r} in the file is not a regular file")
        if entry.file_size > MOST_FILE:
            raise BackupError(f"{entry.filename!r} would have {entry.file_size} bytes, at most {MOST_FILE}")
    if sum(entry.file_size for entry in entries) > MOST_ALL:
        raise BackupError(f"the file would have more than {MOST_ALL >> 20} MiB when unpacked")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise BackupError(f"a file called {name[:80]!r} does not belong into a backup")


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    try:
        manifest = json.loads(_bounded(archive, MANIFEST, 1 << 20))
        if manifest["format"] != FORMAT:
            raise BackupError("this is not a backup of lbfast")
        if manifest["version"] != VERSION:
            raise BackupError(f"the backup has format version {manifest['version']!r:.20}, this lbfast reads {VERSION}")
        if not isinstance(manifest["files"], dict):
            raise TypeError("files")
    except KeyError:
        raise BackupError("this is not a backup of lbfast: it has no manifest") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise error if isinstance(error, BackupError) else BackupError("the manifest is damaged") from None
    return dict(manifest)


def _content(archive: zipfile.ZipFile, name: str, listed: Any) -> bytes:
    data = _bounded(archive, name, MOST_FILE)
    if not isinstance(listed, dict) or hashlib.sha256(data).hexdigest() != listed.get("sha256"):
        raise BackupError(f"the backup is damaged: {name!r} has another checksum than its manifest says")
    return data


def _bounded(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """However much the directory of the zip says, no more than ``most`` is ever unpacked."""
    with archive.open(name) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise BackupError(f"{name!r} is larger than a backup's may be")
    return data


# --- encryption -----------------------------------------------------------------------------------


def _encrypt(content: bytes, passphrase: str) -> bytes:
    salt, nonce = os.urandom(16), os.urandom(12)
    header = {"kdf": "scrypt", **_SCRYPT, "salt": _text(salt), "cipher": "AES-256-GCM", "nonce": _text(nonce)}
    head = MAGIC + json.dumps(header).encode() + b"\n"
    return head + AESGCM(_key(passphrase, salt, **_SCRYPT)).encrypt(nonce, content, head)


def _decrypt(content: bytes, passphrase: str) -> bytes:
    line, newline, rest = content[len(MAGIC) :].partition(b"\n")
    head = content[: len(MAGIC) + len(line) + 1]
    try:
        header: Any = json.loads(line) if newline and len(line) < 1_000 else None
        if header["kdf"] != "scrypt" or header["cipher"] != "AES-256-GCM":
            raise ValueError("unknown cipher")
        cost = {key: int(header[key]) for key in ("n", "r", "p")}
        is_sane = 2 <= cost["n"] <= _MOST_N and 1 <= cost["r"] <= 16 and 1 <= cost["p"] <= 4
        salt, nonce = base64.b64decode(header["salt"]), base64.b64decode(header["nonce"])
        if not is_sane or cost["n"] & (cost["n"] - 1) or not 8 <= len(nonce) <= 64:
            raise ValueError("parameters out of bounds")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BackupError("the head of the encrypted backup is damaged") from None
    if not passphrase:
        raise BackupError("the backup is encrypted: its passphrase is needed")
    try:
        return AESGCM(_key(passphrase, salt, **cost)).decrypt(nonce, rest, head)
    except InvalidTag:
        raise BackupError("the passphrase is wrong, or the backup is damaged") from None


def _key(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase.encode())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
