"""Tells people and programs how releases end, and of processes that end again and again.

capability.py reads `notify:` of an app into the record of section.py, message.py says what is told (both pure), chosen.py by which ways, ways.py carries it.
"""
