"""Units, and a policy to begin with, as `jobworker init` and packages install them."""
