//! The packet road over the kernel's real sockets: what arrives in super-buffers, and what several workers
//! send at once.

#[path = "../../benches/road/world.rs"]
#[allow(dead_code)]
mod world;

#[path = "../lab/namespace.rs"]
#[allow(dead_code)]
mod namespace;

mod gate;
mod super_buffers;
mod workers;
