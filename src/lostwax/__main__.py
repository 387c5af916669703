"""`python -m lostwax` is the same as `./lostwax`, once set up."""

from lostwax.cli import main

main()
