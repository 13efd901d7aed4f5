"""Files and filesystems: atomic writes, removal, free space."""
