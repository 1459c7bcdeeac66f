"""The implementations behind the ports of `service.core`."""
