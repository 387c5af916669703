"""Runs the whole of Lostwax on one machine: the real servers and the services, as child processes.

`setup` brings what a machine lacks, `servers` and `services` say how each process is started, `supervisor` is the one
process that keeps them running, `stack` is what the command line, the demo, tests and benchmarks hold.
"""
