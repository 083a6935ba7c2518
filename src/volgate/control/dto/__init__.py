"""What goes over the wire: pydantic models, strict. ``control.convert`` alone makes them of internal values."""
