"""What `lsr-infer` does, a module for each command; none imports anything heavy before its words are understood."""

__all__: list[str] = []
