"""Files: the VFS and the file systems."""
