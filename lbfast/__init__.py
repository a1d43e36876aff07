"""lbfast: a load balancer for heavy TCP traffic that keeps every client on its server."""

__version__ = "0.1.0"
