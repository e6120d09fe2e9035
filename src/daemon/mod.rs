//! Floor 6: the control loop, the data-plane threads, signals.
