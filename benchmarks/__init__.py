"""The benchmarks: `pytest benchmarks`, or of an installed package `pytest --pyargs resnet_bench.benchmarks`."""
