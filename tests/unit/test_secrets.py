"""Secrets do not show, and their files are their owner's alone."""

from __future__ import annotations

import copy
import json
import os
import pickle
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbfast.config.secret_file import SecretFault, make_secret, read_secret
from lbfast.model.secret import Secret

TEXT = "a-key-nobody-may-see"


@dataclass
class Holder:
    name: str
    key: Secret


def test_it_does_not_show() -> None:
    secret = Secret(TEXT.encode())
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", repr(Holder("web", secret))]
    shown += [repr([secret]), repr({"key": secret})]
    try:
        raise ValueError(secret)
    except ValueError:
        shown.append(traceback.format_exc())
    assert not any(TEXT in text for text in shown)
    assert secret.reveal() == TEXT.encode()
    assert not hasattr(secret, "__dict__")


def test_it_is_not_written_out() -> None:
    secret = Secret(TEXT.encode())
    for write in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash):
        with pytest.raises(TypeError) as error:
            write(secret)
        assert TEXT not in str(error.value)


def test_equal_is_equal() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"


def test_made_and_read_again(tmp_path: Path) -> None:
    made = make_secret(tmp_path / "key")
    assert len(made.reveal()) == 64
    assert read_secret(tmp_path / "key") == made
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert make_secret(tmp_path / "key") != made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(TEXT)
    path.chmod(mode)
    with pytest.raises(SecretFault, match="expected a file for its owner alone: chmod 600") as error:
        read_secret(path)
    assert TEXT not in str(error.value)


def test_odd_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(SecretFault, match="No such file"):
        read_secret(path)
    path.write_text("\n")
    path.chmod(0o600)
    with pytest.raises(SecretFault, match="found 0 bytes"):
        read_secret(path)
    path.write_bytes(b"x" * 65_537)
    with pytest.raises(SecretFault, match="found 65537 bytes"):
        read_secret(path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(SecretFault):
        read_secret(tmp_path / "link")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(SecretFault, match="not a regular file"):
        read_secret(tmp_path / "fifo")
