"""DHCP clients (RFC 2131) for thousands of endpoints in one asyncio loop, asked for from the host's LAN bridge.

    clients = Clients(changed, lost, check)
    lease = await clients.acquire(LeaseRequest(key, "br0", mac, client_id("shop/web/eth0")))

`messages` and `machine` decide and never touch the world; `mux` is the socket, `clients` the clock.
"""

from berth.lan.dhcp.clients import Clients
from berth.lan.dhcp.messages import client_id

__all__ = ["Clients", "client_id"]
