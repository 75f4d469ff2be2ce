"""The simulated internet's web server.

It tells each client which address it saw:

    $ berth lab exec laptop -- curl -s http://internet.lab/
    203.0.113.1
"""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address


class _Mirror(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        # A dual-stack socket shows an IPv4 client as ::ffff:a.b.c.d.
        seen = IPv6Address(self.client_address[0])
        body = f"{seen.ipv4_mapped or seen}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class HttpServer(ThreadingHTTPServer):
    """Listens, in IPv4 and IPv6, in the network namespace it is made in."""

    address_family = socket.AF_INET6
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("::", 80), _Mirror)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of our own name: nobody would answer it in the lab."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "internet", 80
