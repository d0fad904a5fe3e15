"""The product on booted hosts: pushes, rollbacks, commands, reboots."""
