"""Where layers live, and all that is kept beside them."""
