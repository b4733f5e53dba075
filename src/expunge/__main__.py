"""`python -m expunge` is the command `expunge`."""

from .cli import main

if __name__ == "__main__":
    main()
