"""Hurts a running stack under load, one fault after the other, and proves that nothing was lost.

`faults` says what there is to break (pure), `injection` breaks and mends it, `disk` gives one shard a disk that can be
full, `load` plays partners, sellers and operators, `run` leads through it all, `report` tells of it.
"""
