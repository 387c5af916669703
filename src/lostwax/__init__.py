"""Lostwax: the order platform for made-to-order jewellers. See ARCHITECTURE.md for the walk of one order."""
