"""Addresses, bridges and the firewall: networks that reach beyond one container."""
