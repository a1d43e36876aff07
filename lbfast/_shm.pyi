"""Shared memory regions: one memfd each, with a checked header."""

class Region:
    """A memfd mapped shared by every process that holds its descriptor.

    The first 64 bytes are a header: magic, kind, layout version, size.  The
    pages are allocated by the kernel when first touched, so a large region costs
    nothing until used.  Supports the writable buffer protocol (whole region).
    """

    fd: int  # close-on-exec; inherited by fork
    size: int
    kind: str

    @staticmethod
    def create(kind: str, size: int, version: int) -> Region: ...
    @staticmethod
    def attach(fd: int, kind: str, version: int) -> Region:
        """Map a region made by another process; ValueError when it is not of that kind, version or size."""
    def close(self) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

def now_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds: the clock of every ``*_ms`` in shared memory."""
