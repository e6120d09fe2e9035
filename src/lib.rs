//! Trefoil, a multi-tunnel, active-active SD-WAN edge. The floors, lowest first; a file imports
//! from its own folder and from lower floors only. Floors 0 to 4 do no I/O and read no clock.

// Floor 0: shared words.
pub mod model;
// Floor 1: bytes.
pub mod crypto;
pub mod packet;
// Floor 2: protocols and decisions, which never meet each other.
pub mod esp;
pub mod ha;
pub mod health;
pub mod ike;
pub mod probe;
pub mod qos;
pub mod steer;
// Floor 3: what the two planes share.
pub mod forward;
// Floor 4: the two planes.
pub mod dataplane;
pub mod edge;
// Floor 5: files, the operating system, the API.
pub mod config;
pub mod control;
pub mod net;
pub mod recording;
// Floor 6: the assembled daemon.
pub mod daemon;
// Floor 7: the demo's world.
pub mod lab;
// Floor 8: one file a verb.
pub mod cli;
