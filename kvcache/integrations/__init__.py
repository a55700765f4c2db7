"""Where the cache meets the libraries that use one."""
