"""DHCPv6 (RFC 8415) as the other language of `berth.lan.dhcp.Clients`: a `LeaseRequest` with version 6 speaks it."""

import berth.lan.dhcp  # noqa: F401  # each knows the other, so one of them has to come first
