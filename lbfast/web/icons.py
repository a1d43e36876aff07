"""The few pictures of the pages, as SVG written into them; drawn for lbfast on a grid of 20 by 20."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_LINES: Final = MappingProxyType(
    {
        "overview": "M3 3h6v6H3zM11 3h6v4h-6zM11 9h6v8h-6zM3 11h6v6H3z",
        "local": "M3 4h14v5H3zM3 11h14v5H3zM6 6.5h.01M6 13.5h.01",
        "cluster": "M10 3v5M10 8H4v4M10 8h6v4M10 8v4M2.5 12h3v4h-3zM8.5 12h3v4h-3zM14.5 12h3v4h-3z",
        "maintenance": "M12 3.5a4 4 0 0 0-1 4.5L3.5 15.500l1 1L12 9a4 4 0 0 0 4.500-5l-2.500 2-1.500-1.500z",
        "view": "M5 2.500h7l3 3v12H5zM12 2.500v3h3M7.500 9h5M7.500 12h5M7.500 15h3",
        "reports": "M3 3v14h14M6 13l3-4 3 2 4-6",
        "logs": "M4 5h12M4 10h12M4 15h7",
        "support": "M10 2.500a7.500 7.500 0 1 0 0 15a7.500 7.500 0 0 0 0-15zM7.800 7.800a2.200 2.200 0 1 1 3 2.100c-.6.3-.8.7-.8 1.600M10 14.200h.01",  # noqa: E501 - a drawing
        "user": "M10 3a3 3 0 1 0 0 6a3 3 0 0 0 0-6zM4 17c0-3.500 2.500-5.500 6-5.500s6 2 6 5.500",
        "moon": "M15.500 12A6.500 6.500 0 0 1 8 4.500a6.500 6.500 0 1 0 7.500 7.500z",
        "sun": "M10 6.500a3.500 3.500 0 1 0 0 7a3.500 3.500 0 0 0 0-7zM10 2v1.500M10 16.500V18M2 10h1.500M16.500 10H18M4.300 4.300l1 1M14.700 14.700l1 1M15.700 4.300l-1 1M5.300 14.700l-1 1",  # noqa: E501 - a drawing
        "out": "M8 3H4v14h4M12 6l4 4-4 4M16 10H8",
        "search": "M8.500 3a5.500 5.500 0 1 0 0 11a5.500 5.500 0 0 0 0-11zM13 13l4 4",
        "menu": "M3 5h14M3 10h14M3 15h14",
        "more": "M7 4l6 6-6 6",
        "plus": "M10 4v12M4 10h12",
        "lock": "M5 9h10v8H5zM7 9V6a3 3 0 0 1 6 0v3",
    }
)
# States differ in shape, not only in colour.
_STATES: Final = MappingProxyType(
    {
        "up": '<circle cx="8" cy="8" r="6"/>',
        "degraded": '<circle cx="8" cy="8" r="5.250" class="line"/><path d="M8 2.500a5.500 5.500 0 0 0 0 11z"/>',
        "down": '<path d="M3 3l10 10M13 3L3 13" class="line thick"/>',
        "checking": '<circle cx="8" cy="8" r="5.250" class="line dash"/>',
        "drain": '<path d="M8 1.500L14.500 8L8 14.500L1.500 8z" class="line"/><path d="M8 8.000L14.500 8L8 14.500L1.500 8z"/>',  # noqa: E501 - a drawing
        "drained": '<path d="M8 2L14 8L8 14L2 8z" class="line"/>',
        "eased": '<path d="M8 1.500L14.500 8L8 14.500L1.500 8z" class="line"/><path d="M4.500 8h7" class="line"/>',
        "halt": '<rect x="3" y="3" width="10" height="10" rx="1"/>',
    }
)


def icon(name: str) -> str:
    """SVG; hidden from screen readers, because words stand beside every icon."""
    if name in _STATES:
        return f'<svg class="shape" viewBox="0 0 16 16" aria-hidden="true" focusable="false">{_STATES[name]}</svg>'
    path = _LINES.get(name, "")
    return f'<svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false"><path d="{path}"/></svg>'
