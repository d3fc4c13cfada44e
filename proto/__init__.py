"""The wire contract, the supervisor's own protocol, and the code generated from both."""
