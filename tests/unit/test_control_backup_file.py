"""The backup file: what goes in comes out; whatever is damaged, foreign or hostile is refused."""

from __future__ import annotations

import io
import json
import stat
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbfast.control import backup_file
from lbfast.control.backup_file import Backup, BackupError, is_encrypted, pack, unpack

FILES = {"lbfast.toml": b"workers = 1\n", "versions/000001.toml": b"x" * 10_000, "web/certificate.pem": b"\0\xff"}
BACKUP = Backup({"by": "ann"}, FILES)


def zipped(entries: dict[str, bytes], manifest: object = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        if manifest is not None:
            archive.writestr("manifest.json", json.dumps(manifest))
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_what_goes_in_comes_out(passphrase: str) -> None:
    content = pack(BACKUP, passphrase)
    assert is_encrypted(content) == bool(passphrase)
    found = unpack(content, passphrase)
    assert found.files == FILES
    assert found.about["by"] == "ann"


def test_a_wrong_or_missing_passphrase_is_refused_and_nothing_shows() -> None:
    content = pack(BACKUP, "right")
    assert b"workers" not in content
    assert b"lbfast.toml" not in content
    for wrong in ("", "wrong"):
        with pytest.raises(BackupError, match="passphrase"):
            unpack(content, wrong)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 255), st.booleans())
def test_no_damage_goes_unnoticed(place: int, change: int, encrypted: bool) -> None:
    """Either it is refused, or the byte did not matter: the files are those that were saved."""
    content = bytearray(_PACKED[encrypted])
    content[place % len(content)] ^= change
    try:
        found = unpack(bytes(content), "p" if encrypted else "")
    except BackupError:
        return
    assert not encrypted
    assert found.files == FILES


_PACKED = {False: pack(BACKUP), True: pack(BACKUP, "p")}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", backup_file.MAGIC]))
def test_nothing_foreign_is_taken(content: bytes, head: bytes) -> None:
    with pytest.raises(BackupError):
        unpack(head + content, "p")


@pytest.mark.parametrize("cut", [1, 10, 100, 400])
def test_half_a_file_is_refused(cut: int) -> None:
    with pytest.raises(BackupError):
        unpack(_PACKED[False][:-cut])


@pytest.mark.parametrize(
    "name", ["../etc/passwd", "/etc/passwd", "web/../../x", "web\\x", "a/b/c", ".hidden", "web/.."]
)
def test_no_name_leads_outside(name: str) -> None:
    with pytest.raises(BackupError, match="does not belong"):
        unpack(zipped({name: b"x"}, {"format": "lbfast backup", "version": 1, "files": {}}))


def test_a_link_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("lbfast.toml")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/shadow")
    with pytest.raises(BackupError, match="not a regular file"):
        unpack(stream.getvalue())


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_file, "MOST_FILE", 1 << 20)
    with pytest.raises(BackupError, match="at most"):
        unpack(zipped({"bomb": b"\0" * (2 << 20)}))
    many = {f"f{number}": b"" for number in range(backup_file.MOST_FILES + 1)}
    with pytest.raises(BackupError, match="files"):
        unpack(zipped(many))


def test_files_and_manifest_must_agree() -> None:
    manifest = {"format": "lbfast backup", "version": 1, "files": {"a": {"sha256": "0" * 64}}}
    with pytest.raises(BackupError, match="checksum"):
        unpack(zipped({"a": b"x"}, manifest))
    with pytest.raises(BackupError, match="manifest"):
        unpack(zipped({"b": b"x"}, manifest))
    with pytest.raises(BackupError, match="version"):
        unpack(zipped({}, manifest | {"version": 9, "files": {}}))
    with pytest.raises(BackupError, match="not a backup"):
        unpack(zipped({"a": b"x"}))


def test_a_head_cannot_ask_for_endless_work() -> None:
    header = {
        "kdf": "scrypt",
        "cipher": "AES-256-GCM",
        "n": 1 << 30,
        "r": 8,
        "p": 1,
        "salt": "",
        "nonce": "AAAAAAAAAAAAAAAA",
    }
    with pytest.raises(BackupError, match="head"):
        unpack(backup_file.MAGIC + json.dumps(header).encode() + b"\nxxx", "p")
