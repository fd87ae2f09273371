"""The port on a NATS connection: protocol, requests, pulls, stores, buckets.

Knows no client library: a ``Link`` (``link``) is made on a ``Path``, which says how subscriptions
and frames reach the server, and whoever dialled calls it with what comes in. So another client is
another room beside ``nats_py``, with a path of its own; ``transport.open`` chooses.

May import ``transport.port`` and what stands beside it, ``wire`` and ``errors``. Called through the
port only, and by the room that makes the link.

Glossary: a *frame* is one command of the protocol, a *flush* one write of many; a *credit* is a
message that an open pull may still bring.
"""
