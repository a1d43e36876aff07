"""What is each box's own although a pair has one configuration: kept beside the versions, whose text is the pair's.

A version may be the peer's, with the peer's [web] and [log] in its text.  This box runs such a version with its own,
and does so again after a restart, until somebody changes them on this box.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lbfast.config.files import read_regular, write_atomically
from lbfast.model.appliance import LOCAL_KEYS, Config, WebSettings

NAME: Final = "own_settings.json"
_MOST_BYTES = 1 << 16


def own_of(config: Config) -> dict[str, Any]:
    """This box's own part of a configuration, as plain data."""
    return config.model_dump(mode="json", include=set(LOCAL_KEYS))


def own_words(config: Config) -> dict[str, str]:
    """The same for people who compare two boxes.  Where the web interface listens is different on each, rightly."""
    web, reach = config.web, config.graphs.model_dump()
    return {
        "workers": "one per core" if config.workers is None else str(config.workers),
        "workers stay on their cores": "yes" if config.pin_workers else "no",
        "log": config.log.target,
        "graphs": ", ".join(f"{name.removeprefix('keep_')} for {seconds} s" for name, seconds in reach.items()),
        "web interface": "none" if web is None else _web_words(web),
    }


def _web_words(web: WebSettings) -> str:
    certificate = ", with a certificate of its own" if web.certificate else ""
    return f"{'HTTPS' if web.tls else 'HTTP'}, port {web.port_number}{certificate}"


def with_own(config: Config, own: Mapping[str, Any]) -> Config:
    """The configuration with this box's own part; ValueError or TypeError when ``own`` is none."""
    found = Config.model_validate({**own, "virtual_service": []})
    return config.model_copy(update={key: getattr(found, key) for key in LOCAL_KEYS})


def with_changes(config: Config, running: Config, data: Mapping[str, Any], before: Mapping[str, Any]) -> Config:
    """An edit of the text that runs: what it does not change of this box's own stays as it runs here.

    ``data``, ``before``: what the edited text and the running one say.
    """
    stays = [key for key in LOCAL_KEYS if data.get(key) == before.get(key)]
    return config.model_copy(update={key: getattr(running, key) for key in stays})


def keep_own_settings(state_dir: Path, config: Config, version: int) -> None:
    """From now on, with this version, this is this box's own part; OSError when that cannot be kept."""
    document = {"version": version, "own": own_of(config)}
    write_atomically(state_dir / NAME, json.dumps(document).encode(), mode=0o640)


def with_kept(config: Config, state_dir: Path, version: int) -> Config:
    """The configuration of a version with what was kept last; as it is when nothing was, or nothing that can be used.

    What was kept with an earlier version is of no use: a release that keeps nothing has committed since.
    """
    try:
        found = json.loads(read_regular(state_dir / NAME, _MOST_BYTES))
        return with_own(config, found["own"]) if found["version"] >= version else config
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return config
