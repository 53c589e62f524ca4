"""A session of `pytest benchmarks`: its options, what it measures, and what it saves.

`resnet_bench.pytest_plugin` calls these modules from pytest's hooks.
"""
