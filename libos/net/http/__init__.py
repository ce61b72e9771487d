"""A web server on the protocols of `libos.net`."""
