//! Floor 5: the Unix-socket API and the shape of `status`.
