"""Tasks: data sets with their split, encoding and metric."""

from pnn.tasks.base import Task
from pnn.tasks.digits import Digits
from pnn.tasks.images import MNIST, FashionMNIST
from pnn.tasks.vowels import Vowels

__all__ = ["MNIST", "Digits", "FashionMNIST", "Task", "Vowels"]
