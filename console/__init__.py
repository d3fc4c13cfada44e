"""The console: web pages of the front, where people look at jobs and steer them.

It stands on the guard, which decides every request as it decides gRPC calls, and on the
services, whose methods it calls. Nobody but the front imports it, and that only when the
server's settings say where pages are served.
"""
