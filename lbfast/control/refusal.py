"""Why a service would not take a client's next connection, whichever real server it belongs to; pure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from lbfast.control.catalog import ServiceInfo
from lbfast.model.state import AtLimit


def refusal(service: ServiceInfo, client: str, connections: int, of_client: int) -> str | None:
    """The reason as a sentence, None when nothing stands against it.

    ``connections``: open ones of the service; ``of_client``: those of the client.  The order is that of
    the workers: lists, then the limit of the service, then that of the client.
    """
    address = ip_address(client)
    barred = next((cidr for cidr in service.deny if address in ip_network(cidr)), None)
    if barred is not None:
        return f"It is refused: deny of {service.label} has {barred}."
    if service.allow and not any(address in ip_network(cidr) for cidr in service.allow):
        return f"It is refused: allow of {service.label} does not have it."
    if connections >= service.max_connections:
        return f"{service.label} is at its max_connections ({service.max_connections}): {_AT_LIMIT[service.at_limit]}."
    if 0 < service.client_max_connections <= of_client and not service.client_limit_report_only:
        most = service.client_max_connections
        return f"It is at client_max_connections ({most}): its next connection would be refused."
    return None


_AT_LIMIT: dict[AtLimit, str] = {
    AtLimit.QUEUE: "its next connection would wait until another one ends",
    AtLimit.RESET: "its next connection would be refused",
    AtLimit.FALLBACK: "its next connection would go to the fallback server",
}
