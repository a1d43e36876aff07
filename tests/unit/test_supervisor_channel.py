"""The channel: message borders, descriptors, end of file, limits, full queues."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from lbfast.supervisor.channel import MAX_MESSAGE, Channel, ChannelError


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_messages_keep_their_borders_and_order(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    messages = [{"event": "health", "number": number, "text": "é" * number} for number in range(50)]
    for message in messages:
        one.send(message)
    assert [other.receive(1) for _ in messages] == messages


def test_both_directions(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    one.send({"do": "stop"})
    other.send({"event": "ready"})
    assert (other.receive(1), one.receive(1)) == ({"do": "stop"}, {"event": "ready"})


def test_nothing_yet_is_told_from_end_of_file(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    with pytest.raises(BlockingIOError):
        other.receive_now()
    with pytest.raises(TimeoutError):
        other.receive(0)
    one.send({"event": "last"})
    one.close()
    assert other.receive_now() == {"event": "last"}
    assert other.receive_now() is None
    assert other.receive(1) is None


def test_end_of_file_although_the_other_left_messages_unread(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    other.send({"event": "unread"})
    one.close()
    assert other.receive(1) is None


def test_sending_to_nobody(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    other.close()
    assert one.send_now({"do": "stop"}) is False
    with pytest.raises(BrokenPipeError):
        one.send({"do": "stop"})


def test_full_queue_refuses_and_recovers(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    sent = 0
    while one.send_now({"number": sent, "padding": "x" * 4000}):
        sent += 1
        assert sent < 100_000
    assert sent > 0
    for number in range(sent):
        message = other.receive(1)
        assert message is not None
        assert message["number"] == number
    assert one.send_now({"number": sent})


def test_descriptors_travel_and_are_close_on_exec(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    read, write = os.pipe()
    one.send({"do": "take"}, [write])
    os.close(write)
    received = other.receive_fds(1)
    assert received is not None
    message, fds = received
    assert message == {"do": "take"}
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"through")
    os.close(fds[0])
    assert os.read(read, 100) == b"through"
    os.close(read)


def test_unwanted_descriptors_are_closed(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    read, write = os.pipe()
    one.send({"do": "take"}, [write])
    os.close(write)
    assert other.receive(1) == {"do": "take"}
    assert os.read(read, 1) == b"", "the write end must be closed everywhere"
    os.close(read)


def test_too_large_is_refused_by_the_sender(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ChannelError, match="does not fit"):
        pair[0].send({"text": "x" * MAX_MESSAGE})
    largest = {"t": "x" * (MAX_MESSAGE - len('{"t":""}'))}
    pair[0].send(largest)
    assert pair[1].receive(1) == largest


@pytest.mark.parametrize("data", [b"not json", b"[1, 2]", b"\xff", b"{"])
def test_garbage_is_an_error_and_the_next_message_is_read(data: bytes) -> None:
    raw, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(end)
    with raw:
        raw.send(data)
        raw.send(b'{"event":"fine"}')
        with pytest.raises(ChannelError):
            channel.receive(1)
        assert channel.receive(1) == {"event": "fine"}
    channel.close()


def test_too_large_from_a_stranger_is_an_error() -> None:
    raw, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(end)
    with raw:
        raw.send(b"x" * (MAX_MESSAGE + 1))
        with pytest.raises(ChannelError, match="more than"):
            channel.receive(1)
    channel.close()
