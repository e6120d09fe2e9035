//! Floor 5: the Unix-socket API: one JSON request a line, one JSON answer a line.

mod client;
mod lounge;
mod message;
mod server;

pub use client::{ClientError, ask};
pub use message::{Call, Request, Response, RoleName};
pub use server::{BindError, Server};
