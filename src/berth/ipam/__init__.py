"""Which address an endpoint gets. Pure: the taken addresses come and go through the `Ledger`.

>>> pool = Pool(ip_network("192.168.2.0/24"), gateway=ip_address("192.168.2.1"))
>>> check(pool)
>>> reserve(pool, ledger)
>>> take(pool, ledger, None)
IPv4Address('192.168.2.2')
"""

from berth.ipam.checks import check, overlap
from berth.ipam.choose import free, give_back, reserve, take
from berth.ipam.defaults import default_subnet, ula_subnet
from berth.ipam.held import on_lan, owner, pool_for

__all__ = [
    "check",
    "default_subnet",
    "free",
    "give_back",
    "on_lan",
    "overlap",
    "owner",
    "pool_for",
    "reserve",
    "take",
    "ula_subnet",
]
