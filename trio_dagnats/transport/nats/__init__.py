"""The port on a NATS connection: protocol, requests, pulls, stores, buckets.

Knows no client library: a ``Link`` (``link``) is made on a ``Path``, which says how subscriptions
and frames reach the server (``outbox.Writer`` is half of it), and a ``Holder`` keeps the connection
for the length of a block. Who has dialled calls ``Link.open`` and ``Link.reconnected``, and hands
what comes in to ``Subscription.take`` of ``Link.subscriptions``. So another client is another room
beside ``nats_py``, with a path and a holder of its own; ``transport.open`` chooses by what it is
given.

May import ``transport.port`` and what stands beside it, ``wire`` and ``errors``. Called through the
port only, and by the room that makes the link.

Glossary: a *frame* is one command of the protocol, a *flush* one write of many; a *credit* is a
message that an open pull may still bring.
"""
