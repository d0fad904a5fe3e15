"""What install.sh does after the new version is built: accounts, directories, ssh, proxy, services; and how to remove
them.

Every step is repeatable: it looks, changes what differs, and prints what it did. Removing needs only the standard
library, because it also has to work when the installation is broken.
"""
