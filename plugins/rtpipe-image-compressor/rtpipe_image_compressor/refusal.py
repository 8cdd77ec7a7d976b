"""Why an image is refused."""


class BadImage(Exception):
    """The image is refused; *code* and *message* are for whoever sent it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
