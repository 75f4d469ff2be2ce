"""The daemon: Docker's plugin protocols and Berth's own API on one Unix socket."""
