"""What install.sh does after the new version is built: accounts, directories, ssh, proxy, services, and all of it undone.

Every step is repeatable: it looks, changes what differs, and says what it did. Removing needs the standard library
only, because it also has to work when the installation is broken.
"""
