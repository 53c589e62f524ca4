"""resnet_bench: measure and compare the training of five small residual networks on CPUs."""

__version__ = "0.1.0"
