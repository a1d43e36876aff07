"""The PROXY protocol codec, as Python and the tests see it."""

def parse(data: bytes) -> tuple[int, int, str | None, int, str | None, int] | None:
    """(length, family, source, source port, destination, destination port) of the header that ``data`` begins with.

    None while more bytes are needed; family 0 and no addresses when the header names nobody (UNKNOWN,
    LOCAL, UNSPEC, unix, datagram); ValueError when it is malformed or longer than 4,096 bytes.
    """

def render(version: int, source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    """A header of version 1 or 2 for one TCP connection; IPv4 only when both addresses are."""
