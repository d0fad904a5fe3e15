"""Tells people and programs how releases end, and of processes that end again and again.

capability.py reads an app's `notify:` into the record of section.py, and message.py makes the message; both are pure.
chosen.py finds the ways to send it, and ways.py sends it.
"""
