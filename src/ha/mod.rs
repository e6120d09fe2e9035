//! Floor 2: which role of a connector carries its traffic. One table of transitions.
