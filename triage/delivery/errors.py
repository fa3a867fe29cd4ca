"""What can go wrong on the way."""

from __future__ import annotations


class DeliveryError(Exception):
    """It was not taken. `permanent`: the same would be refused again. The text names no patient."""

    def __init__(self, text: str, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent
