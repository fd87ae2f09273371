"""nats_py."""
