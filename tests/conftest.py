"""Makes ``tests.toys`` importable from every room, however pytest is started."""
