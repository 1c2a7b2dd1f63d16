"""Serving policies over a web socket: wire codec, server, client."""
