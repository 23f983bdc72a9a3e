"""The one place that holds the version; read by the build as well."""

__version__ = "0.1.0"
