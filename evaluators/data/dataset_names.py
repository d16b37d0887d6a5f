"""Short names of data sets on the Hugging Face hub."""

CIFAR10, CIFAR100 = "uoft-cs/cifar10", "uoft-cs/cifar100"
SHORT_NAMES = {"cifar10": CIFAR10, "cifar100": CIFAR100}
