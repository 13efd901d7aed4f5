"""What the tests run against: real wheels, a real index, real platforms, all of them small."""
