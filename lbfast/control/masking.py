"""Client addresses replaced by stand-ins: the same address is the same stand-in, so that a story can still be followed.

Which addresses may stay (of virtual services and real servers) is said by the caller.  Pure.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

_IPV4: Final = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6: Final = re.compile(
    r"(?<![\w:])(?=[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:)[0-9A-Fa-f:]+(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w])"
)


class Mask:
    """``key`` makes stand-ins that differ from archive to archive."""

    def __init__(self, key: bytes, keep: Iterable[str]) -> None:
        self._key = key
        self._keep = {str(ip_address(each)) for each in keep}

    def text(self, text: str) -> str:
        return _IPV6.sub(self._replace, _IPV4.sub(self._replace, text))

    def _replace(self, found: re.Match[str]) -> str:
        word = found[0]
        try:
            address = ip_address(word)
        except ValueError:
            return word  # a time of day, a version
        if str(address) in self._keep or address.is_loopback or address.is_unspecified:
            return word
        return f"client-{hmac.new(self._key, address.packed, sha256).hexdigest()[:8]}"
