"""What stays each box's own although both have one configuration: where the web interface listens, the workers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import trustme
from ha_lab import BOXES, Lab, served_pair
from harness import Lbfast, wait_for
from waiting import children_of

pytestmark = pytest.mark.root

WORKERS = {"a": 2, "b": 1}


@pytest.fixture
def pair(ca: trustme.CA) -> Iterator[Lab]:
    """Each with its web interface at its own address, and with workers of its own number."""
    with served_pair("ho", ca) as found:
        found.start_pair(config(found, "a"), config(found, "b"))
        found.wait_ready()
        yield found


def config(pair: Lab, name: str, *change: str) -> str:
    own = f'workers = {WORKERS[name]}\n[web]\naddress = "{BOXES[name]}"\nport = 9443\n'
    found = pair.config().replace("workers = 2\n", own)
    return found.replace(*change) if change else found


def commit(pair: Lab, name: str, *change: str) -> None:
    file = pair.directory / "changed.toml"
    file.write_text(config(pair, name, *change))
    code, _, err = pair.boxes[name].cli("commit", str(file))
    assert code == 0, err


def runs(box: Lbfast, label: str) -> bool:
    return label in str(box.call("overview"))


def text_of(box: Lbfast) -> str:
    return str(box.call("candidate")["text"])


def has_its_own(pair: Lab, name: str) -> None:
    wait_for(lambda: listens(pair, name), 20, f"the web interface of {name} at its own address")
    workers = [child for child in children_of(pair.boxes[name].pid) if "worker" in child]
    assert len(workers) == WORKERS[name], workers


def listens(pair: Lab, name: str) -> bool:
    words = [*pair.inside("c"), "bash", "-c", f": > /dev/tcp/{BOXES[name]}/9443"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_each_box_keeps_its_own_web_interface_and_workers(pair: Lab) -> None:
    """With a commit, after a while away, after a restart, and when the box that is left is edited."""
    commit(pair, "a", "Server 3", "Server Three")
    for name, box in pair.boxes.items():
        assert runs(box, "Server Three")
        has_its_own(pair, name)
    assert text_of(pair.boxes["a"]) == text_of(pair.boxes["b"]), "they run one version"
    pair.wait_ready()
    assert "workers: 2 on the active box, 1 on the passive one" in pair.status("b")["differences"]

    pair.boxes["b"].stop()
    commit(pair, "a", "Server 3", "Server Drei")
    pair.start("b", config=config(pair, "b"))
    wait_for(lambda: runs(pair.boxes["b"], "Server Drei"), 30, "the box that was away to catch up")
    has_its_own(pair, "b")

    pair.kill_box("a")
    pair.wait_states(b="alone")
    pair.boxes["b"].stop()
    pair.start("b", config=config(pair, "b"))
    b = pair.boxes["b"]
    assert runs(b, "Server Drei"), "a start runs what ran, whose text is the other box's"
    has_its_own(pair, "b")
    edit = {"op": "change_real", "service": "Symphony", "real": "Server Drei", "settings": {"label": "Server Tres"}}
    assert b.call("candidate_edit", operations=[edit])["accepted"]
    b.call("candidate_commit")
    has_its_own(pair, "b")

    pair.revive("a")
    pair.start("a", config=config(pair, "a"))
    wait_for(lambda: runs(pair.boxes["a"], "Server Tres"), 30, "the other one to catch up in its turn")
    has_its_own(pair, "a")


def test_a_box_without_a_web_interface_stays_without_one(pair: Lab) -> None:
    pair.boxes["b"].stop()
    pair.start("b", config=pair.config().replace("workers = 2\n", "workers = 1\n"))
    pair.wait_ready()
    commit(pair, "a", "Server 3", "Server Three")
    assert runs(pair.boxes["b"], "Server Three")
    assert not listens(pair, "b")
    has_its_own(pair, "a")
