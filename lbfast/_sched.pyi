"""The schedulers, as far as Python asks them."""

def rendezvous(service_id: bytes, client: str, reals: list[tuple[bytes, int]]) -> int:
    """Index in ``reals`` (16-byte id, weight) that ``hash`` would choose when loads do not matter, or -1."""
