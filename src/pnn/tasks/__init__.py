"""Tasks: data sets with their split, encoding and metric."""

from pnn.tasks.base import Task
from pnn.tasks.digits import Digits
from pnn.tasks.images import MNIST, FashionMNIST

__all__ = ["MNIST", "Digits", "FashionMNIST", "Task"]
