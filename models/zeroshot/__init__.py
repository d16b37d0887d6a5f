"""The embedded zero-shot model: a small CLIP that saw no picture of CIFAR-10, CIFAR-100 or PACS."""
