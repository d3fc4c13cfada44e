"""The casbin model and the example policies."""
