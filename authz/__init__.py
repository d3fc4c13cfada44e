"""Who someone is, what they may do, and the tools of the CA."""
