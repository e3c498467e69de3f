"""What a person reads of a result: documents, tables and pictures. Import the modules; this package imports nothing."""

__all__: list[str] = []
