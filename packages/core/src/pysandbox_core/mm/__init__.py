"""Memory: the memory file, the memory manager, and moving data to and from programs."""
