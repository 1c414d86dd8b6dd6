"""Benchmarks: each module is one command, `./dev bench NAME`, and writes its table to `bench/results/NAME.md`."""
