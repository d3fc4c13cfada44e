"""The family of errors this package raises."""


class AuthzError(Exception):
    """Anything this package refuses or cannot do; the message is a sentence for people."""


class CaError(AuthzError):
    """The CA cannot do what was asked, or its files are not as it left them."""
