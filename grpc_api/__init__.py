"""The gRPC API: TLS edge, authentication, authorization, service."""
