"""A TCP connection as data: frozen here, recreated from its image elsewhere."""

class ImageError(Exception):
    """This connection cannot be moved; why, in words."""

class TcpImage:
    """Everything of one end of a connection."""

    unread: bytes
    sent: bytes  # not acknowledged
    unsent: bytes
    @property
    def local(self) -> tuple[str, int]: ...
    @property
    def remote(self) -> tuple[str, int]: ...
    @property
    def has_end(self) -> bool:
        """The other end has said all: nothing arrives any more."""
    @property
    def has_own_fin(self) -> bool:
        """Our FIN is under way and must be sent again."""
    @property
    def size(self) -> int:
        """Bytes of its queues."""
    @property
    def timestamp(self) -> int | None: ...
    def numbers(self) -> dict[str, object]:
        """All but addresses and bytes, to be compared."""
    def pack(self) -> bytes: ...
    @staticmethod
    def unpack(data: bytes) -> TcpImage:
        """What ``pack`` has made; ImageError for anything else."""

def shut(fd: int) -> None:
    """From now on nothing that arrives is taken in, nor answered; until ``thaw`` or the socket's end."""

def unacknowledged(fd: int) -> int:
    """Bytes, or a FIN, that the other end has not acknowledged."""

def end_by_reset(fd: int, is_so: bool = True) -> None:
    """Whether the socket's last close, also by the death of the process, is a RST: a cut must not look like an end."""

def freeze(fd: int) -> TcpImage:
    """Stop a connection where it stands; ImageError, and it goes on, when there is no image of it."""

def resume(fd: int) -> None:
    """Let a connection go on where it is, as if nothing had been; one that is not frozen, too."""

def reset(fd: int) -> None:
    """End a connection that is not frozen by RST, also when its address is on this machine no more."""

def recreate(image: TcpImage) -> int:
    """The same connection, frozen: a descriptor; OSError when this machine cannot have it.  ``thaw`` sets it going."""

def thaw(fd: int, image: TcpImage) -> None:
    """Set a recreated connection going; its address is on this machine by now."""
