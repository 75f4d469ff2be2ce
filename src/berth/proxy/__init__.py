"""The proxy: it carries what a rule of the firewall cannot take to a container. One process for all ports.

Why an event loop of its own: bytes go from socket to socket by splice(2) and never come into the process, and a
connection costs two descriptors and a few hundred bytes. asyncio's streams would copy all, and take ten times that.
"""
