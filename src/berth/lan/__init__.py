"""The neighbours on the link: what Berth says to them."""
