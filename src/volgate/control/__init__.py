"""The door to people and programs: HTTP over a unix socket."""
