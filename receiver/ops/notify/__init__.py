"""Tells people and programs how releases end, and of processes that end again and again.

capability.py reads `notify:` of an app into the record of section.py, and message.py says what is told; both are pure.
chosen.py finds by which ways it is told, and ways.py tells it.
"""
