"""A platform that can't be imported, as happens with a package built for another machine."""

raise ImportError("libbroken.so.1: cannot open shared object file")
