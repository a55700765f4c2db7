"""``python -m kvcache``."""

from kvcache.cli import main

if __name__ == "__main__":
    main(prog_name="kvcache")
