"""A TCP connection as data: frozen here, recreated from its image elsewhere, in the middle of whatever it was doing.

Facts about the kernel (TCP_REPAIR) that shape this file
- A socket under repair sends nothing and is closed without FIN or RST.  It still takes in what arrives, so a filter
  that drops everything goes on first: it ends with the socket, whoever is killed when, and nothing is left behind.
- A repaired socket is bound and connected without a packet.  IP_TRANSPARENT lets it have an address that this
  machine does not hold yet.
- A timer sends from a socket under repair, too, unless its send queue is the one being repaired.
- Bytes written to the send queue under repair count as sent, and are sent again only when their timer says so.  What
  had not been sent is therefore written after the thaw.  An acknowledgement beyond what is known as sent would be
  refused for ever, so the two must not be mixed up.
- write_seq counts our FIN, rcv_nxt the other end's.  A FIN that was received, or sent and acknowledged, needs
  no state of its own in the copy: it is behind both sequence numbers, the relay knows of it by its own flags, and no
  further byte follows it.  A FIN that is not acknowledged is left out of the image and sent again by the thaw.
- The original's round trip times are not carried over: the first retransmission of the copy comes after a second.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 19, 20, 21, 22, 24, 29
_OFF_SILENT = -1
_RECEIVE_QUEUE, _SEND_QUEUE = 1, 2
_OPTION_MSS, _OPTION_WINDOW, _OPTION_SACK, _OPTION_TIMESTAMP = 2, 3, 4, 8
_INFO_TIMESTAMPS, _INFO_SACK, _INFO_WSCALE = 1, 2, 4
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_BUF_LOCK = 26, 27, 32, 33, 72
_UNREAD, _UNACKNOWLEDGED, _UNSENT = 0x541B, 0x5411, 0x894B  # SIOCINQ, SIOCOUTQ, SIOCOUTQNSD
_WORD = 0xFFFFFFFF
_CHUNK = 16384
_MOST_MSS = 32767  # that TCP_MAXSEG takes
_MOST_QUEUE = 8 << 20  # bytes: more takes too long to ship

_KEPT = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)
"""Options that the workers set; carried over by their place in this list, which is only ever added to."""

KEPT_COUNT = len(_KEPT)


class TcpState(IntEnum):
    """As the kernel numbers them; only those that an image can have."""

    ESTABLISHED = 1
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    CLOSE_WAIT = 8


class ImageError(Exception):
    """This connection cannot be moved; why, in words."""


@dataclass(frozen=True)
class TcpImage:
    """Everything of one end of a connection; sequence numbers as the kernel has them."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    receive_seq: int  # rcv_nxt, the other end's FIN included
    send_seq: int  # write_seq, without a FIN that is not acknowledged
    unread: bytes
    sent: bytes  # not acknowledged
    unsent: bytes
    mss: int
    wscale: tuple[int, int] | None  # theirs, ours
    has_sack: bool
    timestamp: int | None
    window: tuple[int, int, int, int, int]  # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
    buffers: tuple[int, int]  # send, receive
    options: tuple[int, ...]  # of _KEPT
    congestion: str

    @property
    def has_end(self) -> bool:
        """The other end has said all: nothing arrives any more."""
        return self.state == TcpState.CLOSE_WAIT

    @property
    def has_own_fin(self) -> bool:
        """Our FIN is under way and must be sent again."""
        return self.state == TcpState.FIN_WAIT1


def shut(sock: socket.socket) -> None:
    """From now on nothing that arrives is taken in, nor answered; until ``thaw`` or the socket's end."""
    code = array("B", struct.pack("=HBBI", 0x06, 0, 0, 0))  # return 0: no byte of it
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, code.buffer_info()[0]))


def unacknowledged(sock: socket.socket) -> int:
    """Bytes, or a FIN, that the other end has not acknowledged."""
    return _ask(sock, _UNACKNOWLEDGED)


def freeze(sock: socket.socket) -> TcpImage:
    """Stop a connection where it stands; ImageError, and it goes on, when there is no image of it."""
    shut(sock)
    try:
        _put(sock, _REPAIR, 1)
        return _look(sock)
    except (ImageError, OSError) as error:
        resume(sock)
        raise error if isinstance(error, ImageError) else ImageError(error.strerror or str(error)) from error


def resume(sock: socket.socket) -> None:
    """Let a connection go on where it is, as if nothing had been; one that is not frozen, too."""
    if sock.getsockopt(socket.IPPROTO_TCP, _REPAIR):
        _release(sock)
    with suppress(FileNotFoundError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def recreate(image: TcpImage) -> socket.socket:
    """The same connection, frozen; OSError when this machine cannot have it.  ``thaw`` sets it going."""
    is_ipv6 = ":" in image.local[0]
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        shut(sock)
        transparent = (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) if is_ipv6 else (socket.IPPROTO_IP, _IP_TRANSPARENT)
        sock.setsockopt(*transparent, 1)
        _put(sock, _REPAIR, 1)
        _write_numbers(sock, image)
        # Or the copy would send in segments of 524 bytes for ever.
        _put(sock, socket.TCP_MAXSEG, min(image.mss, _MOST_MSS))
        sock.bind(image.local)
        sock.connect(image.remote)
        sock.setsockopt(*transparent, 0)
        _write_options(sock, image)
        _fill(sock, _RECEIVE_QUEUE, image.unread)
        _fill(sock, _SEND_QUEUE, image.sent)
        sock.setsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, struct.pack("=5I", *image.window))
    except BaseException:
        sock.close()  # under repair: silent
        raise
    return sock


def thaw(sock: socket.socket, image: TcpImage) -> None:
    """Set a recreated connection going; its address is on this machine by now."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    _release(sock)
    if image.unsent and sock.send(image.unsent) != len(image.unsent):
        raise OSError("the send buffer does not take what it held elsewhere")
    if image.has_own_fin:
        sock.shutdown(socket.SHUT_WR)
    sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)  # the kernel may fit the buffers again


def _release(sock: socket.socket) -> None:
    """End the repair; a window probe is sent, and what the other end has to say comes at once."""
    _put(sock, _REPAIR_QUEUE, 0)
    _put(sock, _REPAIR, 0)
    # As the listener's other connections have it; the repair has taken it away, and listeners could not be added.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _look(sock: socket.socket) -> TcpImage:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    if info[0] not in set(TcpState):
        raise ImageError("it is about to end")
    has_end = info[0] == TcpState.CLOSE_WAIT
    fin = 1 if info[0] == TcpState.FIN_WAIT1 else 0
    receive_seq, unread = _copy(sock, _RECEIVE_QUEUE, _ask(sock, _UNREAD))
    # From here on nothing is sent, by no timer either: only now can be told what has been.
    _put(sock, _REPAIR_QUEUE, _SEND_QUEUE)
    unsent = max(0, _ask(sock, _UNSENT) - fin)
    send_seq, pending = _copy(sock, _SEND_QUEUE, max(0, _ask(sock, _UNACKNOWLEDGED) - fin))
    sent = len(pending) - unsent
    options, wscale = info[5], info[6]
    window = struct.unpack("=5I", sock.getsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, 20))
    return TcpImage(
        local=sock.getsockname()[:2],
        remote=sock.getpeername()[:2],
        state=TcpState.ESTABLISHED if not fin and not has_end else info[0],
        receive_seq=receive_seq,
        send_seq=(send_seq - fin) & _WORD,
        unread=unread,
        sent=pending[:sent],
        unsent=pending[sent:],
        mss=sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
        wscale=(wscale & 15, wscale >> 4) if options & _INFO_WSCALE else None,
        has_sack=bool(options & _INFO_SACK),
        timestamp=_read_word(sock, _TIMESTAMP) if options & _INFO_TIMESTAMPS else None,
        window=window,
        buffers=(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        ),
        options=tuple(sock.getsockopt(level, name) for level, name in _KEPT),
        congestion=sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode("ascii"),
    )


def _copy(sock: socket.socket, queue: int, size: int) -> tuple[int, bytes]:
    """A queue's sequence number behind its last byte, and a copy of what it holds."""
    if size > _MOST_QUEUE:
        raise ImageError(f"its queues hold more than {_MOST_QUEUE >> 20} MB")
    _put(sock, _REPAIR_QUEUE, queue)
    data = sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT) if size else b""
    if len(data) != size:
        raise ImageError("it holds urgent data")
    return _read_word(sock, _QUEUE_SEQ), data


def _write_numbers(sock: socket.socket, image: TcpImage) -> None:
    send, receive = image.buffers
    force = max(send, 4 * (len(image.sent) + len(image.unsent)))
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, force // 2 + 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, max(receive, 4 * len(image.unread)) // 2 + 1)
    behind_fin = 1 if image.has_end and image.unread else 0
    first = (image.receive_seq - len(image.unread) - behind_fin) & _WORD
    for queue, number in (
        (_RECEIVE_QUEUE, first),
        (_SEND_QUEUE, (image.send_seq - len(image.sent) - len(image.unsent)) & _WORD),
    ):
        _put(sock, _REPAIR_QUEUE, queue)
        sock.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("=I", number))


def _write_options(sock: socket.socket, image: TcpImage) -> None:
    pairs = [(_OPTION_MSS, image.mss)]
    if image.wscale is not None:
        pairs.append((_OPTION_WINDOW, image.wscale[0] | image.wscale[1] << 16))
    if image.has_sack:
        pairs.append((_OPTION_SACK, 0))
    if image.timestamp is not None:
        pairs.append((_OPTION_TIMESTAMP, 0))
    packed = b"".join(struct.pack("=II", *pair) for pair in pairs)
    sock.setsockopt(socket.IPPROTO_TCP, _REPAIR_OPTIONS, packed)
    if image.timestamp is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TIMESTAMP, struct.pack("=I", image.timestamp))
    for (level, name), value in zip(_KEPT, image.options, strict=False):
        sock.setsockopt(level, name, value)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, image.congestion.encode())
    except FileNotFoundError:
        pass  # this machine's kernel does not have it: its own choice stays


def _fill(sock: socket.socket, queue: int, data: bytes) -> None:
    if not data:
        return
    _put(sock, _REPAIR_QUEUE, queue)
    for at in range(0, len(data), _CHUNK):
        chunk = data[at : at + _CHUNK]
        while chunk:
            chunk = chunk[sock.send(chunk) :]


def _put(sock: socket.socket, name: int, value: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, name, value)


def _read_word(sock: socket.socket, name: int) -> int:
    return int(struct.unpack("=I", sock.getsockopt(socket.IPPROTO_TCP, name, 4))[0])


def _ask(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), request, b"\0\0\0\0"))[0])
